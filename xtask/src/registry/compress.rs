//! Compresses a layer into a file, the same bytes each time.
//!
//! Each piece is compressed by itself, a gzip member (RFC 1952 section 2.2) or a zstd frame (RFC 8878 section 3.1) of its own: that
//! is what the fast libraries are fast at, and it bounds the memory.

use std::io::{self, BufWriter, Read, Write};

use anyhow::Context as _;
use libdeflater::{CompressionLvl, Compressor};

use crate::fault::Fault;
use crate::image::hashing::Hashing;
use crate::image::oci::Descriptor;
use crate::image::{Compression, Layer};

/// Where a piece ends decides about the bytes that come out, so it is the same everywhere.
const PIECE: usize = 256 << 10;
/// The fastest level that compresses at all, of both: a push waits for the processor, not for the line.
const LEVEL: i32 = 1;
const SPACE: &str = "writing a compressed layer to a temporary file (TMPDIR says where)";

/// Compresses a layer into the file and describes what is in it then.
pub fn compress<W: Write>(
    layer: &Layer,
    compression: Compression,
    file: W,
) -> anyhow::Result<(W, Descriptor)> {
    let mut pieces = Pieces::new(compression)?;
    let mut into = Hashing::new(BufWriter::new(file));
    let mut tar = layer.open()?;
    let mut piece = Vec::with_capacity(PIECE);
    // An empty layer is one empty piece.
    let mut first = true;
    loop {
        piece.clear();
        tar.by_ref().take(PIECE as u64).read_to_end(&mut piece).map_err(cause)?;
        if first || !piece.is_empty() {
            into.write_all(pieces.compress(&piece)?).context(SPACE)?;
        }
        if piece.len() < PIECE {
            break;
        }
        first = false;
    }
    let (writer, digest, length) = into.finish();
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error).context(SPACE)?;
    Ok((file, Descriptor::new(compression.media_type(), digest, length)))
}

struct Pieces {
    with: With,
    compressed: Vec<u8>,
}

enum With {
    Libdeflate(Compressor),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Pieces {
    fn new(compression: Compression) -> anyhow::Result<Self> {
        let no_level = |_| anyhow::anyhow!("libdeflate has no level {LEVEL}");
        let (with, bound) = match compression {
            Compression::Gzip => {
                let mut compressor = Compressor::new(CompressionLvl::new(LEVEL).map_err(no_level)?);
                let bound = compressor.gzip_compress_bound(PIECE);
                (With::Libdeflate(compressor), bound)
            }
            Compression::Zstd => {
                let compressor = zstd::bulk::Compressor::new(LEVEL).context("zstd")?;
                (With::Zstd(compressor), zstd::zstd_safe::compress_bound(PIECE))
            }
        };
        Ok(Self { with, compressed: vec![0; bound] })
    }

    fn compress(&mut self, piece: &[u8]) -> anyhow::Result<&[u8]> {
        let into = self.compressed.as_mut_slice();
        let length = match &mut self.with {
            With::Libdeflate(compressor) => compressor.gzip_compress(piece, into)?,
            With::Zstd(compressor) => compressor.compress_to_buffer(piece, into)?,
        };
        Ok(&self.compressed[..length])
    }
}

/// A [`Fault`] that came through a reader, with its exit code.
pub fn cause(error: io::Error) -> anyhow::Error {
    error.downcast::<Fault>().map_or_else(Into::into, Into::into)
}
