//! A layer's bytes, held against the digest that the image's config promises for them.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::fault::Fault;
use crate::image::Digest;
use crate::image::hashing::Hashing;

/// Fails at the end, with a [`Fault`] that names the archive, if what was read has another digest.
pub struct Checked<R> {
    inner: Hashing<R>,
    expected: Digest,
    path: PathBuf,
}

impl<R> Checked<R> {
    pub fn new(inner: R, expected: &Digest, path: &Path) -> Self {
        Self { inner: Hashing::new(inner), expected: expected.clone(), path: path.to_owned() }
    }

    fn corrupt(&self, why: &str) -> io::Error {
        let (path, layer) = (self.path.display(), self.expected.short());
        io::Error::other(Fault::refused(format!("{path}: layer {layer} {why}")).help("build the image again"))
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length =
            self.inner.read(buffer).map_err(|error| self.corrupt(&format!("cannot be read: {error}")))?;
        if length == 0 && !buffer.is_empty() {
            let found = self.inner.digest();
            if found != self.expected {
                return Err(self.corrupt(&format!("has the digest {found}")));
            }
        }
        Ok(length)
    }
}
