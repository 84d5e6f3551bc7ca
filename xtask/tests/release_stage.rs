//! The stage that releases are proven on behaves as GitHub and its git do, as far as a release notices.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/docker_archive.rs"]
mod docker_archive;
#[path = "tools/git_http.rs"]
mod git_http;
#[path = "tools/github.rs"]
mod github;
#[path = "tools/project.rs"]
mod project;
#[path = "tools/server.rs"]
mod server;
mod tools;

use git_http::{Login, Remote, credentials};
use github::{Access, GitHub, OWNER, Repository};
use project::Project;
use serde_json::{Value, json};

const TOKEN: &str = "ghp_write";
const READER: &str = "ghp_read";

/// A project, its remote, and its repository on GitHub.
struct Stage {
    project: Project,
    remote: Remote,
    repository: Repository,
    github: &'static GitHub,
}

impl Stage {
    fn new() -> Self {
        let logins =
            [(TOKEN, true), (READER, false)].map(|(token, push)| Login { token: token.into(), push });
        let remote = Remote::start("blogle/dojo", logins.into());
        let project = Project::new();
        let github = GitHub::here();
        let repository = github.host(&remote.bare(), &[(TOKEN, Access::Write), (READER, Access::Read)]);
        let stage = Self { project, remote, repository, github };
        stage.project.run("git", &["remote", "add", "origin", &stage.remote.url(&stage.remote.server.host)]);
        stage.git(TOKEN, &["push", "--quiet", "origin", "master"]).unwrap();
        stage
    }

    /// Git in the project with this token: what it said if it refused.
    fn git(&self, token: &str, args: &[&str]) -> Result<String, String> {
        let home = tempfile::tempdir().unwrap();
        let mut command = std::process::Command::new("git");
        command.args(args).current_dir(self.project.folder.path());
        command.envs(credentials(home.path(), &self.remote.server.host, token));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(String::from_utf8(output.stdout).unwrap()) } else { Err(said) }
    }

    fn head(&self) -> String {
        self.project.run("git", &["rev-parse", "HEAD"])
    }

    /// A call of the API with this token: its status and body.
    fn call_as(&self, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}/repos/{}{path}", self.github.api(), self.repository.name);
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let (status, _, answer) = send(token, method, &url, "application/json", bytes);
        (status, serde_json::from_slice(&answer).unwrap_or_default())
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.call_as(TOKEN, method, path, body)
    }

    fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, &Value::Null);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    fn upload(&self, release: &Value, name: &str, bytes: &[u8]) -> (u16, Value) {
        let path = format!("/repos/{}/releases/{release}/assets?name={name}", self.repository.name);
        let url = format!("{}{path}", self.github.uploads());
        let (status, _, answer) = send(TOKEN, "POST", &url, "application/octet-stream", bytes.to_vec());
        (status, serde_json::from_slice(&answer).unwrap_or_default())
    }
}

fn send(token: &str, method: &str, url: &str, kind: &str, body: Vec<u8>) -> (u16, Option<String>, Vec<u8>) {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build();
    let request = ureq::http::Request::builder().method(method).uri(url).header("User-Agent", "test");
    let request =
        if token.is_empty() { request } else { request.header("Authorization", format!("Bearer {token}")) };
    let accept = if method == "GET" { kind } else { "application/json" };
    let request = request.header("Accept", accept);
    let agent = ureq::Agent::new_with_config(agent);
    let sent = if body.is_empty() {
        agent.run(request.body(()).unwrap())
    } else {
        agent.run(request.header("Content-Type", kind).body(body).unwrap())
    };
    let mut answer = sent.unwrap();
    let location = answer.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
    (answer.status().as_u16(), location, answer.body_mut().read_to_vec().unwrap())
}

