//! Real git over HTTP on a free loopback port, as GitHub has it: a token as the password, tags that never move, branches
//! that are never forced, and, when told so, a branch that takes no direct push.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use crate::project::run;
use crate::server::{Answer, Request, Server};

pub const USER: &str = "x-access-token";

/// Told OLD NEW REF of each ref of a push; the file `protected` beside it names what takes no direct push.
const HOOK: &str = r#"#!/bin/sh
zero=0000000000000000000000000000000000000000
status=0
while read old new ref; do
    case $ref in
    refs/tags/*)
        if [ "$old" != $zero ]; then
            echo "error: GH013: Repository rule violations found for $ref." >&2
            echo "- Cannot update this protected ref." >&2
            status=1
        fi ;;
    refs/heads/prepare/*) ;;
    refs/heads/*)
        if grep -qx "$ref" hooks/protected 2>/dev/null; then
            echo "error: GH006: Protected branch update failed for $ref." >&2
            echo "error: Changes must be made through a pull request." >&2
            status=1
        elif [ "$old" != $zero ] && { [ "$new" = $zero ] || ! git merge-base --is-ancestor "$old" "$new"; }; then
            echo "error: GH006: Protected branch update failed for $ref." >&2
            echo "error: Cannot force-push to this branch" >&2
            status=1
        fi ;;
    esac
done
exit $status
"#;

/// Who may do what.
#[derive(Clone, Debug)]
pub struct Login {
    pub token: String,
    pub push: bool,
}

/// One bare repository, and the server that it is reached by.
pub struct Remote {
    pub server: Server,
    /// OWNER/NAME
    name: String,
    folder: TempDir,
}

impl Remote {
    pub fn start(name: &str, logins: Vec<Login>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bare = folder.path().join(format!("{name}.git"));
        fs::create_dir_all(&bare).unwrap();
        run("git", &["init", "--quiet", "--bare", "--initial-branch=master"], &bare);
        let hook = bare.join("hooks/pre-receive");
        fs::create_dir_all(bare.join("hooks")).unwrap();
        fs::write(&hook, HOOK).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        let root = folder.path().to_owned();
        let server = Server::start(move |request| answer(&root, &logins, request));
        Self { server, name: name.to_owned(), folder }
    }

    pub fn bare(&self) -> PathBuf {
        self.folder.path().join(format!("{}.git", self.name))
    }

    /// By way of `host`, which is this server or what stands in front of it.
    pub fn url(&self, host: &str) -> String {
        format!("http://{host}/{}.git", self.name)
    }

    /// From now on this branch takes no direct push.
    pub fn protect(&self, branch: &str) {
        fs::write(self.bare().join("hooks/protected"), format!("refs/heads/{branch}\n")).unwrap();
    }

    pub fn git(&self, args: &[&str]) -> String {
        run("git", args, &self.bare())
    }
}

/// What git asks for as the credentials for a host: nothing of the developer's, and no question.
pub fn credentials(home: &Path, host: &str, token: &str) -> Vec<(&'static str, String)> {
    let (config, store) = (home.join("gitconfig"), home.join("git-credentials"));
    fs::write(&store, format!("http://{USER}:{token}@{host}\n")).unwrap();
    let helper = format!("store --file '{}'", store.display());
    let who = "[user]\n\tname = Test\n\temail = test@example.com\n[commit]\n\tgpgsign = false\n[tag]\n\tgpgsign = false\n";
    fs::write(&config, format!("[credential]\n\thelper = \"{helper}\"\n{who}")).unwrap();
    let nothing = || "/dev/null".to_owned();
    vec![
        ("GIT_CONFIG_GLOBAL", config.display().to_string()),
        ("GIT_CONFIG_SYSTEM", nothing()),
        ("GIT_TERMINAL_PROMPT", "0".to_owned()),
    ]
}

fn answer(root: &Path, logins: &[Login], request: &Request) -> Answer {
    let given = request.authorization.as_deref().and_then(|text| text.strip_prefix("Basic "));
    let basic = |login: &&Login| given == Some(STANDARD.encode(format!("{USER}:{}", login.token)).as_str());
    let Some(login) = logins.iter().find(basic) else {
        let message = "remote: Invalid username or token. Password authentication is not supported for Git operations.\n";
        return Answer::new(401).header("WWW-Authenticate", "Basic realm=\"GitHub\"").body(message);
    };
    if request.path.contains("git-receive-pack") && !login.push {
        return Answer::new(403).body("remote: Write access to repository not granted.\n");
    }
    if request.is_whole() { backend(root, request) } else { Answer::new(400) }
}

/// `git http-backend` by CGI (RFC 3875).
fn backend(root: &Path, request: &Request) -> Answer {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let mut command = Command::new("git");
    command.arg("http-backend").env("GIT_PROJECT_ROOT", root).env("GIT_HTTP_EXPORT_ALL", "1");
    command.env("PATH_INFO", path).env("QUERY_STRING", query).env("REQUEST_METHOD", &request.method);
    command.env("REMOTE_USER", USER).env("CONTENT_LENGTH", request.body.len().to_string());
    let fields = [
        ("CONTENT_TYPE", "content-type"),
        ("GIT_PROTOCOL", "git-protocol"),
        ("HTTP_CONTENT_ENCODING", "content-encoding"),
    ];
    for (variable, name) in fields {
        if let Some(value) = request.header(name) {
            command.env(variable, value);
        }
    }
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (mut input, body) = (child.stdin.take().unwrap(), request.body.clone());
    let writer = std::thread::spawn(move || input.write_all(&body));
    let output = child.wait_with_output().unwrap().stdout;
    let _ = writer.join().unwrap();
    let end = output.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&output[..end]);
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    let status = fields
        .clone()
        .find(|(name, _)| *name == "Status")
        .map_or(200, |(_, text)| text[..3].parse().unwrap());
    let kept = fields.filter(|(name, _)| *name != "Status");
    kept.fold(Answer::new(status), |answer, (name, value)| answer.header(name, value))
        .body(&output[end + 4..])
}
