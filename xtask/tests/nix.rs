//! The image as nix builds it from the project's own flake, with `nixpkgs-stand-in` in place of nixpkgs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/dockerd.rs"]
mod dockerd;
#[path = "tools/project.rs"]
mod project;
mod tools;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dockerd::{Dockerd, Service, run as strictly};
use project::{run, succeeded};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Any user's or daemon's settings aside: nothing is asked of a cache, and the builds see this machine's programs.
const NIX: &str = "experimental-features = nix-command flakes
build-users-group =
sandbox = false
substituters =
";

#[test]
fn an_image_from_nix_is_the_same_again_and_an_edit_changes_one_small_layer() {
    let programs =
        [("nix", "nix-bin"), ("patchelf", "patchelf"), ("python3", "python3"), ("busybox", "busybox-static")];
    if !programs.iter().all(|(program, package)| tools::need(program, package)) {
        return;
    }
    if std::env::var_os("DUCKDB_LIB_DIR").is_none() {
        tools::skip("DUCKDB_LIB_DIR", "cargo xtask ci sets it");
        return;
    }
    let Some(docker) = Dockerd::start() else { return };

    let project = Project::new();
    let (first, _) = project.build();
    assert_eq!(first.labels["revision"], project.git(&["rev-parse", "HEAD"]));
    project.delete(&["docker", "dojo", "crates"]);
    let (again, said) = project.cloned().build();
    assert!(compiled(&said).len() > 50, "the crates were not compiled again:\n{said}");
    assert_eq!(again, first, "built from scratch in another folder");

    let main = project.path("dojo/src/main.rs");
    fs::write(&main, fs::read_to_string(&main).unwrap() + "\n// Edited.\n").unwrap();
    project.commit("edit");
    let (edited, said) = project.build();
    assert_eq!(compiled(&said), ["dojo"], "{said}");
    edited.differs_by_one_small_layer_from(&again);

    runs_as_nobody_in_particular(&docker, &project);
}

/// Without `--impure`, which nobody gives who releases, the engine is compiled by nix.
#[test]
fn the_flake_evaluates_and_only_an_impure_build_takes_the_archives_of_this_machine() {
    if !tools::need("nix", "nix-bin") {
        return;
    }
    let project = Project::new();
    stdout(&project.nix(&["flake", "check", "--no-build"]).output().unwrap());
    let archives = tempfile::tempdir().unwrap();
    let needs = |flags: &[&str], folder: &Path| {
        let mut nix = project.nix(&[&["eval", "--raw", ".#dojo.drvPath"], flags].concat());
        let derivation = stdout(&nix.env("DUCKDB_LIB_DIR", folder).output().unwrap());
        let mut query = Command::new("nix-store");
        let needs = stdout(&query.args(["--query", "--requisites", &derivation]).output().unwrap());
        let compiled = needs.lines().any(|line| line.contains("-dojo-engine-") && line.ends_with(".drv"));
        [compiled, needs.contains("-dojo-engine-ready")]
    };
    assert_eq!(needs(&[], archives.path()), [true, false]);
    assert_eq!(needs(&["--impure"], archives.path()), [false, true]);
}

