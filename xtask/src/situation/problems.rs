//! What is wrong with an environment, or worth knowing, each with one thing to do.

use jiff::Timestamp;
use serde::Serialize;

use super::{Candidate, Facts, Lost, ROLLOUT, State};
use crate::data_file::File;
use crate::kustomization::Pin;
use crate::report::Observed;
use crate::span::span;
use crate::version::Version;
use crate::workload::{Cause, Kind};

/// One thing that is worth a look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub what: String,
    /// What to do about it; a command where there is one.
    pub next: Option<String>,
    /// False for what is only worth knowing.
    pub wrong: bool,
}

impl Problem {
    fn wrong(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { what: what.into(), next: Some(next.into()), wrong: true }
    }

    fn note(what: impl Into<String>, next: Option<String>) -> Self {
        Self { what: what.into(), next, wrong: false }
    }
}

/// Whether a cause is more than a pod on its way.
pub fn is_trouble(cause: &Cause) -> bool {
    !cause.kind.is_progress()
}

/// All of it, the most pressing first.
pub fn of(facts: &Facts, state: State, safe: &[Candidate]) -> Vec<Problem> {
    let mut problems = Vec::new();
    pin(facts, &mut problems);
    ledger(facts, &mut problems);
    running(facts, state, safe, &mut problems);
    schema(facts, safe, &mut problems);
    sources(facts, &mut problems);
    restore(facts, state, &mut problems);
    by_hand(facts, &mut problems);
    problems
}

/// Another ledger, or one that lost its tail, comes before all else: nobody is to write on.
fn ledger(facts: &Facts, problems: &mut Vec<Problem>) {
    let what = match facts.lost() {
        None => return,
        Some(Lost::Ledger { now, before }) => {
            format!("the ledger is {now}, and was {before} when it was pinned: another volume")
        }
        Some(Lost::Tail { now, before }) => {
            format!(
                "the ledger is at sequence {now}, and was at {before} when it was pinned: its tail is lost"
            )
        }
    };
    let next = format!(
        "kubectl {} scale deployment dojo --replicas=0, which ends all writes (a controller may have to be paused); then see which volume it mounts",
        at(facts)
    );
    problems.push(Problem::wrong(what, next));
}

/// Where kubectl is to look.
fn at(facts: &Facts) -> String {
    match &facts.environment.cluster {
        Some(place) => format!("--context {} -n {}", place.context, place.namespace),
        None => format!("-n NAMESPACE-OF-{}", facts.environment.name.to_uppercase()),
    }
}

fn running(facts: &Facts, state: State, safe: &[Candidate], problems: &mut Vec<Problem>) {
    let name = &facts.environment.name;
    // Nothing is to run.
    if facts.pin().is_some_and(Pin::is_nothing) && facts.report().is_none() {
        return;
    }
    if let Some(cause) = facts.cause() {
        let next = back_to(facts, cause, safe).unwrap_or_else(|| cause.next.clone());
        // What goes on for longer than a rollout takes is no progress.
        let wrong = !matches!(state, State::Ok | State::RollingOut);
        problems.push(Problem { what: cause.what.clone(), next: Some(next), wrong });
        return;
    }
    let look = || match &facts.environment.cluster {
        Some(_) => format!("kubectl {} get pods,events", at(facts)),
        None => format!(
            "kubectl {} get pods,events; with `cluster:` in deploy/pipeline.yaml this screen tells it",
            at(facts)
        ),
    };
    match (state, &facts.observed) {
        (State::Ok, _) => {}
        (State::RollingOut, _) => {
            let age = facts.pinned_for().map(span).unwrap_or_default();
            let runs = facts
                .report()
                .map_or("nothing answers".to_owned(), |report| format!("v{} still runs", report.version));
            problems.push(Problem::note(
                format!("pinned {age} ago, and {runs}"),
                Some(format!("cargo xtask status {name} --watch")),
            ));
        }
        (State::NotReady, _) => {
            problems.push(Problem::wrong("it runs what is pinned, and is not ready", look()));
        }
        (State::Drift, _) => {
            let runs = facts.report().map_or_else(String::new, |report| format!("v{}", report.version));
            let commit = facts.change().map_or("", |change| change.commit.id.as_str());
            let age = facts.pinned_for().map(|age| format!("{} after the pin", span(age)));
            problems.push(Problem::wrong(
                format!("{runs} runs, {}", age.unwrap_or_else(|| "which is not pinned".to_owned())),
                format!("see why the controller has not applied infra commit {}", short(commit)),
            ));
        }
        (State::Down, _) => problems.push(Problem::wrong("no pod is available", look())),
        (State::NoAnswer, observed) => {
            let available = facts.workload().and_then(|workload| workload.available) == Some(true);
            let why = silence(observed);
            if available {
                problems.push(Problem::wrong(
                    format!("the pod is ready, and the URL does not answer: {why}"),
                    format!("see the Ingress and the name of {}", facts.environment.url),
                ));
            } else {
                problems.push(Problem::wrong(why, look()));
            }
        }
        // Which source is missing is said on its own.
        (State::Unknown, _) => {}
    }
}

