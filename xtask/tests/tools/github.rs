//! A GitHub on loopback that keeps state: `emulate` behind `prism`, which holds each request against GitHub's published
//! description, and what both lack in front of them (`github/answers.rs`, `github/actions.rs`). One for all tests of a
//! binary, with a repository for each.
//!
//! The way of a request: the gate, which remembers what prism objects to; prism; our answers; emulate.

#![allow(dead_code, reason = "each test uses a part of it")]

#[path = "github/actions.rs"]
mod actions;
#[path = "github/answers.rs"]
mod answers;
#[path = "github/mirror.rs"]
mod mirror;
#[path = "github/pulls.rs"]
mod pulls;
#[path = "github/services.rs"]
mod services;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use serde_json::{Value, json};
use tempfile::TempDir;

pub use actions::Run;
pub use answers::Access;
use answers::{Hosted, refusal};
use mirror::Mirror;
use services::{Service, relay};

use crate::server::{Answer, Request, Server};
use crate::tools;

pub const OWNER: &str = "blogle";

type Shared = Arc<Mutex<Hosted>>;
type Repositories = Arc<Mutex<HashMap<String, Shared>>>;

/// One exchange at the gate or the host for uploads.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// METHOD PATH
    pub line: String,
    pub status: u16,
    /// What prism objected to in the request, and then in the answer.
    pub violations: Vec<String>,
    pub complaints: Vec<String>,
}

pub struct GitHub {
    emulate: Service,
    gate: Server,
    uploads: Server,
    repositories: Repositories,
    log: Arc<Mutex<Vec<Exchange>>>,
    _prism: Service,
    _front: Server,
    _folder: TempDir,
}

/// A published release, or a draft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub id: u64,
    pub tag: String,
    pub draft: bool,
    pub prerelease: bool,
    pub body: String,
    /// Of those whose upload ended well.
    pub assets: BTreeMap<String, Vec<u8>>,
}

/// A repository on it, seen past what the product is told.
pub struct Repository {
    /// OWNER/NAME
    pub name: String,
    github: &'static GitHub,
    hosted: Shared,
}

/// Whether this machine can play GitHub.
pub fn possible() -> bool {
    tools::need("emulate", "emulate from npm")
        && tools::need("prism", "@stoplight/prism-cli and @octokit/openapi from npm")
        && tools::need("git", "git")
}

impl GitHub {
    /// The one of this process.
    pub fn here() -> &'static Self {
        static HERE: OnceLock<GitHub> = OnceLock::new();
        HERE.get_or_init(Self::start)
    }

    fn start() -> Self {
        let (folder, log, repositories) =
            (tempfile::tempdir().unwrap(), Arc::default(), Repositories::default());
        let address = services::free();
        let gate = gate(address, Arc::clone(&log));
        let mut emulate = Service::emulate(&folder, OWNER, &gate.url());
        let hosted = Arc::clone(&repositories);
        let front = Server::start(move |request| api(&hosted, request));
        let mut prism = Service::prism(&folder, address, &front.url());
        let hosted = Arc::clone(&repositories);
        let uploads = logged(Arc::clone(&log), move |request| upload(&hosted, request));
        emulate.wait();
        prism.wait();
        Self { emulate, gate, uploads, repositories, log, _prism: prism, _front: front, _folder: folder }
    }

    /// What `github.api` of `deploy/pipeline.yaml` is told, if nothing stands between.
    pub fn api(&self) -> String {
        self.gate.url()
    }

    /// What `github.uploads` is told.
    pub fn uploads(&self) -> String {
        self.uploads.url()
    }

    /// A new one for the commits and branches in `bare`, which it follows from then on.
    pub fn host(&'static self, bare: &Path, tokens: &[(&str, Access)]) -> Repository {
        let mut repositories = self.repositories.lock().unwrap();
        let name = format!("{OWNER}/dojo-{}", repositories.len() + 1);
        let mirror = Mirror::new(self.emulate.address, &name, bare);
        let tokens = tokens.iter().map(|(token, access)| ((*token).to_owned(), *access)).collect();
        let mut hosted = Hosted::new(mirror, tokens);
        hosted.actions.uploads = self.uploads();
        let hosted = Arc::new(Mutex::new(hosted));
        repositories.insert(name.clone(), Arc::clone(&hosted));
        Repository { name, github: self, hosted }
    }
}

