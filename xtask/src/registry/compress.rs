//! Compresses a layer into a file, the same bytes each time.

use std::io::{self, BufWriter, Read, Write};

use anyhow::Context as _;
use libdeflater::{CompressionLvl, Compressor};
use tempfile::NamedTempFile;

use crate::fault::Fault;
use crate::image::hashing::Hashing;
use crate::image::oci::Descriptor;
use crate::image::{Compression, Layer};

/// What a compressor is given at once. It decides about the bytes that come out, so it is the same everywhere.
const PIECE: usize = 256 << 10;
/// The fastest level that compresses at all, of both: a push waits for the processor, not for the line.
const LEVEL: i32 = 1;

/// Compresses a layer into the file and describes what is in it then.
pub fn compress(
    layer: &Layer,
    compression: Compression,
    file: NamedTempFile,
) -> anyhow::Result<(NamedTempFile, Descriptor)> {
    let mut into = Hashing::new(BufWriter::new(file));
    let mut tar = layer.open()?;
    match compression {
        Compression::Gzip => gzip(&mut tar, &mut into)?,
        Compression::Zstd => zstd(&mut tar, &mut into)?,
    }
    let (writer, digest, length) = into.finish();
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error).context(SPACE)?;
    Ok((file, Descriptor::new(compression.media_type(), digest, length)))
}

const SPACE: &str = "writing a compressed layer to a temporary file (TMPDIR says where)";

/// Gzip as a row of members (RFC 1952 section 2.2), since libdeflate compresses only what it has whole.
fn gzip(tar: &mut impl Read, into: &mut impl Write) -> anyhow::Result<()> {
    let level = CompressionLvl::new(LEVEL).map_err(|_| anyhow::anyhow!("libdeflate has no level {LEVEL}"))?;
    let mut compressor = Compressor::new(level);
    let mut member = vec![0; compressor.gzip_compress_bound(PIECE)];
    let mut first = true;
    each_piece(tar, |piece| {
        if piece.is_empty() && !first {
            return Ok(());
        }
        first = false;
        let length = compressor.gzip_compress(piece, &mut member).context("compressing a layer")?;
        into.write_all(&member[..length]).context(SPACE)
    })
}

fn zstd(tar: &mut impl Read, into: &mut impl Write) -> anyhow::Result<()> {
    let mut encoder = zstd::stream::write::Encoder::new(into, LEVEL)?;
    each_piece(tar, |piece| encoder.write_all(piece).context(SPACE))?;
    encoder.finish().map(drop).context(SPACE)
}

/// Cuts what is read into pieces of one length, whatever the reader gives at once; the last one may be empty.
fn each_piece(tar: &mut impl Read, mut take: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut piece = Vec::with_capacity(PIECE);
    loop {
        piece.clear();
        tar.by_ref().take(PIECE as u64).read_to_end(&mut piece).map_err(cause)?;
        take(&piece)?;
        if piece.len() < PIECE {
            return Ok(());
        }
    }
}

/// A [`Fault`] that came through a reader, with its exit code.
pub fn cause(error: io::Error) -> anyhow::Error {
    error.downcast::<Fault>().map_or_else(Into::into, Into::into)
}
