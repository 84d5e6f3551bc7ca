//! Where images are kept: an OCI image layout folder, or a remote registry over HTTP(S).
//!
//! Both answer to the same verbs, and both keep the promise that a version or `sha-…` tag never moves to another digest.
//! What is read by digest is verified. Left out: deleting.

mod auth;
mod compress;
mod http;
mod layout;
mod push;
mod read;
mod referrers;
mod remote;
mod retag;
mod retry;
#[cfg(test)]
mod tests;
mod unpack;

use std::fs::File;
use std::io::{self, Read, Seek as _, Write};
use std::path::Path;

use anyhow::Context as _;
use tempfile::NamedTempFile;

use crate::fault::Fault;
use crate::image::oci::{Descriptor, Stored};
use crate::image::{Blob, Digest, Image, Runtime, is_fixed};
pub use auth::Login;
use layout::Layout;
pub use push::{CacheFrom, Progress, Push, Pushed};
pub use read::{Found, size};
pub use referrers::{Artifact, Referrer};
use remote::Remote;
pub use retag::Retagged;

/// One repository of images.
#[derive(Debug)]
pub enum Registry {
    Layout(Layout),
    Remote(Box<Remote>),
}

/// What a layer is compressed into.
enum Scratch {
    /// Beside its place in a layout, which [`Layout`] tidies.
    Named(NamedTempFile),
    /// Gone with the process, however that ends.
    Unnamed(File),
}

impl Write for Scratch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Named(file) => file.write(bytes),
            Self::Unnamed(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How a remote is spoken to.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Plain HTTP, to a host that is not this machine.
    pub insecure: bool,
    /// In place of what the environment and docker's and podman's files have.
    pub login: Option<Login>,
}

impl Registry {
    /// `oci:FOLDER`, relative to `base`, or `HOST[:PORT]/NAME`. A loopback host speaks plain HTTP and all others HTTPS,
    /// unless `http://` is written before the host. Nothing is asked or written yet.
    pub fn open(location: &str, base: &Path) -> anyhow::Result<Self> {
        Self::open_with(location, base, &Options::default())
    }

    /// The same, with what somebody said on the command line.
    pub fn open_with(location: &str, base: &Path, options: &Options) -> anyhow::Result<Self> {
        match location.strip_prefix("oci:") {
            Some("") => Err(Fault::usage("oci: needs a folder").help("write oci:FOLDER").into()),
            Some(folder) => Ok(Self::Layout(Layout::new(base.join(folder)))),
            None => Ok(Self::Remote(Box::new(Remote::open(location, options)?))),
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

    /// Sends what the registry does not have yet, then the manifest under each tag. Running it again after any failure
    /// completes it.
    pub fn push(&self, image: &Image, how: &Push<'_>, progress: &dyn Fn(Progress)) -> anyhow::Result<Pushed> {
        push::push(self, image, how, progress)
    }

    /// Lets `tag` name an image or an index that is there already. A version or `sha-…` tag that names another is refused.
    pub fn tag(&self, digest: &Digest, tag: &str) -> anyhow::Result<()> {
        self.retag(digest.as_str(), &[tag.to_owned()]).map(drop)
    }

    /// Lets all of `tags` name the image or index that is there under the tag or digest `from`. All are checked first, so
    /// that a refusal leaves none of them changed.
    pub fn retag(&self, from: &str, tags: &[String]) -> anyhow::Result<Retagged> {
        retag::retag(self, from, tags)
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

    /// A blob's content, already verified.
    fn blob(&self, descriptor: &Descriptor) -> anyhow::Result<File> {
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

    /// Whether both are repositories of one registry.
    pub fn same_host(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Remote(one), Self::Remote(other)) if one.same_host(other))
    }

    /// The name of the repository that blobs can be mounted from, if both are on one host.
    fn mounts_from<'a>(&self, other: &'a Self) -> Option<&'a str> {
        match (self, other) {
            (Self::Remote(remote), Self::Remote(other)) => remote.mounts_from(other),
            _ => None,
        }
    }

