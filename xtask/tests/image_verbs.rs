//! `image retag|inspect|diff` on images for one platform and for several, in a layout and in Debian's docker-registry, and
//! an index on its way into an environment's pin.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/docker_registry.rs"]
mod docker_registry;
#[path = "tools/layout.rs"]
mod layout;
#[path = "tools/project.rs"]
mod project;
#[path = "tools/server.rs"]
mod server;
mod tools;

use std::fs;

use docker_registry::Registry;
use layout::{INDEX, Layout, MANIFEST, machine};
use project::Project;
use serde_json::{Value, json};

/// A project whose image is in its registry, and the image's digest.
fn pushed() -> (Project, String) {
    let project = Project::built();
    let pushed = project.json(&["image", "push", "--json"]);
    (project, pushed["digest"].as_str().unwrap().to_owned())
}

fn change(project: &Project, text: &str) {
    fs::write(project.path("dojo/src/main.rs"), text).unwrap();
    project.commit("change");
    project.ok(&["image", "build", "--builder", "cargo"]);
}

fn digest(project: &Project, reference: &str) -> Value {
    project.json(&["image", "inspect", reference, "--json"])["digest"].clone()
}

#[test]
fn a_retag_sets_all_tags_or_none() {
    let (project, first) = pushed();
    let told = project.ok(&["image", "retag", &project.sha_tag(), "v0.1.0", "edge", "edge"]);
    assert!(told.contains(&first) && told.contains("tagged         v0.1.0, edge\n"), "{told}");
    let again = project.json(&["image", "retag", &first, "edge", "latest", "--json"]);
    assert_eq!((&again["set"], &again["already"]), (&json!(["latest"]), &json!(["edge"])));
    assert_eq!((digest(&project, "v0.1.0"), digest(&project, "latest")), (json!(first), json!(first)));

    change(&project, "fn main() { println!(\"changed\"); }\n");
    let second = project.json(&["image", "push", "--json"])["digest"].clone();
    let wrong_commit = format!("sha-{}", "0".repeat(12));
    for (tags, why) in [
        (["edge", "v0.1.0"], "never moves"),
        (["edge", &wrong_commit], "built from commit"),
        (["edge", "a/tag"], "--repository"),
    ] {
        let code = if tags[1] == "a/tag" { 2 } else { 3 };
        let said = project.fails(code, &["image", "retag", second.as_str().unwrap(), tags[0], tags[1]]);
        assert!(said.contains(why), "{said}");
        assert_eq!(digest(&project, "edge"), json!(first), "half of it was done");
    }
    project.ok(&["image", "retag", second.as_str().unwrap(), "edge", "v0.2.0"]);
    assert_eq!((digest(&project, "edge"), digest(&project, "v0.1.0")), (second, json!(first)));
}

#[test]
fn what_is_not_there_is_refused_with_what_is() {
    let (project, digest) = pushed();
    let commit = project.sha_tag();
    project.ok(&["image", "retag", &digest, "edge", "v0.9.0", "v0.10.0", "v0.2.0", "v0.1.0", "latest"]);
    let absent = format!("sha256:{}", "0".repeat(64));
    for (args, shown) in [
        (vec!["inspect", "v9.9.9"], "it has v0.10.0, v0.9.0, v0.2.0, v0.1.0, edge, latest and 1 more"),
        (vec!["inspect", "sha-"], &format!("it has {commit}, v0.10.0")),
        (vec!["inspect", &absent], "it has v0.10.0"),
        (vec!["retag", "0.10.0", "edge"], "it has v0.10.0"),
        (vec!["diff", "edge", "nothing"], "it has v0.10.0"),
        (vec!["load", "nothing"], "it has v0.10.0"),
        (vec!["inspect", &digest[7..19]], "write sha256: and all 64 lowercase hex digits"),
    ] {
        let said = project.fails(3, &[vec!["image"], args.clone()].concat());
        assert!(
            said.contains("oci:") && said.contains("has no image") && said.contains(shown),
            "{args:?}: {said}"
        );
    }
    for verb in ["inspect", "load"] {
        let said = project.fails(2, &["image", verb, &digest[..19]]);
        assert!(said.contains("not a whole digest") && said.contains("all 64"), "{said}");
    }
    let elsewhere = project.fails(3, &["image", "inspect", "edge", "--repository", "oci:target/empty"]);
    assert!(elsewhere.contains("it has no tags"), "{elsewhere}");
}

