//! A `kubectl` on PATH that renders as the real one does, has two contexts, shows recorded states of a cluster, and writes
//! down what a cluster would be told.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::TempDir;

use crate::environments::{Environments, Operator};

const SCRIPT: &str = r#"#!/bin/sh
case "$1 $2" in
    "kustomize "* | "version "*) exec REAL "$@" ;;
    "config current-context") echo here; exit 0 ;;
    "config get-contexts")
        case "$4" in
            here | there) echo "$4"; exit 0 ;;
            *) echo "error: context $4 not found" >&2; exit 1 ;;
        esac ;;
esac
echo "$*" >>FOLDER/asked
if [ "$3" = "$(cat FOLDER/fails)" ]; then
    echo "the API server said no" >&2
    exit 1
fi
for last; do :; done
case "$3" in
    apply) REAL kustomize "$last" >FOLDER/applied && echo "deployment.apps/dojo configured" ;;
    rollout) echo 'deployment "dojo" successfully rolled out' ;;
    --namespace)
        case "$6" in
            deployments,*) cat FOLDER/state 2>/dev/null && exit 0 ;;
            *) echo '{"kind": "List", "items": []}'; exit 0 ;;
        esac
        echo "The connection to the server 10.0.0.1:6443 was refused - did you specify the right host or port?" >&2
        exit 1 ;;
    *) exit 2 ;;
esac
"#;

pub struct Kubectl(TempDir);

impl Kubectl {
    pub fn of(operator: &mut Operator) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = std::env::var_os("PATH").unwrap();
        let mut folders = std::env::split_paths(&path).map(|folder| folder.join("kubectl"));
        let real = folders.find(|kubectl| kubectl.is_file()).unwrap();
        let script = SCRIPT.replace("REAL", &format!("'{}'", real.display()));
        let script = script.replace("FOLDER", &format!("'{}'", folder.path().display()));
        let program = folder.path().join("kubectl");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.path().join("fails"), "").unwrap();
        let path = format!("{}:{}", folder.path().display(), path.to_str().unwrap());
        operator.environment.push(("PATH", path));
        Self(folder)
    }

    /// Which of `apply` and `rollout` fails from now on.
    pub fn fails(&self, verb: &str) {
        fs::write(self.0.path().join("fails"), verb).unwrap();
    }

    /// What `get` shows from now on, as JSON; `None`: the API server does not answer.
    pub fn shows(&self, state: Option<&str>) {
        let path = self.0.path().join("state");
        match state {
            Some(state) => fs::write(path, state).unwrap(),
            None => drop(fs::remove_file(path)),
        }
    }

    /// What the cluster was asked since the last look, one line a command.
    pub fn asked(&self) -> Vec<String> {
        let path = self.0.path().join("asked");
        let asked = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        asked.lines().map(str::to_owned).collect()
    }

    /// What the last folder that was applied renders to.
    pub fn applied(&self) -> String {
        fs::read_to_string(self.0.path().join("applied")).unwrap()
    }
}

/// A recorded state, told of the images and the ledger of this stage: v0.4.0 in the place of v0.2.0, after v0.3.0.
pub fn recorded(stage: &Environments, name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster");
    let mut text = fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
    let digest = |tag: &str| stage.image(tag).digest.trim_start_matches("sha256:").to_owned();
    for (from, to) in [
        ("9fbe06d0103176b8a075ad1f2be9c8b041485afdbe442ba33d16a01769892b04", digest("v0.4.0").as_str()),
        ("8c807b66253a61439efeeaf99bc84231ab1533fbfef98ae9451baddd7e62d32e", &digest("v0.3.0")),
        ("v0.2.0", "v0.4.0"),
        ("v0.1.0", "v0.3.0"),
        ("schema 6, oldest binary 5", "schema 1, oldest binary 1"),
        (
            "ledger 0193a1d2-7c4e-7f10-9b3a-5d6e7f809102, sequence 4211",
            "ledger ledger-of-production, sequence 7",
        ),
        ("ledger-schema6-seq4211", "ledger-schema1-seq7"),
        ("schema 6:", "schema 1:"),
    ] {
        text = text.replace(from, to);
    }
    let mut parts = text.split("\"@");
    let mut told = parts.next().unwrap().to_owned();
    for part in parts {
        let (seconds, rest) = part.split_once("s\"").unwrap();
        let at = jiff::Timestamp::now().as_second() + seconds.parse::<i64>().unwrap();
        let time = jiff::Timestamp::from_second(at).unwrap();
        told += &format!("\"{time}\"{rest}");
    }
    told
}
