//! The built image in a real docker, as Kubernetes runs it: read-only, as UID 1000, with a volume at /data.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/dockerd.rs"]
mod dockerd;
#[path = "tools/project.rs"]
mod project;
mod tools;

use std::path::Path;
use std::process::Command;

use dockerd::{Dockerd, Service, run};
use project::{Project, succeeded};

#[test]
fn the_image_is_loaded_and_its_busybox_looks_around() {
    if !tools::need("busybox", "busybox-static") {
        return;
    }
    let Some(docker) = Dockerd::start() else { return };
    let project = Project::built();
    let args = ["image", "load"];
    succeeded(&args, &project.xtask(&args).env("DOCKER_HOST", docker.host()).output().unwrap());

    let image = format!("ghcr.io/blogle/dojo:{}", project.sha_tag());
    let id = project.json(&["image", "inspect", "--json"])["image"].clone();
    assert_eq!(docker.docker(&["image", "inspect", "--format", "{{.Id}}", &image]), id.as_str().unwrap());
    // The stand-in runs on the image's own loader and libraries.
    let commit = project.run("git", &["rev-parse", "HEAD"]);
    assert_eq!(docker.docker(&run(&[], &[&image])), format!("stand-in {commit}"));

    let shell = |script: &str| docker.docker(&run(&["--entrypoint", "/bin/sh"], &[&image, "-c", script]));
    assert_eq!(
        shell("id -un; pwd; echo $DOJO_ENV $DOJO_DB_PATH"),
        "dojo\n/app\nproduction /data/ledger.duckdb"
    );
    shell("echo kept > /data/file");
    assert_eq!(shell("cat /data/file; stat -c '%u:%g' /data"), "kept\n1000:1000");
    for folder in ["/app", "/", "/etc"] {
        let said = shell(&format!("touch {folder}/x 2>&1 || true"));
        assert!(said.contains("Read-only file system"), "{folder}: {said}");
    }
}

#[test]
fn an_image_from_a_registry_is_the_same_image() {
    if !tools::need("busybox", "busybox-static") || !tools::need("skopeo", "skopeo") {
        return;
    }
    let Some(docker) = Dockerd::start() else { return };
    let project = Project::built();
    project.ok(&["image", "push", "--tag", "edge"]);
    project.run("skopeo", &["copy", "oci:registry:edge", "docker-archive:target/pulled.tar:pulled:edge"]);
    let args = ["image", "load", "--archive", "target/pulled.tar"];
    succeeded(&args, &project.xtask(&args).env("DOCKER_HOST", docker.host()).output().unwrap());
    let commit = project.run("git", &["rev-parse", "HEAD"]);
    assert_eq!(docker.docker(&run(&[], &["pulled:edge"])), format!("stand-in {commit}"));
}

/// The real service. It needs DuckDB's library ready, since compiling it takes too long for a test.
#[test]
fn the_service_keeps_its_ledger_over_a_restart() {
    if std::env::var_os("DUCKDB_LIB_DIR").is_none() {
        tools::skip("DUCKDB_LIB_DIR", "cargo xtask ci sets it");
        return;
    }
    let Some(docker) = Dockerd::start() else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().to_str().unwrap();
    let xtask = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(args).current_dir(root).env("DOCKER_HOST", docker.host());
        // Where the rehearsal builds too: what both need in release form is compiled once.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("rehearsal-build");
        command.env("CARGO_TARGET_DIR", target);
        succeeded(args, &command.output().unwrap())
    };
    xtask(&["image", "build", "--builder", "cargo", "--out", folder]);
    xtask(&["image", "load", "--archive", &format!("{folder}/image.tar")]);
    let image = docker.docker(&["images", "--quiet"]);

    let unready = docker.command(&run(&[], &[&image])).output().unwrap();
    assert!(!unready.status.success(), "production started without a ledger");
    assert!(String::from_utf8_lossy(&unready.stderr).contains("dojo init"));
    docker.docker(&run(&[], &[&image, "init"]));

    let first = Service::start(&docker, &image);
    first.ask("/v1/accounts", Some(r#"{"name":"Cash"}"#));
    let before = [first.ask("/v1/accounts", None), first.ledger()];
    assert!(before[0].contains("Cash"), "{before:?}");
    docker.docker(&["stop", &first.container]);

    let second = Service::start(&docker, &image);
    assert_eq!([second.ask("/v1/accounts", None), second.ledger()], before);
}
