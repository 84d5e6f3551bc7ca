//! What was observed, in the page's words.

use jiff::SignedDuration;

use super::actions::next;
use super::page::{Commit, Event, Fact, History, Hold, Kind, Moment, Row, Stage, Tone, Trouble, moment};
use crate::history::{self, Change};
use crate::image::{Digest, Labels};
use crate::kustomization::Pin;
use crate::report::Observed;
use crate::situation::{Facts, Situation, State};
use crate::trailers::Trailers;

/// How many changes of an environment's pin are shown.
const SHOWN: usize = 12;

/// What git said is told with what is wrong.
const UNREAD: &str = "the infra repository could not be read";

/// What only has a name.
fn plain(name: &str, has: Fact) -> Stage {
    Stage {
        name: name.to_owned(),
        url: None,
        tone: Tone::Plain,
        state: String::new(),
        says: String::new(),
        since: None,
        has,
        facts: Vec::new(),
        hold: None,
        notes: Vec::new(),
        troubles: Vec::new(),
        gap: None,
        actions: Vec::new(),
        history: None,
    }
}

/// What could not be asked.
fn silent(name: &str, who: &str, why: &str) -> Stage {
    let what = format!("{who} did not answer: {why}");
    let next = Some(next("cargo xtask doctor"));
    Stage {
        tone: Tone::Unknown,
        says: "is unknown".to_owned(),
        troubles: vec![Trouble { tone: Tone::Unknown, what, since: None, next }],
        // Why is told with what is wrong.
        ..plain(name, Fact::Unknown(format!("{who} did not answer")))
    }
}

fn row(name: &str, value: impl Into<String>) -> Row {
    Row { name: name.to_owned(), value: Fact::Known(value.into()), full: None, at: None }
}

fn unknown(name: &str, why: impl Into<String>) -> Row {
    Row { value: Fact::Unknown(why.into()), ..row(name, "") }
}

fn hash(name: &str, hash: impl Into<String>) -> Row {
    let hash = hash.into();
    Row { full: Some(hash.clone()), ..row(name, hash) }
}

pub fn commit(commit: &history::Commit) -> Commit {
    Commit {
        id: commit.id.clone(),
        subject: subject(commit).to_owned(),
        by: commit.author.clone(),
        at: moment(&commit.time),
    }
}

fn subject(commit: &history::Commit) -> &str {
    commit.message.lines().next().unwrap_or_default()
}

pub fn branch(name: &str, tip: &Result<String, String>, head: Option<&history::Commit>) -> Stage {
    let tip = match tip {
        Ok(tip) => tip,
        Err(why) => return silent(name, "the project's remote", why),
    };
    let facts = head.map(|head| Row { at: moment(&head.time), ..row("by", head.author.clone()) });
    let notes = head.map(|head| subject(head).to_owned());
    let (facts, notes) = (facts.into_iter().collect(), notes.into_iter().collect());
    Stage { facts, notes, ..plain(name, Fact::Known(tip.clone())) }
}

pub fn edge(registry: &str, edge: &Result<(Digest, Labels), String>) -> Stage {
    match edge {
        Err(why) => silent("edge", &format!("the registry {registry}"), why),
        Ok((digest, labels)) => Stage {
            facts: vec![
                hash("digest", digest.to_string()),
                row("version", labels.version.clone()),
                row("schema", labels.schema.current.to_string()),
            ],
            ..plain("edge", Fact::Known(labels.revision.clone()))
        },
    }
}

