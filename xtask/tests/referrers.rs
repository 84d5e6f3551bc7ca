//! Lists of referrers and `ci publish`, against a real docker-registry behind a proxy: runs that end between any two writes,
//! registries with the referrers API and without, other writers of the same list, and registries that do not give back what
//! they were sent.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/docker_registry.rs"]
mod docker_registry;
#[path = "tools/project.rs"]
mod project;
#[path = "tools/proxy.rs"]
mod proxy;
#[path = "tools/server.rs"]
mod server;
mod tools;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use docker_registry::Registry;
use project::Project;
use proxy::{Harm, Proxy};
use serde_json::{Value, json};
use server::Answer;

const CYCLONEDX: &str = "application/vnd.cyclonedx+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const PUBLISH: [&str; 7] =
    ["ci", "publish", "--git-ref", "refs/heads/master", "--builder", "cargo", "--json"];

/// A registry, a proxy before it, and a project that publishes through the proxy.
struct Stage {
    project: Project,
    registry: Registry,
    proxy: Proxy,
    /// How many more PUTs there may be; then all are refused, as if the run had ended.
    writes: Arc<AtomicUsize>,
}

impl Stage {
    /// `choose` is told the registry's address and each request's `METHOD PATH`.
    fn new(writes: usize, choose: impl Fn(&str, &str) -> Harm + Send + Sync + 'static) -> Self {
        let (project, registry) = (Project::new(), Registry::open());
        let (upstream, writes) = (registry.host.clone(), Arc::new(AtomicUsize::new(writes)));
        let left = Arc::clone(&writes);
        let proxy = Proxy::start(&registry.host, move |_, line| {
            let spent = |left: usize| left.checked_sub(1);
            let ends = line.starts_with("PUT ")
                && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spent).is_err();
            if ends { Harm::Instead(Answer::new(403)) } else { choose(&upstream, line) }
        });
        let path = project.path("deploy/pipeline.yaml");
        let pipeline = fs::read_to_string(&path).unwrap();
        let through = pipeline.replace("oci:registry", &format!("{}/dojo", proxy.host));
        assert_ne!(pipeline, through);
        fs::write(path, through).unwrap();
        project.commit("the registry");
        Self { project, registry, proxy, writes }
    }

    fn with(choose: impl Fn(&str, &str) -> Harm + Send + Sync + 'static) -> Self {
        Self::new(usize::MAX, choose)
    }

    /// What the registry itself has under a tag or digest, past the proxy.
    fn document(&self, reference: &str) -> Option<Value> {
        document(&self.registry.host, reference)
    }

    /// The SBOM and the names that are there when all is well.
    fn is_published(&self, published: &Value) {
        let inspected = self.project.json(&["image", "inspect", "edge", "--json"]);
        assert_eq!(inspected["digest"], published["digest"]);
        let bills: Vec<_> =
            inspected["referrers"].as_array().unwrap().iter().filter(|r| r["kind"] == CYCLONEDX).collect();
        assert_eq!(bills.len(), 1, "{inspected}");
        assert_eq!(bills[0]["digest"], published["sbom"]);
        let bill: Value = serde_json::from_str(&self.project.ok(&["image", "sbom", "edge"])).unwrap();
        assert_eq!(bill["bomFormat"], "CycloneDX");
    }
}

fn document(host: &str, reference: &str) -> Option<Value> {
    let url = format!("http://{host}/v2/dojo/manifests/{reference}");
    let accept = format!("{INDEX}, {MANIFEST}");
    let mut answer = ureq::get(url).header("Accept", accept).call().ok()?;
    answer.body_mut().read_json().ok()
}

fn put(host: &str, reference: &str, media_type: &str, document: &Value) {
    let url = format!("http://{host}/v2/dojo/manifests/{reference}");
    ureq::put(url).header("Content-Type", media_type).send(document.to_string()).unwrap();
}

fn tools() -> bool {
    tools::need("docker-registry", "docker-registry")
}

