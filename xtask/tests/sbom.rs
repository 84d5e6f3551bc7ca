//! The bill of materials: what it says, how it is attached in a folder and in Debian's docker-registry, which has no
//! referrers API; and `ci publish`, which attaches it before an image gets its names.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/docker_registry.rs"]
mod docker_registry;
#[path = "tools/project.rs"]
mod project;
#[path = "tools/proxy.rs"]
mod proxy;
#[path = "tools/server.rs"]
mod server;
mod tools;

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use docker_registry::Registry;
use project::Project;
use proxy::{Harm, Proxy};
use serde_json::{Value, json};

const CYCLONEDX: &str = "application/vnd.cyclonedx+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const PUBLISH: [&str; 7] =
    ["ci", "publish", "--git-ref", "refs/heads/master", "--builder", "cargo", "--json"];

/// The registry that the project's pipeline names.
fn kept_in(project: &Project, registry: &str) {
    let path = project.path("deploy/pipeline.yaml");
    let pipeline = fs::read_to_string(&path).unwrap();
    assert!(pipeline.contains("registry: oci:registry"), "{pipeline}");
    fs::write(path, pipeline.replace("registry: oci:registry", &format!("registry: {registry}"))).unwrap();
    project.commit("another registry");
}

fn sbom(project: &Project, reference: &str) -> Value {
    serde_json::from_str(&project.ok(&["image", "sbom", reference])).unwrap()
}

#[test]
fn it_tells_the_crates_the_files_and_the_commit() {
    let project = Project::built();
    let document: Value = serde_json::from_str(&project.ok(&["image", "sbom"])).unwrap();
    assert_eq!(document["bomFormat"], "CycloneDX");
    let commit = project.run("git", &["rev-parse", "HEAD"]);
    assert!(document["metadata"].to_string().contains(&commit), "{}", document["metadata"]);
    let names: Vec<_> =
        document["components"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    assert!(names.contains(&json!("dojo")) && names.contains(&json!("/bin/dojo")), "{names:?}");
    assert_eq!(project.ok(&["image", "sbom"]), project.ok(&["image", "sbom"]), "not the same each time");
    // A file is what the terminal would have shown, and another commit's is refused.
    project.ok(&["image", "sbom", "--out", "target/sbom.json"]);
    let written: Value =
        serde_json::from_slice(&fs::read(project.path("target/sbom.json")).unwrap()).unwrap();
    assert_eq!(written, document);
    let path = project.path("target").join("elsewhere");
    project.ok(&["image", "build", "--builder", "cargo", "--out", path.to_str().unwrap()]);
    let file = fs::read_dir(&path).unwrap().next().unwrap().unwrap().path();
    let named = project.ok(&["image", "sbom", "--archive", file.to_str().unwrap()]);
    assert_eq!(named, project.ok(&["image", "sbom"]));
    project.fails(2, &["image", "sbom", "--archive", "target/none"]);
    project.commit("later");
    project.fails(3, &["image", "sbom"]);
}

/// By the schemas that the CycloneDX project's own library brings, with a crate as cargo tells of it.
#[test]
fn it_is_valid_cyclonedx() {
    const VALIDATE: &str = "import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
sys.exit(JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read()) and 'invalid')";
    let project = Project::new();
    let manifest = fs::read_to_string(project.path("dojo/Cargo.toml")).unwrap();
    // One that this tool is made of, so that cargo has it.
    fs::write(project.path("dojo/Cargo.toml"), manifest + "[dependencies]\nanyhow = '1'\n").unwrap();
    project.run("cargo", &["generate-lockfile", "--offline", "--quiet"]);
    project.commit("a dependency");
    project.ok(&["image", "build", "--builder", "cargo"]);
    project.ok(&["image", "sbom", "--out", "target/sbom.json"]);
    let document: Value =
        serde_json::from_slice(&fs::read(project.path("target/sbom.json")).unwrap()).unwrap();
    let anyhow = document["components"].as_array().unwrap().iter().find(|c| c["name"] == "anyhow").unwrap();
    assert_eq!(anyhow["purl"], format!("pkg:cargo/anyhow@{}", anyhow["version"].as_str().unwrap()));
    assert_eq!(anyhow["licenses"], json!([{ "expression": "MIT OR Apache-2.0" }]));
    assert_eq!(anyhow["hashes"][0]["content"].as_str().unwrap().len(), 64);

    let python = |args: &[&str]| Command::new("python3").args(args).current_dir(project.path("")).output();
    if !python(&["-c", "import cyclonedx.validation.json, jsonschema"])
        .is_ok_and(|done| done.status.success())
    {
        tools::skip(
            "python3 with cyclonedx-python-lib",
            "package cyclonedx-python-lib[json-validation] of PyPI",
        );
        return;
    }
    let done = python(&["-c", VALIDATE, "target/sbom.json"]).unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let broken = fs::read_to_string(project.path("target/sbom.json")).unwrap().replace("urn:uuid:", "");
    fs::write(project.path("target/broken.json"), broken).unwrap();
    assert!(!python(&["-c", VALIDATE, "target/broken.json"]).unwrap().status.success(), "anything is valid");
}

