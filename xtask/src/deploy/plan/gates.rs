//! What stands against a new pin, all at once and each with its remedy. What can be passed with a reason is a gate.

use jiff::SignedDuration;
use serde::Serialize;

use super::{Facts, Verb, schema};
use crate::checks::State;
use crate::fault::{Fault, Kind};
use crate::gate::{Override, PinGate};
use crate::image::is_fixed;
use crate::pipeline::Accepts;
use crate::report::Observed;
use crate::span::span;
use crate::version::Version;

/// Something that stands against the pin, and its remedy; without a gate it cannot be passed.
struct Problem {
    gate: Option<PinGate>,
    kind: Kind,
    what: String,
    help: String,
}

impl Problem {
    fn new(gate: impl Into<Option<PinGate>>, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { gate: gate.into(), kind: Kind::Refused, what: what.into(), help: help.into() }
    }

    /// Nobody can tell now.
    fn unknown(gate: PinGate, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { kind: Kind::Remote, ..Self::new(gate, what, help) }
    }
}

/// The same for who only looks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unmet {
    /// `None` if it cannot be passed.
    pub gate: Option<PinGate>,
    pub what: String,
    pub help: String,
}

type Passed = (Vec<Override<PinGate>>, Vec<String>);

/// All that stands against the pin, and what was seen.
fn look(facts: &Facts) -> (Vec<Problem>, Vec<String>) {
    let mut notes = Vec::new();
    let mut problems = Vec::new();
    hold(facts, &mut problems);
    pending_restore(facts, &mut problems);
    image(facts, &mut notes, &mut problems);
    if facts.verb == Verb::Promote {
        accepts(facts, &mut problems);
        before(facts, &mut notes, &mut problems);
        checks(facts, &mut problems);
    }
    if facts.verb == Verb::Adopt {
        drift(facts, &mut notes, &mut problems);
    }
    let refusal = schema::check(facts, &mut notes);
    problems.extend(refusal.map(|(what, help)| Problem::new(None, what, help)));
    restore(facts, &mut notes, &mut problems);
    // Where nothing changes, nothing is in the way.
    if !facts.is_change() {
        problems.clear();
    }
    (problems, notes)
}

/// What stands against the pin, for who only looks.
pub fn unmet(facts: &Facts) -> Vec<Unmet> {
    let unmet = |Problem { gate, what, help, .. }| Unmet { gate, what, help };
    look(facts).0.into_iter().map(unmet).collect()
}

/// The gates that are not met and are passed, and what was seen; or a refusal with every problem that is left.
pub fn pass(facts: &Facts) -> Result<Passed, Fault> {
    let (mut problems, mut notes) = look(facts);
    let mut passed: Vec<Override<PinGate>> = Vec::new();
    problems.retain(|problem| {
        let pass = facts.overrides.iter().find(|pass| Some(pass.gate) == problem.gate);
        if let Some(pass) = pass {
            notes.push(format!("not met, and passed: {}", problem.what));
            if !passed.contains(pass) {
                passed.push(pass.clone());
            }
        }
        pass.is_none()
    });
    if problems.is_empty() { Ok((passed, notes)) } else { Err(refusal_of(facts, &problems)) }
}

