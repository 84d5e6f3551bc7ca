//! What a tag or a digest turns out to be: one image, or an index of images for several platforms.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};

use anyhow::Context as _;
use flate2::read::MultiGzDecoder;

use super::Registry;
use crate::fault::Fault;
use crate::image::oci::{Config, DOCUMENT_LIMIT, Descriptor, Document, Index, Manifest, Stored};
use crate::image::platform::Platform;
use crate::image::{Compression, Digest, Finished, Labels, Told};
use crate::version::Version;

/// How many tags are named to somebody who asked for one that is not there.
const NEARBY: usize = 6;

const WHOLE_DIGEST: &str =
    "write sha256: and all 64 lowercase hex digits, as `image inspect TAG` shows them, or a tag";

/// One image as a registry has it, and the index that it was picked from.
#[derive(Debug)]
pub struct Found {
    /// What was asked for: the image's manifest, or an index. Its digest is the one to pin.
    pub root: Descriptor,
    /// The images of the index; empty if it is none.
    pub platforms: Vec<Descriptor>,
    /// The manifest of the image.
    pub entry: Descriptor,
    pub manifest: Manifest,
    pub config: Config,
    /// The bytes of `config`, whose digest is the image's id.
    pub config_bytes: Vec<u8>,
}

impl Found {
    /// What a machine that has nothing of it pulls, in bytes: the layers, the config and the manifest.
    pub fn size(&self) -> u64 {
        size(&self.manifest) + self.entry.size
    }

    /// What a machine that has `other` pulls, in bytes: every blob that it lacks once, and the index, if it is one of several
    /// platforms.
    pub fn bytes_after(&self, other: Option<&Self>) -> u64 {
        let has = other.map(Self::blobs).unwrap_or_default();
        self.blobs().into_iter().filter(|(digest, _)| !has.contains_key(digest)).map(|(_, size)| size).sum()
    }

    /// The blobs that a machine fetches for it, by digest.
    fn blobs(&self) -> BTreeMap<&str, u64> {
        let parts = self.manifest.layers.iter().chain([&self.manifest.config, &self.entry, &self.root]);
        parts.map(|part| (part.digest.as_str(), part.size)).collect()
    }
}

/// The compressed layers and the config, in bytes.
pub fn size(manifest: &Manifest) -> u64 {
    manifest.layers.iter().map(|layer| layer.size).sum::<u64>() + manifest.config.size
}

impl Registry {
    /// The digest of what is there under a tag or a digest.
    pub fn find(&self, reference: &str) -> anyhow::Result<Digest> {
        Ok(self.find_manifest(reference)?.digest)
    }

    /// The manifest or index under a tag or a digest.
    pub fn find_manifest(&self, reference: &str) -> anyhow::Result<Stored> {
        let found = match reference.parse::<Digest>() {
            Ok(digest) => self.by_digest(&digest)?,
            // No tag has a colon.
            Err(_) if reference.starts_with("sha256:") => {
                return Err(Fault::usage(format!("not a whole digest: {reference}"))
                    .help(WHOLE_DIGEST)
                    .into());
            }
            Err(_) => self.by_tag(reference)?,
        };
        found.ok_or_else(|| self.absent(reference).into())
    }

    /// The image for the platform that is wanted, else for this machine, else the first.
    pub fn image(&self, digest: &Digest, wanted: Option<&Platform>) -> anyhow::Result<Found> {
        let stored = self.stored(digest)?;
        let (platforms, entry, manifest) = match parse(&stored)? {
            Document::Manifest(manifest) => (Vec::new(), stored.descriptor(), manifest),
            Document::Index(index) => {
                let entry = pick(&index, digest, wanted)?;
                let manifest = self.single(&entry.digest)?;
                (index.images().cloned().collect(), entry.clone(), manifest)
            }
        };
        let config_bytes = self.document_blob(&manifest.config)?;
        let config: Config = serde_json::from_slice(&config_bytes).map_err(|error| {
            let kind = &manifest.config.media_type;
            Fault::refused(format!("{digest} is no image that runs: its config, of type {kind}: {error}"))
        })?;
        if let Some(wanted) = wanted.filter(|wanted| platforms.is_empty() && !config.platform().fits(wanted))
        {
            return Err(
                Fault::refused(format!("{digest} is for {}, not for {wanted}", config.platform())).into()
            );
        }
        Ok(Found { root: stored.descriptor(), platforms, entry, manifest, config, config_bytes })
    }

