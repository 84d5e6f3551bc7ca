//! Where one environment stands: what was observed of it, what is wrong, and what to do next. Every line is observed; what
//! is not known is "unknown", with the reason. `status`, `promote --wait` and `board` show the same.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::data_file::{File, Past, past};
use crate::environment::Pinned;
use crate::history::{Change, Earlier, earlier, fixed};
use crate::image::{Digest, Labels, Schema};
use crate::kustomization::Pin;
use crate::pipeline::Environment;
use crate::report::{Observed, Version as Reported};
use crate::span::since;
use crate::trailers::Seen;
use crate::workload::{Cause, Kind, LastWords, Workload};

mod problems;
mod show;
pub use problems::Problem;
pub use show::overview;

/// For how long after a new pin it is no trouble that the old one still runs, or nothing: images are pulled, files are
/// backed up and migrated.
pub const ROLLOUT: SignedDuration = SignedDuration::from_mins(10);

/// All that was asked about one environment. An `Err` is why nobody could tell.
#[derive(Clone, Debug)]
pub struct Facts {
    pub environment: Environment,
    pub now: Timestamp,
    pub infra: Result<Pinning, String>,
    /// What the registry says of the pinned digest.
    pub labels: Result<Labels, String>,
    pub observed: Observed,
    /// How many commits the branch has after the pinned one.
    pub behind: Result<usize, String>,
    /// The branch that `behind` counts on.
    pub branch: String,
    /// What `?ref=` is for the version that is pinned; `None` of what is no version.
    pub tag: Option<String>,
    /// The environment that must run an image first: its name, and its service's answer.
    pub before: Option<(String, Observed)>,
    /// `None`: nobody was to ask it.
    pub cluster: Option<Result<Workload, String>>,
}

/// What the infra repository has of an environment.
#[derive(Clone, Debug)]
pub struct Pinning {
    /// The commit that was read.
    pub head: String,
    pub pinned: Result<Pinned, String>,
    pub hold: Option<Hold>,
    /// Newest first.
    pub history: Vec<Change>,
}

/// A hold, as its commit tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hold {
    pub why: String,
    pub by: Option<String>,
    pub since: Option<Timestamp>,
}

/// One word for all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It runs what is pinned, and is ready.
    Ok,
    /// The pin is younger than ten minutes, and it does not run yet.
    RollingOut,
    /// It runs what is pinned, and is not ready.
    NotReady,
    /// It runs something else than what is pinned.
    Drift,
    /// The cluster says that no pod is available.
    Down,
    /// The service does not answer; why, nobody tells.
    NoAnswer,
    /// Nobody could tell whether it runs what is pinned.
    Unknown,
}

impl State {
    /// As it stands on the screen.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::RollingOut => "rolling out",
            Self::NotReady => "NOT READY",
            Self::Drift => "DRIFT",
            Self::Down => "DOWN",
            Self::NoAnswer => "NO ANSWER",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// Why it is not the data of before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Another volume, or another file.
    Ledger { now: String, before: String },
    /// It goes back without a restore.
    Tail { now: u64, before: u64 },
}

/// What follows from the facts.
#[derive(Clone, Debug)]
pub struct Situation {
    pub facts: Facts,
    pub state: State,
    /// What is worth a look; the first is the one to begin with.
    pub problems: Vec<Problem>,
    /// The images that ran here before, and whether they open the data file as it is.
    pub safe: Vec<Candidate>,
}

/// An image to go back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    pub tag: String,
    pub digest: Digest,
    /// `None` if nobody tells.
    pub schema: Option<u32>,
    /// `None` if it is unknown.
    pub opens: Option<bool>,
    /// Whether it was rolled back from.
    pub bad: bool,
}

/// Draws the conclusions.
pub fn judge(facts: Facts) -> Situation {
    let state = facts.state();
    let safe = facts.candidates();
    let problems = problems::of(&facts, state, &safe);
    Situation { facts, state, problems, safe }
}

impl Facts {
    pub fn pinned(&self) -> Option<&Pinned> {
        self.infra.as_ref().ok()?.pinned.as_ref().ok()
    }

    pub fn pin(&self) -> Option<&Pin> {
        self.pinned().map(|pinned| &pinned.pin)
    }

    pub fn hold(&self) -> Option<&Hold> {
        self.infra.as_ref().ok()?.hold.as_ref()
    }

    pub fn history(&self) -> &[Change] {
        self.infra.as_ref().map_or(&[], |infra| infra.history.as_slice())
    }

    /// The commit of the infra repository that made the pin what it is.
    pub fn change(&self) -> Option<&Change> {
        self.history().first()
    }

    pub fn report(&self) -> Option<&Reported> {
        self.observed.report().map(|report| &report.version)
    }

    pub fn workload(&self) -> Option<&Workload> {
        self.cluster.as_ref()?.as_ref().ok()
    }

    /// Why it is not up, as the cluster tells.
    pub fn cause(&self) -> Option<&Cause> {
        self.workload()?.cause.as_ref()
    }

