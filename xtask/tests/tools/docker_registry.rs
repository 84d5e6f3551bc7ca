//! Debian's docker-registry on a free loopback port: open, with a password, with tokens from a realm of our own, or with
//! HTTPS. What it holds is read from its folder, past all that stands between.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::{Answer, Request, Server};

pub const USER: &str = "tester";
pub const PASSWORD: &str = "s3cret-pass-phrase";
/// The password, by bcrypt.
const HTPASSWD: &str = "tester:$2b$05$Ex5ZR1p7HTcvIXFaqWKgdubi11T7dB3su9L0mCi1to7iAT7rIE/9O\n";

/// How many seconds the registry takes a token after its end.
const LEEWAY: u64 = 60;

pub struct Registry {
    pub host: String,
    child: Child,
    realm: Option<Server>,
    folder: TempDir,
}

/// What the realm gives.
#[derive(Clone, Copy)]
pub struct Tokens {
    /// In seconds.
    pub lifetime: u64,
    /// Whether somebody who asks to push gets that.
    pub push: bool,
    /// Every how many requests it answers 503; 0 is never.
    pub stumbles: usize,
}

impl Registry {
    pub fn open() -> Self {
        Self::start(tempfile::tempdir().unwrap(), "", None)
    }

    pub fn with_password() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("htpasswd");
        fs::write(&file, HTPASSWD).unwrap();
        let auth = format!("auth: {{htpasswd: {{realm: test, path: '{}'}}}}\n", file.display());
        Self::start(folder, &auth, None)
    }

    /// HTTPS with a certificate for `name` (`IP:…` or `DNS:…`) by an authority in `authority.pem`.
    pub fn with_tls(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let openssl = |args: &str| {
            let mut openssl = Command::new("openssl");
            let curve = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1";
            openssl
                .args(["req", "-x509", "-nodes", "-days", "2"])
                .args(curve.split(' '))
                .args(args.split(' '));
            let done = openssl.current_dir(folder.path()).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        openssl("-subj /CN=authority -keyout authority.key -out authority.pem");
        openssl(&format!(
            "-CA authority.pem -CAkey authority.key -subj /CN=registry -keyout key.pem -out certificate.pem \
             -addext subjectAltName={name} -addext basicConstraints=critical,CA:FALSE"
        ));
        let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| folder.path().join(name));
        let tls = format!("  tls: {{certificate: '{}', key: '{}'}}\n", certificate.display(), key.display());
        Self::start(folder, &tls, None)
    }

    pub fn with_tokens() -> Self {
        Self::with_tokens_of(Tokens { lifetime: 300, push: true, stumbles: 0 })
    }

    pub fn with_tokens_of(tokens: Tokens) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (key, certificate) = (folder.path().join("key.pem"), folder.path().join("certificate.pem"));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]);
        openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
        assert!(openssl.stderr(Stdio::null()).status().unwrap().success());

        let (signing_key, chain) = (key, fs::read_to_string(&certificate).unwrap());
        let asked = AtomicUsize::new(0);
        let server = Server::start(move |request| {
            let nth = asked.fetch_add(1, Ordering::SeqCst) + 1;
            if tokens.stumbles > 0 && nth.is_multiple_of(tokens.stumbles) {
                return Answer::new(503);
            }
            token(request, &signing_key, &chain, tokens)
        });
        let auth = format!(
            "auth: {{token: {{realm: '{}/token', service: test, issuer: test, rootcertbundle: '{}'}}}}\n",
            server.url(),
            certificate.display()
        );
        Self::start(folder, &auth, Some(server))
    }

    fn start(folder: TempDir, auth: &str, realm: Option<Server>) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (config, data) = (folder.path().join("config.yml"), folder.path().join("data"));
        let storage = format!("storage: {{filesystem: {{rootdirectory: '{}'}}}}\n", data.display());
        fs::write(
            &config,
            format!("version: 0.1\nlog: {{level: error}}\n{storage}http:\n  addr: '{free}'\n{auth}"),
        )
        .unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdout(log.try_clone().unwrap()).stderr(log);
        let registry = Self { host: free.to_string(), child: command.spawn().unwrap(), realm, folder };
        for _ in 0..500 {
            if TcpStream::connect(free).is_ok() {
                return registry;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("docker-registry did not start");
    }

    pub fn repository(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What it wrote down: each request that it answered, and errors.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// The digest that a tag names.
    pub fn tag(&self, repository: &str, tag: &str) -> Option<String> {
        let link =
            format!("data/docker/registry/v2/repositories/{repository}/_manifests/tags/{tag}/current/link");
        fs::read_to_string(self.path(&link)).ok()
    }

    /// The file of a blob or manifest, if the repository has it.
    pub fn blob(&self, repository: &str, digest: &str) -> Option<PathBuf> {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let folder = self.path("data/docker/registry/v2");
        let kinds = ["_layers/sha256", "_manifests/revisions/sha256"];
        let links = kinds.map(|kind| folder.join(format!("repositories/{repository}/{kind}/{hex}/link")));
        links
            .iter()
            .any(|link| link.is_file())
            .then(|| folder.join(format!("blobs/sha256/{}/{hex}/data", &hex[..2])))
    }

    /// Forgets that the repository has a blob, as a clean-up of the registry may.
    pub fn forget(&self, repository: &str, digest: &str) {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let folder = self.path("data/docker/registry/v2");
        fs::remove_dir_all(folder.join(format!("repositories/{repository}/_layers/sha256/{hex}"))).unwrap();
        fs::remove_dir_all(folder.join(format!("blobs/sha256/{}/{hex}", &hex[..2]))).unwrap();
    }

    /// What tokens were asked for.
    pub fn token_requests(&self) -> Vec<String> {
        let requests = self.realm.as_ref().map(Server::requests).unwrap_or_default();
        requests.into_iter().map(|request| request.path).collect()
    }

    /// The body of a plain GET of a manifest.
    pub fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        let accept = "application/vnd.oci.image.manifest.v1+json";
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\nAccept: {accept}\r\n\r\n", self.host).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A token for what was asked, if the password is right.
fn token(request: &Request, key: &Path, certificate: &str, tokens: Tokens) -> Answer {
    let expected = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    let right = request.authorization.as_deref() == Some(&expected);
    if request.authorization.is_some() && !right {
        return Answer::new(401).body(r#"{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}"#);
    }
    let query = request.path.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
    let scope = query.split(['?', '&']).find_map(|part| part.strip_prefix("scope=")).unwrap_or_default();
    let granted = |actions: &str| -> Vec<String> {
        actions.split(',').filter(|action| tokens.push || *action != "push").map(str::to_owned).collect()
    };
    let access: Vec<Value> = scope
        .split_once(':')
        .and_then(|(kind, rest)| rest.rsplit_once(':').map(|(name, actions)| (kind, name, actions)))
        .filter(|_| right)
        .map(|(kind, name, actions)| json!({ "type": kind, "name": name, "actions": granted(actions) }))
        .into_iter()
        .collect();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let chain: String = certificate.lines().filter(|line| !line.starts_with("---")).collect();
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = part(json!({ "typ": "JWT", "alg": "RS256", "x5c": [chain] }));
    let claims = part(
        json!({ "iss": "test", "sub": USER, "aud": "test", "exp": now + tokens.lifetime - LEEWAY, "nbf": now - 100,
        "iat": now - 100, "jti": "1", "access": access }),
    );
    let signature = URL_SAFE_NO_PAD.encode(sign(&format!("{head}.{claims}"), key));
    Answer::new(200).body(&json!({ "token": format!("{head}.{claims}.{signature}") }).to_string())
}

fn sign(text: &str, key: &Path) -> Vec<u8> {
    let mut openssl = Command::new("openssl");
    openssl.args(["dgst", "-sha256", "-sign"]).arg(key).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = openssl.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap().stdout
}
