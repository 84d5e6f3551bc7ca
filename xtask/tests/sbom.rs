//! The bill of materials: what it says, how it is attached in a folder and in Debian's docker-registry, which has no
//! referrers API; and `ci publish`, which attaches it before an image gets its names.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/docker_registry.rs"]
mod docker_registry;
#[path = "tools/project.rs"]
mod project;
#[path = "tools/server.rs"]
mod server;
mod tools;

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use docker_registry::Registry;
use project::Project;
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
    project.commit("later");
    project.fails(3, &["image", "sbom"]);
}

/// Published, published again, and published by runs that were killed: one image, one SBOM, edge set last.
fn publishes(project: &Project) -> Value {
    let unborn = project.fails(3, &["image", "sbom", "edge"]);
    assert!(unborn.contains("edge"), "{unborn}");
    for milliseconds in [60, 150, 300, 450, 600, 800] {
        let mut publish =
            project.xtask(&PUBLISH).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        publish.kill().unwrap();
        publish.wait().unwrap();
        if let Ok(found) = project.xtask(&["image", "inspect", "edge", "--json"]).output()
            && found.status.success()
        {
            let found: Value = serde_json::from_slice(&found.stdout).unwrap();
            assert_eq!(found["referrers"].as_array().unwrap().len(), 1, "edge was set before the SBOM");
        }
    }
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
    publishes(&project);
    if tools::need("skopeo", "skopeo") {
        let source = "oci:registry:edge";
        project.run("skopeo", &["copy", source, "oci:target/copied:edge"]);
    }
    // The folder is still one image's archive.
    let pushed = project.json(&["image", "inspect", "--archive", "registry", "--json"]);
    assert!(pushed["labels"]["revision"].is_string(), "{pushed}");
}

#[test]
fn a_registry_without_the_referrers_api_gets_the_list_under_a_tag() {
    if !tools::need("docker-registry", "docker-registry") {
        return;
    }
    let (registry, project) = (Registry::open(), Project::new());
    kept_in(&project, &registry.repository("team/dojo"));
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