fn refusal_of(facts: &Facts, problems: &[Problem]) -> Fault {
    let several = problems.len() > 1;
    let number = |index: usize| if several { format!("({}) ", index + 1) } else { String::new() };
    let what: Vec<_> =
        problems.iter().enumerate().map(|(index, problem)| number(index) + &problem.what).collect();
    let mut help: Vec<_> =
        problems.iter().enumerate().map(|(index, problem)| number(index) + &problem.help).collect();
    let mut gates: Vec<_> = problems.iter().filter_map(|problem| problem.gate).collect();
    gates.dedup();
    // With one that cannot be passed it would not help.
    if !gates.is_empty() && problems.iter().all(|problem| problem.gate.is_some()) {
        let gates: Vec<_> = gates.iter().map(|gate| format!("--override {gate}")).collect();
        help.push(format!(
            "if it must be now: {} --because \"…\", which the commit will tell",
            gates.join(" ")
        ));
    }
    let (name, to) = (&facts.environment.name, &facts.to.name);
    let does = match facts.verb {
        Verb::Adopt => format!("adopt {to}, which {name} runs"),
        verb => format!("{verb} {name} to {to}"),
    };
    let subject = format!("cannot {does}: {}", what.join("; "));
    // What is refused stays refused; what is unknown may be asked again.
    let fault = match problems.iter().all(|problem| problem.kind == Kind::Remote) {
        true => Fault::remote(subject),
        false => Fault::refused(subject),
    };
    fault.help(help.join("\n      "))
}

fn hold(facts: &Facts, problems: &mut Vec<Problem>) {
    if let Some(why) = &facts.from.hold {
        let name = &facts.environment.name;
        problems.push(Problem::new(
            PinGate::Hold,
            format!("{name} is held: {why}"),
            format!("cargo xtask unhold {name}, once that is over"),
        ));
    }
}

/// A change of the pin takes back a restore that was asked for, which may not have been done yet.
fn pending_restore(facts: &Facts, problems: &mut Vec<Problem>) {
    let Some(id) = &facts.from.restore else { return };
    if facts.restore.as_ref().is_some_and(|restore| restore.id == *id) {
        return;
    }
    let name = &facts.environment.name;
    let report = facts.observed.report();
    if facts.has_restored(id) {
        return;
    }
    let (what, help) = (
        format!("{name} was told to restore {id}, and has not said that it did"),
        format!(
            "wait until {name} runs it: its /version tells `restored`; a change now would take that back. If another one was done since, pass the gate"
        ),
    );
    problems.push(match report {
        Some(_) => Problem::new(PinGate::Restore, what, help),
        None => Problem::unknown(PinGate::Restore, what, help),
    });
}

fn image(facts: &Facts, notes: &mut Vec<String>, problems: &mut Vec<Problem>) {
    let to = &facts.to;
    if let Some(why) = &to.unasked {
        notes.push(format!(
            "take care: the registry does not answer ({why}); {} ran here before, and nodes may have it still",
            to.name
        ));
    }
    if let Some(commit) = &facts.bad_since {
        let what = format!("{} was rolled back from here (infra commit {})", to.name, short(commit));
        if facts.verb == Verb::Promote && !facts.named {
            let help = format!(
                "if it is right by now, name it: cargo xtask promote {} {}",
                facts.environment.name, to.name
            );
            problems.push(Problem::new(None, what, help));
        } else {
            notes.push(format!("take care: {what}"));
        }
    }
    let by_commit = to.git_ref == to.revision;
    match &to.commit {
        Some(commit) if *commit == to.revision => {}
        Some(commit) => problems.push(Problem::new(
            PinGate::Tag,
            format!("git's {} is commit {commit}, but the image was built from {}", to.git_ref, to.revision),
            "the tag was moved, or the image is another's: release a new version",
        )),
        None => problems.push(Problem::new(
            None,
            format!("the project's remote has no {}", if by_commit { &to.name } else { &to.git_ref }),
            "kustomize could not fetch the manifests: push the commit or the tag first",
        )),
    }
    if let Some((earlier, infra)) =
        facts.tagged_before.as_ref().filter(|(earlier, _)| *earlier != to.revision)
    {
        problems.push(Problem::new(
            PinGate::Tag,
            format!(
                "{} was commit {earlier} when infra commit {} pinned it, and is {} now",
                to.name,
                short(infra),
                to.revision
            ),
            "the version was made again, which never happens by this tool: release a new version",
        ));
    }
    let version = Version::from_tag(&to.name).map(|version| version.bare());
    if let (Some(version), Some(says)) = (version, &to.version)
        && version != *says
    {
        problems.push(Problem::new(
            None,
            format!("the image under {} calls itself {says}", to.name),
            "the tag names another version's image: release a new version",
        ));
    }
}

fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

/// A rollback returns to what ran here before, whatever the environment accepts today.
fn accepts(facts: &Facts, problems: &mut Vec<Problem>) {
    let environment = &facts.environment;
    if environment.accepts.contains(&facts.to.kind) {
        return;
    }
    let accepted: Vec<_> =
        environment.accepts.iter().map(|kind| format!("{kind:?}").to_lowercase()).collect();
    let help = match facts.to.kind {
        Accepts::Release => "change accepts in deploy/pipeline.yaml",
        Accepts::Edge | Accepts::Sha => {
            "release a version, then promote that; or change accepts in deploy/pipeline.yaml"
        }
    };
    let what = format!("{} accepts {}, and {} is none", environment.name, accepted.join(", "), facts.to.name);
    problems.push(Problem::new(PinGate::Accepts, what, help));
}

/// What is pinned and does not run yet may be a promotion on its way, which adopting would undo.
fn drift(facts: &Facts, notes: &mut Vec<String>, problems: &mut Vec<Problem>) {
    let (name, from, to) = (&facts.environment.name, facts.from.pin.name(), &facts.to.name);
    match &facts.lost.broken {
        // Somebody may have pinned it by hand a moment ago.
        Some(why) if facts.from.pin.digest.is_none() && is_fixed(from) && from != to => {
            problems.push(Problem::new(
                PinGate::Drift,
                format!("{name} is pinned to {from} ({why}), and runs {to}: it may only not have arrived yet"),
                format!("to pin what was meant: cargo xtask promote {name} {from}"),
            ));
        }
        Some(why) => notes.push(format!("what was pinned is not kept: {why}")),
        None if facts.from_digest.as_ref() == Some(&facts.to.digest) => {}
        None => problems.push(Problem::new(
            PinGate::Drift,
            format!("{name} is pinned to {from}, and nothing is wrong with that pin: it may only not have arrived yet"),
            format!("wait until {name} runs it (cargo xtask status {name}); to return to {to} for good: cargo xtask rollback {name} --to {to}"),
        )),
    }
    if let Some(base) = &facts.lost.base {
        notes.push(format!("{} is made again, from {}", facts.environment.kustomization, base.whence));
    }
    if !facts.environment.accepts.contains(&facts.to.kind) {
        notes.push(format!("take care: {name} would not be promoted to such an image as {to}, by `accepts`"));
    }
}

/// The environment before must run the image, be ready, and have run it for long enough; by its own account.
fn before(facts: &Facts, notes: &mut Vec<String>, problems: &mut Vec<Problem>) {
    let Some(before) = &facts.before else { return };
    let name = &before.name;
    if before.pin.digest.as_ref() != Some(&facts.to.digest) {
        problems.push(Problem::new(
            PinGate::After,
            format!("{name} does not run it first: {} is pinned there", before.pin.name()),
            format!("cargo xtask promote {name} {}", facts.to.name),
        ));
        return;
    }
    let look = |what: &str| format!("{what}; cargo xtask status shows it");
    let report = match &before.observed {
        Observed::Silent(why) => {
            problems.push(Problem::unknown(
                PinGate::After,
                format!("{name} pins it, but whether it runs is unknown ({why})"),
                look(&format!("see why {name} does not answer")),
            ));
            return;
        }
        Observed::Reports(report) => report,
    };
    if report.version.commit != facts.to.revision {
        problems.push(Problem::new(
            PinGate::After,
            format!("{name} is pinned to it but still runs {}", report.version.version),
            look(&format!("wait until {name} runs it")),
        ));
        return;
    }
    if !report.ready {
        problems.push(Problem::new(
            PinGate::After,
            format!("{name} runs it but is not ready"),
            look(&format!("see why {name} is not ready")),
        ));
        return;
    }
    let uptime = report.version.uptime();
    let since = uptime.map_or_else(String::new, |uptime| format!(", for {}", span(uptime)));
    notes.push(format!("{name} runs it{since}, and is ready"));
    soak(facts, name, uptime, problems);
}

