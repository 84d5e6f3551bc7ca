//! Facts -> plan, for `release`: what is done, what comes next, and what stands against it.

use std::time::Duration;

use serde::Serialize;

use crate::checks::{Check, State, WorkflowRun, overall};
use crate::fault::Fault;
use crate::gate::{Override, ReleaseGate};
use crate::image::{Digest, sha_tag};
use crate::version::Version;

mod problems;
mod show;

/// How long GitHub may take to start the run of a tag that was pushed.
const START: Duration = Duration::from_secs(120);

/// What was asked of somebody who may not have answered.
pub type Asked<T> = Result<T, Fault>;

/// All that a plan is made from. "Remote" is what the remote itself answered just now.
#[derive(Clone, Debug)]
pub struct Facts {
    pub version: Version,
    /// Its tag in git.
    pub tag: String,
    /// The branch of its series, which the remote may not have.
    pub series_branch: String,
    /// The branch that this version is cut from.
    pub branch: String,
    /// The branch that is checked out.
    pub on_branch: Option<String>,
    pub dirty: Vec<String>,
    pub head: String,
    pub remote_head: String,
    /// The highest version that the remote has a tag of, of those that are cut from this branch.
    pub last: Option<Version>,
    /// The highest version below this one that the branch contains, with its commit; pre-releases only for one.
    pub since: Option<(Version, String)>,
    /// How many commits came since.
    pub commits: usize,
    /// The version that the branch's Cargo.toml declares.
    pub declared: Version,
    /// That version, if it is another one, prepared and not tagged.
    pub under_way: Option<Version>,
    /// Whether what is pushed to prepare the version can be made; with its notes, if nobody wrote any.
    pub notes: Asked<Option<String>>,
    /// Commits of the remote's branch that carry this version, the one that prepared it first, up to one that is ready
    /// or that CI is at; once it is tagged, the tag's alone.
    pub candidates: Vec<Candidate>,
    pub local_tag: Option<String>,
    pub remote_tag: Option<String>,
    /// What the registry has under the version.
    pub published: Asked<Option<Digest>>,
    /// Whether the registry has a `latest`, which a pre-release does not need.
    pub latest: Asked<bool>,
    /// `None` if there is no GitHub to ask.
    pub github: Option<GithubFacts>,
    pub overrides: Vec<Override<ReleaseGate>>,
}

/// A commit that can be tagged once CI is content with it.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub commit: String,
    pub checks: Asked<Vec<Check>>,
    /// What the registry has under the commit's sha tag.
    pub image: Asked<Option<Digest>>,
}

#[derive(Clone, Debug)]
pub struct GithubFacts {
    /// Whether the branch takes changes by pull request alone.
    pub protected: Asked<bool>,
    pub proposal: Asked<Option<Proposal>>,
    pub page: Asked<PageState>,
    /// The newest run of the workflow for the tag.
    pub run: Asked<Option<WorkflowRun>>,
    /// How long ago the tag was made, if that can be told and there is no run.
    pub tag_age: Option<Duration>,
    /// Where a person looks for runs.
    pub runs_page: String,
}

/// The pull request with the release's commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub url: String,
    pub open: bool,
    pub merged: bool,
}

/// The release on GitHub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageState {
    /// Or a draft.
    Absent,
    /// `complete` if it has all its files.
    Published { url: String, complete: bool },
}

/// The release in order. Each step can be asked whether it is done, so running again goes on where it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Push the commit that sets the version in Cargo.toml, Cargo.lock, CHANGELOG.md and the production overlay.
    Prepare,
    /// Push it to a branch of its own and open a pull request, where the branch is protected.
    Propose,
    /// Somebody merges the pull request.
    Merge,
    /// CI tests that commit and pushes its image.
    Ci,
    /// Push the annotated tag.
    Tag,
    /// Start the tag's run again, which died or never began.
    Restart,
    /// The tag's run gives the image its version names, and publishes the release.
    Publish,
}

/// How it stands with a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    Done,
    ToDo,
    /// Somebody else has to do something first; what, and where it can be seen.
    Waiting(String),
    /// It cannot be known.
    Unknown(Fault),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub step: Step,
    pub progress: Progress,
    pub what: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub version: Version,
    pub branch: String,
    /// What it is made of: commits and notes, before it is prepared.
    pub about: Option<String>,
    /// The notes, if nobody wrote any.
    pub draft: Option<String>,
    pub steps: Vec<Planned>,
    /// The commit to tag, once it is known.
    pub commit: Option<String>,
    pub digest: Option<Digest>,
    /// The newest run of the tag, and which try of it.
    pub attempt: Option<(u64, u64)>,
    /// The gates that are not met, and are passed.
    pub passed: Vec<Override<ReleaseGate>>,
}