    /// The image's manifest, of an image for several platforms as [`Self::image`] picks it.
    pub fn manifest(&self, digest: &Digest) -> anyhow::Result<Manifest> {
        match self.document(digest)? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(index) => self.single(&pick(&index, digest, None)?.digest),
        }
    }

    /// How the image runs.
    pub fn config(&self, digest: &Digest) -> anyhow::Result<Config> {
        Ok(self.image(digest, None)?.config)
    }

    /// Where the image came from. The images of an index must agree on it.
    pub fn labels(&self, digest: &Digest) -> anyhow::Result<Labels> {
        let read = |(_, bytes): &(String, Vec<u8>)| -> anyhow::Result<Labels> {
            let config: Config = serde_json::from_slice(bytes)
                .map_err(|error| Fault::refused(format!("the config of {digest} is malformed: {error}")))?;
            config.labels().with_context(|| format!("image {digest}"))
        };
        let configs = self.configs(&self.stored(digest)?)?;
        let labels = configs.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
        let told = labels.iter().map(|labels| {
            let Labels { revision, version, schema, .. } = labels;
            format!(
                "commit {revision}, version {version}, schema {}-{}",
                schema.oldest_binary, schema.current
            )
        });
        agreed(digest, configs.iter().map(|(platform, _)| platform).zip(told))?;
        labels.into_iter().next().ok_or_else(|| Fault::refused(format!("{digest} holds no image")).into())
    }

    /// The commit that the image says it was built from; most images of other tools say nothing.
    pub(super) fn revision(&self, stored: &Stored) -> anyhow::Result<Option<String>> {
        agreed_revision(&stored.digest, &self.configs(stored)?)
    }

    fn configs(&self, stored: &Stored) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        configs(stored, |digest| self.single(digest), |config| self.document_blob(config))
    }

    /// A layer's uncompressed tar; its blob is verified, the tar's own digest is the reader's to check.
    pub fn layer(&self, descriptor: &Descriptor) -> anyhow::Result<Box<dyn Read>> {
        let blob = self.blob(descriptor)?;
        Ok(match Compression::of(&descriptor.media_type) {
            Some(Compression::Gzip) => Box::new(MultiGzDecoder::new(BufReader::new(blob))),
            Some(Compression::Zstd) => Box::new(zstd::stream::read::Decoder::new(blob)?),
            None => Box::new(BufReader::new(blob)),
        })
    }

    pub(super) fn stored(&self, digest: &Digest) -> anyhow::Result<Stored> {
        self.by_digest(digest)?.ok_or_else(|| self.absent(digest.as_str()).into())
    }

    fn document(&self, digest: &Digest) -> anyhow::Result<Document> {
        parse(&self.stored(digest)?)
    }

    fn single(&self, digest: &Digest) -> anyhow::Result<Manifest> {
        manifest_of(&self.stored(digest)?)
    }

    /// A config, into memory.
    pub(super) fn document_blob(&self, descriptor: &Descriptor) -> anyhow::Result<Vec<u8>> {
        if descriptor.size > DOCUMENT_LIMIT {
            let (digest, size) = (&descriptor.digest, descriptor.size);
            return Err(
                Fault::refused(format!("{self}: {digest} is no document: it has {size} bytes")).into()
            );
        }
        let mut bytes = Vec::new();
        self.blob(descriptor)?.take(DOCUMENT_LIMIT).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn absent(&self, reference: &str) -> Fault {
        let fault = Fault::refused(format!("{self} has no image {reference}"));
        // A tag may look like this, but hardly any does.
        if reference.len() >= 7 && reference.bytes().all(|b| b.is_ascii_hexdigit()) {
            return fault.help(format!("if that is a digest, {WHOLE_DIGEST}"));
        }
        let Ok(tags) = self.tags() else { return fault.help("and its tags cannot be listed") };
        let tags = nearby(reference, tags);
        let shown = tags.iter().take(NEARBY).cloned().collect::<Vec<_>>().join(", ");
        fault.help(match tags.len() {
            0 => "it has no tags".to_owned(),
            count if count > NEARBY => format!("it has {shown} and {} more", count - NEARBY),
            _ => format!("it has {shown}"),
        })
    }
}