fn soak(facts: &Facts, name: &str, uptime: Option<SignedDuration>, problems: &mut Vec<Problem>) {
    let Some(soak) = facts.environment.soak else { return };
    let environment = &facts.environment.name;
    match uptime {
        Some(uptime) if uptime >= soak => {}
        Some(uptime) => problems.push(Problem::new(
            PinGate::Soak,
            format!("{name} has run it for {}, and {environment} asks for {}", span(uptime), span(soak)),
            format!("in {} it is enough, if {name} does not restart", span(soak - uptime)),
        )),
        None => problems.push(Problem::unknown(
            PinGate::Soak,
            format!("{name} does not say for how long it has run it"),
            "it is of before its /version told it: promote something newer there, or pass the gate",
        )),
    }
}

fn checks(facts: &Facts, problems: &mut Vec<Problem>) {
    let commit = short(&facts.to.revision);
    let checks = match &facts.checks {
        Ok(checks) => checks,
        Err(fault) => {
            let what = format!("whether {commit} passed its checks is unknown: {}", fault.message());
            problems.push(Problem::unknown(PinGate::Checks, what, "run the same command again"));
            return;
        }
    };
    let bad = checks.iter().filter(|check| check.state != State::Green);
    let remedy = "mend it, or run it again there";
    problems.extend(bad.map(|check| Problem::new(PinGate::Checks, format!("on {commit} {check}"), remedy)));
}

fn restore(facts: &Facts, notes: &mut Vec<String>, problems: &mut Vec<Problem>) {
    let Some(restore) = &facts.restore else { return };
    let (id, name) = (&restore.id, &facts.environment.name);
    if let Some(there) = restore.there.as_ref().filter(|there| !there.contains(id)) {
        let list = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
        problems.push(Problem::new(
            PinGate::Restore,
            format!("{name} does not list a backup {id}"),
            format!("the newest that it has: {list}; if {id} lies in the volume's backups/, pass the gate: the pod looks for it, and refuses before anything is changed"),
        ));
    }
    if let Some(commit) = &restore.asked_before {
        problems.push(Problem::new(
            PinGate::Restore,
            format!("{name} was told to restore {id} before (infra commit {}), and an id is applied once", short(commit)),
            "copy the backup under another name in the volume's backups/, and restore that; if it was never applied, pass the gate",
        ));
    }
    let seen = || facts.past.iter().find_map(|past| past.seen.as_ref()).map(|seen| seen.sequence);
    let now = facts.observed.report().map(|report| report.version.ledger.sequence);
    let since = restore.made_at.as_deref().map_or_else(String::new, |at| format!(", written since {at}"));
    let lost = match (restore.sequence, now) {
        (Some(kept), Some(now)) if now > kept => format!("sequences {} to {now}{since}", kept + 1),
        (Some(kept), Some(now)) if now == kept => format!("nothing: the ledger is at sequence {now}"),
        (Some(_), Some(now)) => format!("what was written since the last restore, up to sequence {now}"),
        (Some(kept), None) => {
            let seen = seen()
                .map_or_else(String::new, |seen| format!(", which was at {seen} when it was seen last"));
            format!("all after sequence {kept}{seen}; how much that is, is unknown{since}")
        }
        (None, _) => format!("unknown: the backup's sequence is not told{since}"),
    };
    if restore.there.is_none() {
        notes.push(format!(
            "whether {name} has the backup {id} is unknown; its pod looks for it, and refuses if not"
        ));
    }
    notes.push(format!("data that is lost: {lost}"));
}