impl Repository {
    fn now(&self) -> MutexGuard<'_, Hosted> {
        let mut hosted = self.hosted.lock().unwrap();
        hosted.mirror.follow();
        hosted
    }

    /// `conclusion` is for those that are `completed`, and may be a word that nobody knows.
    pub fn set_check(&self, sha: &str, name: &str, status: &str, conclusion: Option<&str>) {
        let known = ["success", "failure", "neutral", "cancelled", "skipped", "timed_out", "action_required"];
        let unknown = conclusion.filter(|conclusion| !known.contains(conclusion));
        let conclusion = if unknown.is_some() { Some("neutral") } else { conclusion };
        let run = json!({ "name": name, "head_sha": sha, "status": status, "conclusion": conclusion,
            "details_url": format!("{}/{}/runs/{name}", self.github.api(), self.name) });
        let mut hosted = self.now();
        let made = hosted.mirror.tell("POST", "/check-runs", &run);
        assert_eq!(made.status, 201, "{}", made.json());
        if let Some(unknown) = unknown {
            hosted.conclusions.insert(made.json()["id"].as_u64().unwrap(), unknown.to_owned());
        }
    }

    /// All of them, drafts too, the oldest first.
    pub fn releases(&self) -> Vec<Release> {
        let hosted = self.now();
        let mut releases: Vec<_> = hosted.releases().iter().map(|release| shown(release, &hosted)).collect();
        releases.sort_by_key(|release| release.id);
        releases
    }

    pub fn pulls(&self) -> Vec<Value> {
        let request = Request {
            method: "GET".into(),
            path: format!("/repos/{}/pulls?state=all", self.name),
            ..Request::default()
        };
        let hosted = self.now();
        hosted.dressed(hosted.mirror.relay(&request).json()).as_array().unwrap().clone()
    }

    /// From now on what is published can be changed, as GitHub has it unless it is told otherwise.
    pub fn unlock_releases(&self) {
        self.now().mutable = true;
    }

    /// What a person does on GitHub's pages; `path` comes after the repository's name.
    pub fn by_hand(&self, method: &str, path: &str, body: &Value) -> Value {
        let request = Request {
            method: method.into(),
            path: format!("/repos/{}/{path}", self.name),
            body: if body.is_null() { Vec::new() } else { body.to_string().into_bytes() },
            ..Request::default()
        };
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let parts: Vec<_> = path.split('/').collect();
        let answer = self.now().answer(&request, &parts, query);
        assert!(answer.status() < 300, "{method} {path}: {}", answer.status());
        serde_json::from_slice(answer.content()).unwrap_or_default()
    }

    /// From now on the branch takes changes by pull request only; git's side is for its own server to say.
    pub fn protect(&self, branch: &str) {
        self.now().protected.insert(branch.to_owned());
    }

    /// Merges as GitHub's buttons do: merge, squash (also of others) or rebase (of one commit). Gives the branch's new commit.
    pub fn merge(&self, number: u64, how: &str) -> String {
        self.now().merge(number, how, None)
    }

    /// From now on GitHub says this when somebody asks it to merge.
    pub fn refuse_merges(&self, words: Option<&str>) {
        self.now().unmergeable = words.map(str::to_owned);
    }

    /// Whether the ways of merging are allowed: squash, rebase.
    pub fn allow(&self, squash: bool, rebase: bool) {
        let settings = json!({ "allow_squash_merge": squash, "allow_rebase_merge": rebase });
        assert_eq!(self.now().mirror.tell("PATCH", "", &settings).status, 200);
    }

    /// `refs/pull/N/merge`, which GitHub keeps for the jobs of a pull request: what merging it now would come to.
    pub fn merge_ref(&self, number: u64) -> String {
        self.now().merge_ref(number)
    }

    /// The workflow starts for a push of this branch or tag; gives the run's id.
    pub fn start_run(&self, name: &str) -> u64 {
        self.start_run_of("ci.yml", name)
    }

    /// Another workflow starts for it.
    pub fn start_run_of(&self, workflow: &str, name: &str) -> u64 {
        let mut hosted = self.now();
        let sha = hosted.mirror.commit(name).unwrap();
        hosted.actions.add(workflow, "push", name, &sha)
    }

    pub fn end_run(&self, id: u64, conclusion: &str) {
        let mut hosted = self.now();
        let run = hosted.actions.run(id);
        (run.status, run.conclusion) = ("completed".into(), Some(conclusion.to_owned()));
    }

    /// Whether runs that were started again show as they were.
    pub fn be_slow(&self, slow: bool) {
        self.now().actions.slow = slow;
    }

    pub fn runs(&self) -> Vec<Run> {
        self.now().actions.runs.clone()
    }

    /// What Actions was asked for, in this order: `dispatch REF` or `rerun ID`.
    pub fn asked(&self) -> Vec<String> {
        self.now().actions.asked.clone()
    }

    /// Each exchange about this repository, in this order.
    pub fn exchanges(&self) -> Vec<Exchange> {
        let name = format!("/repos/{}", self.name);
        let ours = |line: &str| {
            line.split_once(&name).is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with(['/', '?']))
        };
        let log = self.github.log.lock().unwrap();
        log.iter().filter(|exchange| ours(&exchange.line)).cloned().collect()
    }

    /// What was asked otherwise than GitHub's description has it.
    pub fn violations(&self) -> Vec<String> {
        let all = self.exchanges().into_iter();
        all.flat_map(|exchange| {
            exchange.violations.into_iter().map(move |what| format!("{}: {what}", exchange.line))
        })
        .collect()
    }
}

