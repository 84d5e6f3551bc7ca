//! A remote's blobs: asked for, mounted, read, and sent.

use std::cell::Cell;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};

use anyhow::Context as _;
use ureq::http::{Method, header};

use super::Remote;
use crate::fault::Fault;
use crate::image::hashing::Hashing;
use crate::image::oci::Descriptor;
use crate::registry::auth::Access;
use crate::registry::http::{Content, Open, Request};

const HEAD_ANSWERS: &[u16] = &[200, 403, 404, 405];
const BUFFER: usize = 64 << 10;

impl Remote {
    /// Whether the blob is here. Who may not ask is told that it is not: the upload shows whether that is so.
    pub fn has_blob(&self, descriptor: &Descriptor) -> anyhow::Result<bool> {
        let request = self.head(descriptor);
        Ok(self.http.patience.retry(|| self.http.send(&request, HEAD_ANSWERS))?.status() == 200)
    }

    fn head(&self, descriptor: &Descriptor) -> Request<'_> {
        let url = self.url(&format!("blobs/{}", descriptor.digest));
        self.request(Method::HEAD, url, Access::Push, Content::None)
    }

    /// Takes a blob over from another repository of this registry, which may answer that it wants an upload after all.
    pub fn mount(&self, descriptor: &Descriptor, from: &str) -> anyhow::Result<bool> {
        let url = self.url(&format!("blobs/uploads/?mount={}&from={from}", descriptor.digest));
        let request = self.request(Method::POST, url, Access::Push, Content::Bytes(b""));
        // A refusal is no reason to give up what can be sent as well.
        Ok(self.http.patience.retry(|| self.http.send(&request, &[201, 202, 401, 403, 404, 405]))?.status()
            == 201)
    }

    /// A blob, verified, in a temporary file.
    pub fn blob(&self, descriptor: &Descriptor) -> anyhow::Result<File> {
        let url = self.url(&format!("blobs/{}", descriptor.digest));
        self.http.patience.retry(|| {
            let body = self.get(&url, &[200])?.into_body().into_reader().take(descriptor.size + 1);
            let mut file = tempfile::tempfile().context("a temporary file for a blob")?;
            let mut hashing = Hashing::new(body);
            let mut buffer = vec![0; BUFFER];
            let mut length = 0;
            loop {
                let read = hashing.read(&mut buffer).map_err(|error| self.broken_off(&error))?;
                if read == 0 {
                    break;
                }
                file.write_all(&buffer[..read])
                    .context("writing a blob to a temporary file (TMPDIR says where)")?;
                length += read as u64;
            }
            let found = hashing.digest();
            if found == descriptor.digest && length != descriptor.size {
                let (location, digest, size) = (&self.location, &found, descriptor.size);
                let message =
                    format!("{location}: blob {digest} has {length} bytes, and its manifest says {size}");
                return Err(Fault::refused(message).help("the registry's content is damaged").into());
            }
            if found != descriptor.digest {
                let message = format!("{}: blob {} arrived as {found}", self.location, descriptor.digest);
                return Err(Fault::refused(message).help("the registry's content is damaged").into());
            }
            file.rewind()?;
            Ok(file)
        })
    }

    /// Starts an upload and sends the whole blob in one request; after a failure, from the start.
    pub fn put_blob(
        &self,
        descriptor: &Descriptor,
        open: &Open<'_>,
        sent: &dyn Fn(u64),
    ) -> anyhow::Result<()> {
        let content = Content::Stream(descriptor.size, open, sent);
        let tried = Cell::new(false);
        self.http.patience.retry(|| {
            // The answer may have been lost after the work was done.
            if tried.replace(true) && self.http.send(&self.head(descriptor), HEAD_ANSWERS)?.status() == 200 {
                return Ok(());
            }
            let start =
                self.request(Method::POST, self.url("blobs/uploads/"), Access::Push, Content::Bytes(b""));
            let response = self.http.send(&start, &[202])?;
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let location = location.ok_or_else(|| self.odd("an upload without a Location"))?;
            let url = self.resolve_url(location)?;
            let separator = if url.contains('?') { '&' } else { '?' };
            let url = format!("{url}{separator}digest={}", descriptor.digest);
            let mut put = self.request(Method::PUT, url, Access::Push, content);
            put.headers.push((header::CONTENT_TYPE, "application/octet-stream".to_owned()));
            // An upload that was cut is gone with its session, or finished without us.
            let response = self.http.send(&put, &[201, 404])?;
            if response.status() == 404 {
                let message = format!("{}: the upload of {} was forgotten", self.location, descriptor.digest);
                return Err(Fault::remote(message).help("run the same command again").into());
            }
            self.same_digest(&response, &descriptor.digest)
        })
    }
}
