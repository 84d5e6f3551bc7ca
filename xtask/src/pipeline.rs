//! `deploy/pipeline.yaml`: what is deployed, and where. All that this tool is told.

use std::path::Path;

use serde::Deserialize;

use crate::fault::Fault;
use crate::image::Compression;
use crate::version::Version;

mod environment;
mod infra;
mod place;
mod tag;
pub use environment::{Accepts, Environment, Manifests, Ref};
pub use infra::{Infra, on_github};
pub use place::{Controller, Place};

/// Where the file lies in the project.
pub const PATH: &str = "deploy/pipeline.yaml";

/// The whole file; unknown keys are refused, so that a misspelt gate is never silently off.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// The image's name without a tag, as manifests write it: `HOST/OWNER/NAME`.
    pub image: String,
    /// Where the image is kept, if not under its own name: `oci:FOLDER` (an OCI image layout) or `HOST[:PORT]/NAME`.
    #[serde(default)]
    registry: Option<String>,
    /// How the image's layers are stored: gzip, which everything pulls, unless told otherwise.
    #[serde(default)]
    pub compression: Compression,
    /// The project's repository as kustomize's remote resources write it: `github.com/OWNER/NAME`.
    pub repository: String,
    /// The branch that releases are cut from.
    pub branch: String,
    /// What the git tags of versions begin with, where the repository has several services.
    #[serde(default)]
    pub tag_prefix: String,
    /// The check runs that must be green on a commit before it is tagged.
    #[serde(default = "default_checks")]
    checks: Vec<String>,
    #[serde(default)]
    github: Github,
    pub infra: Infra,
    pub environments: Vec<Environment>,
}

/// Whom to ask for check runs, pull requests and releases.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(untagged, expecting = "github is `none` or {api: URL, uploads: URL}")]
enum Github {
    /// The API that belongs to the repository's host.
    #[default]
    OfHost,
    Api(Api),
    Word(Word),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    /// Nobody is asked: a commit's image is CI's word.
    None,
}

impl Github {
    /// The API for a repository, `HOST/OWNER/NAME`; `None` if nobody is to be asked.
    fn api(&self, repository: &str) -> Option<Api> {
        let host = repository.split('/').next().unwrap_or_default();
        match self {
            Self::Word(Word::None) => None,
            Self::Api(api) => Some(api.clone()),
            Self::OfHost if host == "github.com" => Some(Api {
                api: "https://api.github.com".to_owned(),
                uploads: "https://uploads.github.com".to_owned(),
            }),
            // GitHub Enterprise Server.
            Self::OfHost => Some(Api {
                api: format!("https://{host}/api/v3"),
                uploads: format!("https://{host}/api/uploads"),
            }),
        }
    }

    /// A URL that a token must not be sent to.
    fn leak(&self) -> Option<&str> {
        let Self::Api(Api { api, uploads }) = self else { return None };
        [api, uploads].into_iter().map(String::as_str).find(|url| !is_safe(url))
    }
}

/// The base URLs of GitHub's REST API.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    pub api: String,
    /// Where files of releases are sent.
    pub uploads: String,
}

/// The jobs of `.github/workflows/ci.yml`.
fn default_checks() -> Vec<String> {
    ["test", "build-and-push"].map(str::to_owned).to_vec()
}