    fn last_words(&self) -> Option<&LastWords> {
        self.cause()?.words.as_ref()
    }

    /// The commit and the schema of the pinned image: by the registry, else by a commit that pinned it.
    pub fn image(&self) -> Option<(String, Schema)> {
        if let Ok(labels) = &self.labels {
            return Some((labels.revision.clone(), labels.schema));
        }
        let digest = self.pin()?.digest.as_ref()?;
        let mut told = self.history().iter().filter(|change| change.trailers.digest.as_ref() == Some(digest));
        told.find_map(|change| change.trailers.commit.clone().zip(change.trailers.schema))
    }

    /// Whether the service runs the image that is pinned; `None` if nobody can tell.
    fn runs_it(&self) -> Option<bool> {
        let report = self.report()?;
        Some(report.commit == self.image()?.0)
    }

    /// For how long it has been pinned so.
    pub fn pinned_for(&self) -> Option<SignedDuration> {
        let time = self.change()?.commit.time.parse().ok()?;
        Some(since(time, self.now))
    }

    /// Whether nobody is to wonder yet.
    fn is_young(&self) -> bool {
        let made = self.change().and_then(|change| change.commit.time.parse::<Timestamp>().ok());
        // One from a clock that goes far ahead would be young for ever.
        let told = made.is_some_and(|made| made < self.now + SignedDuration::from_mins(1));
        told && self.pinned_for().is_some_and(|age| age < ROLLOUT)
    }

    fn state(&self) -> State {
        // A controller takes its time to see a new pin.
        let wrong =
            self.cause().is_some_and(|cause| problems::is_trouble(cause) && cause.kind != Kind::Unsynced);
        // Where the cluster was to tell and does not, nobody knows that it is on its way.
        let young = self.is_young() && !wrong && !matches!(self.cluster, Some(Err(_)));
        match &self.observed {
            Observed::Silent(_) => match self.workload().and_then(|workload| workload.available) {
                Some(false) if young => State::RollingOut,
                Some(false) => State::Down,
                None if young => State::RollingOut,
                Some(true) | None => State::NoAnswer,
            },
            Observed::Reports(report) => match self.runs_it() {
                None => State::Unknown,
                Some(false) if young => State::RollingOut,
                Some(false) => State::Drift,
                Some(true) if report.ready => State::Ok,
                Some(true) => State::NotReady,
            },
        }
    }

    /// What the service said of its data file when the pin was made.
    pub fn seen_before(&self) -> Option<&Seen> {
        self.history().iter().find_map(|change| change.trailers.seen.as_ref())
    }

    /// What is known of the data file now: by the service, else by the last words of a pod that failed on it.
    pub fn data(&self) -> Option<Seen> {
        self.report().map(Seen::of).or_else(|| self.last_words()?.data.clone())
    }

    fn past(&self) -> Vec<Past> {
        let digest = self.pin().and_then(|pin| pin.digest.as_ref());
        let labels = self.labels.as_ref().ok().map(|labels| labels.schema);
        past(self.history(), |pin| labels.filter(|_| digest.is_some() && pin.digest.as_ref() == digest))
    }

    pub fn file(&self) -> File {
        match self.last_words().and_then(|words| words.data.as_ref()) {
            Some(seen) if self.report().is_none() => File::Known(seen.schema),
            _ => File::of(&self.observed, None, &self.past()),
        }
    }

    /// What is wrong with the ledger, held against what the service said when the pin was made.
    pub fn lost(&self) -> Option<Lost> {
        let at = self.history().iter().position(|change| change.trailers.seen.is_some())?;
        let (now, before) = (self.data()?, self.history()[at].trailers.seen.as_ref()?);
        let restored = self.history()[..=at].iter().any(|change| change.restore.is_some());
        if now.ledger != before.ledger {
            return Some(Lost::Ledger { now: now.ledger, before: before.ledger.clone() });
        }
        let tail = Lost::Tail { now: now.sequence, before: before.sequence };
        (now.sequence < before.sequence && !restored).then_some(tail)
    }

    fn candidates(&self) -> Vec<Candidate> {
        let file = self.file();
        let now = self.pin().and_then(|pin| pin.digest.as_ref());
        let candidate = |Earlier { tag, digest, schema, bad_since }: Earlier| {
            let schema = schema.map(|schema| schema.current);
            let opens = schema.and_then(|schema| file.opens(schema));
            Candidate { tag, digest, schema, opens, bad: bad_since.is_some() }
        };
        earlier(now, self.history()).into_iter().map(candidate).collect()
    }

    /// What pins an image for good, and what does not.
    fn is_fixed(&self) -> bool {
        self.pin().is_some_and(|pin| fixed(pin).is_some())
    }
}

impl Situation {
    /// Whether anything is wrong, or is not known.
    pub fn is_wrong(&self) -> bool {
        self.problems.iter().any(|problem| problem.wrong)
    }
}
