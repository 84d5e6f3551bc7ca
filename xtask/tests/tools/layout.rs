//! The image layout that is a project's registry, written to by hand as another tool would: foreign images, and indexes.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::project::Project;

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The layout of a project's registry, as another tool would write to it.
pub struct Layout(PathBuf);

impl Layout {
    pub fn of(project: &Project) -> Self {
        Self(project.path("registry"))
    }

    pub fn read(&self, digest: &str) -> Value {
        serde_json::from_slice(&fs::read(self.blob(digest)).unwrap()).unwrap()
    }

    /// The descriptor of a document that is put there.
    pub fn put(&self, kind: &str, document: &Value) -> Value {
        let bytes = document.to_string().into_bytes();
        let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(self.blob(&hash), &bytes).unwrap();
        json!({ "mediaType": kind, "digest": format!("sha256:{hash}"), "size": bytes.len() })
    }

    pub fn blob(&self, digest: &str) -> PathBuf {
        self.0.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    /// The descriptor of an image with another config.
    pub fn altered(&self, digest: &str, alter: impl Fn(&mut Value)) -> Value {
        let mut manifest = self.read(digest);
        let mut config = self.read(manifest["config"]["digest"].as_str().unwrap());
        alter(&mut config);
        manifest["config"] = self.put("application/vnd.oci.image.config.v1+json", &config);
        self.put(MANIFEST, &manifest)
    }

    /// Lets `tag` name what a descriptor describes.
    pub fn tag(&self, tag: &str, descriptor: &Value) -> String {
        let path = self.0.join("index.json");
        let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let mut entry = descriptor.clone();
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        index["manifests"].as_array_mut().unwrap().push(entry);
        fs::write(path, index.to_string()).unwrap();
        descriptor["digest"].as_str().unwrap().to_owned()
    }

    /// An index under `tag`: this project's image, the same for another machine, and an attestation.
    pub fn index(&self, tag: &str, image: &str, alter: impl Fn(&mut Value)) -> String {
        let mut here = self.altered(image, |_| {});
        here["platform"] = json!({ "os": "linux", "architecture": machine() });
        let mut other = self.altered(image, |config| {
            config["architecture"] = json!("riscv64");
            alter(config);
        });
        other["platform"] = json!({ "os": "linux", "architecture": "riscv64" });
        let mut attestation = self.altered(image, |config| {
            config["architecture"] = json!("unknown");
            config["os"] = json!("unknown");
            config["config"] = json!({});
        });
        attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
        attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
        let manifests = [attestation, other, here];
        self.tag(
            tag,
            &self.put(INDEX, &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests })),
        )
    }
}

pub fn machine() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}