/// In docker, as Kubernetes runs it.
fn runs_as_nobody_in_particular(docker: &Dockerd, project: &Project) {
    let mut load = project.xtask(&["image", "load"]);
    succeeded(&["image", "load"], &load.env("DOCKER_HOST", docker.host()).output().unwrap());
    let image = docker.docker(&["images", "--quiet"]);
    let config = docker.docker(&["image", "inspect", "--format", "{{json .Config}}", &image]);
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["User"], "1000:1000");
    assert_eq!(config["Entrypoint"], json!(["/bin/dojo"]));
    assert_eq!(config["Cmd"], json!(["serve"]));
    assert_eq!(config["WorkingDir"], "/app");
    assert_eq!(config["Env"], json!(["DOJO_DB_PATH=/data/ledger.duckdb", "DOJO_ENV=production"]));

    let shell = |script: &str| {
        docker.docker(&strictly(
            &["--entrypoint", "/bin/sh"],
            &[&image, "-c", &format!("{{ {script}; }} 2>&1")],
        ))
    };
    assert_eq!(
        shell("id -u; pwd; stat -c '%u:%g' /app /data /tmp"),
        "1000\n/app\n1000:1000\n1000:1000\n1000:1000"
    );
    assert_eq!(shell("stat -c %a /nix /nix/store"), "755\n755");
    let stored = shell("ls /nix/store");
    let dojo = format!("-dojo-{}", config["Labels"]["org.opencontainers.image.version"].as_str().unwrap());
    for name in ["-busybox", "-dojo-libduckdb", &dojo] {
        assert!(stored.contains(name), "{name} is not in\n{stored}");
    }
    assert!(shell("touch /app/file || true").contains("Read-only file system"));

    docker.docker(&strictly(&[], &[&image, "init"]));
    let service = Service::start(docker, &image);
    let version: Value = serde_json::from_str(&service.ask("/version", None)).unwrap();
    assert_eq!(version["commit"], project.git(&["rev-parse", "HEAD"]));
    service.ask("/v1/accounts", Some(r#"{"name":"Cash"}"#));
    assert!(service.ask("/v1/accounts", None).contains("Cash"));
}

#[derive(Debug, PartialEq)]
struct Image {
    /// The digest of its configuration, and so of all that is in it.
    id: String,
    labels: Value,
    /// Bytes by digest.
    layers: BTreeMap<String, u64>,
}

impl Image {
    fn differs_by_one_small_layer_from(&self, other: &Self) {
        let engine = self.layers.values().max().unwrap();
        let (kept, mut changed): (Vec<_>, Vec<_>) =
            self.layers.iter().partition(|(digest, _)| other.layers.contains_key(*digest));
        changed.sort_by_key(|(_, size)| **size);
        let kept: Vec<_> = kept.into_iter().map(|(_, size)| size).collect();
        let changed: Vec<_> = changed.into_iter().map(|(_, size)| size).collect();
        assert!(kept.contains(&engine) && kept.len() >= 4, "kept {kept:?}, changed {changed:?}");
        // The links in the image's root name dojo's store path.
        let [links, dojo] = changed[..] else { panic!("kept {kept:?}, changed {changed:?}") };
        assert!(*links < 1_000_000 && dojo * 4 < *engine, "kept {kept:?}, changed {changed:?}");
    }
}

/// The project's files as they are now, in a repository of their own whose flake.lock names the stand-in.
struct Project {
    folder: TempDir,
}

impl Project {
    fn new() -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap() };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let files = run("git", &["ls-files", "--cached", "--others", "--exclude-standard"], root);
        for file in files.lines().filter(|file| root.join(file).exists()) {
            let to = project.path(file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(root.join(file), to).unwrap();
        }
        project.git(&["init", "--quiet"]);
        project.git(&["add", "--all"]);
        // Not `--override-input` when building: with it nix has no commit to tell.
        let stand_in = format!("path:{}", project.path("xtask/tests/nixpkgs-stand-in").display());
        stdout(&project.nix(&["flake", "lock", "--override-input", "nixpkgs", &stand_in]).output().unwrap());
        project.commit("start");
        project
    }

    fn cloned(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let from = self.folder.path().to_str().unwrap();
        run("git", &["clone", "--quiet", from, "."], folder.path());
        Self { folder }
    }

    /// The image of what is committed, and what nix said.
    fn build(&self) -> (Image, String) {
        let args = ["image", "build", "--builder", "nix", "--", "--impure"];
        let output = self.xtask(&args).output().unwrap();
        succeeded(&args, &output);
        let args = ["image", "inspect", "--json"];
        let shown: Value =
            serde_json::from_str(&succeeded(&args, &self.xtask(&args).output().unwrap())).unwrap();
        let layers = shown["layers"].as_array().unwrap().iter();
        let layers =
            layers.map(|layer| (layer["digest"].to_string(), layer["size"].as_u64().unwrap())).collect();
        let image = Image { id: shown["image"].to_string(), labels: shown["labels"].clone(), layers };
        (image, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Deletes what these packages were built into.
    fn delete(&self, packages: &[&str]) {
        for package in packages {
            let name = format!(".#{package}.outPath");
            let path = stdout(&self.nix(&["eval", "--impure", "--raw", &name]).output().unwrap());
            assert!(Path::new(&path).exists(), "{package} was not built");
            stdout(&self.nix(&["store", "delete", "--ignore-liveness", &path]).output().unwrap());
        }
    }

    fn xtask(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(args).current_dir(self.folder.path()).env("NIX_CONFIG", NIX);
        command
    }

    fn nix(&self, args: &[&str]) -> Command {
        let mut command = Command::new("nix");
        command.args(args).current_dir(self.folder.path()).env("NIX_CONFIG", NIX);
        command
    }

    fn git(&self, args: &[&str]) -> String {
        run("git", args, self.folder.path())
    }

    fn commit(&self, message: &str) {
        let who = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"];
        self.git(&[&who[..], &["commit", "--quiet", "--all", "-m", message]].concat());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The names of the crates that cargo compiled.
fn compiled(said: &str) -> Vec<&str> {
    said.lines().filter_map(|line| line.split_once("Compiling ")?.1.split(' ').next()).collect()
}

fn stdout(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
