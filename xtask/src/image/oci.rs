//! The documents that an image is made of, with the fields this tool reads or writes (OCI image spec 1.1).
//!
//! What is left out of a manifest or an index is kept under `rest`, so that rewriting another tool's index loses nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::image::platform::Platform;
use crate::image::{Digest, Labels};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// All kinds of manifest that are understood, as an `Accept` header.
pub const MANIFESTS: &[&str] = &[MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX];

/// The field of a descriptor that tells what kind of artifact it names; images have none.
pub const ARTIFACT_TYPE: &str = "artifactType";

/// The annotation that names a manifest in an image layout.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The `oci-layout` file's text.
pub const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// A manifest or config is a few KiB; whatever is longer is not one, and is not read into memory.
pub const DOCUMENT_LIMIT: u64 = 4 << 20;

/// Names a blob.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    #[serde(deserialize_with = "possible")]
    pub size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

/// No blob is larger than this, and sums of as many as a manifest can name do not overflow.
const LARGEST: u64 = 1 << 44;

fn possible<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let size = u64::deserialize(deserializer)?;
    if size <= LARGEST {
        return Ok(size);
    }
    Err(serde::de::Error::custom(format!("a size of {size} bytes")))
}

impl Descriptor {
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        let (annotations, rest) = (BTreeMap::new(), BTreeMap::new());
        Self { media_type: media_type.to_owned(), digest, size, annotations, platform: None, rest }
    }

    /// The descriptor of these bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    pub fn artifact_type(&self) -> Option<&str> {
        self.rest.get(ARTIFACT_TYPE)?.as_str()
    }

    pub fn ref_name(&self) -> Option<&str> {
        self.annotations.get(REF_NAME).map(String::as_str)
    }

    /// Whether an index's entry is an image. Builders put attestations beside it, for a platform called
    /// `unknown/unknown`; a referrer tells its artifact's type.
    pub fn is_image(&self) -> bool {
        let unknown =
            self.platform.as_ref().is_some_and(|p| p.os == "unknown" || p.architecture == "unknown");
        !unknown && !self.rest.contains_key(ARTIFACT_TYPE)
    }

    /// The platform, for people.
    pub fn platform_name(&self) -> String {
        self.platform.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)
    }
}

/// A manifest as it is stored: the digest is that of exactly these bytes.
#[derive(Clone, Debug)]
pub struct Stored {
    pub digest: Digest,
    pub media_type: String,
    pub bytes: Vec<u8>,
}

impl Stored {
    pub fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        Self { digest: Digest::of(&bytes), media_type: media_type.to_owned(), bytes }
    }

    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.digest.clone(), self.bytes.len() as u64)
    }
}

/// One image: its config, and its layers from the bottom up.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    pub media_type: String,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

impl Manifest {
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: MANIFEST.to_owned(), config, layers }
    }
}

/// Several manifests: one per platform, or one per name in an image layout.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    pub manifests: Vec<Descriptor>,
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl Default for Index {
    fn default() -> Self {
        let rest = BTreeMap::from([("mediaType".to_owned(), INDEX.into())]);
        Self { schema_version: 2, manifests: Vec::new(), rest }
    }
}

impl Index {
    /// The images in it, without what only tells about them.
    pub fn images(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().filter(|entry| entry.is_image())
    }

    /// The image for this platform; one that names none is for all.
    pub fn pick(&self, wanted: &Platform) -> Option<&Descriptor> {
        self.images().find(|entry| entry.platform.as_ref().is_none_or(|platform| platform.fits(wanted)))
    }

    /// The image for this machine, else the first: whoever only looks can look at any.
    pub fn preferred(&self) -> Option<&Descriptor> {
        self.pick(&Platform::here()).or_else(|| self.images().next())
    }
}

/// What a manifest's bytes turned out to be.
#[derive(Debug)]
pub enum Document {
    Manifest(Manifest),
    Index(Index),
}

impl Document {
    /// Told apart by what they hold, since `mediaType` is optional in both.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Probe {
            manifests: Option<serde::de::IgnoredAny>,
        }
        let probe: Probe = serde_json::from_slice(bytes)?;
        if probe.manifests.is_some() {
            return Ok(Self::Index(serde_json::from_slice(bytes)?));
        }
        // Docker's manifests name their kind too, but an OCI one need not.
        let mut value: serde_json::Value = serde_json::from_slice(bytes)?;
        if let Some(object) = value.as_object_mut() {
            object.entry("mediaType").or_insert_with(|| MANIFEST.into());
        }
        Ok(Self::Manifest(serde_json::from_value(value)?))
    }
}

/// The media type of a manifest's bytes where nothing else tells it: what they say, else what they hold.
pub fn media_type(bytes: &[u8]) -> Result<String, serde_json::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Probe {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let probe: Probe = serde_json::from_slice(bytes)?;
    Ok(probe
        .media_type
        .unwrap_or_else(|| if probe.manifests.is_some() { INDEX } else { MANIFEST }.to_owned()))
}

/// The image config: how the image runs, and the digests of its uncompressed layers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    pub architecture: String,
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default)]
    pub config: Run,
    pub rootfs: RootFs,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

impl Config {
    pub fn platform(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, self.variant.as_deref())
    }

    pub fn labels(&self) -> Result<Labels, Fault> {
        Labels::from_map(self.label_map())
    }

    pub fn label_map(&self) -> &BTreeMap<String, String> {
        const NONE: &BTreeMap<String, String> = &BTreeMap::new();
        self.config.labels.as_ref().unwrap_or(NONE)
    }
}

/// How the image runs. Docker writes `null` for what is not set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Run {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(rename = "type")]
    pub kind: String,
    pub diff_ids: Vec<Digest>,
}

/// A step that made the image, for `docker history`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct History {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// A step that only changed the config.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_index_survives_the_round_trip() {
        let text = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"m","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"artifactType":"x/y","platform":{"architecture":"arm","os":"linux","variant":"v7","os.features":["f"]}}],"annotations":{"a":"b"}}"#;
        let index: Index = serde_json::from_str(text).unwrap();
        let again: serde_json::Value = serde_json::to_value(&index).unwrap();
        assert_eq!(again, serde_json::from_str::<serde_json::Value>(text).unwrap());
    }

    #[test]
    fn the_platform_that_is_wanted_is_picked_and_never_an_attestation() {
        let entry = |platform: Option<&str>, bytes: &[u8]| {
            let platform = platform.map(|platform| platform.parse().unwrap());
            Descriptor { platform, ..Descriptor::of(MANIFEST, bytes) }
        };
        let index = Index {
            manifests: vec![
                entry(Some("unknown/unknown"), b"attestation"),
                entry(Some("linux/arm64/v8"), b"arm"),
                entry(Some("linux/amd64"), b"pc"),
            ],
            ..Index::default()
        };
        let picked = |wanted: &str| index.pick(&wanted.parse().unwrap()).map(|entry| entry.digest.clone());
        assert_eq!(picked("linux/amd64"), Some(Digest::of(b"pc")));
        assert_eq!(picked("linux/arm64"), Some(Digest::of(b"arm")));
        assert_eq!(picked("linux/riscv64"), None);
        assert_eq!(picked("unknown/unknown"), None);
        assert_eq!(index.images().count(), 2);
    }

    #[test]
    fn dockers_nulls_are_read_as_absent() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Cmd":null,"Labels":null,"Env":["A=b"]},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!(config.config.env.as_deref(), Some(["A=b".to_owned()].as_slice()));
        assert!(config.labels().unwrap_err().to_string().contains("no label"));
    }
}
