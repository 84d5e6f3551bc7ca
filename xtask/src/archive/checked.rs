//! Bytes held against the digest that was promised for them.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::fault::Fault;
use crate::image::Digest;
use crate::image::hashing::Hashing;

/// Fails in place of the last bytes, with a [`Fault`] that names the archive, if what was read has another digest.
pub struct Checked<R> {
    inner: Hashing<R>,
    what: &'static str,
    expected: Digest,
    /// Where it is known: whoever reads just so many bytes never asks for the end.
    left: Option<u64>,
    path: PathBuf,
}

impl<R> Checked<R> {
    pub fn new(inner: R, what: &'static str, expected: &Digest, length: Option<u64>, path: &Path) -> Self {
        let (expected, path) = (expected.clone(), path.to_owned());
        Self { inner: Hashing::new(inner), what, expected, left: length, path }
    }

    fn corrupt(&self, why: &str) -> io::Error {
        let (path, what, digest) = (self.path.display(), self.what, self.expected.short());
        io::Error::other(
            Fault::refused(format!("{path}: {what} {digest} {why}")).help("build the image again"),
        )
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length =
            self.inner.read(buffer).map_err(|error| self.corrupt(&format!("cannot be read: {error}")))?;
        let ends = match &mut self.left {
            Some(left) => {
                *left = left.saturating_sub(length as u64);
                *left == 0 || length == 0
            }
            None => length == 0,
        };
        if ends && !buffer.is_empty() {
            let found = self.inner.digest();
            if found != self.expected {
                return Err(self.corrupt(&format!("has the digest {found}")));
            }
        }
        Ok(length)
    }
}