impl Pipeline {
    /// Reads the file of the project at `root`.
    pub fn load(root: &Path) -> Result<Self, Fault> {
        let path = root.join(PATH);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Fault::usage(format!("{}: {error}", path.display())))?;
        Self::parse(&text)
    }

    /// Reads and checks the text of `deploy/pipeline.yaml`.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let pipeline: Self = serde_yaml::from_str(text).map_err(|error| {
            Fault::usage(format!("{PATH}: {error}")).help("every key is documented in the file itself")
        })?;
        pipeline.check()?;
        Ok(pipeline)
    }

    fn check(&self) -> Result<(), Fault> {
        self.check_tag_prefix()?;
        let wrong = |message: String| Err(Fault::usage(format!("{PATH}: {message}")));
        for (key, github) in [("github", &self.github), ("infra.github", &self.infra.github)] {
            if let Some(bad) = github.leak() {
                return wrong(format!("{key}: {bad} is neither https:// nor on this machine"));
            }
        }
        let urls = self.environments.iter().map(|environment| &environment.url);
        if urls.chain([&self.infra.url]).any(|url| has_password(url)) {
            return wrong(
                "a url has a password in it: give it to git's credentials, or to whoever guards the service"
                    .into(),
            );
        }
        if self.environments.is_empty() {
            return wrong("environments is empty: name at least one".into());
        }
        for (index, environment) in self.environments.iter().enumerate() {
            let name = &environment.name;
            if self.environments[..index].iter().any(|earlier| earlier.name == *name) {
                return wrong(format!("environment {name} stands twice"));
            }
            let path = &environment.kustomization;
            let branch = self.infra_branch(environment);
            let same = |earlier: &&Environment| {
                earlier.kustomization == *path && self.infra_branch(earlier) == branch
            };
            if let Some(other) = self.environments[..index].iter().find(same) {
                return wrong(format!(
                    "environments {} and {name} have the same kustomization {path} on {branch}",
                    other.name
                ));
            }
            if environment.accepts.is_empty() {
                return wrong(format!("environment {name} accepts nothing: give it edge, sha or release"));
            }
            let after = environment.after.as_deref();
            if let Some(after) =
                after.filter(|after| !self.environments[..index].iter().any(|e| e.name == **after))
            {
                return wrong(format!(
                    "environment {name} comes after {after}, which is not listed before it"
                ));
            }
            if environment.soak.is_some() && after.is_none() {
                return wrong(format!(
                    "environment {name} has a soak, but no `after` in which an image could soak"
                ));
            }
            if environment.follow.is_some() && !environment.accepts.contains(&Accepts::Edge) {
                return wrong(format!("environment {name} follows edge, but does not accept it"));
            }
            let at = |e: &Environment| e.cluster.as_ref().map(|p| (p.context.clone(), p.namespace.clone()));
            if environment.cluster.is_some()
                && self.environments[..index].iter().any(|e| at(e) == at(environment))
            {
                return wrong(format!("environment {name} has the cluster and namespace of an earlier one"));
            }
        }
        Ok(())
    }

    /// The environment of this name, or a refusal that lists the names there are.
    pub fn environment(&self, name: &str) -> Result<&Environment, Fault> {
        self.environments.iter().find(|environment| environment.name == name).ok_or_else(|| {
            let names: Vec<_> = self.environments.iter().map(|e| e.name.as_str()).collect();
            Fault::usage(format!("no environment is called {name}"))
                .help(format!("{PATH} has {}", names.join(", ")))
        })
    }

    /// GitHub's API for the repository; `None` if nobody is to be asked.
    pub fn github(&self) -> Option<Api> {
        self.github.api(&self.repository)
    }

    /// The check runs that must be green; none where nobody can be asked.
    pub fn checks(&self) -> &[String] {
        if self.github().is_some() { &self.checks } else { &[] }
    }

    /// The names of the files that a release on GitHub carries: the image with its digest, its bill of materials, and the
    /// manifests of production.
    pub fn release_files(&self, version: &Version) -> [String; 3] {
        ["digest.txt", "cdx.json", "production.yaml"]
            .map(|ending| format!("{}-{version}.{ending}", self.service()))
    }

    /// The service's short name, for commit subjects: the last part of the image's name.
    pub fn service(&self) -> &str {
        self.image.rsplit('/').next().unwrap_or(&self.image)
    }

    /// Where the image is kept: `registry` if given, else the image's own name.
    pub fn registry(&self) -> &str {
        self.registry.as_deref().unwrap_or(&self.image)
    }
}

/// `SCHEME://USER:PASSWORD@…`: this file is read by many.
fn has_password(url: &str) -> bool {
    let authority = url.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
    authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
}

/// A token is sent there.
fn is_safe(url: &str) -> bool {
    let Ok(url) = url.parse::<ureq::http::Uri>() else { return false };
    let (Some(authority), Some(scheme)) = (url.authority(), url.scheme_str()) else { return false };
    let host = authority.host();
    let loopback = host == "localhost" || host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback());
    !authority.as_str().contains('@') && (scheme == "https" || scheme == "http" && loopback)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    const GOOD: &str = "
image: ghcr.io/blogle/dojo
repository: github.com/blogle/dojo
branch: master
infra: {url: 'git@github.com:blogle/infra.git', branch: main}
environments:
  - {name: staging, kustomization: s.yaml, accepts: [edge, sha, release], url: 'https://staging'}
  - {name: production, kustomization: p.yaml, accepts: [release], after: staging, url: 'https://prod'}
