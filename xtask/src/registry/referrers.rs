//! What is attached to an image: artifacts whose manifest names the image's as its `subject` (OCI image spec 1.1).
//!
//! A registry lists them by its referrers API. Where it has none, as GitHub's, clients keep the list: an index under a
//! tag made of the subject's digest (distribution spec 1.1, "Referrers Tag Schema"). Left out: detaching, and filters.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Registry;
use super::remote::Remote;
use crate::fault::Fault;
use crate::image::Digest;
use crate::image::oci::{ARTIFACT_TYPE, Descriptor, Document, INDEX, Index, MANIFEST, Stored};

const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const EMPTY_CONTENT: &[u8] = b"{}";
const TITLE: &str = "org.opencontainers.image.title";
const CREATED: &str = "org.opencontainers.image.created";
/// How often an entry is put into a list that other writers change.
const TRIES: u32 = 5;
/// Longer with each try; a registry may answer with an older list for a moment.
const PAUSE: Duration = Duration::from_millis(200);

/// A file to attach. The same fields give the same digest.
#[derive(Clone, Copy, Debug)]
pub struct Artifact<'a> {
    /// Its media type, which also tells what kind of artifact it is.
    pub kind: &'a str,
    /// What to call the file when it is pulled.
    pub name: &'a str,
    /// RFC 3339.
    pub created: &'a str,
    pub content: &'a [u8],
}

/// One artifact that is attached to an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Referrer {
    /// Its `artifactType`, or the media type of its config where it has none.
    pub kind: String,
    /// The digest and the size in bytes of its manifest.
    pub digest: Digest,
    pub size: u64,
}

/// An artifact's manifest (OCI image spec, "Guidelines for Artifact Usage").
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    subject: Option<Descriptor>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Registry {
    /// What is attached to an image, as far as the registry or its clients keep a list.
    pub fn referrers(&self, subject: &Digest) -> anyhow::Result<Vec<Referrer>> {
        let entries = match self {
            Self::Layout(layout) => layout.referrers(subject)?,
            Self::Remote(remote) => match remote.referrers(subject)? {
                Some(entries) => entries,
                None => kept(remote, subject)?.and_then(|list| index(&list)).unwrap_or_default().manifests,
            },
        };
        let referrer = |entry: Descriptor| Referrer {
            kind: entry.artifact_type().unwrap_or(&entry.media_type).to_owned(),
            digest: entry.digest,
            size: entry.size,
        };
        Ok(entries.into_iter().map(referrer).collect())
    }

    /// Attaches a file to an image that is there, and gives the digest of the artifact's manifest. What is attached
    /// already stays as it is; after a failure, the same call completes it.
    pub fn attach(&self, subject: &Digest, artifact: &Artifact<'_>) -> anyhow::Result<Digest> {
        let image = self.by_digest(subject)?.ok_or_else(|| self.absent(subject.as_str()))?;
        let mut layer = Descriptor::of(artifact.kind, artifact.content);
        layer.annotations.insert(TITLE.to_owned(), artifact.name.to_owned());
        let config = Descriptor::of(EMPTY, EMPTY_CONTENT);
        for (descriptor, content) in [(&config, EMPTY_CONTENT), (&layer, artifact.content)] {
            self.put_content(descriptor, content)?;
        }
        let bytes = serde_json::to_vec(&Manifest {
            schema_version: 2,
            media_type: Some(MANIFEST.to_owned()),
            artifact_type: Some(artifact.kind.to_owned()),
            config: Some(config),
            layers: vec![layer],
            subject: Some(Descriptor::of(&image.media_type, &image.bytes)),
            annotations: [(CREATED.to_owned(), artifact.created.to_owned())].into(),
        })?;
        let (_, entry) = entry(&bytes).ok_or_else(|| Fault::refused("an artifact without a subject"))?;
        let stored = Stored::new(MANIFEST, bytes);
        match self {
            Self::Layout(layout) => layout.attach(entry, &stored.bytes)?,
            Self::Remote(remote) => match remote.put_referrer(&stored)? {
                Some(true) => {}
                Some(false) => keep(remote, subject, &entry)?,
                None => {
                    let message = format!("{remote} does not find the file of {} yet", stored.digest);
                    return Err(Fault::remote(message).help("run the same command again").into());
                }
            },
        }
        Ok(stored.digest)
    }

    /// The first file of an attached artifact, verified.
    pub fn attached(&self, referrer: &Digest) -> anyhow::Result<Vec<u8>> {
        let manifest = self.manifest(referrer)?;
        let layer =
            manifest.layers.first().ok_or_else(|| Fault::refused(format!("{referrer} holds no file")))?;
        self.document_blob(layer)
    }

    fn put_content(&self, descriptor: &Descriptor, content: &[u8]) -> anyhow::Result<()> {
        if self.has_blob(descriptor)? {
            return Ok(());
        }
        let mut file = self.scratch()?;
        file.write_all(content)?;
        self.put_blob(descriptor, file, &|_| ())
    }
}

