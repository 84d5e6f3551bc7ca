//! Who this tool is to a registry: where credentials are looked for, and the answer to a registry's challenge.
//!
//! A registry is first asked without credentials. GitHub's tokens go to ghcr.io only; for all hosts, docker's config.json
//! and podman's auth.json are read, with the credential helpers that they name. A secret is never printed: it has no
//! `Display`, and is struck out of what a server says.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use base64::Engine as _;
use docker_credential::{CredentialRetrievalError, DockerCredential};

/// What a request needs to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    Pull,
    Push,
}

impl Access {
    /// The scope that a token is asked for.
    pub fn scope(self, name: &str) -> String {
        let actions = match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
        };
        format!("repository:{name}:{actions}")
    }
}

/// What the registry wants to see.
#[derive(Debug, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    /// The strongest of the challenges in these `WWW-Authenticate` headers that is understood.
    pub fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut basic = None;
        for challenge in headers.filter_map(|header| http_auth::parse_challenges(header).ok()).flatten() {
            let param = |wanted: &str| {
                let found = challenge.params.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
                found.map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = param("realm")
            {
                return Some(Self::Bearer { realm, service: param("service") });
            }
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Self::Basic);
            }
        }
        basic
    }
}

/// A user and a password that somebody gave for this one command.
#[derive(Clone)]
pub struct Login {
    pub user: String,
    pub secret: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "login of {}", self.user)
    }
}

/// A user and a password or token; without a user, a token that only the token server takes.
pub struct Credentials {
    user: Option<String>,
    secret: String,
    from: String,
}

impl Credentials {
    pub fn basic(&self) -> Option<String> {
        let pair = format!("{}:{}", self.user.as_ref()?, self.secret);
        Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
    }

    /// What `docker login` stores for registries whose token servers want a refresh token.
    pub fn identity_token(&self) -> Option<&str> {
        self.user.is_none().then_some(&self.secret)
    }

    fn who(&self) -> String {
        let user = self.user.as_deref().unwrap_or("an identity token");
        format!("{user} from {}", self.from)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "credentials of {}", self.who())
    }
}

/// What the search for credentials came to; `looked` tells where, for the error that may follow.
#[derive(Debug)]
struct Search {
    found: Option<Credentials>,
    looked: Vec<String>,
}

/// One host's credentials, and the authorisations that they got.
#[derive(Debug)]
pub struct Auth {
    host: String,
    name: String,
    search: OnceLock<Search>,
    granted: Mutex<Granted>,
    /// Held while asking, so that threads ask once; apart from `granted`, which an error on the way reads.
    renewal: Mutex<()>,
}

#[derive(Default)]
struct Granted {
    headers: HashMap<Access, String>,
    secrets: Vec<String>,
}

impl fmt::Debug for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.headers.keys()).finish()
    }
}

impl Auth {
    /// For the repository `name` on this host; a given login is used in place of whatever could be found.
    pub fn new(host: &str, name: &str, login: Option<Login>) -> Self {
        let given = login.map(|Login { user, secret }| Search {
            found: Some(Credentials { user: Some(user), secret, from: "--username".to_owned() }),
            looked: Vec::new(),
        });
        Self {
            host: host.to_owned(),
            name: name.to_owned(),
            search: given.map_or_else(OnceLock::new, OnceLock::from),
            granted: Mutex::default(),
            renewal: Mutex::default(),
        }
    }

    /// The `Authorization` header to send, if one was granted.
    pub fn header(&self, access: Access) -> Option<String> {
        self.granted().headers.get(&access).cloned()
    }

    /// Gets a header in place of the rejected one by `fetch`, unless another thread already did.
    pub fn renew(
        &self,
        access: Access,
        rejected: Option<&str>,
        fetch: impl FnOnce(Option<&Credentials>) -> anyhow::Result<Option<String>>,
    ) -> anyhow::Result<Option<String>> {
        let credentials = self.credentials();
        let _renewal = self.renewal.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.header(access);
        if current.is_some() && current.as_deref() != rejected {
            return Ok(current);
        }
        let Some(header) = fetch(credentials)? else { return Ok(None) };
        let mut granted = self.granted();
        granted.secrets.extend(header.split_once(' ').map(|(_, secret)| secret.to_owned()));
        granted.headers.insert(access, header.clone());
        Ok(Some(header))
    }

