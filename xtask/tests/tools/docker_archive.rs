//! A docker-archive as nix writes it: members `DIFF_ID/layer.tar`, whose content compresses as programs do. The same bytes
//! each time. Made in small pieces, since a child's peak memory starts from its parent's.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write};
use std::path::Path;

use fastrand::Rng;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const BLOCK: usize = 256 << 10;

/// A layer's size in bytes before compression, and what its content is made from.
pub type Layer = (u64, u64);

/// Writes an image that says to be built from the commit `revision` (40 hex digits); gives the layers' diff ids.
pub fn write(path: &Path, layers: &[Layer], revision: &str) -> io::Result<Vec<String>> {
    let labels = json!({ "org.opencontainers.image.revision": revision, "org.opencontainers.image.version": "0.1.0",
        "org.opencontainers.image.source": "https://github.com/blogle/dojo",
        "org.opencontainers.image.created": "2026-01-02T03:04:05Z",
        "dojo.schema": "1", "dojo.schema.oldest-binary": "1" });
    write_labelled(path, layers, &labels)
}

/// As [`write`], with these labels.
pub fn write_labelled(path: &Path, layers: &[Layer], labels: &Value) -> io::Result<Vec<String>> {
    let mut tar = BufWriter::new(File::create(path)?);
    let ids = layers.iter().map(|&layer| write_layer(&mut tar, layer)).collect::<io::Result<Vec<_>>>()?;
    let diff_ids: Vec<_> = ids.iter().map(|id| format!("sha256:{id}")).collect();
    let config = json!({ "architecture": "amd64", "os": "linux", "config": { "Labels": labels },
        "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let config = config.to_string();
    let name = format!("{}.json", hex(Sha256::digest(&config).as_slice()));
    let layers: Vec<_> = ids.iter().map(|id| format!("{id}/layer.tar")).collect();
    let manifest = json!([{ "Config": &name, "RepoTags": ["dojo:made"], "Layers": layers }]);
    for (name, text) in [(name.as_str(), config), ("manifest.json", manifest.to_string())] {
        tar.write_all(header(name, text.len() as u64)?.as_bytes())?;
        tar.write_all(text.as_bytes())?;
        pad(&mut tar, text.len() as u64)?;
    }
    tar.write_all(&[0; 1024])?;
    tar.into_inner()?.sync_all()?;
    Ok(diff_ids)
}

/// One member `DIFF_ID/layer.tar`; its name is known only when its content is written.
fn write_layer(tar: &mut BufWriter<File>, (size, seed): Layer) -> io::Result<String> {
    let start = tar.stream_position()?;
    tar.write_all(&[0; 512])?;
    let mut hashing = Hashing { inner: &mut *tar, hash: Sha256::new(), length: 0 };
    let mut code = Code::new(seed);
    let files = size.div_ceil(4 << 20);
    for file in 0..files {
        let name =
            format!("nix/store/{:032x}-package-{seed}/lib/part-{file}.so", Rng::with_seed(seed).u128(..));
        let length = size / files;
        hashing.write_all(header(&name, length)?.as_bytes())?;
        let mut left = length as usize;
        while left > 0 {
            let block = code.block(left.min(BLOCK));
            hashing.write_all(block)?;
            left -= block.len();
        }
        pad(&mut hashing, length)?;
    }
    hashing.write_all(&[0; 1024])?;
    let (hash, length) = (hashing.hash, hashing.length);
    pad(tar, length)?;
    let end = tar.stream_position()?;
    let diff_id = hex(hash.finalize().as_slice());
    tar.seek(SeekFrom::Start(start))?;
    tar.write_all(header(&format!("{diff_id}/layer.tar"), length)?.as_bytes())?;
    tar.seek(SeekFrom::Start(end))?;
    Ok(diff_id)
}

fn header(name: &str, length: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(length);
    header.set_mode(0o444);
    header.set_mtime(1);
    header.set_cksum();
    Ok(header)
}

fn pad(to: &mut impl Write, length: u64) -> io::Result<()> {
    to.write_all(&[0; 512][..(length.next_multiple_of(512) - length) as usize])
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Hashing<W> {
    inner: W,
    hash: Sha256,
    length: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.hash.update(&bytes[..length]);
        self.length += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Bytes that compress as shared libraries do (gzip -1 to 0.45, gzip -6 to 0.41 of their size): common and rare
/// instructions, operands, repeated sequences near and far, and zeros.
struct Code {
    rng: Rng,
    instructions: Vec<Vec<u8>>,
    block: Vec<u8>,
}

impl Code {
    fn new(seed: u64) -> Self {
        // The instructions are those of all layers; what is made of them differs.
        let mut rng = Rng::with_seed(0);
        let instructions = (0..4096).map(|_| (0..rng.usize(2..10)).map(|_| rng.u8(..)).collect()).collect();
        Self { rng: Rng::with_seed(seed), instructions, block: Vec::with_capacity(2 * BLOCK) }
    }

    fn block(&mut self, length: usize) -> &[u8] {
        self.block.clear();
        while self.block.len() < length {
            let rng = &mut self.rng;
            match rng.u32(0..100) {
                0..60 => {
                    let common = rng.f32().powi(4) * self.instructions.len() as f32;
                    self.block.extend_from_slice(&self.instructions[common as usize]);
                }
                60..79 => self.block.extend_from_slice(&rng.u16(..).to_le_bytes()),
                79..98 if self.block.len() > 64 => {
                    let reach = if rng.bool() { 4096 } else { BLOCK };
                    let from = self.block.len() - rng.usize(1..self.block.len().min(reach));
                    let to = (from + rng.usize(8..48)).min(self.block.len());
                    self.block.extend_from_within(from..to);
                }
                _ => self.block.resize(self.block.len() + rng.usize(1..32), 0),
            }
        }
        self.block.truncate(length);
        &self.block
    }
}
