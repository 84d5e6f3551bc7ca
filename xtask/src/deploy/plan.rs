//! Facts -> plan, for `promote` and `rollback`: both set one environment's pin, so both pass the same guards.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::checks::Check;
use crate::data_file::Past;
use crate::environment::{Base, Pinned};
use crate::fault::Fault;
use crate::gate::{Override, PinGate};
use crate::image::{Digest, Schema};
use crate::kustomization::Pin;
use crate::pipeline::{Accepts, Environment};
use crate::report::Observed;
use crate::trailers::{Seen, Trailers};
use crate::version::Version;

mod gates;
mod schema;
mod show;
#[cfg(test)]
mod tests;

pub use gates::{Unmet, unmet};
pub use schema::{is_known, is_safe, pending};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    Promote,
    Rollback,
    /// To pin what runs.
    Adopt,
}

impl Verb {
    /// As the command line has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Rollback => "rollback",
            Self::Adopt => "adopt",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Promote => "promote",
            Self::Rollback => "roll back",
            Self::Adopt => "adopt",
        })
    }
}

/// An image that the environment is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// `v0.2.0` or `sha-…`: the pin's newTag.
    pub name: String,
    pub kind: Accepts,
    /// What the manifests are taken from: the version's tag, or the 40-hex commit.
    pub git_ref: String,
    /// The commit that the project's remote has for it; `None` if it has none.
    pub commit: Option<String>,
    pub digest: Digest,
    /// The commit that the image was built from.
    pub revision: String,
    pub schema: Schema,
    /// What the image calls itself, without `v`; `None` if it was not asked.
    pub version: Option<String>,
    /// Why the registry could not be asked, if so: then the rest is what the infra repository remembers of the image.
    pub unasked: Option<String>,
}

impl Candidate {
    pub fn pin(&self) -> Pin {
        Pin {
            git_ref: Some(self.git_ref.clone()),
            tag: Some(self.name.clone()),
            digest: Some(self.digest.clone()),
        }
    }
}

/// The environment that must run the image first.
#[derive(Clone, Debug)]
pub struct Before {
    pub name: String,
    pub pin: Pin,
    pub observed: Observed,
}

/// What became of the pin that was there, where what runs is to be pinned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Why it is no whole pin; `None` if it is.
    pub broken: Option<String>,
    /// The files to start from, where those that are there will not do.
    pub base: Option<Base>,
}

/// A released version that is not asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    pub version: Version,
    /// Of its binary.
    pub schema: u32,
    /// Whether it ran here, and was not rolled back from.
    pub ran: bool,
}

/// A backup that is to be restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restore {
    pub id: String,
    /// As the service lists it, else as its name says.
    pub schema: Option<u32>,
    pub sequence: Option<u64>,
    /// RFC 3339, of the service.
    pub made_at: Option<String>,
    /// The ids of the backups that the service has; `None` if it does not say.
    pub there: Option<Vec<String>>,
    /// The earlier commit in the infra repository that asked for it: an id is applied once.
    pub asked_before: Option<String>,
}

/// All that a plan is made from.
#[derive(Clone, Debug)]
pub struct Facts {
    pub verb: Verb,
    pub environment: Environment,
    /// What the infra repository has of the environment now.
    pub from: Pinned,
    pub to: Candidate,
    pub restore: Option<Restore>,
    /// Of `adopt` alone.
    pub lost: Lost,
    pub observed: Observed,
    pub before: Option<Before>,
    /// The digest that is pinned now, also where the file has a tag alone.
    pub from_digest: Option<Digest>,
    /// What the pinned image says of itself: its commit and its schema.
    pub from_image: Option<(String, Schema)>,
    /// Whether the operator named the image.
    pub named: bool,
    /// How it stands with the required checks; asked for promotions.
    pub checks: Result<Vec<Check>, Fault>,
    /// What an earlier pin of the same tag says of its commit: that commit, and the one in the infra repository.
    pub tagged_before: Option<(String, String)>,
    /// The commit in the infra repository that rolled back from this image.
    pub bad_since: Option<String>,
    /// What the operator read off the data file; counts while the service does not answer.
    pub told_schema: Option<u32>,
    /// The earlier pins, newest first.
    pub past: Vec<Past>,
    /// Other versions to go to; gathered only when a downgrade is asked for.
    pub others: Vec<Other>,
    /// File names of the target's migrations, in order.
    pub migrations: Vec<String>,
    pub overrides: Vec<Override<PinGate>>,
    /// Why, in the operator's words.
    pub because: Option<String>,
}