";

    #[test]
    fn reads_the_documented_form() {
        let pipeline = Pipeline::parse(GOOD).unwrap();
        assert_eq!(pipeline.environment("production").unwrap().after.as_deref(), Some("staging"));
        assert_eq!(pipeline.registry(), "ghcr.io/blogle/dojo");
        let production = pipeline.environment("production").unwrap();
        assert_eq!((production.soak, production.git_ref, production.follow), (None, Ref::Tag, None));
        let text =
            GOOD.replace("after: staging", "after: staging, soak: 1d 2h, ref: commit, manifests: rendered");
        let slow = Pipeline::parse(&text).unwrap();
        let slow = slow.environment("production").unwrap();
        assert_eq!(slow.soak, Some(SignedDuration::from_hours(26)));
        assert_eq!((slow.git_ref, slow.manifests), (Ref::Commit, Manifests::Rendered));
        let moved = Pipeline::parse(&format!("{GOOD}registry: oci:registry\n")).unwrap();
        assert_eq!(moved.registry(), "oci:registry");
        assert_eq!(pipeline.compression, Compression::Gzip);
        let smaller = Pipeline::parse(&format!("{GOOD}compression: zstd\n")).unwrap();
        assert_eq!(smaller.compression, Compression::Zstd);
    }

    #[test]
    fn names_what_is_wrong() {
        let refusal =
            |from: &str, to: &str| Pipeline::parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(refusal("accepts:", "acepts:").contains("acepts"));
        assert!(refusal("[release]", "[tag]").contains("tag"));
        assert!(refusal("name: production", "name: staging").contains("staging stands twice"));
        assert!(refusal("p.yaml", "s.yaml").contains("same kustomization s.yaml on main"));
        assert!(refusal("p.yaml", "s.yaml, branch: main").contains("same kustomization s.yaml on main"));
        assert!(refusal("https://prod", "https://a:b@prod").contains("a url has a password"));
        assert!(refusal("git@github.com:blogle", "https://a:b@github.com/blogle").contains("password"));
        assert!(refusal("after: staging", "after: qa").contains("comes after qa"));
        assert!(refusal("[release]", "[]").contains("accepts nothing"));
        assert!(refusal("after: staging", "soak: 1h").contains("no `after`"));
        assert!(
            refusal("after: staging", "after: staging, soak: 1 moon").contains("no duration such as 30m")
        );
        assert!(refusal("after: staging", "after: staging, soak: -1h").contains("no duration"));
        assert!(refusal("after: staging", "follow: edge").contains("does not accept it"));
        assert!(refusal("after: staging", "follow: latest").contains("latest"));
        assert!(refusal("branch:", "github: no\nbranch:").contains("github is `none` or"));
        let leak = "branch: main, github: {api: 'http://example.com', uploads: 'https://x'}}";
        assert!(refusal("branch: main}", leak).contains("infra.github: http://example.com is neither"));
        for url in [
            "http://example.com",
            "http://127.0.0.1.example.com:80/x",
            "ftp://x",
            "http://127.0.0.1:80@example.com",
            "https://user@example.com",
            "127.0.0.1:80",
        ] {
            let text = format!("github: {{api: '{url}', uploads: 'https://x'}}\nbranch:");
            assert!(refusal("branch:", &text).contains(&format!("github: {url} is neither")), "{url}");
        }
    }

    #[test]
    fn the_api_belongs_to_the_repositorys_host() {
        let api = |from: &str, to: &str| Pipeline::parse(&GOOD.replacen(from, to, 1)).unwrap().github();
        assert_eq!(api("", "").unwrap().api, "https://api.github.com");
        let enterprise = api("repository: github.com", "repository: git.example.com").unwrap();
        assert_eq!(enterprise.uploads, "https://git.example.com/api/uploads");
        let local = "github: {api: 'http://127.0.0.1:4010', uploads: 'http://localhost:4011/'}\nbranch:";
        assert_eq!(api("branch:", local).unwrap().uploads, "http://localhost:4011/");
        assert_eq!(api("branch:", "github: none\nbranch:"), None);
        assert!(Pipeline::parse(&format!("{GOOD}github: none\n")).unwrap().checks().is_empty());
        assert_eq!(Pipeline::parse(GOOD).unwrap().checks(), ["test", "build-and-push"]);
    }

    #[test]
    fn an_unknown_environment_lists_the_known_ones() {
        let error = Pipeline::parse(GOOD).unwrap().environment("prod").unwrap_err().to_string();
        assert!(error.contains("staging, production"), "{error}");
    }
}
