//! Images for the tests of pushing, and whether a registry really holds one.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::docker_archive::{self, Layer, hex};
use crate::docker_registry::Registry;
use crate::project::Project;

/// An image that lies as a docker-archive in the project's folder.
pub struct Made {
    pub path: PathBuf,
    pub revision: String,
    pub diff_ids: Vec<String>,
}

impl Made {
    /// Four layers; one of 3 MB changes at every third number, a small one at each.
    pub fn new(project: &Project, number: u64) -> Self {
        Self::of(
            project,
            number,
            &[(3 << 20, number / 3), (300_000, 1 << 20), (40_000, 2 << 20 | number), (700, 3 << 20)],
        )
    }

    /// Two layers of some kilobytes, other ones at each number.
    pub fn small(project: &Project, number: u64) -> Self {
        Self::of(project, number, &[(60_000, 4 << 20 | number), (700, 5 << 20 | number)])
    }

    pub fn of(project: &Project, number: u64, layers: &[Layer]) -> Self {
        let (path, revision) = (project.path(&format!("image-{number}.tar")), format!("{number:040x}"));
        let revision = revision.chars().rev().collect::<String>();
        let diff_ids = docker_archive::write(&path, layers, &revision).unwrap();
        Self { path, revision, diff_ids }
    }

    pub fn sha_tag(&self) -> String {
        format!("sha-{}", &self.revision[..12])
    }

    /// Whether the repository holds exactly this image under `digest`: every blob there, with the right content.
    pub fn is_complete(&self, registry: &Registry, repository: &str, digest: &str) -> Result<(), String> {
        let blob = |digest: &str| -> Result<PathBuf, String> {
            let path =
                registry.blob(repository, digest).ok_or(format!("{digest} is not in the repository"))?;
            let bytes = fs::read(&path).map_err(|error| format!("{digest}: {error}"))?;
            let found = format!("sha256:{}", hex(Sha256::digest(bytes).as_slice()));
            if found == digest { Ok(path) } else { Err(format!("{digest} is stored as {found}")) }
        };
        let json = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
        let manifest = json(&blob(digest)?);
        let config = json(&blob(manifest["config"]["digest"].as_str().unwrap())?);
        let wanted = serde_json::json!(self.diff_ids);
        if config["rootfs"]["diff_ids"] != wanted {
            return Err(format!("another image: {config}"));
        }
        let layers = manifest["layers"].as_array().unwrap();
        if layers.len() != self.diff_ids.len() {
            return Err(format!("another number of layers: {manifest}"));
        }
        for (layer, diff_id) in layers.iter().zip(&self.diff_ids) {
            let path = blob(layer["digest"].as_str().unwrap())?;
            if fs::metadata(&path).unwrap().len() != layer["size"].as_u64().unwrap() {
                return Err(format!("another size than {layer}"));
            }
            let inflated =
                Command::new("gzip").arg("-dc").stdin(fs::File::open(&path).unwrap()).output().unwrap();
            if format!("sha256:{}", hex(Sha256::digest(inflated.stdout).as_slice())) != *diff_id {
                return Err(format!("{layer} is not the layer {diff_id}"));
            }
        }
        Ok(())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