    /// Takes a blob over from another repository of the same host; `false` if it must be sent.
    fn mount(&self, descriptor: &Descriptor, from: &str) -> anyhow::Result<bool> {
        match self {
            Self::Layout(_) => Ok(false),
            Self::Remote(remote) => remote.mount(descriptor, from),
        }
    }

    /// A file for a blob whose digest is not known yet, there where [`Self::put_blob`] has the least work with it.
    fn scratch(&self) -> anyhow::Result<Scratch> {
        match self {
            Self::Layout(layout) => layout.scratch().map(Scratch::Named),
            Self::Remote(_) => {
                tempfile::tempfile().map(Scratch::Unnamed).context("a temporary file for a layer")
            }
        }
    }

    /// Sends what was written to the file.
    fn put_blob(&self, descriptor: &Descriptor, file: Scratch, sent: &dyn Fn(u64)) -> anyhow::Result<()> {
        match (self, file) {
            (Self::Layout(layout), Scratch::Named(file)) => layout.put_blob(&descriptor.digest, file),
            (Self::Remote(remote), Scratch::Unnamed(file)) => {
                let open = || -> anyhow::Result<Box<dyn Read>> {
                    let mut file = file.try_clone()?;
                    file.rewind()?;
                    Ok(Box::new(file))
                };
                remote.put_blob(descriptor, &open, sent)
            }
            _ => anyhow::bail!("a temporary file of another registry"),
        }
    }

    /// Sends a blob as it is, from where it lies.
    fn copy_blob(&self, blob: &Blob, sent: &dyn Fn(u64)) -> anyhow::Result<()> {
        match self {
            Self::Layout(layout) => {
                let mut file = layout.scratch()?;
                io::copy(&mut blob.open()?, &mut file).map_err(compress::cause)?;
                layout.put_blob(&blob.descriptor.digest, file)
            }
            Self::Remote(remote) => {
                let open = || -> anyhow::Result<Box<dyn Read>> { Ok(blob.open()?) };
                remote.put_blob(&blob.descriptor, &open, sent)
            }
        }
    }

    /// Puts a manifest under a tag. `false` if the registry misses a blob that it names.
    fn put(&self, tag: &str, stored: &Stored) -> anyhow::Result<bool> {
        check_tag(tag)?;
        match self {
            Self::Layout(layout) => {
                let complete = layout.holds_all_of(stored)?;
                if complete {
                    layout.put(tag, stored)?;
                }
                Ok(complete)
            }
            Self::Remote(remote) => remote.put(tag, stored),
        }
    }

    /// The same for a tag that was just seen to be free, or to be one that may move.
    fn put_free(&self, tag: &str, stored: &Stored) -> anyhow::Result<bool> {
        match self {
            Self::Layout(_) => self.put(tag, stored),
            Self::Remote(remote) => remote.put_free(tag, stored),
        }
    }

    /// Puts a manifest under its digest alone. `false` if the registry misses a blob that it names.
    fn put_unnamed(&self, stored: &Stored) -> anyhow::Result<bool> {
        match self {
            Self::Layout(layout) => layout.put_unnamed(stored).map(|()| true),
            Self::Remote(remote) => remote.put(stored.digest.as_str(), stored),
        }
    }
}

/// Tags that may move come last: a fixed one that is refused or lost to another push leaves them where they are.
fn fixed_first(tags: &[String]) -> impl Iterator<Item = &String> {
    tags.iter().filter(|tag| is_fixed(tag)).chain(tags.iter().filter(|tag| !is_fixed(tag)))
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
    let fault = Fault::usage(format!("not an image tag: {tag:?}"));
    Err(if tag.contains('/') {
        fault.help("give the tag or digest alone, and the repository with --repository")
    } else {
        fault.help(
            "a tag is up to 128 letters, digits, dots, dashes and underscores, for example edge or v0.1.0",
        )
    })
}