#[test]
fn checks_are_those_of_a_commit_that_was_pushed() {
    if !github::possible() {
        return;
    }
    let stage = Stage::new();
    let path = format!("/commits/{}/check-runs", stage.head());
    assert_eq!(stage.get(&path)["total_count"], 0);
    stage.repository.set_check(&stage.head(), "test", "in_progress", None);
    stage.repository.set_check(&stage.head(), "test", "completed", Some("failure"));
    stage.repository.set_check(&stage.head(), "build", "queued", None);
    let all = stage.get(&path);
    assert_eq!(all["total_count"], 2);
    let runs = all["check_runs"].as_array().unwrap();
    let test = runs.iter().find(|run| run["name"] == "test").unwrap();
    assert_eq!([&test["status"], &test["conclusion"]], ["completed", "failure"]);
    assert_eq!(stage.get(&format!("{path}?per_page=1&page=2"))["check_runs"].as_array().unwrap().len(), 1);
    let unknown = format!("/commits/{:040}/check-runs", 7);
    assert_eq!(stage.call("GET", &unknown, &Value::Null).0, 422);
    assert_eq!(stage.get("/branches/master")["commit"]["sha"], stage.head());
    assert_eq!(stage.repository.violations(), [""; 0]);
    let complaints: Vec<_> =
        stage.repository.exchanges().into_iter().flat_map(|one| one.complaints).collect();
    assert!(complaints.iter().all(|what| what.contains("status code")), "{complaints:#?}");
}

#[test]
fn a_token_is_good_for_what_it_was_given_for() {
    if !github::possible() {
        return;
    }
    let stage = Stage::new();
    let release = json!({ "tag_name": "v0.2.0", "draft": true });
    for token in ["", "ghp_wrong"] {
        assert_eq!(stage.call_as(token, "GET", "/releases", &Value::Null).0, 401);
        let said = stage.git(token, &["ls-remote", "origin"]).unwrap_err();
        assert!(said.contains("Authentication failed") || said.contains("could not read"), "{said}");
    }
    assert_eq!(stage.call_as(READER, "GET", "/releases", &Value::Null).0, 200);
    assert_eq!(stage.call_as(READER, "POST", "/releases", &release).0, 403);
    stage.git(READER, &["ls-remote", "origin"]).unwrap();
    stage.project.commit("more");
    assert!(stage.git(READER, &["push", "origin", "master"]).unwrap_err().contains("403"));
    assert!(stage.repository.releases().is_empty());
}

#[test]
fn tags_stay_and_branches_are_never_forced() {
    if !github::possible() {
        return;
    }
    let stage = Stage::new();
    let first = stage.head();
    stage
        .project
        .run("git", &["-c", "user.name=T", "-c", "user.email=t@e", "tag", "-am", "v0.2.0", "v0.2.0"]);
    stage.git(TOKEN, &["push", "--quiet", "origin", "v0.2.0"]).unwrap();
    stage.project.commit("more");
    stage.git(TOKEN, &["push", "--quiet", "origin", "master"]).unwrap();
    for refused in [
        &["push", "--force", "origin", "HEAD:refs/tags/v0.2.0"][..],
        &["push", "origin", ":refs/tags/v0.2.0"],
        &["push", "--force", "origin", &format!("{first}:refs/heads/master")],
    ] {
        let said = stage.git(TOKEN, refused).unwrap_err();
        assert!(said.contains("pre-receive hook declined") && said.contains("remote: error: GH0"), "{said}");
    }
    stage.git(TOKEN, &["push", "--quiet", "origin", "HEAD:refs/heads/release/0.2"]).unwrap();
    let series = stage.get("/branches/release%2F0.2");
    assert_eq!((&series["name"], &series["protected"]), (&json!("release/0.2"), &json!(false)));
    assert_eq!(stage.repository.violations(), [""; 0]);
    stage.remote.protect("master");
    stage.repository.protect("master");
    stage.project.commit("and more");
    let said = stage.git(TOKEN, &["push", "origin", "master"]).unwrap_err();
    assert!(
        said.contains("remote: error: GH006: Protected branch update failed for refs/heads/master."),
        "{said}"
    );
    assert_eq!(stage.get("/branches/master")["protected"], true);
}

