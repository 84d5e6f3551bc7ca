//! Starts the binary on a folder of its own, asks it, and never leaves one running.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// The schema that the binary knows.
pub fn schema() -> u32 {
    let toml = include_str!("../../migrations/schema.toml");
    toml.lines().find_map(|line| line.strip_prefix("current = ")).unwrap().parse().unwrap()
}

/// Says that this test cannot run here: on stderr, and as a line `TEST\tWHAT\tREMEDY` of the file that DOJO_SKIPS names.
/// Under DOJO_REQUIRE_TOOLS it is a failure.
pub fn skip(what: &str, remedy: &str) {
    assert!(std::env::var_os("DOJO_REQUIRE_TOOLS").is_none(), "this test needs {what} ({remedy})");
    eprintln!("skipped: needs {what} ({remedy})");
    if let Some(file) = std::env::var_os("DOJO_SKIPS") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
        let thread = std::thread::current();
        writeln!(file, "{}\t{what}\t{remedy}", thread.name().unwrap_or("?")).unwrap();
    }
}

pub const TOKEN: &str = "a-token-of-the-tests";

/// A folder with room for one ledger.
pub struct Volume(TempDir);

impl Volume {
    /// Without a ledger.
    pub fn fresh() -> Self {
        let volume = Self(tempfile::tempdir().unwrap());
        std::fs::write(volume.path("tokens"), format!("# tests\n{TOKEN}\n")).unwrap();
        volume
    }

    /// With a new ledger, made by `dojo init`.
    pub fn new() -> Self {
        let volume = Self::fresh();
        assert_eq!(volume.run(&["init"]).code, Some(0));
        volume
    }

    /// Another one with the same files.
    pub fn copy(&self) -> Self {
        let copy = Self(tempfile::tempdir().unwrap());
        let status = Command::new("cp").arg("-a").args([self.path("."), copy.path(".")]).status();
        assert!(status.unwrap().success());
        copy
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn db(&self) -> PathBuf {
        self.path("ledger.duckdb")
    }

    /// `dojo` in production on this volume, and nothing else of the environment of the tests.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dojo"));
        command.args(args).env_clear().current_dir(self.0.path()).env("HOME", "/nonexistent");
        command.env("DOJO_DB_PATH", self.db()).env("DOJO_LISTEN", "127.0.0.1:0");
        command.env("DOJO_TOKEN_FILE", self.path("tokens")).env("HOSTNAME", "dojo-pod-0");
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.command(args))
    }

    pub fn serve(&self) -> Service {
        Service::start(self.command(&["serve"]))
    }

    /// Changes the file while nobody has it, leaving the change in the log, as a kill would.
    pub fn alter(&self, sql: &str) {
        let conn = duckdb::Connection::open(self.db()).unwrap();
        conn.execute_batch("PRAGMA disable_checkpoint_on_shutdown").unwrap();
        conn.execute_batch(sql).unwrap();
        drop(conn);
        assert!(self.path("ledger.duckdb.wal").exists(), "no log was left");
    }

    /// The bytes of the file and of its log.
    pub fn bytes(&self) -> [Vec<u8>; 2] {
        self.bytes_in(".")
    }

    pub fn bytes_in(&self, folder: &str) -> [Vec<u8>; 2] {
        let folder = self.path(folder);
        ["ledger.duckdb", "ledger.duckdb.wal"]
            .map(|name| std::fs::read(folder.join(name)).unwrap_or_default())
    }

    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// What a command left behind.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub text: String,
}

impl Ran {
    /// Runs a command that ends by itself; one that does not, say a service that should have refused, is killed.
    pub fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if begun.elapsed() > Duration::from_secs(20) {
                child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let output = child.wait_with_output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        Self { code: output.status.code(), text: text.concat() }
    }

    #[track_caller]
    pub fn refused(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.text);
        for part in parts {
            assert!(self.text.contains(part), "`{part}` is not in:\n{}", self.text);
        }
    }
}

/// A running `dojo serve`.
pub struct Service {
    child: Child,
    pub address: SocketAddr,
    log: Arc<Mutex<String>>,
    agent: ureq::Agent,
}

impl Service {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut seen = String::new();
        let address = lines.by_ref().find_map(|line| {
            seen += &format!("{line}\n");
            let (_, rest) = line.split_once("listening on http://")?;
            rest.split(|c: char| c == '"' || c.is_whitespace()).next()?.parse().ok()
        });
        let Some(address) = address else {
            let status = child.wait().unwrap();
            panic!("dojo did not start ({status}):\n{seen}");
        };
        let log = Arc::new(Mutex::new(seen));
        let sink = Arc::clone(&log);
        std::thread::spawn(move || lines.for_each(|line| *sink.lock().unwrap() += &format!("{line}\n")));
        let agent = ureq::Agent::config_builder().http_status_as_error(false);
        let agent = agent.timeout_global(Some(Duration::from_secs(20))).build().into();
        Self { child, address, log, agent }
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn client(&self) -> Client {
        Client { base: format!("http://{}", self.address), agent: self.agent.clone() }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.client().get(path)
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.client().post(path, body).unwrap()
    }

    pub fn sequence(&self) -> i64 {
        self.get("/version").body["ledger"]["sequence"].as_i64().unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// SIGTERM, and the exit code.
    pub fn stop(self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.wait().code()
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks a service, with the token of the tests.
#[derive(Clone)]
pub struct Client {
    pub base: String,
    pub agent: ureq::Agent,
}

impl Client {
    pub fn get(&self, path: &str) -> Answer {
        let request = self.agent.get(format!("{}{path}", self.base));
        Answer::from(request.header("Authorization", format!("Bearer {TOKEN}")).call().unwrap())
    }

    pub fn post(&self, path: &str, body: &Value) -> Result<Answer, ureq::Error> {
        let request = self.agent.post(format!("{}{path}", self.base));
        Ok(Answer::from(request.header("Authorization", format!("Bearer {TOKEN}")).send_json(body)?))
    }

    pub fn delete(&self, path: &str) -> Answer {
        let request = self.agent.delete(format!("{}{path}", self.base));
        Answer::from(request.header("Authorization", format!("Bearer {TOKEN}")).call().unwrap())
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub kind: String,
    pub headers: ureq::http::HeaderMap,
    /// The body as JSON, or as a string when it is none.
    pub body: Value,
}

impl Answer {
    pub fn from(mut response: ureq::http::Response<ureq::Body>) -> Self {
        let headers = response.headers().clone();
        let kind = headers.get("content-type").map_or("", |value| value.to_str().unwrap()).to_owned();
        let text = response.body_mut().read_to_string().unwrap_or_default();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Self { status: response.status().as_u16(), kind, headers, body }
    }

    /// An RFC 9457 problem of this status, whose detail has this text.
    #[track_caller]
    pub fn is_problem(&self, status: u16, detail: &str) {
        assert_eq!((self.status, self.kind.as_str()), (status, "application/problem+json"), "{self:?}");
        assert_eq!(self.body["status"], status, "{self:?}");
        assert!(!self.body["title"].as_str().unwrap().is_empty(), "{self:?}");
        assert!(self.body["detail"].as_str().unwrap().contains(detail), "`{detail}` is not in {self:?}");
    }
}
