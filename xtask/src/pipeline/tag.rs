//! Which tags and branches of the project's repository are this service's: `tag_prefix` of `deploy/pipeline.yaml`. An image
//! has a name of its own, so its tags never have the prefix.

use super::{PATH, Pipeline};
use crate::fault::Fault;
use crate::version::{Series, Version};

impl Pipeline {
    /// The version's tag in git: `v0.1.0`, or `dojo-v0.1.0`.
    pub fn git_tag(&self, version: &Version) -> String {
        format!("{}{version}", self.tag_prefix)
    }

    /// The version of a tag in git; `None` if it is another service's, or no version's.
    pub fn version_of_tag(&self, tag: &str) -> Option<Version> {
        Version::from_tag(tag.strip_prefix(self.tag_prefix.as_str())?)
    }

    /// The branch of a series: `release/0.1`, or `release/dojo-0.1`.
    pub fn series_branch(&self, series: Series) -> String {
        format!("release/{}{series}", self.tag_prefix)
    }

    /// The series of a branch; `None` for any other branch.
    pub fn series_of_branch(&self, branch: &str) -> Option<Series> {
        branch.strip_prefix("release/")?.strip_prefix(self.tag_prefix.as_str())?.parse().ok()
    }

    /// What git takes in a tag (git-check-ref-format), and needs no escape in `?ref=` or in a workflow's pattern.
    pub(super) fn check_tag_prefix(&self) -> Result<(), Fault> {
        let prefix = &self.tag_prefix;
        let plain = prefix.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if prefix.starts_with(['-', '.']) || prefix.contains("..") || !plain {
            return Err(Fault::usage(format!("{PATH}: tag_prefix {prefix:?} cannot begin a tag"))
                .help("write letters, digits, hyphens, dots and underscores, for example dojo-"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(prefix: &str) -> Result<Pipeline, Fault> {
        Pipeline::parse(&format!(
            "
image: ghcr.io/o/n
repository: github.com/o/n
branch: master
tag_prefix: '{prefix}'
infra: {{url: ../infra.git, branch: main}}
environments:
  - {{name: staging, kustomization: k.yaml, accepts: [edge], url: 'https://staging'}}
"
        ))
    }

    #[test]
    fn only_tags_and_branches_with_the_prefix_are_ours() {
        let ours = pipeline("dojo-").unwrap();
        let version = "v0.1.0-rc.1".parse::<Version>().unwrap();
        assert_eq!(ours.git_tag(&version), "dojo-v0.1.0-rc.1");
        assert_eq!(ours.version_of_tag("dojo-v0.1.0-rc.1"), Some(version.clone()));
        for other in ["v0.1.0", "other-v0.1.0", "dojo-0.1.0", "dojo-web-v0.1.0", "dojo-", "dojo-dojo-v0.1.0"]
        {
            assert_eq!(ours.version_of_tag(other), None, "{other}");
        }
        let series = Series::of(&version);
        assert_eq!(ours.series_branch(series), "release/dojo-0.1");
        assert_eq!(ours.series_of_branch("release/dojo-0.1"), Some(series));
        for other in
            ["release/0.1", "release/other-0.1", "release/dojo-01.1", "dojo-0.1", "release/dojo-v0.1"]
        {
            assert_eq!(ours.series_of_branch(other), None, "{other}");
        }
        let plain = pipeline("").unwrap();
        assert_eq!(plain.git_tag(&version), "v0.1.0-rc.1");
        assert_eq!(plain.version_of_tag("dojo-v0.1.0"), None);
        assert_eq!(plain.series_of_branch("release/0.1"), Some(series));
    }

    #[test]
    fn a_prefix_that_git_or_an_address_would_not_take_is_refused() {
        for prefix in ["-a", ".a", "a..b", "a/", "a b", "a~", "a:", "a*", "a%2f", "a#b", "a&b", "ü", "a@{"] {
            let refusal = pipeline(prefix).unwrap_err().to_string();
            assert!(refusal.contains("cannot begin a tag\nhelp: "), "{prefix}: {refusal}");
        }
        for prefix in ["dojo-", "dojo_", "a.b-", "2-"] {
            assert!(pipeline(prefix).is_ok(), "{prefix}");
        }
    }
}