impl Plan {
    /// The first step that is not done.
    pub fn next(&self) -> Option<&Planned> {
        self.steps.iter().find(|planned| planned.progress != Progress::Done)
    }
}

/// Makes the plan, or refuses with every problem at once.
pub fn plan(facts: &Facts) -> Result<Plan, Fault> {
    let chosen = facts.chosen();
    let passed = problems::passed(facts, chosen)?;
    let about = chosen.is_none().then(|| {
        let since = facts.since.as_ref().map_or("the start".to_owned(), |(since, _)| since.to_string());
        let commits =
            if facts.commits == 1 { "1 commit".to_owned() } else { format!("{} commits", facts.commits) };
        let drafted = matches!(facts.notes, Ok(Some(_)));
        let notes = if drafted { "drafted" } else { "from CHANGELOG.md" };
        format!("{commits} since {since}; notes {notes}")
    });
    Ok(Plan {
        version: facts.version.clone(),
        branch: facts.branch.clone(),
        about,
        draft: facts.notes.clone().ok().flatten().filter(|_| chosen.is_none()),
        steps: steps(facts, chosen),
        commit: chosen.map(|chosen| chosen.commit.clone()),
        digest: chosen.and_then(|chosen| chosen.image.clone().ok().flatten()),
        attempt: run_of(facts).map(|run| (run.id, run.run_attempt.unwrap_or(1))),
        passed,
    })
}

impl Facts {
    fn overridden(&self, gate: ReleaseGate) -> bool {
        self.overrides.iter().any(|pass| pass.gate == gate)
    }

    /// The commit that is or will be tagged: the oldest that is ready, so that what was merged after it waits for the
    /// next release; else one that CI is at, else the newest.
    pub fn chosen(&self) -> Option<&Candidate> {
        let first = |is: fn(&Candidate) -> bool| self.candidates.iter().find(|candidate| is(candidate));
        let mut chosen = first(Candidate::is_ready);
        if self.overridden(ReleaseGate::Checks) {
            chosen = chosen.or_else(|| first(|candidate| matches!(candidate.image, Ok(Some(_)))));
        }
        chosen.or_else(|| first(Candidate::is_under_way)).or(self.candidates.last())
    }
}

impl Candidate {
    pub fn is_ready(&self) -> bool {
        let is_green = self.checks.as_ref().is_ok_and(|checks| overall(checks) == State::Green);
        is_green && matches!(self.image, Ok(Some(_)))
    }

    /// Whether CI is at it, or may be for all that is known.
    pub fn is_under_way(&self) -> bool {
        let pending = |checks: &Vec<Check>| overall(checks) == State::Pending;
        self.checks.as_ref().map_or(true, pending) || self.image.is_err()
    }
}

/// The branch of the pull request that prepares a version, by its tag.
pub fn proposal_branch(tag: &str) -> String {
    format!("prepare/{tag}")
}

fn steps(facts: &Facts, chosen: Option<&Candidate>) -> Vec<Planned> {
    let (version, tag) = (&facts.version, &facts.tag);
    let commit = chosen.map_or("that commit", |chosen| short(&chosen.commit));
    let sha = chosen.map_or("sha-…".to_owned(), |chosen| sha_tag(&chosen.commit));
    let planned = |step, progress, what| Planned { step, progress, what };
    let mut steps = prepare_steps(facts, chosen.is_some());
    steps.push(planned(
        Step::Ci,
        ci_progress(facts, chosen),
        format!("CI tests {commit} and pushes its image as {sha}"),
    ));
    let tagged = match (&facts.remote_tag, &facts.published) {
        (Some(_), _) => Progress::Done,
        // A name that may be somebody else's is not taken.
        (None, Err(fault)) => Progress::Unknown(fault.clone()),
        (None, Ok(_)) => Progress::ToDo,
    };
    steps.push(planned(Step::Tag, tagged, format!("push the annotated tag {tag} on {commit}")));
    let published = publish_progress(facts, chosen);
    if published == Progress::ToDo {
        let what = match run_of(facts) {
            Some(run) => {
                format!("start the tag's run again, which ended as {}: {}", run.said(), run.html_url)
            }
            None => format!("start CI for {tag}, which it never did"),
        };
        steps.push(planned(Step::Restart, Progress::ToDo, what));
    }
    let page = if facts.github.is_some() { " and publishes the release" } else { "" };
    steps.push(planned(Step::Publish, published, format!("CI gives {sha} the name {version}{page}")));
    steps
}