/// The subject of an artifact's manifest, and the manifest's entry in a list of referrers; `None` without a subject.
pub fn entry(manifest: &[u8]) -> Option<(Digest, Descriptor)> {
    let parsed: Manifest = serde_json::from_slice(manifest).ok()?;
    let subject = parsed.subject?.digest;
    let mut entry = Descriptor::of(parsed.media_type.as_deref().unwrap_or(MANIFEST), manifest);
    let kind = parsed.artifact_type.or(parsed.config.map(|config| config.media_type));
    entry.rest.extend(kind.map(|kind| (ARTIFACT_TYPE.to_owned(), kind.into())));
    entry.annotations = parsed.annotations;
    Some((subject, entry))
}

/// The tag under which clients keep the list of an image's referrers.
pub fn list_tag(subject: &Digest) -> String {
    subject.as_str().replace(':', "-")
}

/// Whether a tag is made of a digest: a list of referrers, or what older tools kept there with a suffix. No image.
pub fn is_list_tag(tag: &str) -> bool {
    tag.strip_prefix("sha256-")
        .and_then(|rest| rest.get(..64))
        .is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// What lies under the tag of the list. Some registries answer with the subject itself, which is no list.
fn kept(remote: &Remote, subject: &Digest) -> anyhow::Result<Option<Stored>> {
    Ok(remote.manifest(&list_tag(subject))?.filter(|stored| stored.digest != *subject))
}

fn index(stored: &Stored) -> Option<Index> {
    match Document::parse(&stored.bytes) {
        Ok(Document::Index(index)) => Some(index),
        _ => None,
    }
}

/// Puts an entry into the list under the tag, and reads it back: another writer may have replaced the list with one that
/// does not have it. No lock could prevent that; whoever misses an entry puts it in again.
fn keep(remote: &Remote, subject: &Digest, entry: &Descriptor) -> anyhow::Result<()> {
    let tag = list_tag(subject);
    for tried in 0..TRIES {
        std::thread::sleep(PAUSE * tried);
        let mut list = match kept(remote, subject)? {
            None => Index::default(),
            Some(stored) => index(&stored).ok_or_else(|| {
                Fault::refused(format!(
                    "{remote}: {tag} should hold a list of referrers, and holds something else"
                ))
                .help("delete that tag; it is kept for lists of what is attached to an image")
            })?,
        };
        if list.manifests.iter().any(|other| other.digest == entry.digest) {
            return Ok(());
        }
        list.manifests.push(entry.clone());
        let bytes = serde_json::to_vec(&list)?;
        if !remote.put(&tag, &Stored::new(INDEX, bytes))? {
            let message = format!("{remote} does not see an artifact that it took");
            let help =
                format!("run the same command again; if it stays so, delete {tag}: what it lists is gone");
            return Err(Fault::remote(message).help(help).into());
        }
    }
    let message = format!("{remote}: {tag} was replaced by somebody else {TRIES} times");
    Err(Fault::race(message).help("run the same command again").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_the_tag_that_the_specification_gives_it() {
        let subject: Digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        assert_eq!(list_tag(&subject), format!("sha256-{}", "a".repeat(64)));
        assert!(is_list_tag(&list_tag(&subject)) && is_list_tag(&format!("{}.sig", list_tag(&subject))));
        for tag in ["sha-0123456789ab", "sha256-0123", "v0.1.0", "edge"] {
            assert!(!is_list_tag(tag), "{tag}");
        }
    }

    #[test]
    fn an_entry_repeats_the_kind_and_the_annotations_of_its_manifest() {
        let digest = Digest::of(b"");
        let manifest = |kind: &str| {
            format!(
                r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}",{kind}"config":{{"mediaType":"x/config","digest":"{digest}","size":0}},"layers":[],"subject":{{"mediaType":"{MANIFEST}","digest":"{digest}","size":7}},"annotations":{{"a":"b"}}}}"#
            )
        };
        let (subject, found) = entry(manifest(r#""artifactType":"x/kind","#).as_bytes()).unwrap();
        assert_eq!((subject, found.artifact_type()), (digest.clone(), Some("x/kind")));
        assert_eq!(found.annotations["a"], "b");
        let (_, found) = entry(manifest("").as_bytes()).unwrap();
        assert_eq!(found.artifact_type(), Some("x/config"));
        assert!(entry(b"{\"schemaVersion\":2}").is_none());
    }
}
