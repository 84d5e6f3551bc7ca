//! Who this tool is to a registry: where credentials are looked for, and the answer to a registry's challenge.
//!
//! A registry is first asked without credentials. GitHub's tokens go to ghcr.io only; for all hosts, docker's own
//! config.json and credential helpers are read. A secret is never printed: it has no `Display`, and is struck out of what
//! a server says. Left out: identity tokens, which only some clouds use.

use std::collections::HashMap;
use std::fmt;
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

/// A user and a password or token.
pub struct Credentials {
    user: String,
    secret: String,
    from: String,
}

impl Credentials {
    pub fn basic(&self) -> String {
        let pair = format!("{}:{}", self.user, self.secret);
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "credentials of {} from {}", self.user, self.from)
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
    pub fn new(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            search: OnceLock::new(),
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
        let search = self.search.get_or_init(|| search(&self.host, |name| std::env::var(name).ok()));
        search.found.as_ref()
    }

    /// Whose credentials would be sent and where they were found; or where they were looked for.
    pub fn login(&self) -> Result<String, String> {
        match self.credentials() {
            Some(found) => Ok(format!("{} from {}", found.user, found.from)),
            None => Err(self.search.get().map_or_else(String::new, |search| search.looked.join("; "))),
        }
    }

    /// What to tell somebody whom the registry turned away.
    pub fn advice(&self) -> String {
        let Some(search) = self.search.get() else {
            return format!("no credentials were asked for: does {} allow this at all?", self.host);
        };
        match &search.found {
            Some(found) => {
                format!("sent the credentials of {} from {}: do they allow this?", found.user, found.from)
            }
            None => {
                format!("found no credentials ({}): use docker login {}", search.looked.join("; "), self.host)
            }
        }
    }

    /// Strikes every secret out of what a server said.
    pub fn scrub(&self, text: &str) -> String {
        let granted = self.granted();
        let found = self.search.get().and_then(|search| search.found.as_ref()).map(|found| &found.secret);
        let secrets = granted.secrets.iter().chain(found).filter(|secret| !secret.is_empty());
        secrets.fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***"))
    }

    fn granted(&self) -> std::sync::MutexGuard<'_, Granted> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn search(host: &str, env: impl Fn(&str) -> Option<String>) -> Search {
    let mut looked = Vec::new();
    if host == "ghcr.io" {
        for name in ["GITHUB_TOKEN", "GH_TOKEN"] {
            if let Some(secret) = env(name).filter(|token| !token.is_empty()) {
                let user = env("GITHUB_ACTOR").filter(|actor| !actor.is_empty());
                let user = user.unwrap_or_else(|| "x-access-token".to_owned());
                return Search { found: Some(Credentials { user, secret, from: name.to_owned() }), looked };
            }
            looked.push(format!("{name} is not set"));
        }
    }
    let why = match docker_credential::get_credential(host) {
        Ok(DockerCredential::UsernamePassword(user, secret)) => {
            let from = "docker's config".to_owned();
            return Search { found: Some(Credentials { user, secret, from }), looked };
        }
        Ok(DockerCredential::IdentityToken(_)) => {
            "docker's config has an identity token, which is not supported".to_owned()
        }
        Err(CredentialRetrievalError::ConfigNotFound | CredentialRetrievalError::ConfigReadError) => {
            "docker's config.json is absent or not readable".to_owned()
        }
        Err(CredentialRetrievalError::NoCredentialConfigured) => {
            format!("docker's config.json has nothing for {host}")
        }
        // What a helper printed may hold a secret: its name must do.
        Err(CredentialRetrievalError::HelperFailure { helper, .. }) => format!("{helper} gave nothing"),
        Err(other) => format!("docker's config: {other}"),
    };
    looked.push(why);
    Search { found: None, looked }
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
        let found = search("ghcr.io", env(&set)).found.unwrap();
        assert_eq!((found.user.as_str(), found.from.as_str()), ("x-access-token", "GH_TOKEN"));
        let set = [("GITHUB_TOKEN", "s3cret"), ("GH_TOKEN", "other"), ("GITHUB_ACTOR", "octocat")];
        let found = search("ghcr.io", env(&set)).found.unwrap();
        assert_eq!((found.user.as_str(), found.from.as_str()), ("octocat", "GITHUB_TOKEN"));
        assert!(search("registry.invalid", env(&set)).found.is_none());
        assert!(search("ghcr.io.invalid", env(&set)).found.is_none());
    }

    #[test]
    fn a_secret_has_no_way_out() {
        let auth = Auth::new("ghcr.io");
        let _ = auth.search.set(search("ghcr.io", env(&[("GITHUB_TOKEN", "s3cret")])));
        let header =
            auth.renew(Access::Pull, None, |found| Ok(found.map(Credentials::basic))).unwrap().unwrap();
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