/// One change of one environment's pin, or none if it is pinned so already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub verb: Verb,
    pub environment: String,
    pub from: Pin,
    pub to: Pin,
    /// The backup that the environment is to start from.
    pub restore: Option<String>,
    /// False when the pin is already what was asked for.
    pub change: bool,
    /// The commit that the image was built from.
    pub commit: String,
    pub schema: Schema,
    /// The data file, as the service describes it.
    pub seen: Option<Seen>,
    /// The data file's schema in the operator's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told_schema: Option<u32>,
    /// The migrations that will run on the data file; at most, where `file_known` is false.
    pub migrations: Vec<String>,
    pub file_known: bool,
    /// The gates that are not met and are passed.
    pub overrides: Vec<Override<PinGate>>,
    /// Why, in the operator's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// The digest that is rolled back from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bad: Option<Digest>,
    #[serde(skip)]
    pub base: Option<Base>,
    /// What was observed, and what could not be.
    pub notes: Vec<String>,
    /// How the image did on a copy of a data file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rehearsed: Option<Rehearsed>,
}

/// The image's own program, run on a copy of a data file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rehearsed {
    pub backup: PathBuf,
    pub bytes: u64,
    pub steps: Vec<Step>,
    /// What is odd about it.
    pub note: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// `dojo migrate`.
    pub command: String,
    pub milliseconds: u64,
    pub said: String,
}

/// Makes the plan, or refuses with every reason at once.
pub fn plan(facts: &Facts) -> Result<Plan, Fault> {
    let (overrides, notes) = gates::pass(facts)?;
    let restore = facts.restore.as_ref().map(|restore| restore.id.clone());
    Ok(Plan {
        verb: facts.verb,
        environment: facts.environment.name.clone(),
        from: facts.from.pin.clone(),
        to: facts.to.pin(),
        change: facts.is_change(),
        // A change of the pin ends what an earlier one asked for.
        restore,
        commit: facts.to.revision.clone(),
        schema: facts.to.schema,
        seen: facts.observed.report().map(|report| Seen::of(&report.version)),
        told_schema: facts
            .told_schema
            .filter(|_| facts.observed.report().is_none() || facts.restore.is_some()),
        migrations: pending(facts),
        file_known: is_known(facts),
        overrides,
        bad: facts.flees(),
        because: facts.because.clone(),
        base: facts.lost.base.clone(),
        notes,
        rehearsed: None,
    })
}

impl Facts {
    /// Whether the service says that it did this restore.
    pub fn has_restored(&self, id: &str) -> bool {
        let restored = self.observed.report().and_then(|report| report.version.restored.as_ref());
        restored.is_some_and(|restored| restored.id == id)
    }

    /// What a rollback leaves because it is bad; nothing if it goes back to what was left as bad itself.
    fn flees(&self) -> Option<Digest> {
        let leaves = self.verb == Verb::Rollback && self.bad_since.is_none();
        self.from_digest.clone().filter(|digest| leaves && *digest != self.to.digest)
    }

    /// Whether anything would be written. A restore that was asked for and not taken back stays, while the pin stays.
    pub fn is_change(&self) -> bool {
        let restore = self.restore.as_ref().map(|restore| &restore.id);
        self.from.pin != self.to.pin() || restore.is_some() && restore != self.from.restore.as_ref()
    }
}

impl Plan {
    /// Whether it is still what a person agreed to.
    pub fn is_same(&self, other: &Self) -> bool {
        let of =
            |plan: &Self| (plan.from.clone(), plan.to.clone(), plan.restore.clone(), plan.migrations.clone());
        of(self) == of(other)
    }

    fn trailers(&self, by: &str) -> Trailers {
        Trailers {
            verb: Some(self.verb.word().to_owned()),
            environment: Some(self.environment.clone()),
            from: Some(self.from.name().to_owned()),
            to: Some(self.to.name().to_owned()),
            digest: self.to.digest.clone(),
            commit: Some(self.commit.clone()),
            schema: Some(self.schema),
            seen: self.seen.clone(),
            told: self.told_schema,
            restore: self.restore.clone(),
            bad: self.bad.clone(),
            by: Some(by.to_owned()),
            because: self.because.clone(),
            overrides: self.overrides.clone(),
        }
    }
}
