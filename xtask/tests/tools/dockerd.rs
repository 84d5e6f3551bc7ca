//! Docker's engine, started by hand in a folder of its own and ended by its pid, and dojo in a container of it.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// Two engines that start at once meet in the kernel's packet filter.
static ALONE: Mutex<()> = Mutex::new(());

pub struct Dockerd {
    _alone: MutexGuard<'static, ()>,
    child: Child,
    folder: TempDir,
}

impl Dockerd {
    /// `None`, and said, where it cannot run: it wants root, and all that containers need of a kernel.
    pub fn start() -> Option<Self> {
        if !crate::tools::need("dockerd", "docker.io") || !crate::tools::need("docker", "docker.io") {
            return None;
        }
        if std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) != 0) {
            crate::tools::skip("root", "to start dockerd");
            return None;
        }
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new("dockerd");
        for (flag, name) in [("--data-root", "root"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
            command.arg(flag).arg(folder.path().join(name));
        }
        command.arg("--host").arg(socket(folder.path())).stdout(log.try_clone().unwrap()).stderr(log);
        let engine = Self { _alone: alone, child: command.spawn().unwrap(), folder };
        for _ in 0..300 {
            let asked = engine.command(&["version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
            if asked.unwrap().success() {
                return Some(engine);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{}", std::fs::read_to_string(engine.folder.path().join("log")).unwrap())
    }

    /// What to set DOCKER_HOST to.
    pub fn host(&self) -> String {
        socket(self.folder.path())
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(args).env("DOCKER_HOST", self.host());
        command
    }

    /// Runs docker, which must end with 0, and gives its stdout.
    pub fn docker(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {args:?}: {}\n{said}", output.status);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for Dockerd {
    /// SIGTERM, so that it unmounts what it mounted.
    fn drop(&mut self) {
        let containers = self.command(&["ps", "--all", "--quiet"]).output();
        let containers = containers.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        for container in containers.unwrap_or_default().lines() {
            let _ = self.command(&["rm", "--force", container]).output();
        }
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn socket(folder: &Path) -> String {
    format!("unix://{}", folder.join("docker.sock").display())
}

const STRICT: [&str; 6] = ["--read-only", "--user", "1000:1000", "--volume", "ledger:/data", "--rm"];

/// `docker run` as Kubernetes runs it; `rest` is the image and the program's arguments.
pub fn run<'a>(flags: &[&'a str], rest: &[&'a str]) -> Vec<&'a str> {
    [&["run"], &STRICT[..], flags, rest].concat()
}

/// The service, without authentication.
pub struct Service {
    pub container: String,
    address: String,
}

impl Service {
    /// A container that answers /healthz.
    pub fn start(docker: &Dockerd, image: &str) -> Self {
        let flags = ["--detach", "--publish", "127.0.0.1::8000", "--env", "DOJO_AUTH=none"];
        let container = docker.docker(&run(&flags, &[image]));
        let service = Self { address: docker.docker(&["port", &container, "8000/tcp"]), container };
        for _ in 0..100 {
            if ureq::get(service.url("/healthz")).call().is_ok() {
                return service;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("/healthz never answered:\n{}", docker.docker(&["logs", &service.container]));
    }

    /// The ledger's id and sequence.
    pub fn ledger(&self) -> String {
        let version: Value = serde_json::from_str(&self.ask("/version", None)).unwrap();
        assert!(version["ledger"]["id"].is_string(), "{version}");
        version["ledger"].to_string()
    }

    pub fn ask(&self, path: &str, body: Option<&str>) -> String {
        let answer = match body {
            Some(body) => ureq::post(self.url(path)).content_type("application/json").send(body),
            None => ureq::get(self.url(path)).call(),
        };
        answer.unwrap().body_mut().read_to_string().unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}