/// Gives docker-registry the referrers API: it says so to who puts an artifact, and lists what was put and an entry of
/// somebody else's, one a page.
fn with_api() -> impl Fn(&str, &str) -> Harm + Send + Sync {
    let artifacts: Mutex<Vec<String>> = Mutex::default();
    move |upstream, line| {
        let mut artifacts = artifacts.lock().unwrap();
        // Only artifacts are put by digest.
        if let Some(digest) = line.strip_prefix("PUT /v2/dojo/manifests/sha256:") {
            artifacts.push(format!("sha256:{digest}"));
            return Harm::Deny(Answer::new(201).header("OCI-Subject", "sha256:whatever"));
        }
        let Some(asked) = line.strip_prefix("GET /v2/dojo/referrers/") else { return Harm::None };
        let (subject, page) = asked.split_once("?page=").unwrap_or((asked, "0"));
        let page: usize = page.parse().unwrap();
        let mut entries = vec![entry(subject, "x/other")];
        for digest in &*artifacts {
            let Some(manifest) = document(upstream, digest) else { continue };
            if manifest["subject"]["digest"] == subject
                && !entries.iter().any(|seen| seen["digest"] == **digest)
            {
                entries.push(entry(digest, manifest["artifactType"].as_str().unwrap()));
            }
        }
        let list = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entries[page]] });
        let answer = Answer::new(200).header("Content-Type", INDEX).body(&list.to_string());
        if page + 1 == entries.len() {
            return Harm::Instead(answer);
        }
        let next = format!("</v2/dojo/referrers/{subject}?page={}>; rel=\"next\"", page + 1);
        Harm::Instead(answer.header("Link", &next))
    }
}

fn entry(digest: &str, kind: &str) -> Value {
    json!({ "mediaType": MANIFEST, "digest": digest, "size": 1, "artifactType": kind })
}

/// The part of a line's path behind `METHOD /v2/dojo/manifests/`, if that is the tag of a list.
fn list_tag<'a>(line: &'a str, method: &str) -> Option<&'a str> {
    let tag = line.strip_prefix(method)?.strip_prefix(" /v2/dojo/manifests/")?;
    tag.starts_with("sha256-").then_some(tag)
}

/// Ends a run after no write, after one, and so on, and starts it again; gives how many writes a whole run has.
fn ended_anywhere(choose: impl Fn() -> Box<dyn Fn(&str, &str) -> Harm + Send + Sync>) -> usize {
    for writes in 0.. {
        let stage = Stage::new(writes, choose());
        if stage.project.xtask(&PUBLISH).output().unwrap().status.success() {
            return writes;
        }
        // The name that people and environments follow is the last write.
        assert!(stage.document("edge").is_none(), "edge was set by a run that ended after {writes} writes");
        stage.writes.store(usize::MAX, Ordering::SeqCst);
        let published = stage.project.json(&PUBLISH);
        stage.is_published(&published);
        assert_eq!(stage.project.json(&PUBLISH), published, "after {writes} writes");
    }
    unreachable!()
}

#[test]
fn a_run_that_ended_between_any_two_writes_is_completed_by_the_next() {
    if tools() {
        let writes = ended_anywhere(|| Box::new(|_, _| Harm::None));
        assert!(writes > 8, "a run has {writes} writes only");
    }
}

#[test]
fn so_it_is_in_a_registry_with_the_referrers_api_which_gets_no_list() {
    if !tools() {
        return;
    }
    ended_anywhere(|| Box::new(with_api()));
    let stage = Stage::with(with_api());
    let published = stage.project.json(&PUBLISH);
    assert!(stage.proxy.seen().iter().all(|seen| list_tag(&seen.line, "PUT").is_none()));
    // Both pages are read.
    let inspected = stage.project.json(&["image", "inspect", "edge", "--json"]);
    let kinds: Vec<_> =
        inspected["referrers"].as_array().unwrap().iter().map(|r| r["kind"].clone()).collect();
    assert_eq!(kinds, ["x/other", CYCLONEDX], "{published}");
}

