//! What an image is to this tool: a digest, the labels that tell where it came from, and the tags that name it.

pub mod contents;
pub mod hashing;
mod labels;
pub mod oci;
pub mod platform;

use std::fmt;
use std::io::Read;
use std::str::FromStr;

use crate::fault::Fault;
use crate::version::Version;
pub use labels::{Labels, Schema, Told};

/// How an image's program is to be started (OCI image spec, config).
#[derive(Clone, Debug)]
pub struct Runtime {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=VALUE` each.
    pub env: Vec<String>,
}

/// A content digest, `sha256:` and 64 lowercase hex digits (OCI image spec, descriptors).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Digest(String);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self::from_hash(sha2::Sha256::digest(bytes).as_slice())
    }

    /// From the 32 bytes of a finished SHA-256.
    pub fn from_hash(hash: &[u8]) -> Self {
        use std::fmt::Write as _;
        let mut text = String::from("sha256:");
        for byte in hash {
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 hex digits.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// The first 12 hex digits, for people.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

impl FromStr for Digest {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Ok(Self(text.to_owned()));
        }
        Err(Fault::refused(format!("not a digest: {text}"))
            .help("a digest is sha256: and 64 lowercase hex digits"))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        text.parse()
    }
}

/// A built image, wherever it lies: its config's bytes, and its layers from the bottom up.
#[derive(Debug)]
pub struct Image {
    pub config: Vec<u8>,
    pub layers: Vec<Layer>,
    /// Manifests and blobs that are fit for a registry, bit by bit; the image above is one of them.
    pub finished: Option<Finished>,
}

/// Manifests with everything they name: those of an index's platforms first, the one that stands for all last.
#[derive(Debug)]
pub struct Finished {
    pub manifests: Vec<oci::Stored>,
    pub blobs: Vec<Blob>,
}

/// A config, a layer or an artifact as it is stored.
pub struct Blob {
    pub descriptor: oci::Descriptor,
    open: Opener,
}

impl Blob {
    pub fn new(descriptor: oci::Descriptor, open: Opener) -> Self {
        Self { descriptor, open }
    }

    /// The stored bytes. Reading to their end fails if they are not those of the descriptor.
    pub fn open(&self) -> anyhow::Result<Box<dyn Read + Send>> {
        (self.open)()
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blob").field("descriptor", &self.descriptor).finish()
    }
}

impl Image {
    pub fn new(config: Vec<u8>, layers: Vec<Layer>) -> Self {
        Self { config, layers, finished: None }
    }

    /// The bytes that have to be looked at to push it: of layers, or of all blobs where they are sent as they are.
    pub fn bytes(&self) -> u64 {
        match &self.finished {
            Some(finished) => finished.blobs.iter().map(|blob| blob.descriptor.size).sum(),
            None => self.layers.iter().map(|layer| layer.size).sum(),
        }
    }

    /// The config's digest: the same on every machine and in every registry, and what `docker images` shows.
    pub fn id(&self) -> Digest {
        Digest::of(&self.config)
    }

    pub fn parsed_config(&self) -> Result<oci::Config, Fault> {
        serde_json::from_slice(&self.config)
            .map_err(|error| Fault::refused(format!("the image's config is malformed: {error}")))
    }

    pub fn labels(&self) -> Result<Labels, Fault> {
        self.parsed_config()?.labels()
    }

    /// The labels of an image that need not be ours.
    pub fn told(&self) -> Result<Told, Fault> {
        Ok(Told::from_map(self.parsed_config()?.label_map()))
    }
}

/// Opens bytes that lie somewhere, as often as wanted.
pub type Opener = Box<dyn Fn() -> anyhow::Result<Box<dyn Read + Send>> + Send + Sync>;

/// One layer of an [`Image`]; its bytes are read only when asked for.
pub struct Layer {
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The bytes that it takes where it lies, compressed or not.
    pub size: u64,
    /// How it is compressed where it lies; `None` for a plain tar.
    pub compression: Option<Compression>,
    open: Opener,
}

impl Layer {
    pub fn new(diff_id: Digest, size: u64, open: Opener) -> Self {
        Self { diff_id, size, compression: None, open }
    }

    /// The uncompressed tar. Reading to its end fails if the bytes are not those of `diff_id`.
    pub fn open(&self) -> anyhow::Result<Box<dyn Read + Send>> {
        (self.open)()
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer").field("diff_id", &self.diff_id).field("size", &self.size).finish()
    }
}

/// How a registry stores layers.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize, serde::Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Pulled by everything
    #[default]
    Gzip,
    /// Less work to push; docker before 23 cannot pull it
    Zstd,
}

impl Compression {
    /// That of a layer of this type; `None` for a plain tar, and for what is not known.
    pub fn of(media_type: &str) -> Option<Self> {
        [Self::Gzip, Self::Zstd].into_iter().find(|compression| compression.is_of(media_type))
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Self::Gzip => oci::LAYER_GZIP,
            Self::Zstd => oci::LAYER_ZSTD,
        }
    }

    /// Whether a layer that another tool stored, with docker's names or OCI's, is compressed like this.
    pub fn is_of(self, media_type: &str) -> bool {
        let endings = match self {
            Self::Gzip => ["tar+gzip", "tar.gzip"],
            Self::Zstd => ["tar+zstd", "tar.zstd"],
        };
        endings.iter().any(|ending| media_type.ends_with(ending))
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

/// The tag under which CI pushes a commit's image: `sha-` and the commit's first 12 hex digits (spec 5.2).
pub fn sha_tag(commit: &str) -> String {
    let dirty = if commit.ends_with(DIRTY) { DIRTY } else { "" };
    format!("sha-{}{dirty}", commit.get(..12).unwrap_or(commit))
}

/// The mark of an image that was built from a work tree with uncommitted changes.
pub const DIRTY: &str = "-dirty";

/// Whether a tag names one digest for ever: versions and `sha-…`. `edge`, `latest` and all others move.
pub fn is_fixed(tag: &str) -> bool {
    tag.starts_with("sha-") || Version::from_tag(tag).is_some()
}

/// Whether `tag` may come to name `digest` while it names `held`: a fixed tag never moves.
pub fn may_name(tag: &str, held: Option<&Digest>, digest: &Digest) -> Result<(), Fault> {
    match held {
        Some(held) if held != digest && is_fixed(tag) => {
            Err(Fault::refused(format!("{tag} names {held} already, and never moves: not to {digest}"))
                .help(format!("use the image that {tag} names, or build a new commit")))
        }
        _ => Ok(()),
    }
}

/// Whether an image of this revision may be called `tag`: a `sha-…` tag tells the truth about the commit, and what was
/// built from uncommitted changes gets no fixed tag at all. An image that names no revision cannot be held against it.
pub fn may_carry(revision: Option<&str>, tag: &str) -> Result<(), Fault> {
    let Some(revision) = revision else { return Ok(()) };
    // nix says no more than this where it does not know the commit below.
    if (revision.ends_with(DIRTY) || revision == "dirty") && is_fixed(tag) {
        return Err(Fault::refused(format!("{tag}: the image was built from uncommitted changes"))
            .help("commit them and build again, or push it under a tag that may move"));
    }
    if tag.starts_with("sha-") && tag != sha_tag(revision) {
        return Err(Fault::refused(format!("{tag}: the image was built from commit {revision}"))
            .help(format!("its tag is {}", sha_tag(revision))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_commits_never_move_and_edge_does() {
        let [old, new] = [b"old", b"new"].map(|bytes| Digest::of(bytes));
        for fixed in ["v0.1.0", "v0.1.0-rc.1", "sha-0123456789ab"] {
            let refusal = may_name(fixed, Some(&old), &new).unwrap_err().to_string();
            assert!(refusal.contains(old.as_str()) && refusal.contains(new.as_str()), "{refusal}");
            may_name(fixed, Some(&old), &old).unwrap();
            may_name(fixed, None, &new).unwrap();
        }
        for moves in ["edge", "latest", "vnext"] {
            may_name(moves, Some(&old), &new).unwrap();
        }
    }

    #[test]
    fn a_sha_tag_tells_the_commit_and_a_dirty_build_gets_no_fixed_tag() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        may_carry(Some(commit), "sha-0123456789ab").unwrap();
        may_carry(Some(commit), "v0.1.0").unwrap();
        assert!(may_carry(Some(commit), "sha-ffffffffffff").unwrap_err().to_string().contains(commit));
        may_carry(None, "sha-ffffffffffff").unwrap();
        let dirty = format!("{commit}{DIRTY}");
        may_carry(Some(&dirty), "edge").unwrap();
        for fixed in ["sha-0123456789ab", "sha-0123456789ab-dirty", "v0.1.0"] {
            assert!(may_carry(Some(&dirty), fixed).unwrap_err().to_string().contains("uncommitted"));
        }
    }

    #[test]
    fn a_digest_is_checked() {
        let digest = Digest::of(b"");
        assert_eq!(
            digest.as_str(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(digest.short(), "e3b0c44298fc");
        assert_eq!(digest.as_str().parse::<Digest>().unwrap(), digest);
        for bad in ["", "sha256:", "sha256:E3B0", "sha512:e3b0", &digest.as_str()[..70]] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