    fn credentials(&self) -> Option<&Credentials> {
        let env = |name: &str| std::env::var(name).ok();
        let search = self.search.get_or_init(|| search(&self.host, &self.name, env));
        search.found.as_ref()
    }

    /// Whose credentials would be sent and where they were found; or where they were looked for.
    pub fn login(&self) -> Result<String, String> {
        match self.credentials() {
            Some(found) => Ok(found.who()),
            None => Err(self.search.get().map_or_else(String::new, |search| search.looked.join("; "))),
        }
    }

    /// What to tell somebody whom the registry turned away.
    pub fn advice(&self) -> String {
        let Some(search) = self.search.get() else {
            return format!("no credentials were asked for: does {} allow this at all?", self.host);
        };
        match &search.found {
            Some(found) => format!("sent the credentials of {}: do they allow this?", found.who()),
            None => {
                format!(
                    "found no credentials ({}): use docker login {}, or --username and --password-stdin where the command takes them",
                    search.looked.join("; "),
                    self.host
                )
            }
        }
    }

    /// Strikes every secret out of what a server said.
    pub fn scrub(&self, text: &str) -> String {
        let granted = self.granted();
        let found = self.search.get().and_then(|search| search.found.as_ref());
        // As it is sent, too: a server may repeat what it does not grant.
        let sent = found.and_then(Credentials::basic).map(|basic| basic["Basic ".len()..].to_owned());
        let secrets = granted.secrets.iter().chain(found.map(|found| &found.secret)).chain(&sent);
        let secrets = secrets.filter(|secret| !secret.is_empty());
        secrets.fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***"))
    }

    fn granted(&self) -> std::sync::MutexGuard<'_, Granted> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn search(host: &str, name: &str, env: impl Fn(&str) -> Option<String>) -> Search {
    let mut looked = Vec::new();
    if host == "ghcr.io" {
        for name in ["GITHUB_TOKEN", "GH_TOKEN"] {
            if let Some(secret) = env(name).filter(|token| !token.is_empty()) {
                let user = env("GITHUB_ACTOR").filter(|actor| !actor.is_empty());
                let user = Some(user.unwrap_or_else(|| "x-access-token".to_owned()));
                return Search { found: Some(Credentials { user, secret, from: name.to_owned() }), looked };
            }
            looked.push(format!("{name} is not set"));
        }
    }
    for (from, path, keys) in files(host, name, &env) {
        match in_file(&path, &keys) {
            Ok(credential) => {
                let (user, secret) = match credential {
                    DockerCredential::UsernamePassword(user, secret) => (Some(user), secret),
                    DockerCredential::IdentityToken(secret) => (None, secret),
                };
                let from = from.to_owned();
                return Search { found: Some(Credentials { user, secret, from }), looked };
            }
            Err(why) => looked.push(format!("{from}: {why}")),
        }
    }
    Search { found: None, looked }
}