#[test]
fn a_pull_request_follows_its_branch_and_really_merges() {
    if !github::possible() {
        return;
    }
    for how in ["merge", "squash", "rebase"] {
        let stage = Stage::new();
        let before = stage.head();
        stage.project.commit("release: v0.2.0");
        let pull =
            json!({ "title": "release: v0.2.0", "head": "prepare/v0.2.0", "base": "master", "body": "" });
        assert_eq!(stage.call("POST", "/pulls", &pull).0, 422, "no such branch yet");
        stage.git(TOKEN, &["push", "--quiet", "origin", "HEAD:refs/heads/prepare/v0.2.0"]).unwrap();
        let (status, made) = stage.call("POST", "/pulls", &pull);
        assert_eq!((status, &made["head"]["sha"]), (201, &json!(stage.head())), "{made}");
        assert_eq!(stage.call("POST", "/pulls", &pull).0, 422, "there is one already");
        stage.project.commit("amended");
        stage
            .git(
                TOKEN,
                &["push", "--quiet", "--force", "origin", &format!("{before}:refs/heads/prepare/v0.2.0")],
            )
            .unwrap();
        stage.git(TOKEN, &["push", "--quiet", "origin", "HEAD~1:refs/heads/prepare/v0.2.0"]).unwrap();
        let list = format!("/pulls?head={OWNER}:prepare/v0.2.0&state=all");
        assert_eq!(stage.get(&list)[0]["merged_at"], Value::Null);
        let merged = stage.repository.merge(made["number"].as_u64().unwrap(), how);
        let found = stage.get(&list);
        assert_eq!((&found[0]["state"], &found[0]["merge_commit_sha"]), (&json!("closed"), &json!(merged)));
        assert!(found[0]["merged_at"].is_string());
        assert_eq!(stage.remote.git(&["rev-parse", "refs/heads/master"]), merged);
        let parents = stage.remote.git(&["show", "--no-patch", "--format=%P", &merged]);
        assert_eq!(parents.split(' ').count(), if how == "merge" { 2 } else { 1 });
        assert_eq!(stage.repository.violations(), [""; 0]);
    }
}

#[test]
fn releases_are_drafts_first_and_locked_once_published() {
    if !github::possible() {
        return;
    }
    let stage = Stage::new();
    let draft = json!({ "tag_name": "v0.2.0", "name": "v0.2.0", "body": "notes", "draft": true });
    let (status, first) = stage.call("POST", "/releases", &draft);
    assert_eq!((status, &first["tag_name"]), (201, &json!("v0.2.0")), "{first}");
    let (status, second) = stage.call("POST", "/releases", &draft);
    assert_eq!(status, 201, "GitHub takes a second draft: {second}");
    assert_eq!(stage.call("GET", "/releases/tags/v0.2.0", &Value::Null).0, 404, "a draft has no tag");
    assert_eq!(stage.get("/releases").as_array().unwrap().len(), 2);

    let bytes: Vec<u8> = (0..=255).collect();
    let (status, asset) = stage.upload(&first["id"], "sbom.json", &bytes);
    assert_eq!((status, &asset["size"], &asset["state"]), (201, &json!(256), &json!("uploaded")), "{asset}");
    assert!(asset["digest"].as_str().unwrap().starts_with("sha256:40aff2e9"), "{asset}");
    assert_eq!(stage.upload(&first["id"], "sbom.json", b"other").0, 422, "a name is taken once");
    assert_eq!(stage.upload(&first["id"], "digest", b"sha256:1").0, 201);
    let own =
        format!("{}/repos/{}/releases/assets/{}", stage.github.api(), stage.repository.name, asset["id"]);
    let (status, location, _) = send(TOKEN, "GET", &own, "application/octet-stream", Vec::new());
    assert_eq!(status, 302);
    let location = location.unwrap();
    assert_eq!(send(TOKEN, "GET", &location, "*/*", Vec::new()).0, 400, "a signed URL takes no token");
    assert_eq!(send("", "GET", &location, "*/*", Vec::new()).2, bytes);

    let one = format!("/releases/{}", first["id"]);
    let (status, published) = stage.call("PATCH", &one, &json!({ "draft": false, "make_latest": "true" }));
    assert_eq!((status, &published["draft"]), (200, &json!(false)), "{published}");
    assert_eq!(stage.get("/releases/tags/v0.2.0")["id"], first["id"]);
    assert_eq!(
        stage.remote.git(&["cat-file", "-t", "v0.2.0"]),
        "commit",
        "GitHub makes the tag that is missing"
    );
    let other = format!("/releases/{}", second["id"]);
    assert_eq!(stage.call("PATCH", &other, &json!({ "draft": false })).0, 422, "one tag has one release");
    assert_eq!(stage.upload(&first["id"], "late", b"late").0, 422);
    let asset = format!("/releases/assets/{}", asset["id"]);
    assert_eq!(stage.call("DELETE", &asset, &Value::Null).0, 422);
    assert_eq!(stage.call("DELETE", &other, &Value::Null).0, 204);

    let all = stage.repository.releases();
    assert_eq!((all.len(), all[0].draft, all[0].tag.as_str()), (1, false, "v0.2.0"));
    assert_eq!(all[0].assets["sbom.json"], bytes);
    assert_eq!(all[0].assets.len(), 2);
    assert_eq!(stage.repository.violations(), [""; 0]);
}

