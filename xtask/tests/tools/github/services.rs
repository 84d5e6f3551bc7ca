//! The two programs behind the stand-in: `emulate`, which keeps state as GitHub does, and `prism`, which holds requests and
//! answers against GitHub's published description. Both end with the process that started them, however it ends.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::{Answer, Request};

/// The calls that the project makes, and nothing else: prism reports every other one.
const CALLS: [(&str, &[&str]); 14] = [
    ("", &["get"]),
    ("commits/{ref}/check-runs", &["get"]),
    ("branches/{branch}", &["get"]),
    ("pulls", &["get", "post"]),
    ("pulls/{pull_number}", &["get", "patch"]),
    ("pulls/{pull_number}/merge", &["put"]),
    ("actions/runs", &["get"]),
    ("actions/runs/{run_id}", &["get"]),
    ("actions/runs/{run_id}/rerun-failed-jobs", &["post"]),
    ("actions/workflows/{workflow_id}/dispatches", &["post"]),
    ("releases", &["get", "post"]),
    ("releases/tags/{tag}", &["get"]),
    ("releases/{release_id}", &["get", "patch", "delete"]),
    ("releases/{release_id}/assets", &["get"]),
];
const ASSET: &str = "releases/assets/{asset_id}";

/// A node program ends when its standard input does, as that ends with this process.
const END: &str = "process.stdin.resume(); process.stdin.on('end', () => process.exit(0));";

/// A program of node's; its input is held open as long as this lives.
pub struct Service {
    pub address: SocketAddr,
    /// Its standard input is what keeps it alive.
    child: Child,
    log: PathBuf,
}

impl Service {
    /// GitHub's state, in memory; `url` is what it writes into answers as its own.
    pub fn emulate(folder: &TempDir, owner: &str, url: &str) -> Self {
        let seed = folder.path().join("seed.yaml");
        fs::write(&seed, json!({ "github": { "users": [{ "login": owner }] } }).to_string()).unwrap();
        let address = free();
        let port = address.port().to_string();
        let mut command = Command::new("emulate");
        command
            .args(["start", "--service", "github", "--port", &port, "--base-url", url, "--seed"])
            .arg(seed);
        Self::spawn(command, folder, "emulate", address)
    }

    /// A proxy to `upstream` that adds `sl-violations` to answers.
    pub fn prism(folder: &TempDir, address: SocketAddr, upstream: &str) -> Self {
        let description = folder.path().join("description.json");
        fs::write(&description, described(&published()).to_string()).unwrap();
        let mut command = Command::new("prism");
        command.args(["proxy", "--host", "127.0.0.1", "--verboseLevel", "warn", "--port"]);
        command.arg(address.port().to_string()).arg(description).arg(upstream);
        Self::spawn(command, folder, "prism", address)
    }

    fn spawn(mut command: Command, folder: &TempDir, name: &str, address: SocketAddr) -> Self {
        let end = folder.path().join("end.cjs");
        fs::write(&end, END).unwrap();
        let path = folder.path().join(format!("{name}.log"));
        let log = fs::File::create(&path).unwrap();
        command.env("NODE_OPTIONS", format!("--require={}", end.display())).current_dir(folder.path());
        command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        Self { address, child: command.spawn().unwrap(), log: path }
    }

    /// Until it listens, a minute at most.
    pub fn wait(&mut self) {
        for _ in 0..3000 {
            if TcpStream::connect(self.address).is_ok() {
                return;
            }
            if self.child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it does not start; is node 22 or newer? {}", fs::read_to_string(&self.log).unwrap());
    }
}

/// A loopback address that nothing listens on.
pub fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Where `@octokit/openapi`, which is installed beside prism, has GitHub's description.
fn published() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let prism = std::env::split_paths(&path).map(|folder| folder.join("prism")).find(|file| file.is_file());
    let prism = fs::canonicalize(prism.unwrap()).unwrap();
    let modules = prism.ancestors().find(|folder| folder.ends_with("node_modules")).unwrap();
    modules.join("@octokit/openapi/generated/api.github.com.json")
}

/// The description cut down to [`CALLS`] and what they refer to: prism takes a minute for all of it.
fn described(published: &Path) -> Value {
    let mut all: Value = serde_json::from_slice(&fs::read(published).unwrap()).unwrap();
    let mut paths = json!({});
    for (call, methods) in CALLS.iter().copied().chain([(ASSET, &["get", "delete"][..])]) {
        let path = format!("/repos/{{owner}}/{{repo}}/{call}").trim_end_matches('/').to_owned();
        for method in methods {
            let operation = all["paths"][&path][method].take();
            assert!(operation.is_object(), "{path} has no {method} in {}", published.display());
            paths[&path][method] = operation;
        }
    }
    let mut components = json!({});
    let mut wanted = Vec::new();
    references(&mut paths, &mut wanted);
    while let Some(reference) = wanted.pop() {
        let (kind, name) = reference.strip_prefix("#/components/").unwrap().split_once('/').unwrap();
        if components[kind][name].is_null() {
            let mut component = all["components"][kind][name].take();
            references(&mut component, &mut wanted);
            components[kind][name] = component;
        }
    }
    json!({ "openapi": all["openapi"], "info": all["info"], "paths": paths, "components": components })
}

/// What a part of the description refers to; its examples are dropped.
fn references(part: &mut Value, found: &mut Vec<String>) {
    match part {
        Value::Object(fields) => {
            fields.retain(|name, _| name != "examples");
            if let Some(Value::String(reference)) = fields.get("$ref") {
                found.push(reference.clone());
            }
            fields.values_mut().for_each(|field| references(field, found));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// What a server behind this one answered.
pub struct Relayed {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Relayed {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    pub fn answer(&self) -> Answer {
        let ours =
            ["connection", "content-length", "transfer-encoding", "date", "keep-alive", "sl-violations"];
        let kept = self.headers.iter().filter(|(name, _)| !ours.contains(&name.as_str()));
        kept.fold(Answer::new(self.status), |answer, (name, value)| answer.header(name, value))
            .body(&self.body)
    }
}

/// Sends a request on, with these fields besides its own.
pub fn relay(address: &SocketAddr, request: &Request, more: &[(&str, &str)]) -> Relayed {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build();
    let agent = ureq::Agent::new_with_config(agent);
    let mut sent = ureq::http::Request::builder()
        .method(request.method.as_str())
        .uri(format!("http://{address}{}", request.path));
    let ours = ["connection", "content-length", "host", "expect", "accept-encoding"];
    let kept = request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let kept = kept.filter(|(name, _)| !ours.contains(name) && !more.iter().any(|(other, _)| other == name));
    for (name, value) in kept.chain(more.iter().copied()) {
        sent = sent.header(name, value);
    }
    let sent = if request.body.is_empty() {
        agent.run(sent.body(()).unwrap())
    } else {
        agent.run(sent.body(request.body.as_slice()).unwrap())
    };
    let mut answer = sent.unwrap();
    let headers = answer.headers().iter();
    let headers =
        headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    let body = answer.body_mut().with_config().limit(u64::MAX).read_to_vec().unwrap();
    Relayed { status: answer.status().as_u16(), headers, body }
}