/// The same of an image that is to be sent as it is.
pub(super) fn revision(finished: &Finished) -> anyhow::Result<Option<String>> {
    let Some(root) = finished.manifests.last() else { return Ok(None) };
    let missing = |digest: &Digest| Fault::refused(format!("{digest} is not in the image's file"));
    let single = |digest: &Digest| {
        let stored = finished.manifests.iter().find(|stored| stored.digest == *digest);
        manifest_of(stored.ok_or_else(|| missing(digest))?)
    };
    let config = |descriptor: &Descriptor| {
        let blob = finished.blobs.iter().find(|blob| blob.descriptor.digest == descriptor.digest);
        let mut bytes = Vec::new();
        blob.ok_or_else(|| missing(&descriptor.digest))?
            .open()?
            .take(DOCUMENT_LIMIT)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    agreed_revision(&root.digest, &configs(root, single, config)?)
}

/// The configs of all images that a manifest or an index stands for, with the platforms that the index gives for them.
fn configs(
    root: &Stored,
    single: impl Fn(&Digest) -> anyhow::Result<Manifest>,
    config: impl Fn(&Descriptor) -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    match parse(root)? {
        Document::Manifest(manifest) => Ok(vec![(String::new(), config(&manifest.config)?)]),
        Document::Index(index) => {
            let images = index.images();
            images.map(|entry| Ok((entry.platform_name(), config(&single(&entry.digest)?.config)?))).collect()
        }
    }
}

fn agreed_revision(digest: &Digest, configs: &[(String, Vec<u8>)]) -> anyhow::Result<Option<String>> {
    let revision = |(_, bytes): &(String, Vec<u8>)| {
        let config = serde_json::from_slice::<Config>(bytes).ok();
        config.and_then(|config| Told::from_map(config.label_map()).revision)
    };
    let revisions: Vec<_> = configs.iter().map(revision).collect();
    let told = revisions.iter().map(|told| format!("commit {}", told.as_deref().unwrap_or("none")));
    agreed(digest, configs.iter().map(|(platform, _)| platform).zip(told))?;
    Ok(revisions.into_iter().next().flatten())
}

/// The manifest of one image, which an index names.
fn manifest_of(stored: &Stored) -> anyhow::Result<Manifest> {
    match parse(stored)? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(_) => {
            Err(Fault::refused(format!("{} is an index within an index", stored.digest)).into())
        }
    }
}

fn parse(stored: &Stored) -> anyhow::Result<Document> {
    Document::parse(&stored.bytes).map_err(|error| {
        Fault::refused(format!("the manifest {} is malformed: {error}", stored.digest)).into()
    })
}

fn pick<'a>(index: &'a Index, digest: &Digest, wanted: Option<&Platform>) -> Result<&'a Descriptor, Fault> {
    let picked = match wanted {
        Some(wanted) => index.pick(wanted),
        None => index.preferred(),
    };
    picked.ok_or_else(|| {
        let has: Vec<_> = index.images().map(Descriptor::platform_name).collect();
        let has = if has.is_empty() { "no image at all".to_owned() } else { has.join(", ") };
        let wanted = wanted.map_or_else(|| "any machine".to_owned(), ToString::to_string);
        Fault::refused(format!("{digest} has no image for {wanted}")).help(format!("it has {has}"))
    })
}

/// Refuses an index whose images say different things, naming the first two.
fn agreed<'a>(digest: &Digest, told: impl Iterator<Item = (&'a String, String)>) -> Result<(), Fault> {
    let mut told = told;
    let Some((platform, first)) = told.next() else { return Ok(()) };
    told.find(|(_, other)| *other != first).map_or(Ok(()), |(other_platform, other)| {
        Err(Fault::refused(format!(
            "the images of {digest} do not agree: {platform} says {first}, and {other_platform} says {other}"
        ))
        .help("build them all from one commit"))
    })
}

/// The tags, those first that look like what was asked for, then versions from the newest, names, and commits.
fn nearby(asked: &str, mut tags: Vec<String>) -> Vec<String> {
    tags.sort_by_cached_key(|tag| {
        let alike = tag.contains(asked) || asked.contains(tag.as_str());
        let version = Version::from_tag(tag);
        (!alike, version.is_none(), std::cmp::Reverse(version), tag.starts_with("sha"), tag.clone())
    });
    tags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_versions_are_named_first_and_commits_last() {
        let tags = ["edge", "sha-0123456789ab", "v0.2.0", "v0.10.0"].map(str::to_owned).to_vec();
        assert_eq!(nearby("v9.9.9", tags.clone()), ["v0.10.0", "v0.2.0", "edge", "sha-0123456789ab"]);
        assert_eq!(nearby("sha-0123", tags.clone())[0], "sha-0123456789ab");
        assert_eq!(nearby("0.2.0", tags)[0], "v0.2.0");
    }
}