#[test]
fn a_run_starts_again_when_it_failed_and_on_a_tag_that_has_none() {
    if !github::possible() {
        return;
    }
    let stage = Stage::new();
    let run = stage.repository.start_run("master");
    let (again, head) = (format!("/actions/runs/{run}/rerun-failed-jobs"), stage.head());
    assert_eq!(stage.call("POST", &again, &Value::Null).0, 403, "it has not ended");
    stage.repository.end_run(run, "failure");
    let list = stage.get(&format!("/actions/runs?head_sha={head}"));
    assert_eq!(list["workflow_runs"][0]["conclusion"], "failure");
    assert_eq!(stage.get(&format!("/actions/runs?head_sha={:040}", 7))["total_count"], 0);
    assert_eq!(stage.call("POST", &again, &Value::Null).0, 201);
    assert_eq!(stage.get(&format!("/actions/runs/{run}"))["run_attempt"], 2);
    let dispatch = "/actions/workflows/ci.yml/dispatches";
    assert_eq!(stage.call("POST", dispatch, &json!({ "ref": "v0.2.0" })).0, 422, "no such tag");
    stage.project.run("git", &["tag", "v0.2.0"]);
    stage.git(TOKEN, &["push", "--quiet", "origin", "v0.2.0"]).unwrap();
    assert_eq!(stage.call("POST", dispatch, &json!({ "ref": "v0.2.0" })).0, 204);
    assert_eq!(stage.repository.asked(), [format!("rerun {run}"), "dispatch v0.2.0".into()]);
    assert_eq!(stage.repository.runs()[1].head_sha, head);
    assert_eq!(stage.repository.violations(), [""; 0]);
    let complaints: Vec<_> =
        stage.repository.exchanges().into_iter().flat_map(|one| one.complaints).collect();
    assert!(complaints.iter().all(|what| what.contains("status code")), "{complaints:#?}");
}

#[test]
fn what_the_description_does_not_have_is_reported() {
    if !github::possible() {
        return;
    }
    let stage = Stage::new();
    stage.call("POST", "/releases", &json!({ "tag_name": "v0.2.0", "make_latest": true }));
    let violations = stage.repository.violations();
    assert!(violations.iter().any(|what| what.contains("make_latest must be string")), "{violations:#?}");
    stage.call("GET", "/stargazers", &Value::Null);
    assert!(stage.repository.violations().len() > violations.len());
}