pub fn environment(situation: &Situation) -> Stage {
    let Situation { facts, .. } = situation;
    let name = &facts.environment.name;
    let (tone, state, says) = tone(situation);
    let problems = situation.problems.iter();
    let (wrong, known): (Vec<_>, Vec<_>) = problems.partition(|problem| problem.wrong);
    let since = since(situation);
    let trouble = wrong.iter().enumerate().map(|(index, problem)| Trouble {
        tone,
        what: problem.what.clone(),
        // The first is what makes the state.
        since: since.filter(|_| index == 0 && tone == Tone::Bad),
        next: problem.next.as_deref().map(next),
    });
    let hold = facts.hold().map(|hold| Hold {
        why: hold.why.clone(),
        by: hold.by.clone(),
        at: hold.since.map(Moment),
    });
    Stage {
        url: facts.environment.url.starts_with("http").then(|| facts.environment.url.clone()),
        tone,
        state: state.to_owned(),
        says: says.to_owned(),
        since,
        facts: rows(situation),
        hold,
        notes: known.iter().map(|problem| problem.what.clone()).collect(),
        troubles: trouble.collect(),
        history: Some(history(facts)),
        ..plain(name, pinned(facts).map_or_else(Fact::Unknown, Fact::Known))
    }
}

/// The pin's name, or why it is unknown.
fn pinned(facts: &Facts) -> Result<String, String> {
    let infra = facts.infra.as_ref().map_err(|_| UNREAD.to_owned())?;
    let pinned = infra.pinned.as_ref().map_err(Clone::clone)?;
    Ok(pinned.pin.name().to_owned())
}

/// How bad it is, in one or two words, and in a sentence after the name.
fn tone(situation: &Situation) -> (Tone, &'static str, &'static str) {
    let facts = &situation.facts;
    let lost = facts.lost().is_some();
    match situation.state {
        State::NoAnswer if facts.pin().is_some_and(Pin::is_nothing) => {
            (Tone::Unknown, "empty", "has nothing yet")
        }
        State::Ok if !situation.is_wrong() => (Tone::Well, "ready", "is ready"),
        State::Ok if lost => (Tone::Bad, "wrong data", "has another data file than before"),
        State::Ok => (Tone::Odd, "needs a look", "needs a look"),
        State::RollingOut => (Tone::Busy, "rolling out", "is rolling out"),
        State::NotReady => (Tone::Bad, "not ready", "is not ready"),
        State::Drift => (Tone::Odd, "drift", "runs something else than is pinned"),
        State::Down => (Tone::Bad, "down", "is down"),
        State::NoAnswer => (Tone::Bad, "no answer", "does not answer"),
        State::Unknown => (Tone::Unknown, "unknown", "is unknown"),
    }
}

fn since(situation: &Situation) -> Option<Moment> {
    let facts = &situation.facts;
    let before = |seconds: u64| {
        let ago = SignedDuration::from_secs(i64::try_from(seconds).ok()?);
        facts.now.checked_sub(ago).ok().map(Moment)
    };
    match situation.state {
        State::Ok if !situation.is_wrong() => before(facts.report()?.uptime_seconds?),
        State::Down => facts.workload()?.down_since.map(Moment),
        State::RollingOut => moment(&facts.change()?.commit.time),
        _ => None,
    }
}

fn rows(situation: &Situation) -> Vec<Row> {
    let facts = &situation.facts;
    let mut rows = Vec::new();
    if let Some(change) = facts.change().filter(|_| facts.pin().is_some_and(|pin| !pin.is_nothing())) {
        rows.push(Row { at: moment(&change.commit.time), ..row("pinned by", by(change)) });
    }
    rows.extend(runs(facts));
    if let Some(digest) = facts.pin().and_then(|pin| pin.digest.as_ref()) {
        rows.push(hash("digest", digest.to_string()));
        match facts.image() {
            Some((commit, schema)) => {
                rows.push(row("commit", commit));
                rows.push(row("schema", schema.current.to_string()));
            }
            None => rows.push(unknown("commit", facts.labels.as_ref().err().cloned().unwrap_or_default())),
        }
    }
    rows.extend(data(facts));
    // In the words of `status`.
    let told = situation.lines().into_iter().filter(|(key, _)| ["soak", "cluster", "safe"].contains(key));
    rows.extend(told.map(|(key, line)| row(key, line)));
    rows
}