/// The way out of a new image that cannot run here: what ran before, where it opens the file.
fn back_to(facts: &Facts, cause: &Cause, safe: &[Candidate]) -> Option<String> {
    let by_image = match cause.kind {
        Kind::ImagePull | Kind::Container | Kind::BadConfig | Kind::InitFailed | Kind::ServiceFailed => true,
        // What ran before needs as much, but for what a migration writes.
        Kind::OomKilled | Kind::DiskFull => facts
            .data()
            .zip(facts.image())
            .is_some_and(|(data, (_, image))| data.schema.current < image.current),
        _ => false,
    };
    let pinned = facts.change().and_then(|change| change.commit.time.parse::<Timestamp>().ok());
    let since = facts.workload().and_then(|workload| workload.down_since);
    // What went down before this pin was made, or long after, did not go down by it.
    let by_pin = pinned
        .zip(since)
        .is_some_and(|(pinned, down)| down >= pinned && down.duration_since(pinned) < ROLLOUT);
    let safe = safe.iter().find(|candidate| candidate.opens == Some(true) && !candidate.bad)?;
    // A hold refuses it, and whoever holds it knows why.
    if facts.hold().is_some() {
        return None;
    }
    (by_image && by_pin).then(|| format!("cargo xtask rollback {} --to {}", facts.environment.name, safe.tag))
}

/// The pinned image does not open the file.
fn schema(facts: &Facts, safe: &[Candidate], problems: &mut Vec<Problem>) {
    let (Some((_, image)), File::Known(file)) = (facts.image(), facts.file()) else { return };
    // A restore puts another file in its place first.
    if file.admits(image.current) || pending_restore(facts).is_some() {
        return;
    }
    let (name, pin) = (&facts.environment.name, facts.pin().map_or("it", |pin| pin.name()));
    let opens = |bad: bool| safe.iter().find(move |safe| safe.opens == Some(true) && safe.bad == bad);
    let next = opens(false).or(opens(true)).map_or_else(
        || format!("cargo xtask log {name}, for the version that migrated it; then promote that"),
        |candidate| format!("cargo xtask rollback {name} --to {}", candidate.tag),
    );
    // A pod that says the same has nothing to add.
    let same = facts.cause().filter(|cause| cause.kind == Kind::SchemaAhead);
    problems.retain(|problem| same.is_none_or(|cause| cause.what != problem.what));
    problems.insert(
        0,
        Problem::wrong(
            format!(
                "the data file has schema {}, and {pin} knows {}: it refuses the file",
                file.current, image.current
            ),
            next,
        ),
    );
}

