//! One of `environments:` in `deploy/pipeline.yaml`: what it takes, and how it is pinned.

use jiff::{SignedDuration, SpanRelativeTo};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::Place;

/// One place where the service runs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    pub name: String,
    /// Path of the environment's kustomization in the infra repository.
    pub kustomization: String,
    /// The branch of the infra repository with its pin, if not the one of `infra`.
    #[serde(default)]
    pub branch: Option<String>,
    pub accepts: Vec<Accepts>,
    /// The environment that must run an image before this one takes it.
    #[serde(default)]
    pub after: Option<String>,
    /// For how long `after` must have run it.
    #[serde(default, deserialize_with = "duration")]
    pub soak: Option<SignedDuration>,
    /// What CI promotes here by itself.
    #[serde(default)]
    pub follow: Option<Follow>,
    /// How manifests are pinned.
    #[serde(default, rename = "ref")]
    pub git_ref: Ref,
    #[serde(default)]
    pub manifests: Manifests,
    /// Where its pod and its controller can be looked at.
    #[serde(default)]
    pub cluster: Option<Place>,
    /// Base URL of the running service, to ask `/version` and `/readyz`.
    pub url: String,
}

/// The kinds of pin that an environment takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accepts {
    /// Whatever `edge` names now; pinned by commit and digest.
    Edge,
    /// A commit's image, `sha-…`.
    Sha,
    /// A released version.
    Release,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Follow {
    /// Each image that `edge` comes to name.
    Edge,
}

/// What `?ref=` is for a version; for a commit's image it is always the commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ref {
    #[default]
    Tag,
    /// All 40 hex digits, with the version as a comment: a tag that is moved changes nothing.
    Commit,
}

/// Where the environment's manifests come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manifests {
    /// kustomize fetches them at `?ref=`.
    #[default]
    Remote,
    /// They lie rendered beside the kustomization, which a promotion writes, for controllers that cannot fetch.
    Rendered,
}

/// `30m`, `2h`, `1d 12h`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SignedDuration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parsed =
        text.parse::<jiff::Span>().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()));
    let positive = parsed.ok().filter(SignedDuration::is_positive);
    positive.map(Some).ok_or_else(|| D::Error::custom(format!("{text:?} is no duration such as 30m or 2h")))
}