/// What runs, where that is not what is pinned.
fn runs(facts: &Facts) -> Option<Row> {
    match &facts.observed {
        Observed::Silent(why) => Some(unknown("runs", why.clone())),
        Observed::Reports(report) => {
            let same = facts.image().is_some_and(|(commit, _)| commit == report.version.commit);
            let commit = report.version.commit.get(..12).unwrap_or(&report.version.commit);
            (!same).then(|| row("runs", format!("v{} of {commit}", report.version.version)))
        }
    }
}

fn data(facts: &Facts) -> Vec<Row> {
    let Some(now) = facts.data() else {
        let why = match facts.seen_before() {
            Some(seen) => {
                format!("schema {}, sequence {} when it was pinned", seen.schema.current, seen.sequence)
            }
            None => "nobody tells of it".to_owned(),
        };
        return vec![unknown("data file", why)];
    };
    let id: Vec<_> = now.ledger.chars().collect();
    let last: String = id.iter().skip(id.len().saturating_sub(8)).collect();
    let mut rows = vec![
        row("data file", format!("schema {}, sequence {}", now.schema.current, now.sequence)),
        Row {
            full: Some(now.ledger.clone()),
            ..row("ledger", if id.len() > 8 { format!("…{last}") } else { last })
        },
    ];
    let backups = facts.report().map(|report| report.backups.as_deref());
    rows.push(match backups {
        None => unknown("backup", "the service does not answer"),
        Some(None) => unknown("backup", "the service does not list them"),
        Some(Some([])) => row("backup", "none on the volume"),
        Some(Some([newest, ..])) => Row { at: moment(&newest.made_at), ..row("backup", newest.id.clone()) },
    });
    rows
}

/// Who made a change, without the mail address.
fn by(change: &Change) -> String {
    let by = change.trailers.by.as_deref().filter(|_| !change.is_foreign()).unwrap_or(&change.commit.author);
    by.split(" <").next().unwrap_or(by).to_owned()
}

fn history(facts: &Facts) -> History {
    let changes = match &facts.infra {
        Ok(infra) => &infra.history,
        Err(_) => return History { events: Fact::Unknown(UNREAD.to_owned()), older: 0 },
    };
    if changes.is_empty() {
        return History {
            events: Fact::Unknown("git tells no commit that made the pin".to_owned()),
            older: 0,
        };
    }
    let before = changes.iter().skip(1).map(Some).chain([None]);
    let events: Vec<_> = changes
        .iter()
        .zip(before)
        // A new environment begins so.
        .filter(|(change, before)| before.is_some() || !is_nothing(change))
        .map(|(change, before)| event(change, before))
        .collect();
    let older = events.len().saturating_sub(SHOWN);
    History { events: Fact::Known(events.into_iter().take(SHOWN).collect()), older }
}

/// Whether nothing was pinned after it.
fn is_nothing(change: &Change) -> bool {
    change.pin.as_ref().is_some_and(Pin::is_nothing)
}

fn event(change: &Change, before: Option<&Change>) -> Event {
    let foreign = change.is_foreign();
    let name = |change: &Change| change.pin.as_ref().map(|pin| pin.name().to_owned());
    let kind = match change.trailers.verb.as_deref() {
        _ if foreign => Kind::ByHand,
        Some("rollback") => Kind::Rollback,
        Some("adopt") => Kind::Adopt,
        _ => Kind::Promote,
    };
    let Trailers { because, overrides, .. } = &change.trailers;
    let was = before.and_then(|before| before.restore.as_ref());
    let restore = change.restore.as_ref().filter(|id| Some(*id) != was);
    let mut why: Vec<_> = because.iter().filter(|_| !foreign).cloned().collect();
    why.extend(overrides.iter().map(|pass| format!("passed {}: {}", pass.gate, pass.because)));
    why.extend(restore.map(|id| format!("restores {id}")));
    if foreign {
        why.insert(0, subject(&change.commit).to_owned());
    }
    Event {
        at: moment(&change.commit.time),
        by: by(change),
        kind,
        from: before.filter(|before| !is_nothing(before)).and_then(name),
        to: name(change)
            .map_or_else(|| Fact::Unknown("the file of then cannot be read".to_owned()), Fact::Known),
        why,
        commit: change.commit.id.clone(),
    }
}