fn shown(release: &Value, hosted: &Hosted) -> Release {
    let assets = release["assets"].as_array().unwrap().iter().filter_map(|asset| {
        let bytes = hosted.assets.get(&asset["id"].as_u64()?)?.clone()?;
        Some((asset["name"].as_str()?.to_owned(), bytes))
    });
    Release {
        id: release["id"].as_u64().unwrap(),
        tag: release["tag_name"].as_str().unwrap().to_owned(),
        draft: release["draft"] == true,
        prerelease: release["prerelease"] == true,
        body: release["body"].as_str().unwrap_or_default().to_owned(),
        assets: assets.collect(),
    }
}

/// Writes down what prism says, and takes it out of the answers.
fn gate(prism: SocketAddr, log: Arc<Mutex<Vec<Exchange>>>) -> Server {
    Server::start(move |request| {
        if !request.is_whole() {
            return Answer::new(400);
        }
        let relayed = relay(&prism, request, &[]);
        let all: Value =
            relayed.header("sl-violations").map_or(json!([]), |text| serde_json::from_str(text).unwrap());
        let (mut violations, mut complaints) = (Vec::new(), Vec::new());
        for one in all.as_array().unwrap() {
            // Prism takes no body for an empty text, also where none need be sent.
            if request.body.is_empty() && one["location"] == json!(["request", "body"]) {
                continue;
            }
            if one["location"][0] == "request" { &mut violations } else { &mut complaints }
                .push(one.to_string());
        }
        let line = format!("{} {}", request.method, request.path);
        log.lock().unwrap().push(Exchange { line, status: relayed.status, violations, complaints });
        let location = relayed.header("redirect-to");
        location.map_or_else(|| relayed.answer(), |location| Answer::new(302).header("Location", location))
    })
}

fn logged(
    log: Arc<Mutex<Vec<Exchange>>>,
    answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
) -> Server {
    Server::start(move |request| {
        let answer = answer(request);
        let line = format!("{} {}", request.method, request.path);
        let (violations, complaints) = (Vec::new(), Vec::new());
        log.lock().unwrap().push(Exchange { line, status: answer.status(), violations, complaints });
        answer
    })
}

/// The repository that a path names, and what comes after it.
fn found<'a>(repositories: &Repositories, path: &'a str, kind: &str) -> Option<(Shared, Vec<&'a str>)> {
    let mut parts = path.strip_prefix(kind)?.split('/');
    let name = format!("{}/{}", parts.next()?, parts.next()?);
    Some((Arc::clone(repositories.lock().unwrap().get(&name)?), parts.collect()))
}

fn api(repositories: &Repositories, request: &Request) -> Answer {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let Some((hosted, rest)) = found(repositories, path, "/repos/") else {
        return refusal(404, "Not Found");
    };
    let mut hosted = hosted.lock().unwrap();
    hosted.barred(request).unwrap_or_else(|| hosted.answer(request, &rest, query))
}

/// The host that takes assets; and it gives them, without a token, as signed URLs of a storage do.
fn upload(repositories: &Repositories, request: &Request) -> Answer {
    let (path, _) = request.path.split_once('?').unwrap_or((&request.path, ""));
    if let Some((hosted, rest)) = found(repositories, path, "/objects/") {
        if request.authorization.is_some() {
            return Answer::new(400).body("Only one auth mechanism allowed");
        }
        let hosted = hosted.lock().unwrap();
        let bytes = rest[0].parse().ok().and_then(|id: u64| hosted.assets.get(&id)).and_then(Option::as_ref);
        return bytes.map_or(Answer::new(404), |bytes| {
            Answer::new(200).header("Content-Type", "application/octet-stream").body(bytes)
        });
    }
    let Some((hosted, rest)) = found(repositories, path, "/repos/") else {
        return refusal(404, "Not Found");
    };
    let mut hosted = hosted.lock().unwrap();
    if let Some(barred) = hosted.barred(request) {
        return barred;
    }
    match (request.method.as_str(), rest.as_slice()) {
        ("POST", ["releases", id, "assets"]) => hosted.upload(request, id),
        _ => refusal(404, "Not Found"),
    }
}