#[test]
fn an_entry_that_another_writer_dropped_is_put_in_again_beside_theirs() {
    if !tools() {
        return;
    }
    let overtaken = AtomicUsize::new(0);
    let stage = Stage::with(move |upstream, line| {
        let Some(tag) = list_tag(line, "PUT") else { return Harm::None };
        if overtaken.fetch_add(1, Ordering::SeqCst) > 0 {
            return Harm::None;
        }
        // Theirs lands right after ours, and does not have it.
        let subject = tag.replace('-', ":");
        let theirs =
            json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry(&subject, "x/other")] });
        put(upstream, tag, INDEX, &theirs);
        Harm::Instead(Answer::new(201))
    });
    let published = stage.project.json(&PUBLISH);
    stage.is_published(&published);
    let tag = published["digest"].as_str().unwrap().replace(':', "-");
    let list = stage.document(&tag).unwrap();
    let kinds: Vec<_> =
        list["manifests"].as_array().unwrap().iter().map(|entry| &entry["artifactType"]).collect();
    assert_eq!(kinds, ["x/other", CYCLONEDX]);
    // The same again adds nothing.
    assert_eq!(stage.project.json(&PUBLISH), published);
    assert_eq!(stage.document(&tag).unwrap(), list);
}

#[test]
fn a_list_that_others_always_replace_is_a_lost_race() {
    if !tools() {
        return;
    }
    let stage = Stage::with(|_, line| match list_tag(line, "PUT") {
        Some(_) => Harm::Instead(Answer::new(201)),
        None => Harm::None,
    });
    let said = stage.project.fails(4, &PUBLISH);
    assert!(
        said.contains("replaced by somebody else") && said.contains("run the same command again"),
        "{said}"
    );
    assert!(stage.document("edge").is_none());
}

#[test]
fn a_registry_that_misses_what_a_manifest_names_may_be_asked_again() {
    if !tools() {
        return;
    }
    let unknown = |start: &'static str| {
        move |_: &str, line: &str| {
            let error = r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown"}]}"#;
            let answer = Answer::new(404).header("Content-Type", "application/json").body(error);
            if line.starts_with(start) { Harm::Instead(answer) } else { Harm::None }
        }
    };
    for (start, code, told) in [
        // ghcr.io finds a blob some seconds after it took it.
        ("PUT /v2/dojo/manifests/sha256:", 1, "run the same command again"),
        ("PUT /v2/dojo/manifests/sha256-", 1, "what it lists is gone"),
    ] {
        let stage = Stage::with(unknown(start));
        let said = stage.project.fails(code, &PUBLISH);
        assert!(said.contains(told), "{said}");
        assert!(stage.document("edge").is_none());
        stage.proxy.be_honest();
        stage.is_published(&stage.project.json(&PUBLISH));
    }
}

#[test]
fn what_is_no_list_is_not_taken_for_one() {
    if !tools() {
        return;
    }
    let stage = Stage::with(|_, _| Harm::None);
    stage.project.ok(&["image", "build", "--builder", "cargo"]);
    let pushed = stage.project.json(&["image", "push", "--json"]);
    let digest = pushed["digest"].as_str().unwrap();
    let tag = digest.replace(':', "-");
    let mut image = stage.document(digest).unwrap();
    let inspected = || stage.project.json(&["image", "inspect", digest, "--json"])["referrers"].clone();
    image["annotations"] = json!({ "a": "b" });
    put(&stage.registry.host, &tag, MANIFEST, &image);
    assert_eq!(inspected(), json!([]));
    let said = stage.project.fails(3, &PUBLISH);
    assert!(said.contains(&tag) && said.contains("something else"), "{said}");
    assert!(stage.document("edge").is_none());
    // GitLab's registry takes the tag for the subject's digest (oras-project/oras-go#1396): that is no list yet.
    stage.project.ok(&["image", "push", "--tag", &tag]);
    assert_eq!(inspected(), json!([]));
    stage.is_published(&stage.project.json(&PUBLISH));
}

#[test]
fn an_image_that_cannot_be_read_back_gets_no_other_name() {
    if !tools() {
        return;
    }
    let pushed = AtomicUsize::new(0);
    let stage = Stage::with(move |_, line| {
        if line.starts_with("PUT /v2/dojo/manifests/sha-") {
            pushed.store(1, Ordering::SeqCst);
        }
        let read = line.starts_with("GET /v2/dojo/manifests/sha-") && pushed.load(Ordering::SeqCst) == 1;
        if read { Harm::Instead(Answer::new(404).body("{}")) } else { Harm::None }
    });
    let said = stage.project.fails(3, &PUBLISH);
    assert!(said.contains("is not the image just pushed"), "{said}");
    assert!(stage.document("edge").is_none());
    // Once the registry gives it, the same command goes on.
    stage.proxy.be_honest();
    stage.is_published(&stage.project.json(&PUBLISH));
}
