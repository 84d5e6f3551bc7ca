//! The built image in a real docker, as Kubernetes runs it: read-only, as UID 1000, with a volume at /data.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/dockerd.rs"]
mod dockerd;
#[path = "tools/project.rs"]
mod project;
mod tools;

use std::fs;
use std::path::Path;
use std::process::Command;

use dockerd::{Dockerd, Service, run};
use project::{Project, failed, succeeded};

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
fn an_image_of_the_registry_is_loaded_from_wherever_it_lies() {
    if !tools::need("busybox", "busybox-static") || !tools::need("skopeo", "skopeo") {
        return;
    }
    let Some(docker) = Dockerd::start() else { return };
    let project = Project::built();
    let id = project.json(&["image", "inspect", "--json"])["image"].clone();
    let digest = project.json(&["image", "push", "--tag", "edge", "--json"])["digest"].clone();
    project.run("skopeo", &["copy", "oci:registry:edge", "docker-archive:target/copy.tar:other:name"]);
    let by_commit = format!("ghcr.io/blogle/dojo:{}", project.sha_tag());
    let commit = project.run("git", &["rev-parse", "HEAD"]);
    for (from, name) in [
        (vec!["edge"], "ghcr.io/blogle/dojo:edge"),
        (vec![digest.as_str().unwrap()], &by_commit),
        (vec!["--archive", "target/copy.tar"], &by_commit),
        (vec!["--archive", "registry"], &by_commit),
    ] {
        let args = [vec!["image", "load"], from].concat();
        let told =
            succeeded(&args, &project.xtask(&args).env("DOCKER_HOST", docker.host()).output().unwrap());
        assert!(told.contains(name) && told.contains(id.as_str().unwrap()), "{told}");
        assert_eq!(docker.docker(&["image", "inspect", "--format", "{{.Id}}", name]), id.as_str().unwrap());
        assert_eq!(docker.docker(&run(&[], &[name])), format!("stand-in {commit}"));
        docker.docker(&["rmi", "--force", name]);
    }
}

#[test]
fn a_docker_that_does_not_take_it_is_told_from_one_that_dies() {
    if !tools::need("docker", "docker.io") {
        return;
    }
    let project = Project::built();
    let load = |changed: &mut Command| changed.args(["image", "load"]).output().unwrap();
    let nowhere = format!("unix://{}", project.path("nobody.sock").display());
    let said = failed(2, &["image", "load"], &load(project.xtask(&[]).env("DOCKER_HOST", nowhere)));
    assert!(said.contains("docker load failed") && said.contains("is docker running"), "{said}");

    let folder = project.path("target/path");
    fs::create_dir_all(&folder).unwrap();
    let nothing = load(project.xtask(&[]).env("PATH", &folder));
    assert!(failed(2, &["image", "load"], &nothing).contains("neither docker nor podman"));
    fs::write(
        folder.join("podman"),
        "#!/bin/sh\n/usr/bin/head -c 5000 > /dev/null\necho 'unexpected EOF' >&2\nexit 1\n",
    )
    .unwrap();
    project.run("chmod", &["+x", "target/path/podman"]);
    let said = failed(1, &["image", "load"], &load(project.xtask(&[]).env("PATH", &folder)));
    assert!(said.starts_with("error: podman load failed (exit status: 1): unexpected EOF"), "{said}");
    assert_eq!(said.lines().count(), 2, "{said}");
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
