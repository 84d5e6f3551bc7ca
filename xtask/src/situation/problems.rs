//! What is wrong with an environment, or worth knowing, each with one thing to do.

use jiff::Timestamp;
use serde::Serialize;

use super::{Candidate, Facts, ROLLOUT, State};
use crate::data_file::File;
use crate::report::Observed;
use crate::span::span;
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
    restore(facts, &mut problems);
    by_hand(facts, &mut problems);
    problems
}

/// Another ledger, or one that lost its tail, comes before all else: nobody is to write on.
fn ledger(facts: &Facts, problems: &mut Vec<Problem>) {
    let (Some(now), Some(before)) = (facts.data(), facts.seen_before()) else { return };
    let name = &facts.environment.name;
    let at = facts.environment.cluster.as_ref();
    let at = at.map_or_else(
        || format!("-n NAMESPACE-OF-{}", name.to_uppercase()),
        |place| format!("--context {} -n {}", place.context, place.namespace),
    );
    let next = || {
        format!(
            "kubectl {at} scale deployment dojo --replicas=0, which ends all writes (a controller may have to be paused); then see which volume it mounts"
        )
    };
    if now.ledger != before.ledger {
        problems.push(Problem::wrong(
            format!(
                "the ledger is {}, and was {} when it was pinned: another volume",
                now.ledger, before.ledger
            ),
            next(),
        ));
        return;
    }
    let restored = facts.history().iter().take_while(|change| change.trailers.seen.is_none());
    let restored = restored.chain(facts.change()).any(|change| change.restore.is_some());
    if now.sequence < before.sequence && !restored {
        problems.push(Problem::wrong(
            format!(
                "the ledger is at sequence {}, and was at {} when it was pinned: its tail is lost",
                now.sequence, before.sequence
            ),
            next(),
        ));
    }
}

fn running(facts: &Facts, state: State, safe: &[Candidate], problems: &mut Vec<Problem>) {
    let name = &facts.environment.name;
    if let Some(cause) = facts.cause() {
        let next = back_to(facts, cause, safe).unwrap_or_else(|| cause.next.clone());
        let wrong = is_trouble(cause) && state != State::Ok;
        problems.push(Problem { what: cause.what.clone(), next: Some(next), wrong });
        return;
    }
    let look = || match &facts.environment.cluster {
        Some(cluster) => {
            format!("kubectl --context {} -n {} get pods,events", cluster.context, cluster.namespace)
        }
        None => format!(
            "kubectl -n NAMESPACE-OF-{} get pods,events; with `cluster:` in deploy/pipeline.yaml this screen tells it",
            name.to_uppercase()
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
                format!(
                    "see why the controller has not applied infra commit {}; if what runs is right: cargo xtask adopt {name}",
                    short(commit)
                ),
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
    let next = safe.iter().find(|candidate| candidate.opens == Some(true)).map_or_else(
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
    let is_asked = facts.pin().is_some_and(|pin| !pin.is_nothing());
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
    let torn = match (&pin.git_ref, &pin.tag) {
        (Some(git_ref), Some(tag)) if is_version(git_ref) && is_version(tag) => git_ref != tag,
        _ => false,
    };
    if torn {
        let (git_ref, tag) = (pin.git_ref.as_deref().unwrap_or("none"), pin.name());
        problems.push(Problem::wrong(
            format!("the pin is torn: manifests of {git_ref}, image {tag}"),
            format!("cargo xtask promote {name} {tag}"),
        ));
    } else if !facts.is_fixed() {
        problems.push(Problem::wrong(
            format!("{} is pinned without a digest, or by a name that moves", pin.name()),
            format!("cargo xtask adopt {name}"),
        ));
    }
}

fn is_version(name: &str) -> bool {
    crate::version::Version::from_tag(name).is_some()
}

/// A restore that was asked for, and of which the service does not say that it is done.
fn pending_restore(facts: &Facts) -> Option<&str> {
    let id = facts.pinned()?.restore.as_deref()?;
    let restored = facts.report().and_then(|report| report.restored.as_ref());
    restored.is_none_or(|restored| restored.id != id).then_some(id)
}

fn restore(facts: &Facts, problems: &mut Vec<Problem>) {
    if let (Some(id), Some(_)) = (pending_restore(facts), facts.report()) {
        problems.push(Problem::wrong(
            format!("it is to restore {id}, and has not said that it did"),
            format!("cargo xtask status {} --watch", facts.environment.name),
        ));
    }
}

fn by_hand(facts: &Facts, problems: &mut Vec<Problem>) {
    let Some(change) = facts.change().filter(|change| change.is_foreign()) else { return };
    if facts.pin().is_none_or(crate::kustomization::Pin::is_nothing) {
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
