//! Where images are kept: an OCI image layout folder, or a remote registry over HTTP(S).
//!
//! Both answer to the same verbs, and both keep the promise that a version or `sha-…` tag never moves to another digest.
//! What is read by digest is verified. Left out: deleting, and a cache of compressed digests.

mod auth;
mod http;
mod layout;
mod push;
mod referrers;
mod remote;
#[cfg(test)]
mod tests;
mod unpack;

use std::io::Read;
use std::path::Path;

use anyhow::Context as _;
use tempfile::NamedTempFile;

use crate::fault::Fault;
use crate::image::oci::{Config, DOCUMENT_LIMIT, Descriptor, Document, Manifest};
use crate::image::{Digest, Image, Labels, is_fixed, may_carry};
use layout::Layout;
pub use push::{Progress, Pushed};
pub use referrers::{Artifact, Referrer};
use remote::Remote;
pub use unpack::Runtime;

/// One repository of images.
#[derive(Debug)]
pub enum Registry {
    Layout(Layout),
    Remote(Box<Remote>),
}

/// A manifest as it is stored: the digest is that of exactly these bytes.
#[derive(Debug)]
struct Stored {
    digest: Digest,
    media_type: String,
    bytes: Vec<u8>,
}

impl Registry {
    /// `oci:FOLDER`, relative to `base`, or `HOST[:PORT]/NAME`. A loopback host speaks plain HTTP and all others HTTPS,
    /// unless `http://` is written before the host. Nothing is asked or written yet.
    pub fn open(location: &str, base: &Path) -> anyhow::Result<Self> {
        match location.strip_prefix("oci:") {
            Some("") => Err(Fault::usage("oci: needs a folder").help("write oci:FOLDER").into()),
            Some(folder) => Ok(Self::Layout(Layout::new(base.join(folder)))),
            None => Ok(Self::Remote(Box::new(Remote::open(location)?))),
        }
    }

    /// Whose credentials a remote would get, or why none; a folder needs none.
    pub fn login(&self) -> Result<String, String> {
        match self {
            Self::Layout(_) => Ok("a folder needs none".to_owned()),
            Self::Remote(remote) => remote.login(),
        }
    }

    /// All tags of images, sorted; none if the repository does not exist yet.
    pub fn tags(&self) -> anyhow::Result<Vec<String>> {
        let mut tags = match self {
            Self::Layout(layout) => layout.tags()?,
            Self::Remote(remote) => remote.tags()?,
        };
        tags.retain(|tag| !referrers::is_list_tag(tag));
        tags.sort();
        tags.dedup();
        Ok(tags)
    }

    /// The digest that a tag names; `None` only where the registry plainly says that there is no such tag.
    pub fn resolve(&self, tag: &str) -> anyhow::Result<Option<Digest>> {
        Ok(self.by_tag(tag)?.map(|stored| stored.digest))
    }

