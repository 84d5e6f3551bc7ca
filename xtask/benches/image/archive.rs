//! The image that is pushed: 30 layers, about 197 MB, one of them 95 MB, as a docker-archive the way nix writes it.
//! The same bytes each time. Made in small pieces, since a child's peak memory starts from its parent's.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write};
use std::path::Path;

use fastrand::Rng;
use serde_json::json;
use sha2::{Digest as _, Sha256};

const KIB: u64 = 1 << 10;
const LARGEST: u64 = 95_000 * KIB;
const BLOCK: usize = 256 << 10;

/// The layers' sizes, skewed as a closure's are: 95 MB, and 29 that fall from 18 MB to 50 kB.
fn sizes() -> Vec<u64> {
    let others = (0..29).map(|n| (18_200.0 * 0.814_f64.powi(n)).max(50.0) as u64 * KIB);
    std::iter::once(LARGEST).chain(others).collect()
}

/// Writes the image; `changed` gives other bytes to the largest layer alone.
pub fn write(path: &Path, changed: bool) -> io::Result<()> {
    let mut tar = BufWriter::new(File::create(path)?);
    let mut diff_ids = Vec::new();
    for (index, size) in sizes().into_iter().enumerate() {
        let seed = index as u64 + if changed && index == 0 { 1000 } else { 0 };
        diff_ids.push(layer(&mut tar, size, seed)?);
    }
    let labels = json!({ "org.opencontainers.image.revision": "0123456789abcdef0123456789abcdef01234567",
        "org.opencontainers.image.version": "0.1.0", "org.opencontainers.image.source": "https://github.com/blogle/dojo",
        "org.opencontainers.image.created": "2026-01-02T03:04:05Z", "dojo.schema": "1", "dojo.schema.oldest-binary": "1" });
    let ids: Vec<_> = diff_ids.iter().map(|id| format!("sha256:{id}")).collect();
    let config = json!({ "architecture": "amd64", "os": "linux", "config": { "Labels": labels },
        "rootfs": { "type": "layers", "diff_ids": ids } });
    let config = config.to_string();
    let name = format!("{}.json", hex(Sha256::digest(&config).as_slice()));
    let layers: Vec<_> = diff_ids.iter().map(|id| format!("{id}/layer.tar")).collect();
    let manifest = json!([{ "Config": &name, "RepoTags": ["dojo:bench"], "Layers": layers }]);
    for (name, text) in [(name.as_str(), config), ("manifest.json", manifest.to_string())] {
        tar.write_all(header(name, text.len() as u64)?.as_bytes())?;
        tar.write_all(text.as_bytes())?;
        pad(&mut tar, text.len() as u64)?;
    }
    tar.write_all(&[0; 1024])?;
    tar.into_inner()?.sync_all()
}

/// One member `DIFF_ID/layer.tar`; its name is known only when its content is written.
fn layer(tar: &mut BufWriter<File>, size: u64, seed: u64) -> io::Result<String> {
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

fn hex(bytes: &[u8]) -> String {
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