#[test]
fn an_image_of_another_tool_is_shown_and_named() {
    let (project, image) = pushed();
    let layout = Layout::of(&project);
    let foreign = layout.altered(&image, |config| {
        config["config"] = json!({ "Labels": { "org.opencontainers.image.version": "3.2.1" } });
        config["history"] = json!([]);
    });
    let digest = layout.tag("foreign", &foreign);
    let shown = project.ok(&["image", "inspect", "foreign"]);
    for line in
        ["revision       -\n", "version        3.2.1\n", "schema         -\n", "user           root\n"]
    {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let shown = project.json(&["image", "inspect", "foreign", "--json"]);
    assert_eq!(shown["labels"]["schema"], Value::Null);
    assert!(shown["layers"].as_array().unwrap().iter().all(|layer| layer["holds"] == json!([])), "{shown}");
    // Nobody can hold it against a commit.
    project.ok(&["image", "retag", "foreign", "v3.2.1", "sha-0123456789ab"]);
    // Its file can be looked into.
    if tools::need("skopeo", "skopeo") {
        project.run("skopeo", &["copy", "oci:registry:foreign", "oci-archive:target/foreign.tar"]);
        let shown = project.json(&["image", "inspect", "--archive", "target/foreign.tar", "--json"]);
        let holds: Vec<_> =
            shown["layers"].as_array().unwrap().iter().map(|layer| layer["holds"].clone()).collect();
        assert!(
            holds.contains(&json!(["/app", "/data", "/etc", "/tmp"])) && holds.contains(&json!(["/bin"])),
            "{holds:?}"
        );
    }
    // What is no image that runs is not shown as one, but can be named.
    let mut artifact = layout.read(&digest);
    artifact["config"] = layout.put("application/vnd.oci.empty.v1+json", &json!({}));
    layout.tag("artifact", &layout.put(MANIFEST, &artifact));
    let said = project.fails(3, &["image", "inspect", "artifact"]);
    assert!(said.contains("application/vnd.oci.empty.v1+json"), "{said}");
    project.ok(&["image", "retag", "artifact", "v9.0.0"]);
}

#[test]
fn what_each_layer_holds_is_told() {
    let (project, _) = pushed();
    for reference in [vec![], vec![project.sha_tag()]] {
        let args: Vec<_> =
            ["image", "inspect", "--json"].into_iter().chain(reference.iter().map(String::as_str)).collect();
        let shown = project.json(&args);
        let layers = shown["layers"].as_array().unwrap();
        let stored = if reference.is_empty() { Value::Null } else { json!("gzip") };
        assert!(layers.iter().all(|layer| layer["compression"] == stored), "{shown}");
        let sizes: Vec<_> = layers.iter().map(|layer| layer["size"].as_u64().unwrap()).collect();
        assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
        assert_eq!(shown["size"], sizes.iter().sum::<u64>());
        let holds: Vec<_> = layers.iter().map(|layer| layer["holds"][0].as_str().unwrap()).collect();
        for expected in ["dojo-0.1.0", "users and folders"] {
            assert!(holds.contains(&expected), "{holds:?}");
        }
        assert!(holds.iter().any(|holds| holds.contains("libc.so.6")), "{holds:?}");
    }
    let shown = project.ok(&["image", "inspect"]);
    assert!(
        shown.contains("entrypoint     /bin/dojo\n") && shown.contains("env            PATH=/bin\n"),
        "{shown}"
    );
    assert!(shown.lines().any(|line| line.contains(" %  -       dojo-0.1.0")), "{shown}");
    let shown = project.ok(&["image", "inspect", &project.sha_tag()]);
    assert!(shown.lines().any(|line| line.contains(" %  gzip    dojo-0.1.0")), "{shown}");
}

#[test]
fn a_diff_tells_what_changed_and_the_bytes_to_pull() {
    let (project, first) = pushed();
    let same = project.ok(&["image", "diff", &first, &project.sha_tag()]);
    assert!(same.contains("the same image: nothing to pull"), "{same}");
    assert_eq!(project.json(&["image", "diff", &first, &first, "--json"])["bytes_to_pull"], 0);

    let old = project.sha_tag();
    change(&project, "fn main() { println!(\"changed\"); }\n");
    let pushed = project.json(&["image", "push", "--json"]);
    let second = pushed["digest"].as_str().unwrap();
    let layout = Layout::of(&project);
    let altered = layout.altered(second, |config| {
        config["config"]["Env"] = json!(["PATH=/bin", "ADDED=1"]);
        config["config"]["User"] = json!("0:0");
    });
    layout.tag("altered", &altered);
    let diff = project.json(&["image", "diff", &old, "altered", "--json"]);
    let change = |what: &str| {
        diff["changes"].as_array().unwrap().iter().find(|change| change["what"] == what).cloned()
    };
    assert_eq!(change("user").unwrap()["from"], "1000:1000");
    assert_eq!(change("env ADDED").unwrap(), json!({ "what": "env ADDED", "from": null, "to": "1" }));
    assert_eq!(change("env DOJO_ENV").unwrap()["to"], Value::Null);
    let commit = project.run("git", &["rev-parse", "HEAD"]);
    assert_eq!(change("label revision").unwrap()["to"], commit.as_str());
    assert!(change("entrypoint").is_none() && change("env PATH").is_none(), "{diff}");

    let fate = |fate: &str| {
        let layers = diff["layers"].as_array().unwrap().iter().filter(|layer| layer["is"] == fate);
        layers.map(|layer| layer["holds"][0].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((fate("new"), fate("gone")), (vec!["dojo-0.1.0".to_owned()], vec!["dojo-0.1.0".to_owned()]));
    assert!(fate("kept").contains(&"users and folders".to_owned()));
    // The new layer, the config and the manifest.
    let manifest = layout.read(altered["digest"].as_str().unwrap());
    let new = diff["layers"].as_array().unwrap().iter().find(|layer| layer["is"] == "new").unwrap()["size"]
        .as_u64();
    let rest = manifest["config"]["size"].as_u64().unwrap() + altered["size"].as_u64().unwrap();
    assert_eq!(diff["bytes_to_pull"].as_u64(), Some(new.unwrap() + rest));
    let shown = project.ok(&["image", "diff", &old, "altered"]);
    assert!(shown.contains("1 of 4 layers") || shown.contains("1 of 3 layers"), "{shown}");
}

/// A verb on the images of one repository.
fn at<'a>(args: &[&'a str], repository: &'a str) -> Vec<&'a str> {
    [&["image"], args, &["--repository", repository]].concat()
}

#[test]
fn an_index_is_one_image_with_several_platforms() {
    let (project, image) = pushed();
    let index = Layout::of(&project).index("multi", &image, |_| {});
    let told = project.ok(&["image", "retag", "multi", "v0.1.0", "nightly"]);
    assert!(told.contains(&index), "{told}");
    let mut places = vec!["oci:registry".to_owned()];
    let registry = (tools::need("docker-registry", "docker-registry") && tools::need("skopeo", "skopeo"))
        .then(|| {
            let registry = Registry::open();
            places.push(registry.repository("dojo"));
            let to = format!("docker://{}:v0.1.0", places[1]);
            project.run("skopeo", &["copy", "--all", "--dest-tls-verify=false", "oci:registry:v0.1.0", &to]);
            registry
        });
    for place in &places {
        project.ok(&at(&["retag", &index, "v0.2.0", "edge"], place));
        let here = project.json(&at(&["inspect", "v0.2.0", "--json"], place));
        assert_eq!((&here["digest"], &here["media_type"]), (&json!(index), &json!(INDEX)));
        assert_eq!(here["platform"], format!("linux/{}", machine()));
        let platforms: Vec<_> =
            here["platforms"].as_array().unwrap().iter().map(|entry| entry["platform"].clone()).collect();
        assert_eq!(platforms, [json!("linux/riscv64"), json!(format!("linux/{}", machine()))]);
        let other = project.json(&at(&["inspect", "edge", "--platform", "linux/riscv64", "--json"], place));
        assert_eq!((&other["digest"], &other["platform"]), (&json!(index), &json!("linux/riscv64")));
        assert_ne!(other["image"], here["image"]);
        let said = project.fails(3, &at(&["inspect", "edge", "--platform", "linux/s390x"], place));
        assert!(said.contains("no image for linux/s390x") && said.contains("linux/riscv64"), "{said}");
        assert!(project.ok(&at(&["inspect", "edge"], place)).contains("PLATFORM"));
        let diff = project.ok(&at(&["diff", "edge", "v0.1.0"], place));
        assert!(diff.contains("the same image"), "{diff}");
    }
    drop(registry);
    let said = project.fails(3, &["image", "inspect", &image, "--platform", "linux/riscv64"]);
    assert!(said.contains(&format!("is for linux/{}", machine())), "{said}");
}

#[test]
fn an_index_for_other_machines_can_be_promoted_from_here_and_not_run() {
    let (project, image) = pushed();
    let layout = Layout::of(&project);
    let mut other = layout.altered(&image, |config| config["architecture"] = json!("riscv64"));
    other["platform"] = json!({ "os": "linux", "architecture": "riscv64", "variant": "v1" });
    let index = json!({ "schemaVersion": 2, "manifests": [other] });
    layout.tag("elsewhere", &layout.put(INDEX, &index));
    project.ok(&["image", "retag", "elsewhere", &project.sha_tag().replace("sha-", "try-"), "v0.1.0"]);
    let shown = project.json(&["image", "inspect", "v0.1.0", "--json"]);
    assert_eq!(shown["labels"]["revision"], project.run("git", &["rev-parse", "HEAD"]).as_str());
    assert_eq!(shown["platforms"][0]["platform"], "linux/riscv64/v1");
    let said = project.fails(3, &["image", "load", "v0.1.0"]);
    assert!(said.contains(&format!("no image for linux/{}", machine())), "{said}");
}

#[test]
fn an_index_whose_images_disagree_gets_no_fixed_name() {
    let (project, image) = pushed();
    let layout = Layout::of(&project);
    let commit = project.run("git", &["rev-parse", "HEAD"]);
    let other = "f".repeat(40);
    let mixed = layout.index("mixed", &image, |config| {
        config["config"]["Labels"]["org.opencontainers.image.revision"] = json!(other);
    });
    project.ok(&["image", "retag", "mixed", "try"]);
    for tag in ["v0.1.0", "sha-ffffffffffff"] {
        let said = project.fails(3, &["image", "retag", "mixed", tag]);
        assert!(said.contains("do not agree") && said.contains(&commit) && said.contains(&other), "{said}");
    }
    if tools::need("skopeo", "skopeo") {
        project.run("skopeo", &["copy", "--all", "oci:registry:mixed", "oci:target/mixed:mixed"]);
        let push = |tag| {
            let to = "oci:target/elsewhere";
            ["image", "push", "--archive", "target/mixed", "--repository", to, "--json", "--tag", tag]
        };
        assert!(project.fails(3, &push("v0.1.0")).contains("do not agree"));
        assert!(!project.path("target/elsewhere").exists(), "something was sent before");
        assert_eq!(project.json(&push("try"))["digest"], mixed.as_str());
    }
}

/// A project with an infra repository, both with a remote, whose staging accepts `edge` and commits.
fn with_infra() -> (Project, String) {
    let (project, image) = pushed();
    let git = |args: &[&str]| project.run("git", args);
    fs::create_dir_all(project.path("target/infra")).unwrap();
    let infra = project.path("target/infra.git");
    let infra = infra.to_str().unwrap();
    git(&["init", "--quiet", "--bare", "--initial-branch=main", infra]);
    git(&["init", "--quiet", "--bare", "--initial-branch=master", "target/project.git"]);
    git(&["remote", "add", "origin", project.path("target/project.git").to_str().unwrap()]);
    let kustomization = "resources:\n  - https://github.com/blogle/dojo//deploy/k8s/overlays/staging?ref=v0.0.0\n\
        images:\n  - name: ghcr.io/blogle/dojo\n    newTag: v0.0.0\n    digest: \
        sha256:0000000000000000000000000000000000000000000000000000000000000000\n";
    let pipeline = fs::read_to_string(project.path("deploy/pipeline.yaml")).unwrap();
    let pipeline = pipeline
        .replace("git@example.com:infra.git", infra)
        .replace("https://staging.example.com", "http://127.0.0.1:1")
        .replace("accepts: [edge]", "accepts: [edge, sha]");
    let work = project.path("target/infra");
    let in_infra = |args: &[&str]| project::run("git", args, &work);
    in_infra(&["init", "--quiet", "--initial-branch=main"]);
    fs::write(work.join("staging.yaml"), kustomization).unwrap();
    in_infra(&["add", "--all"]);
    in_infra(&[
        "-c",
        "user.name=Test",
        "-c",
        "user.email=test@example.com",
        "commit",
        "--quiet",
        "-m",
        "start",
    ]);
    in_infra(&["push", "--quiet", infra, "main"]);
    git(&["push", "--quiet", "origin", "master"]);
    fs::write(project.path("deploy/pipeline.yaml"), pipeline).unwrap();
    (project, image)
}

#[test]
fn a_promotion_pins_the_index_itself() {
    let (project, image) = with_infra();
    let index = Layout::of(&project).index("edge", &image, |_| {});
    let args = ["promote", "staging", "edge", "--yes", "--file-schema", "3"];
    let mut promote = project.xtask(&args);
    for (name, value) in [("NAME", "Test"), ("EMAIL", "test@example.com")] {
        promote.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
    }
    project::succeeded(&args, &promote.output().unwrap());
    let pinned = project.run("git", &["-C", "target/infra.git", "show", "main:staging.yaml"]);
    assert!(pinned.contains(&format!("digest: {index}")), "{pinned}");
    assert!(pinned.contains(&format!("newTag: {}", project.sha_tag())), "{pinned}");

    Layout::of(&project).index("mixed", &image, |config| {
        config["config"]["Labels"]["dojo.schema"] = json!("4");
    });
    project.ok(&["image", "retag", "mixed", "edge"]);
    let said = project.fails(3, &["promote", "staging", "edge", "--yes", "--file-schema", "3"]);
    assert!(
        said.contains("do not agree") && said.contains("schema 2-3") && said.contains("schema 2-4"),
        "{said}"
    );
}