    /// The image's manifest; of an image for several platforms, the one for this machine.
    pub fn manifest(&self, digest: &Digest) -> anyhow::Result<Manifest> {
        match self.document(digest)? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(index) => {
                let entry = index
                    .pick()
                    .ok_or_else(|| Fault::refused(format!("{digest} has no image for this machine")))?;
                match self.document(&entry.digest)? {
                    Document::Manifest(manifest) => Ok(manifest),
                    Document::Index(_) => {
                        Err(Fault::refused(format!("{digest} is an index of indexes")).into())
                    }
                }
            }
        }
    }

    /// How the image runs.
    pub fn config(&self, digest: &Digest) -> anyhow::Result<Config> {
        let descriptor = self.manifest(digest)?.config;
        let bytes = self.document_blob(&descriptor)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Fault::refused(format!("the config of {digest} is malformed: {error}")).into())
    }

    /// Where the image came from.
    pub fn labels(&self, digest: &Digest) -> anyhow::Result<Labels> {
        self.config(digest)?.labels().with_context(|| format!("image {digest}"))
    }

    /// Sends what the registry does not have yet, then the manifest under `tag`. Running it again after any failure
    /// completes it; the same image has the same digest each time.
    pub fn push(&self, image: &Image, tag: &str, progress: &dyn Fn(Progress)) -> anyhow::Result<Pushed> {
        push::push(self, image, tag, progress)
    }

    /// Lets `tag` name an image that is there already. A version or `sha-…` tag that names another is refused.
    pub fn tag(&self, digest: &Digest, tag: &str) -> anyhow::Result<()> {
        if is_fixed(tag) {
            may_carry(&self.labels(digest)?.revision, tag)?;
        }
        let stored = self.by_digest(digest)?.ok_or_else(|| self.absent(digest))?;
        self.put(tag, &stored)
    }

    /// Lays the image's files out in the folder `into`, which appears complete or not at all, and tells how to run them.
    pub fn unpack(&self, digest: &Digest, into: &Path) -> anyhow::Result<Runtime> {
        unpack::unpack(self, digest, into)
    }

    fn by_tag(&self, tag: &str) -> anyhow::Result<Option<Stored>> {
        check_tag(tag)?;
        match self {
            Self::Layout(layout) => layout.by_tag(tag),
            Self::Remote(remote) => remote.manifest(tag),
        }
    }

    fn by_digest(&self, digest: &Digest) -> anyhow::Result<Option<Stored>> {
        let stored = match self {
            Self::Layout(layout) => layout.by_digest(digest)?,
            Self::Remote(remote) => remote.manifest(digest.as_str())?,
        };
        stored.map(|stored| verified(stored, digest)).transpose()
    }

    fn document(&self, digest: &Digest) -> anyhow::Result<Document> {
        let stored = self.by_digest(digest)?.ok_or_else(|| self.absent(digest))?;
        Document::parse(&stored.bytes)
            .map_err(|error| Fault::refused(format!("the manifest {digest} is malformed: {error}")).into())
    }

    fn absent(&self, digest: &Digest) -> Fault {
        Fault::refused(format!("{self} has no image {digest}")).help("see what is there: cargo xtask status")
    }

    /// A config blob, into memory.
    fn document_blob(&self, descriptor: &Descriptor) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.blob(descriptor)?.take(DOCUMENT_LIMIT).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// A blob's content, already verified.
    fn blob(&self, descriptor: &Descriptor) -> anyhow::Result<std::fs::File> {
        match self {
            Self::Layout(layout) => layout.blob(descriptor),
            Self::Remote(remote) => remote.blob(descriptor),
        }
    }

    fn has_blob(&self, descriptor: &Descriptor) -> anyhow::Result<bool> {
        match self {
            Self::Layout(layout) => Ok(layout.has_blob(descriptor)),
            Self::Remote(remote) => remote.has_blob(descriptor),
        }
    }

    /// A file for a blob whose digest is not known yet, there where [`Self::put_blob`] has the least work with it.
    fn scratch(&self) -> anyhow::Result<NamedTempFile> {
        match self {
            Self::Layout(layout) => layout.scratch(),
            Self::Remote(_) => NamedTempFile::new().context("a temporary file for a layer"),
        }
    }

    fn put_blob(
        &self,
        descriptor: &Descriptor,
        file: NamedTempFile,
        sent: &dyn Fn(u64),
    ) -> anyhow::Result<()> {
        match self {
            Self::Layout(layout) => layout.put_blob(&descriptor.digest, file),
            Self::Remote(remote) => remote.put_blob(descriptor, file.as_file(), sent),
        }
    }

    fn put(&self, tag: &str, stored: &Stored) -> anyhow::Result<()> {
        check_tag(tag)?;
        match self {
            Self::Layout(layout) => layout.put(tag, stored),
            Self::Remote(remote) => remote.put(tag, stored),
        }
    }
}

impl std::fmt::Display for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Layout(layout) => layout.fmt(f),
            Self::Remote(remote) => remote.fmt(f),
        }
    }
}

fn verified(stored: Stored, digest: &Digest) -> anyhow::Result<Stored> {
    if stored.digest == *digest {
        return Ok(stored);
    }
    Err(Fault::refused(format!(
        "asked for {digest}, got {}: the registry's content is damaged",
        stored.digest
    ))
    .into())
}

/// The form that the distribution spec gives a tag.
fn check_tag(tag: &str) -> Result<(), Fault> {
    let start = tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let rest = tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if start && rest && tag.len() <= 128 {
        return Ok(());
    }
    Err(Fault::usage(format!("not an image tag: {tag:?}"))
        .help("a tag is up to 128 letters, digits, dots, dashes and underscores, for example edge or v0.1.0"))
}
