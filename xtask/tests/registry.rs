//! `image push|inspect` against Debian's docker-registry: open, with a password, with tokens; and against servers that
//! misbehave.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/docker_registry.rs"]
mod docker_registry;
#[path = "tools/dockerd.rs"]
mod dockerd;
#[path = "tools/project.rs"]
mod project;
#[path = "tools/server.rs"]
mod server;
mod tools;

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use docker_registry::{PASSWORD, Registry, USER};
use dockerd::Dockerd;
use project::{Project, failed, succeeded};
use serde_json::{Value, json};
use server::{Answer, Server};

fn tools() -> bool {
    tools::need("docker-registry", "docker-registry")
}

fn push(project: &Project, repository: &str, tag: &str) -> Value {
    project.json(&["image", "push", "--repository", repository, "--tag", tag, "--json"])
}

#[test]
fn a_push_arrives_once_and_can_be_named_again() {
    if !tools() {
        return;
    }
    let (registry, project) = (Registry::open(), Project::built());
    let repository = registry.repository("team/dojo");
    let absent = project.fails(3, &["image", "inspect", "edge", "--repository", &repository]);
    assert!(absent.contains("has no image edge"), "{absent}");

    let first = push(&project, &repository, "edge");
    let second = push(&project, &repository, "v0.1.0");
    assert_eq!(first["digest"], second["digest"]);
    assert_eq!(second["bytes_sent"], 0);
    // A layout folder gets the same digest: the bytes are the same everywhere.
    assert_eq!(project.json(&["image", "push", "--json"])["digest"], first["digest"]);
    let inspected = project.json(&["image", "inspect", "v0.1.0", "--repository", &repository, "--json"]);
    assert_eq!(inspected["labels"]["version"], "0.1.0");

    if tools::need("skopeo", "skopeo") {
        let source = format!("docker://{repository}:edge");
        project.run("skopeo", &["copy", "--src-tls-verify=false", &source, "oci:target/pulled:edge"]);
        let seen = project.run("skopeo", &["inspect", "--tls-verify=false", &source]);
        let seen: Value = serde_json::from_str(&seen).unwrap();
        assert_eq!(seen["Digest"], first["digest"]);
    }

    fs::write(project.path("dojo/src/main.rs"), "fn main() {}\n").unwrap();
    project.commit("change");
    project.ok(&["image", "build", "--builder", "cargo"]);
    let refusal = project.fails(3, &["image", "push", "--repository", &repository, "--tag", "v0.1.0"]);
    assert!(
        refusal.contains("never moves") && refusal.contains(first["digest"].as_str().unwrap()),
        "{refusal}"
    );
    assert_ne!(push(&project, &repository, "edge")["digest"], first["digest"]);
}

#[test]
fn a_registry_with_a_password_takes_dockers_and_no_token_of_github() {
    if !tools() {
        return;
    }
    let (registry, project) = (Registry::with_password(), Project::built());
    let repository = registry.repository("dojo");
    let args = ["image", "push", "--repository", &repository, "--tag", "edge"];
    let anonymous = project.xtask(&args).env("GITHUB_TOKEN", "gh-s3cret").output().unwrap();
    let said = failed(2, &args, &anonymous);
    assert!(
        said.contains(&registry.host) && said.contains("docker login") && said.contains("config.json"),
        "{said}"
    );
    assert!(!said.contains("gh-s3cret"), "{said}");

    project.log_in(&registry.host, USER, "wr0ng-password");
    let said = project.fails(2, &args);
    assert!(said.contains(USER) && said.contains("401"), "{said}");
    assert!(!said.contains("wr0ng-password"), "{said}");

    project.log_in(&registry.host, USER, PASSWORD);
    project.ok(&args);
    project.ok(&["image", "inspect", "edge", "--repository", &repository]);
}

#[test]
fn a_credential_helper_is_asked() {
    if !tools() {
        return;
    }
    let (registry, project) = (Registry::with_password(), Project::built());
    let folder = project.path("docker-config");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.json"), json!({ "credHelpers": { &registry.host: "test" } }).to_string())
        .unwrap();
    let helper = folder.join("docker-credential-test");
    let answer = json!({ "Username": USER, "Secret": PASSWORD, "ServerURL": "" });
    fs::write(&helper, format!("#!/bin/sh\ncat > /dev/null\necho '{answer}'\n")).unwrap();
    project.run("chmod", &["+x", helper.to_str().unwrap()]);
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let repository = registry.repository("dojo");
    let args = ["image", "push", "--repository", &repository, "--tag", "edge"];
    succeeded(&args, &project.xtask(&args).env("PATH", &path).output().unwrap());
    fs::write(&helper, "#!/bin/sh\ncat > /dev/null\necho helper-s3cret\necho helper-s3cret >&2\nexit 1\n")
        .unwrap();
    let said = failed(2, &args, &project.xtask(&args).env("PATH", &path).output().unwrap());
    assert!(said.contains("docker-credential-test") && !said.contains("helper-s3cret"), "{said}");
}

