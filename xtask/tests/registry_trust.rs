//! Registries that must not be trusted, and pushes that get in each other's way: small servers on loopback that misbehave.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/project.rs"]
mod project;
#[path = "tools/server.rs"]
mod server;

use std::io::Write as _;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use project::Project;
use serde_json::json;
use server::{Answer, Server};

/// A registry in memory that has nothing: every upload is taken.
fn takes_everything(request: &server::Request) -> Answer {
    match request.method.as_str() {
        "POST" => Answer::new(202).header("Location", "/upload"),
        "PUT" => Answer::new(201),
        _ => Answer::new(404),
    }
}

#[test]
fn a_typed_login_is_for_one_host_alone() {
    let project = Project::built();
    let wants_login = |request: &server::Request| match &request.authorization {
        None => Answer::new(401).header("WWW-Authenticate", r#"Basic realm="registry""#),
        Some(_) => takes_everything(request),
    };
    let (own, other) = (Server::start(wants_login), Server::start(wants_login));
    for scheme in ["", "http://"] {
        let repository = format!("{scheme}{}", own.repository("dojo"));
        let cache = format!("{scheme}{}:edge", other.repository("base"));
        let args =
            ["image", "push", "--insecure", "--repository", &repository, "--tag", "edge", "--cache-from"];
        let login = [&cache, "--username", "me", "--password-stdin"];
        let mut push = project.xtask(&[&args[..], &login[..]].concat());
        let mut push = push.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        push.stdin.take().unwrap().write_all(b"s3cret\n").unwrap();
        let said = push.wait_with_output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }
    assert!(own.requests().iter().any(|request| request.authorization.is_some()));
    assert!(!other.requests().is_empty());
    assert!(other.requests().iter().all(|request| request.authorization.is_none()));
}

#[test]
fn a_version_that_somebody_else_set_between_two_tries_stays_theirs() {
    let project = Project::built();
    let puts = AtomicUsize::new(0);
    let theirs = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;
    let registry = Server::start(move |request| {
        let version = request.path.ends_with("/manifests/v0.1.0");
        match request.method.as_str() {
            "PUT" if version && puts.fetch_add(1, Ordering::SeqCst) == 0 => Answer::new(503),
            "GET" if version && puts.load(Ordering::SeqCst) > 0 => Answer::new(200).body(theirs),
            _ => takes_everything(request),
        }
    });
    let repository = registry.repository("dojo");
    let args = ["image", "push", "--repository", &repository, "--tag", "edge", "--tag", "v0.1.0"];
    let said = project.fails(4, &args);
    assert!(said.contains("v0.1.0 was given to sha256:"), "{said}");
    let puts = |tag: &str| {
        let path = format!("/v2/dojo/manifests/{tag}");
        registry.requests().iter().filter(|r| r.method == "PUT" && r.path == path).count()
    };
    assert_eq!([puts("v0.1.0"), puts("edge")], [1, 0], "a version was moved, or edge before it");
}

#[test]
fn a_push_that_is_killed_leaves_no_files() {
    let project = Project::built();
    let temporary = project.path("target/temporary");
    std::fs::create_dir(&temporary).unwrap();
    let (arrived, arrivals) = channel();
    let (killed, gone) = channel();
    let gone = Mutex::new(gone);
    let registry = Server::start(move |request| {
        // Layers are compressed by now.
        if request.method == "PUT" {
            let _ = arrived.send(());
            let _ = gone.lock().unwrap().recv();
        }
        takes_everything(request)
    });
    let args = ["image", "push", "--repository", &registry.repository("dojo"), "--tag", "edge"];
    let mut push = project.xtask(&args).env("TMPDIR", &temporary).spawn().unwrap();
    arrivals.recv().unwrap();
    push.kill().unwrap();
    push.wait().unwrap();
    drop::<Sender<()>>(killed);
    let left: Vec<_> = std::fs::read_dir(&temporary).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_404_of_something_else_is_not_an_absent_tag() {
    let project = Project::built();
    let starting = Server::start(|request| match request.method.as_str() {
        "GET" => Answer::new(404).header("Content-Type", "text/plain").body("404 page not found\n"),
        _ => takes_everything(request),
    });
    let args = ["image", "push", "--repository", &starting.repository("dojo"), "--tag", "v0.1.0"];
    assert!(project.fails(1, &args).contains("404 that is not a registry's"));
    assert!(starting.requests().iter().all(|request| request.method != "PUT"));
}

#[test]
fn a_size_that_no_blob_has_is_refused() {
    let project = Project::built();
    let digest = format!("sha256:{}", "0".repeat(64));
    let blob = json!({ "mediaType": "x/y.tar+gzip", "digest": digest, "size": u64::MAX });
    let manifest = json!({ "schemaVersion": 2, "config": blob, "layers": [blob, blob] }).to_string();
    let lying = Server::start(move |_| Answer::new(200).body(&manifest));
    let said = project.fails(3, &["image", "inspect", "edge", "--repository", &lying.repository("dojo")]);
    assert!(said.contains("a size of 18446744073709551615 bytes"), "{said}");
}

#[test]
fn a_token_server_that_repeats_what_it_was_sent_gives_nothing_away() {
    let project = Project::built();
    let parrot = Server::start(|request| match (&request.authorization, request.path.as_str()) {
        (Some(sent), _) => Answer::new(403).body(&format!("{} bad header {sent}", "x".repeat(180))),
        _ => {
            let challenge = format!(r#"Bearer realm="http://{}/token""#, request.host);
            Answer::new(401).header("WWW-Authenticate", &challenge)
        }
    });
    project.log_in(&parrot.host, "me", "s3cret-and-long");
    let said = project.fails(2, &["image", "inspect", "edge", "--repository", &parrot.repository("dojo")]);
    assert!(said.contains("bad header Basic ***"), "{said}");
}