/// Whose files may have credentials, and under which keys: docker knows hosts, podman repositories and what they lie in,
/// too.
fn files(
    host: &str,
    name: &str,
    env: &impl Fn(&str) -> Option<String>,
) -> Vec<(&'static str, PathBuf, Vec<String>)> {
    let folder = |variable: &str| env(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = |below: &str| folder("HOME").map(|home| home.join(below));
    let repository = format!("{host}/{name}");
    let nested: Vec<_> =
        Path::new(&repository).ancestors().map(|path| path.to_string_lossy().into_owned()).collect();
    let nested: Vec<_> = nested.into_iter().filter(|key| !key.is_empty()).collect();
    let docker = folder("DOCKER_CONFIG").or_else(|| home(".docker")).map(|folder| folder.join("config.json"));
    let podman = folder("REGISTRY_AUTH_FILE")
        .or_else(|| folder("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json")));
    let lasting = folder("XDG_CONFIG_HOME").or_else(|| home(".config"));
    [
        docker.map(|path| ("docker's config.json", path, vec![host.to_owned()])),
        podman.map(|path| ("podman's auth.json", path, nested.clone())),
        lasting.map(|folder| ("podman's lasting auth.json", folder.join("containers/auth.json"), nested)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The first key's credential that the file, or the helper that it names, has.
fn in_file(path: &Path, keys: &[String]) -> Result<DockerCredential, String> {
    let mut why = "has nothing".to_owned();
    for key in keys {
        let file = match File::open(path) {
            Ok(file) => BufReader::new(file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err("absent".to_owned()),
            Err(error) => return Err(error.to_string()),
        };
        match docker_credential::get_credential_from_reader(file, key) {
            Ok(credential) => return Ok(credential),
            Err(CredentialRetrievalError::NoCredentialConfigured) => why = format!("has nothing for {key}"),
            // What a helper printed may hold a secret: its name must do.
            Err(CredentialRetrievalError::HelperFailure { helper, .. }) => {
                why = format!("{helper} gave nothing");
            }
            Err(other) => return Err(other.to_string()),
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(set: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn github_tokens_are_for_ghcr_only_and_the_first_wins() {
        let set = [("GITHUB_TOKEN", ""), ("GH_TOKEN", "s3cret")];
        let found = search("ghcr.io", "a/b", env(&set)).found.unwrap();
        assert_eq!(found.who(), "x-access-token from GH_TOKEN");
        let set = [("GITHUB_TOKEN", "s3cret"), ("GH_TOKEN", "other"), ("GITHUB_ACTOR", "octocat")];
        let found = search("ghcr.io", "a/b", env(&set)).found.unwrap();
        assert_eq!(found.who(), "octocat from GITHUB_TOKEN");
        assert!(search("registry.invalid", "a", env(&set)).found.is_none());
        assert!(search("ghcr.io.invalid", "a", env(&set)).found.is_none());
    }

    #[test]
    fn podmans_file_may_name_the_repository_and_dockers_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        let write = |name: &str, auths: serde_json::Value| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, serde_json::json!({ "auths": auths }).to_string()).unwrap();
        };
        let who = |repository: &str| {
            let search =
                search("host.invalid", repository, env(&[("HOME", home), ("XDG_RUNTIME_DIR", home)]));
            search.found.map(|found| found.who())
        };
        assert_eq!(who("team/dojo"), None);
        write(
            "containers/auth.json",
            serde_json::json!({
                "host.invalid/team": { "auth": "dGVhbTp4" }, "host.invalid": { "auth": "YWxsOng=" } }),
        );
        assert_eq!(who("team/dojo").unwrap(), "team from podman's auth.json");
        assert_eq!(who("teams/dojo").unwrap(), "all from podman's auth.json");
        write(".docker/config.json", serde_json::json!({ "host.invalid": { "identitytoken": "s3cret" } }));
        assert_eq!(who("team/dojo").unwrap(), "an identity token from docker's config.json");
    }

    #[test]
    fn a_secret_has_no_way_out() {
        let auth = Auth::new("ghcr.io", "a", None);
        let _ = auth.search.set(search("ghcr.io", "a", env(&[("GITHUB_TOKEN", "s3cret")])));
        let header =
            auth.renew(Access::Pull, None, |found| Ok(found.and_then(Credentials::basic))).unwrap().unwrap();
        let shown =
            format!("{auth:?} {} {}", auth.advice(), auth.scrub(&format!("bad token s3cret, {header}")));
        assert!(!shown.contains("s3cret") && !shown.contains(&header["Basic ".len()..]), "{shown}");
        assert!(auth.advice().contains("GITHUB_TOKEN"));
        // An error on the way to a new header is scrubbed, too.
        let renewed =
            auth.renew(Access::Pull, Some(&header), |_| Ok(Some(auth.scrub("Bearer s3cret")))).unwrap();
        assert_eq!(renewed.as_deref(), Some("Bearer ***"));
    }

    #[test]
    fn reads_the_challenges_that_registries_send() {
        let bearer =
            r#"Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:a/b:pull,push""#;
        let expected =
            Challenge::Bearer { realm: "https://ghcr.io/token".into(), service: Some("ghcr.io".into()) };
        assert_eq!(Challenge::parse([bearer].into_iter()), Some(expected));
        assert_eq!(Challenge::parse([r#"Basic realm="x, y""#].into_iter()), Some(Challenge::Basic));
        assert_eq!(Challenge::parse(["Negotiate", "???"].into_iter()), None);
    }
}