fn prepare_steps(facts: &Facts, prepared: bool) -> Vec<Planned> {
    let Facts { version, tag, branch, github, .. } = facts;
    let planned = |step, progress, what| Planned { step, progress, what };
    let state = |done| if done { Progress::Done } else { Progress::ToDo };
    let proposal = github.as_ref().and_then(|github| github.proposal.as_ref().ok()?.as_ref());
    let protected = github.as_ref().is_some_and(|github| matches!(github.protected, Ok(true)));
    let unknown = github.as_ref().and_then(|g| g.protected.as_ref().err().or(g.proposal.as_ref().err()));
    if proposal.is_none() && (!protected || unknown.is_some()) {
        let what = format!("push the commit `release: {tag}` to {branch}");
        let progress = unknown.map_or(state(prepared), |fault| Progress::Unknown(fault.clone()));
        return vec![planned(Step::Prepare, progress, what)];
    }
    let from = proposal_branch(tag);
    let what = format!("propose the commit `release: {tag}` for {branch}, which is protected, from {from}");
    let url = proposal.map_or("the pull request", |proposal| proposal.url.as_str());
    let merged = match (prepared, proposal) {
        (true, _) => Progress::Done,
        (false, Some(proposal)) if proposal.merged => {
            Progress::Waiting(format!("{url} was merged, and {branch} does not carry {version} yet"))
        }
        _ => Progress::Waiting(format!("nobody has merged {url} yet")),
    };
    vec![
        planned(Step::Propose, state(prepared || proposal.is_some()), what),
        planned(Step::Merge, merged, format!("somebody merges {url}")),
    ]
}

fn ci_progress(facts: &Facts, chosen: Option<&Candidate>) -> Progress {
    let Some(chosen) = chosen else { return Progress::Waiting("it is not prepared yet".into()) };
    if facts.remote_tag.is_some() {
        return Progress::Done;
    }
    if !facts.overridden(ReleaseGate::Checks) {
        match &chosen.checks {
            Err(fault) => return Progress::Unknown(fault.clone()),
            Ok(checks) if overall(checks) == State::Green => {}
            Ok(checks) => {
                let waited = checks.iter().filter(|check| check.state != State::Green);
                let waited: Vec<_> = waited.map(ToString::to_string).collect();
                return Progress::Waiting(waited.join("; "));
            }
        }
    }
    match &chosen.image {
        Ok(Some(_)) => Progress::Done,
        Ok(None) => Progress::Waiting(format!("the registry has no {} yet", sha_tag(&chosen.commit))),
        Err(fault) => Progress::Unknown(fault.clone()),
    }
}

/// Done when everything reads back as published; `ToDo` means that the tag's run has to be started again.
fn publish_progress(facts: &Facts, chosen: Option<&Candidate>) -> Progress {
    if facts.remote_tag.is_none() {
        return Progress::Waiting("it is not tagged yet".into());
    }
    let named = match (&facts.published, &facts.latest) {
        (Err(fault), _) | (_, Err(fault)) => return Progress::Unknown(fault.clone()),
        (Ok(named), Ok(latest)) => named.is_some() && *latest,
    };
    if let Some(Candidate { image: Err(fault), .. }) = chosen {
        return Progress::Unknown(fault.clone());
    }
    let Some(github) = &facts.github else {
        let waits =
            Progress::Waiting(format!("the registry does not have all names of {} yet", facts.version));
        return if named { Progress::Done } else { waits };
    };
    match &github.page {
        Err(fault) => return Progress::Unknown(fault.clone()),
        Ok(PageState::Published { complete: true, .. }) if named => return Progress::Done,
        Ok(_) => {}
    }
    match &github.run {
        Err(fault) => Progress::Unknown(fault.clone()),
        Ok(Some(run)) if run.state() == State::Pending => {
            Progress::Waiting(format!("the tag's run is {}: {}", run.said(), run.html_url))
        }
        Ok(Some(_)) => Progress::ToDo,
        // A tag that does not say when it was made is as good as old.
        Ok(None) if github.tag_age.is_none_or(|age| age > START) => Progress::ToDo,
        Ok(None) => Progress::Waiting(format!("the tag's run has not begun yet: {}", github.runs_page)),
    }
}

/// The run of the tag, if GitHub knows one.
pub fn run_of(facts: &Facts) -> Option<&WorkflowRun> {
    facts.github.as_ref()?.run.as_ref().ok()?.as_ref()
}

fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

#[cfg(test)]
mod tests;