#[test]
fn a_registry_with_tokens_gets_them_from_its_realm() {
    if !tools() || !tools::need("openssl", "openssl") {
        return;
    }
    let (registry, project) = (Registry::with_tokens(), Project::built());
    let repository = registry.repository("team/dojo");
    let args = ["image", "push", "--repository", &repository, "--tag", "edge"];
    let said = project.fails(2, &args);
    assert!(said.contains("docker login"), "{said}");
    project.log_in(&registry.host, USER, PASSWORD);
    let before = registry.token_requests().len();
    project.ok(&args);
    project.ok(&["image", "inspect", "edge", "--repository", &repository]);
    let asked = registry.token_requests().split_off(before);
    assert!(asked.iter().any(|line| line.contains("pull%2Cpush") || line.contains("pull,push")), "{asked:?}");
    // The push reads what is there, then writes; the inspection reads.
    assert!(asked.len() == 3, "a token serves for many requests: {asked:?}");

    project.log_in(&registry.host, USER, "wr0ng-password");
    let said = project.fails(2, &args);
    assert!(said.contains("401") && !said.contains("wr0ng-password"), "{said}");
}

#[test]
fn a_token_that_runs_out_under_way_is_replaced() {
    let project = Project::built();
    let (tokens, uses) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let registry = Server::start(move |request| {
        if request.path.starts_with("/token") {
            let token = tokens.fetch_add(1, Ordering::SeqCst) + 1;
            uses.store(0, Ordering::SeqCst);
            return Answer::new(200).body(&json!({ "access_token": format!("token-{token}") }).to_string());
        }
        let current = format!("Bearer token-{}", tokens.load(Ordering::SeqCst));
        if request.authorization.as_ref() != Some(&current) || uses.fetch_add(1, Ordering::SeqCst) >= 10 {
            let challenge = format!(r#"Bearer realm="http://{}/token",service="x""#, request.host);
            return Answer::new(401).header("WWW-Authenticate", &challenge);
        }
        match request.method.as_str() {
            "POST" => Answer::new(202).header("Location", "/upload?state=1"),
            "PUT" => Answer::new(201),
            _ => Answer::new(404),
        }
    });
    project.ok(&["image", "push", "--repository", &registry.repository("dojo"), "--tag", "edge"]);
    let asked = registry.requests().iter().filter(|request| request.path.starts_with("/token")).count();
    assert!(asked >= 2, "the token was never replaced");
    let uploads: Vec<_> = registry.requests().into_iter().filter(|r| r.path.starts_with("/upload")).collect();
    assert!(
        uploads.iter().all(|upload| upload.path.starts_with("/upload?state=1&digest=sha256:")),
        "{uploads:?}"
    );
}

#[test]
fn a_push_that_was_killed_is_completed_by_the_next() {
    if !tools() {
        return;
    }
    let (registry, project) = (Registry::open(), Project::built());
    let repository = registry.repository("dojo");
    let args = ["image", "push", "--repository", &repository, "--tag", "edge"];
    for milliseconds in [30, 100, 200, 300, 400, 500] {
        let mut push = project.xtask(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        push.kill().unwrap();
        push.wait().unwrap();
    }
    project.ok(&args);
    project.ok(&["image", "inspect", "edge", "--repository", &repository]);
}

#[test]
fn only_a_plain_404_means_absent() {
    let project = Project::new();
    let inspect = |server: &Server, code| {
        let repository = server.repository("dojo");
        project.fails(code, &["image", "inspect", "edge", "--repository", &repository])
    };
    let json_404 = Server::start(|_| Answer::new(404).body(r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#));
    assert!(inspect(&json_404, 3).contains("has no image edge"));
    let page =
        Server::start(|_| Answer::new(404).header("Content-Type", "text/html; charset=utf-8").body("<html>"));
    assert!(inspect(&page, 3).contains("is this a container registry?"));
    for status in [503, 429] {
        let failing = Server::start(move |_| Answer::new(status));
        let said = inspect(&failing, 1);
        assert!(said.contains(&status.to_string()) && said.contains("/v2/dojo/manifests/edge"), "{said}");
        assert!(failing.requests().len() > 1, "it was tried once only");
    }
    let denied =
        Server::start(|_| Answer::new(403).body(r#"{"errors":[{"code":"DENIED","message":"not yours"}]}"#));
    assert!(inspect(&denied, 2).contains("DENIED: not yours"));
    let nobody = Server::start(|_| Answer::new(200));
    let repository = nobody.repository("dojo");
    drop(nobody);
    project.fails(1, &["image", "inspect", "edge", "--repository", &repository]);
}

#[test]
fn a_registry_that_stumbles_is_tried_again() {
    if !tools() {
        return;
    }
    let (registry, project) = (Registry::open(), Project::built());
    let repository = registry.repository("dojo");
    project.ok(&["image", "push", "--repository", &repository, "--tag", "edge"]);
    let manifest = registry.get("/v2/dojo/manifests/edge");
    let calls = AtomicUsize::new(0);
    let upstream = registry.host.clone();
    let stumbling = Server::start(move |request| {
        if calls.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
            return Answer::new(503);
        }
        Answer::new(307).header("Location", &format!("http://{upstream}{}", request.path))
    });
    let digest = format!(
        "sha256:{}",
        project::run(
            "sh",
            &["-c", &format!("printf %s '{manifest}' | sha256sum | cut -c1-64")],
            &project.path("")
        )
    );
    let inspected =
        project.json(&["image", "inspect", "edge", "--repository", &stumbling.repository("dojo"), "--json"]);
    assert_eq!(inspected["digest"], digest.as_str());
}

#[test]
fn credentials_stay_with_their_host_and_out_of_errors() {
    let project = Project::built();
    // It is where an upload and a redirect are sent on to, and must not learn who we are; it even asks.
    let thief = Server::start(|request| {
        let challenge = format!(r#"Bearer realm="http://{}/token""#, request.host);
        Answer::new(401).header("WWW-Authenticate", &challenge)
    });
    let elsewhere = thief.url();
    let registry = Server::start(move |request| match (&request.authorization, request.method.as_str()) {
        (None, _) => Answer::new(401).header("WWW-Authenticate", r#"Basic realm="registry""#),
        (Some(_), "HEAD") => Answer::new(404),
        (Some(_), "POST") => Answer::new(202).header("Location", &format!("{elsewhere}/upload")),
        (Some(_), _) => Answer::new(302).header("Location", &format!("{elsewhere}/manifest")),
    });
    project.log_in(&registry.host, USER, "s3cret");
    let repository = registry.repository("dojo");
    project.fails(2, &["image", "push", "--repository", &repository, "--tag", "edge"]);
    project.fails(2, &["image", "inspect", "edge", "--repository", &repository]);
    assert!(thief.requests().len() >= 2, "nothing was sent on");
    assert!(thief.requests().iter().all(|request| request.authorization.is_none()));
    assert!(registry.requests().iter().any(|request| request.authorization.is_some()));

    // A server that repeats what it was sent.
    let parrot = Server::start(|request| match &request.authorization {
        None => Answer::new(401).header("WWW-Authenticate", r#"Basic realm="registry""#),
        Some(sent) => {
            let reason =
                json!({ "errors": [{ "code": "DENIED", "message": format!("you sent {sent} s3cret") }] });
            Answer::new(403).body(&reason.to_string())
        }
    });
    project.log_in(&parrot.host, USER, "s3cret");
    let said = project.fails(2, &["image", "inspect", "edge", "--repository", &parrot.repository("dojo")]);
    assert!(said.contains("you sent Basic *** ***"), "{said}");
}

#[test]
fn a_registry_that_stores_something_else_is_not_believed() {
    let project = Project::built();
    let other = format!("sha256:{}", "0".repeat(64));
    let liar = Server::start(move |request| match request.method.as_str() {
        "HEAD" => Answer::new(200),
        "PUT" => Answer::new(201).header("Docker-Content-Digest", &other),
        _ => Answer::new(404),
    });
    let args = ["image", "push", "--repository", &liar.repository("dojo"), "--tag", "edge"];
    assert!(project.fails(3, &args).contains("and the registry has sha256:000"));
}

#[test]
fn what_was_pushed_is_pulled_and_runs_in_docker() {
    if !tools() {
        return;
    }
    let Some(docker) = Dockerd::start() else { return };
    let (registry, project) = (Registry::open(), Project::built());
    let repository = registry.repository("team/dojo");
    let tag = project.sha_tag();
    let pushed = push(&project, &repository, &tag);
    let image = format!("{repository}:{tag}");
    let said = docker.docker(&["pull", &image]);
    assert!(said.contains(pushed["digest"].as_str().unwrap()), "{said}");
    let commit = project.run("git", &["rev-parse", "HEAD"]);
    assert_eq!(docker.docker(&["run", "--rm", "--read-only", &image]), format!("stand-in {commit}"));
}
