//! The documents that an image is made of, with the fields this tool reads or writes (OCI image spec 1.1).
//!
//! What is left out of a manifest or an index is kept under `rest`, so that rewriting another tool's index loses nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::image::{Digest, Labels};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
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
    pub size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
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
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
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
    /// The image for the machine's own architecture.
    pub fn pick(&self) -> Option<&Descriptor> {
        self.manifests.iter().find(|entry| {
            entry.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == architecture())
        })
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

/// The image config: how the image runs, and the digests of its uncompressed layers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    pub architecture: String,
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default)]
    pub config: Run,
    pub rootfs: RootFs,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

impl Config {
    pub fn labels(&self) -> Result<Labels, Fault> {
        Labels::from_map(self.config.labels.as_ref().unwrap_or(&BTreeMap::new()))
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

/// What made a layer, for `docker history`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct History {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// The machine's architecture as images name it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_index_survives_the_round_trip() {
        let text = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"m","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"artifactType":"x/y"}],"annotations":{"a":"b"}}"#;
        let index: Index = serde_json::from_str(text).unwrap();
        let again: serde_json::Value = serde_json::to_value(&index).unwrap();
        assert_eq!(again, serde_json::from_str::<serde_json::Value>(text).unwrap());
    }

    #[test]
    fn the_machines_own_platform_is_picked() {
        let entry = |architecture: &str, bytes: &[u8]| {
            let platform = Platform { os: "linux".into(), architecture: architecture.into() };
            Descriptor { platform: Some(platform), ..Descriptor::of(MANIFEST, bytes) }
        };
        let manifests = vec![entry("unknown", b"attestation"), entry(architecture(), b"mine")];
        let index = Index { manifests, ..Index::default() };
        assert_eq!(index.pick().unwrap().digest, Digest::of(b"mine"));
    }

    #[test]
    fn dockers_nulls_are_read_as_absent() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Cmd":null,"Labels":null,"Env":["A=b"]},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!(config.config.env.as_deref(), Some(["A=b".to_owned()].as_slice()));
        assert!(config.labels().unwrap_err().to_string().contains("no label"));
    }
}