/// What did not answer.
fn sources(facts: &Facts, problems: &mut Vec<Problem>) {
    let again = || "cargo xtask doctor".to_owned();
    if facts.infra.is_err() {
        let runs = facts
            .report()
            .map_or_else(String::new, |report| format!("v{} runs, and goes on running; ", report.version));
        problems.push(Problem::wrong(format!("{runs}what is pinned is unknown"), again()));
    }
    let is_asked = facts.pin().is_some_and(|pin| !pin.is_nothing() && pin.digest.is_some());
    if let (Err(why), true) = (&facts.labels, is_asked) {
        problems
            .push(Problem::wrong(format!("the registry does not tell of the pinned image: {why}"), again()));
    }
    if let (Some(Err(why)), Some(place)) = (&facts.cluster, &facts.environment.cluster) {
        problems.push(Problem::wrong(
            format!("the cluster does not answer: {why}"),
            format!(
                "kubectl --context {} -n {} get pods; if that fails, it is the network or the context",
                place.context, place.namespace
            ),
        ));
    }
}

/// A pin that nobody could read, or that is not one thing.
fn pin(facts: &Facts, problems: &mut Vec<Problem>) {
    let Ok(infra) = &facts.infra else { return };
    let name = &facts.environment.name;
    let pinned = match &infra.pinned {
        Ok(pinned) => pinned,
        Err(why) => {
            problems.push(Problem::wrong(
                format!("the pin cannot be read: {why}"),
                format!("cargo xtask adopt {name}"),
            ));
            return;
        }
    };
    let pin = &pinned.pin;
    if pin.is_nothing() {
        problems.push(Problem::note("nothing is pinned yet", Some(format!("cargo xtask promote {name}"))));
        return;
    }
    let (git_ref, tag) = (pin.git_ref.as_deref(), pin.name());
    let named = [facts.tag.clone(), facts.image().map(|(commit, _)| commit)];
    let torn = git_ref.is_some_and(|git_ref| named.iter().flatten().all(|name| name != git_ref));
    let image = facts.labels.as_ref().ok().zip(Version::from_tag(tag));
    if let Some((labels, _)) = image.filter(|(labels, version)| version.bare() != labels.version) {
        problems.push(Problem::wrong(
            format!(
                "the pin is torn: {tag} with the digest of an image that calls itself {}",
                labels.version
            ),
            format!("cargo xtask promote {name} {tag}"),
        ));
    } else if torn && named.iter().flatten().next().is_some() {
        problems.push(Problem::wrong(
            format!("the pin is torn: manifests of {}, image {tag}", git_ref.unwrap_or("none")),
            format!("cargo xtask promote {name} {tag}"),
        ));
    } else if !facts.is_fixed() {
        let runs = facts.report().is_some_and(|report| format!("v{}", report.version) == tag);
        let next = match Version::from_tag(tag) {
            // What runs may be what it was before somebody pinned this by hand.
            Some(_) if !runs => format!("cargo xtask promote {name} {tag}"),
            _ => format!("cargo xtask adopt {name}"),
        };
        problems
            .push(Problem::wrong(format!("{tag} is pinned without a digest, or by a name that moves"), next));
    }
}

/// A restore that was asked for, and of which the service does not say that it is done.
fn pending_restore(facts: &Facts) -> Option<&str> {
    let id = facts.pinned()?.restore.as_deref()?;
    let restored = facts.report().and_then(|report| report.restored.as_ref());
    restored.is_none_or(|restored| restored.id != id).then_some(id)
}

fn restore(facts: &Facts, state: State, problems: &mut Vec<Problem>) {
    if let (Some(id), Some(_)) = (pending_restore(facts), facts.report()) {
        problems.push(Problem {
            what: format!("it is to restore {id}, and has not said that it did"),
            next: Some(format!("cargo xtask status {} --watch", facts.environment.name)),
            wrong: state != State::RollingOut,
        });
    }
}

fn by_hand(facts: &Facts, problems: &mut Vec<Problem>) {
    let Some(change) = facts.change().filter(|change| change.is_foreign()) else { return };
    if facts.pin().is_none_or(Pin::is_nothing) {
        return;
    }
    problems.push(Problem::note(
        format!(
            "the pin was made by hand, or by another tool: infra commit {} of {}",
            short(&change.commit.id),
            change.commit.author
        ),
        None,
    ));
}

fn silence(observed: &Observed) -> String {
    match observed {
        Observed::Silent(why) => why.clone(),
        Observed::Reports(_) => String::new(),
    }
}

fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}