/// Published, and published again: one image, one SBOM.
fn publishes(project: &Project) -> Value {
    let first = project.json(&PUBLISH);
    assert_eq!(project.json(&PUBLISH), first);
    let inspected = project.json(&["image", "inspect", "edge", "--json"]);
    assert_eq!(inspected["digest"], first["digest"]);
    let [referrer] = inspected["referrers"].as_array().unwrap().as_slice() else { panic!("{inspected}") };
    assert_eq!((&referrer["kind"], &referrer["digest"]), (&json!(CYCLONEDX), &first["sbom"]));
    let document = sbom(project, "edge");
    assert_eq!(document["bomFormat"], "CycloneDX");
    assert_eq!(document, sbom(project, &project.sha_tag()));
    first
}

#[test]
fn it_is_attached_in_a_folder_before_edge_is_set() {
    let project = Project::new();
    let unborn = project.fails(3, &["image", "sbom", "edge"]);
    assert!(unborn.contains("edge"), "{unborn}");
    publishes(&project);
    if tools::need("skopeo", "skopeo") {
        let source = "oci:registry:edge";
        project.run("skopeo", &["copy", source, "oci:target/copied:edge"]);
    }
    // The folder is still one image's archive.
    let pushed = project.json(&["image", "inspect", "--archive", "registry", "--json"]);
    assert!(pushed["labels"]["revision"].is_string(), "{pushed}");
}

/// Runs that are killed at their first request, at the second of what is left to do, and so on, until one gets through.
fn killed_at_each_request(registry: &Registry, project: &Project) -> Proxy {
    let (running, left) = (Arc::new(Mutex::new(None::<Child>)), Arc::new(AtomicUsize::new(usize::MAX)));
    let (child, count) = (Arc::clone(&running), Arc::clone(&left));
    let proxy = Proxy::start(&registry.host, move |_, _| {
        if count.fetch_sub(1, Ordering::SeqCst) != 1 {
            return Harm::None;
        }
        child.lock().unwrap().as_mut().unwrap().kill().unwrap();
        Harm::Cut
    });
    kept_in(project, &format!("{}/team/dojo", proxy.host));
    let mut kills = 0;
    loop {
        left.store(kills + 1, Ordering::SeqCst);
        let publish = || project.xtask(&PUBLISH).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The proxy waits here for what it is to kill.
        running.lock().map(|mut running| *running = Some(publish())).unwrap();
        let status = loop {
            std::thread::sleep(Duration::from_millis(5));
            if let Some(status) = running.lock().unwrap().as_mut().unwrap().try_wait().unwrap() {
                break status;
            }
        };
        left.store(usize::MAX, Ordering::SeqCst);
        let edge = project.xtask(&["image", "inspect", "edge", "--json"]).output().unwrap();
        if edge.status.success() {
            let found: Value = serde_json::from_slice(&edge.stdout).unwrap();
            assert_eq!(found["referrers"].as_array().unwrap().len(), 1, "edge was set before the SBOM");
        }
        if status.success() {
            break;
        }
        assert_eq!(status.signal(), Some(9), "{status}");
        kills += 1;
    }
    // At least the image, its SBOM, the list of referrers and edge are written, each after a look.
    assert!(kills > 8, "{kills} kills");
    proxy
}

#[test]
fn a_registry_without_the_referrers_api_gets_the_list_under_a_tag() {
    if !tools::need("docker-registry", "docker-registry") {
        return;
    }
    let (registry, project) = (Registry::open(), Project::new());
    let _proxy = killed_at_each_request(&registry, &project);
    let published = publishes(&project);
    let tag = published["digest"].as_str().unwrap().replace(':', "-");
    let url = format!("http://{}/v2/team/dojo/manifests/{tag}", registry.host);
    let mut answer = ureq::get(url).header("Accept", INDEX).call().unwrap();
    let list: Value = answer.body_mut().read_json().unwrap();
    assert_eq!(list["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(list["manifests"][0]["artifactType"], CYCLONEDX);
    assert_eq!(list["manifests"][0]["digest"], published["sbom"]);
    // It is no image's tag to anybody who asks for one.
    let said = project.fails(3, &["image", "inspect", "v9.9.9"]);
    assert!(said.contains("edge") && !said.contains("sha256-"), "{said}");
}
