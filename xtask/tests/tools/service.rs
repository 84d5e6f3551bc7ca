//! The service of one environment, as a controller brings it about: at each request it runs what the infra repository's
//! branch pins then. An image migrates the data file when it starts, and no image takes it back.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};

use crate::environments::{Image, Pin, path};
use crate::server::{Answer, Server};

pub struct Service {
    pub environment: String,
    pub url: String,
    state: Arc<Mutex<State>>,
    _server: Server,
}

struct State {
    ready: bool,
    silent: bool,
    /// No controller brings a new pin about.
    frozen: bool,
    /// The schema of the data file; 0 while there is none.
    file: u32,
    /// The digest of what was started last.
    started: String,
    /// What it runs, whatever is pinned.
    stuck: Option<Image>,
    /// Put over what `/version` answers.
    fields: Map<String, Value>,
}

impl Service {
    pub fn start(environment: &str, infra: PathBuf, images: Vec<Image>) -> Self {
        let state = State {
            ready: true,
            silent: false,
            frozen: false,
            file: 0,
            started: String::new(),
            stuck: None,
            fields: Map::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let (shared, name) = (Arc::clone(&state), environment.to_owned());
        let server = Server::start(move |request| {
            let state = &mut *shared.lock().unwrap();
            let stuck = state.stuck.clone();
            let running = stuck.as_ref().or_else(|| {
                let frozen = state.frozen && !state.started.is_empty();
                let started = || images.iter().find(|image| image.digest == state.started);
                if frozen { started() } else { running(&infra, &name, &images) }
            });
            answer(&request.path, running, &name, state)
        });
        Self { environment: environment.to_owned(), url: server.url(), state, _server: server }
    }

    /// Whether `/readyz` says 200 from now on.
    pub fn set_ready(&self, ready: bool) {
        self.state.lock().unwrap().ready = ready;
    }

    /// Whether it answers nothing but 503 from now on.
    pub fn set_silent(&self, silent: bool) {
        self.state.lock().unwrap().silent = silent;
    }

    /// Whether it goes on with what it runs, whatever is pinned, from now on.
    pub fn set_frozen(&self, frozen: bool) {
        self.state.lock().unwrap().frozen = frozen;
    }

    /// Somebody put another data file in its place.
    pub fn set_file_schema(&self, schema: u32) {
        self.state.lock().unwrap().file = schema;
    }

    /// From now on it runs this image, as one does whose controller does not sync; or again what is pinned.
    pub fn set_stuck(&self, image: Option<&Image>) {
        self.state.lock().unwrap().stuck = image.cloned();
    }

    /// From now on a field of `/version` has this value.
    pub fn set(&self, field: &str, value: Value) {
        self.state.lock().unwrap().fields.insert(field.to_owned(), value);
    }
}

fn running<'a>(infra: &Path, environment: &str, images: &'a [Image]) -> Option<&'a Image> {
    let mut git = Command::new("git");
    git.arg("-C").arg(infra).args(["show", &format!("main:{}", path(environment))]);
    let text = String::from_utf8(git.output().unwrap().stdout).unwrap();
    let digest = Pin::of(&text).digest?;
    Some(images.iter().find(|image| image.digest == digest).unwrap())
}

fn answer(path: &str, running: Option<&Image>, environment: &str, state: &mut State) -> Answer {
    let Some(image) = running.filter(|_| !state.silent) else {
        return Answer::new(503).body("nothing runs here");
    };
    if state.started != image.digest {
        state.started.clone_from(&image.digest);
        state.file = state.file.max(image.schema);
    }
    match path {
        "/version" => {
            let mut body = json!({
                "version": image.version, "commit": image.commit,
                "schema": { "binary": image.schema, "file": state.file, "file_oldest_binary": state.file },
                "ledger": { "id": format!("ledger-of-{environment}"), "sequence": 7 },
                "started_at": "2026-01-02T03:04:05Z", "uptime_seconds": 1_000_000,
                "backups": [], "restored": null,
            });
            body.as_object_mut().unwrap().extend(state.fields.clone());
            Answer::new(200).header("Content-Type", "application/json").body(&body.to_string())
        }
        "/readyz" if state.ready => Answer::new(200).body("ready"),
        "/readyz" => Answer::new(503).body("not ready"),
        _ => Answer::new(404),
    }
}
