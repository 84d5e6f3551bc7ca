//! The emulator is told of the commits and branches of the real repository. It hashes objects as git does, so what it
//! knows has the same SHAs.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::services::{Relayed, relay};
use crate::server::Request;

/// One repository, in git and in the emulator.
pub struct Mirror {
    /// OWNER/NAME
    pub name: String,
    pub bare: PathBuf,
    emulator: SocketAddr,
    branches: BTreeMap<String, String>,
    blobs: HashSet<String>,
}

impl Mirror {
    pub fn new(emulator: SocketAddr, name: &str, bare: &Path) -> Self {
        let mirror = Self {
            name: name.to_owned(),
            bare: bare.to_owned(),
            emulator,
            branches: BTreeMap::new(),
            blobs: HashSet::new(),
        };
        let own = name.split('/').next_back().unwrap();
        assert_eq!(mirror.send("POST", "/user/repos", &json!({ "name": own })).status, 201);
        mirror
    }

    /// Something of the repository: `path` is below it and starts with `/`.
    pub fn tell(&self, method: &str, path: &str, body: &Value) -> Relayed {
        self.send(method, &format!("/repos/{}{path}", self.name), body)
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Relayed {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request { method: method.into(), path: path.into(), body, ..Request::default() };
        self.relay(&request)
    }

    /// The emulator counts requests by token, so each repository has its own; it takes any.
    pub fn relay(&self, request: &Request) -> Relayed {
        let token = format!("Bearer {}", self.name);
        relay(&self.emulator, request, &[("authorization", &token)])
    }

    pub fn git(&self, args: &[&str]) -> Option<String> {
        let output = self.output(args);
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
    }

    fn output(&self, args: &[&str]) -> std::process::Output {
        let mut command = Command::new("git");
        for who in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{who}_NAME"), "GitHub")
                .env(format!("GIT_{who}_EMAIL"), "noreply@github.com");
        }
        command.arg("--git-dir").arg(&self.bare).args(args).output().unwrap()
    }

    /// The commit that a branch, a tag or an abbreviation names.
    pub fn commit(&self, name: &str) -> Option<String> {
        self.git(&["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")])
    }

    /// Tells of what was pushed since the last time.
    pub fn follow(&mut self) {
        let refs = self.git(&["for-each-ref", "--format=%(refname) %(objectname)", "refs/heads"]).unwrap();
        let now: BTreeMap<_, _> = refs
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, sha)| (name.into(), sha.into()))
            .collect();
        for (name, sha) in &now {
            if self.branches.get(name) == Some(sha) {
                continue;
            }
            self.follow_commits(sha);
            let done = if self.branches.contains_key(name) {
                self.tell("PATCH", &format!("/git/{name}"), &json!({ "sha": sha, "force": true })).status
            } else {
                self.tell("POST", "/git/refs", &json!({ "ref": name, "sha": sha })).status
            };
            assert!(done < 300, "{name} at {sha}: {done}");
        }
        for name in self.branches.keys().filter(|name| !now.contains_key(*name)) {
            assert_eq!(self.tell("DELETE", &format!("/git/{name}"), &Value::Null).status, 204, "{name}");
        }
        let head = self.git(&["symbolic-ref", "HEAD"]).unwrap();
        if now.contains_key(&head) && !self.branches.contains_key(&head) {
            let branch = json!({ "default_branch": head.trim_start_matches("refs/heads/") });
            assert_eq!(self.tell("PATCH", "", &branch).status, 200, "{head}");
        }
        self.branches = now;
    }

    fn follow_commits(&mut self, tip: &str) {
        let known: Vec<_> = self.branches.values().map(|sha| format!("^{sha}")).collect();
        let mut args = vec!["rev-list", "--reverse", tip];
        args.extend(known.iter().map(String::as_str));
        for sha in self.git(&args).unwrap().lines() {
            let text = self.git(&["cat-file", "commit", sha]).unwrap();
            let (head, message) = text.split_once("\n\n").unwrap_or((&text, ""));
            let field = |wanted: &str| -> Vec<&str> {
                head.lines().filter_map(|line| line.strip_prefix(wanted)?.strip_prefix(' ')).collect()
            };
            let tree = field("tree")[0];
            self.follow_tree(tree);
            let commit = json!({ "message": message, "tree": tree, "parents": field("parent"),
                "author": who(field("author")[0]), "committer": who(field("committer")[0]) });
            let told = self.tell("POST", "/git/commits", &commit);
            assert_eq!(told.json()["sha"], sha, "the emulator hashes another commit: {}", told.json());
        }
    }

    fn follow_tree(&mut self, tree: &str) {
        let listed = self.git(&["ls-tree", "-r", "-z", tree]).unwrap();
        let mut entries = Vec::new();
        for line in listed.split_terminator('\0') {
            let (head, path) = line.split_once('\t').unwrap();
            let words: Vec<_> = head.split(' ').collect();
            if self.blobs.insert(words[2].to_owned()) {
                let content = STANDARD.encode(self.output(&["cat-file", "blob", words[2]]).stdout);
                let blob = json!({ "content": content, "encoding": "base64" });
                assert_eq!(self.tell("POST", "/git/blobs", &blob).json()["sha"], words[2], "{path}");
            }
            entries.push(json!({ "path": path, "mode": words[0], "type": words[1], "sha": words[2] }));
        }
        let told = self.tell("POST", "/git/trees", &json!({ "tree": entries }));
        assert_eq!(told.json()["sha"], tree, "{}", told.json());
    }
}

/// `NAME <EMAIL> SECONDS ZONE` as GitHub's API has it.
fn who(line: &str) -> Value {
    let (name, rest) = line.split_once(" <").unwrap();
    let (email, when) = rest.split_once("> ").unwrap();
    let (seconds, zone) = when.split_once(' ').unwrap();
    let offset = jiff::tz::Offset::from_seconds(seconds_of(zone)).unwrap();
    let at = jiff::Timestamp::from_second(seconds.parse().unwrap()).unwrap();
    json!({ "name": name, "email": email, "date": at.display_with_offset(offset).to_string() })
}

/// The seconds of an offset such as `+0130`.
fn seconds_of(zone: &str) -> i32 {
    let number: i32 = zone.parse().unwrap();
    (number / 100 * 60 + number % 100) * 60
}
