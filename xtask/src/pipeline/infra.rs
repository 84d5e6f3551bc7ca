//! `infra:` of `deploy/pipeline.yaml`: the repository that says what runs, and where its pull requests are.

use serde::Deserialize;

use super::{Api, Environment, Github, PATH, Pipeline};
use crate::fault::Fault;

/// The repository whose kustomizations say what runs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Infra {
    /// Anything that `git clone` takes.
    pub url: String,
    pub branch: String,
    /// `HOST/OWNER/NAME`, where the URL does not tell it.
    #[serde(default)]
    repository: Option<String>,
    #[serde(default)]
    pub(super) github: Github,
}

impl Infra {
    /// The repository as `HOST/OWNER/NAME`, if it is told, or the URL tells it.
    pub fn repository(&self) -> Option<String> {
        self.repository.clone().or_else(|| on_github(&self.url))
    }

    /// Where pull requests are made: GitHub's API, and the repository as `HOST/OWNER/NAME`.
    pub fn pulls(&self) -> Result<(Api, String), Fault> {
        let needs =
            |what: &str| Fault::usage(format!("{PATH}: pull requests and commit statuses need {what}"));
        let repository = self.repository().ok_or_else(|| {
            needs("to know the infra repository on GitHub")
                .help("write infra: {url: …, branch: …, repository: github.com/OWNER/NAME}")
        })?;
        let api = self.github.api(&repository).ok_or_else(|| {
            needs("GitHub, and infra has `github: none`").help("leave that out, or go without --pr")
        })?;
        Ok((api, repository))
    }
}

impl Pipeline {
    /// The branch of the infra repository that an environment's pin lies on.
    pub fn infra_branch<'a>(&'a self, environment: &'a Environment) -> &'a str {
        environment.branch.as_deref().unwrap_or(&self.infra.branch)
    }

    /// The branches of the infra repository that environments lie on, in the order of promotion, each once.
    pub fn infra_branches(&self) -> Vec<&str> {
        let mut branches = Vec::new();
        for branch in self.environments.iter().map(|environment| self.infra_branch(environment)) {
            if !branches.contains(&branch) {
                branches.push(branch);
            }
        }
        branches
    }
}

/// `github.com/OWNER/NAME` of a URL in one of the forms that GitHub shows. A token is sent to no other host unless told so.
pub fn on_github(url: &str) -> Option<String> {
    let forms = ["git@github.com:", "ssh://git@github.com/", "https://github.com/"];
    let path = forms.iter().find_map(|form| url.strip_prefix(form))?;
    let path = path.trim_end_matches('/');
    let (owner, name) = path.strip_suffix(".git").unwrap_or(path).split_once('/')?;
    let plain =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    (plain(owner) && plain(name)).then(|| format!("github.com/{owner}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn infra(rest: &str) -> Infra {
        serde_yaml::from_str(&format!("{{branch: main, {rest}}}")).unwrap()
    }

    #[test]
    fn the_repository_is_what_the_url_says_unless_told() {
        for url in [
            "git@github.com:o/n.git",
            "git@github.com:o/n",
            "ssh://git@github.com/o/n.git",
            "https://github.com/o/n",
            "https://github.com/o/n.git/",
        ] {
            let (api, repository) = infra(&format!("url: '{url}'")).pulls().unwrap();
            assert_eq!(
                (repository.as_str(), api.api.as_str()),
                ("github.com/o/n", "https://api.github.com"),
                "{url}"
            );
        }
        let told = infra("url: ../infra.git, repository: git.example.com/o/n").pulls().unwrap();
        assert_eq!(
            (told.1.as_str(), told.0.api.as_str()),
            ("git.example.com/o/n", "https://git.example.com/api/v3")
        );
    }

    #[test]
    fn an_environment_may_lie_on_a_branch_of_its_own() {
        let text = "
image: ghcr.io/o/n
repository: github.com/o/n
branch: master
infra: {url: ../infra.git, branch: main}
environments:
  - {name: staging, kustomization: k.yaml, accepts: [edge], url: 'https://staging'}
  - {name: production, kustomization: k.yaml, branch: prod, accepts: [release], url: 'https://prod'}
";
        let pipeline = Pipeline::parse(text).unwrap();
        assert_eq!(pipeline.infra_branches(), ["main", "prod"]);
        assert_eq!(pipeline.infra_branch(pipeline.environment("production").unwrap()), "prod");
        let text = text.replace("k.yaml, accepts", "k.yaml, branch: prod2, accepts");
        assert_eq!(Pipeline::parse(&text).unwrap().infra_branches(), ["prod2", "prod"]);
        let text = text.replace("k.yaml, branch: prod,", "p.yaml,");
        assert_eq!(Pipeline::parse(&text).unwrap().infra_branches(), ["prod2", "main"]);
    }

    #[test]
    fn what_is_not_known_is_asked_for() {
        for url in [
            "../infra.git",
            "git@github.com.example.com:o/n.git",
            "https://user:secret@github.com/o/n",
            "https://github.com/o",
            "https://github.com/o/n/x",
        ] {
            let refusal = infra(&format!("url: '{url}'")).pulls().unwrap_err().to_string();
            assert!(refusal.contains("repository: github.com/OWNER/NAME"), "{url}: {refusal}");
            assert!(!refusal.contains("secret"), "{refusal}");
        }
        let refusal = infra("url: 'git@github.com:o/n', github: none").pulls().unwrap_err().to_string();
        assert!(refusal.contains("github: none"), "{refusal}");
    }
}
