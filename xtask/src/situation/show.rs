//! The screen: one environment, as one page of text.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};
use serde_json::json;

use super::{Candidate, Facts, Situation, State};
use crate::data_file::File;
use crate::history::Change;
use crate::report::{Observed, Report};
use crate::span::{since, span};
use crate::workload::{Cause, Kind};

/// How many images to go back to are shown.
const SAFE: usize = 5;

impl fmt::Display for Situation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.headline())?;
        self.lines().iter().try_for_each(|(key, line)| write!(f, "\n  {key:<9}{line}"))
    }
}

impl Situation {
    /// `production v0.2.0 DOWN 3m 12s: init failed`.
    pub fn headline(&self) -> String {
        let Self { facts, state, .. } = self;
        let name = &facts.environment.name;
        let pinned =
            facts.pin().map_or("unknown", |pin| if pin.is_nothing() { "nothing" } else { pin.name() });
        let up = if self.state == State::Ok { ", up" } else { "" };
        let time = self.lasts().map(|lasts| format!("{up} {}", span(lasts))).unwrap_or_default();
        let what = self.problems.first().filter(|problem| problem.wrong || *state != State::Ok);
        let what = what.map(|problem| format!(": {}", problem.what)).unwrap_or_default();
        let state = match state {
            State::Ok if self.is_wrong() => "WRONG",
            state => state.word(),
        };
        format!("{name} {pinned} {state}{time}{what}")
    }

    /// For how long it has been as it is, where somebody tells.
    fn lasts(&self) -> Option<SignedDuration> {
        let facts = &self.facts;
        match self.state {
            State::Ok => facts.report()?.uptime(),
            State::Down => facts.workload()?.down_since.map(|then| since(then, facts.now)),
            _ => None,
        }
    }

    /// The lines below the headline: a key and a text.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let facts = &self.facts;
        let mut lines =
            vec![("pinned", facts.pinned_line()), ("runs", facts.runs_line()), ("data", facts.data_line())];
        lines.push(("backup", facts.backup_line()));
        lines.extend(facts.behind_line().map(|line| ("behind", line)));
        lines.extend(facts.hold_line().map(|line| ("held", line)));
        lines.extend(facts.soak_line().map(|line| ("soak", line)));
        if self.state != State::Ok || self.is_wrong() {
            lines.extend(facts.cluster_line().map(|line| ("cluster", line)));
        }
        // No other image brings a lost ledger back.
        let no_ledger = facts.cause().is_some_and(|cause| cause.kind == Kind::WrongVolume);
        if facts.lost().is_none() && !no_ledger {
            lines.extend(self.safe_line().map(|line| ("go back", line)));
        }
        // What dojo advises for a fresh volume, or for any newer file, would do harm here.
        let other = |cause: &&Cause| !matches!(cause.kind, Kind::WrongVolume | Kind::SchemaAhead);
        let help = facts.cause().filter(other).and_then(|cause| cause.words.as_ref()?.help.clone());
        lines.extend(help.map(|help| ("says", help)));
        let first = usize::from(self.headline_tells());
        lines.extend(self.problems.iter().skip(first).map(|problem| ("also", problem.what.clone())));
        lines.push(("do", self.next().unwrap_or("nothing").to_owned()));
        lines.extend(self.way_back().map(|line| ("or", line)));
        lines
    }

    /// All of it but for what time alone changes.
    pub fn gist(&self) -> String {
        let facts = &self.facts;
        let what: Vec<_> = self.problems.iter().map(|problem| (&problem.next, problem.wrong)).collect();
        let data = facts.data();
        format!(
            "{:?}",
            (
                self.state,
                facts.pin(),
                facts.report().map(|report| (&report.commit, &report.restored)),
                data,
                facts.hold(),
                what
            )
        )
    }

    /// How to go back where nobody sees the data file.
    fn way_back(&self) -> Option<String> {
        let stuck = matches!(self.state, State::Down | State::NoAnswer) && self.is_wrong();
        // Another image would meet the same volume.
        let by_volume = self.facts.cause().is_some_and(|cause| {
            matches!(cause.kind, Kind::WrongVolume | Kind::VolumeAttached | Kind::Volume | Kind::Terminating)
        });
        let stuck = stuck && !by_volume;
        let unknown = self.safe.iter().any(|candidate| candidate.opens.is_none() && !candidate.bad);
        (stuck && unknown).then(|| {
            let name = &self.facts.environment.name;
            format!("to go back: read the file's schema N (`dojo migrate --plan` in a pod with the volume, docs/promoting.md), then cargo xtask rollback {name} --file-schema N")
        })
    }

    fn headline_tells(&self) -> bool {
        self.problems.first().is_some_and(|problem| problem.wrong || self.state != State::Ok)
    }

    /// The one thing to do.
    pub fn next(&self) -> Option<&str> {
        self.problems.iter().find_map(|problem| problem.next.as_deref())
    }

    fn safe_line(&self) -> Option<String> {
        let file = match self.facts.file() {
            File::Between(Some(low), Some(high)) if high.current == low + 1 => {
                format!("{low} or {}", high.current)
            }
            file => file.range(),
        };
        let mut groups: Vec<(Vec<&str>, &Candidate)> = Vec::new();
        let (good, bad): (Vec<_>, Vec<_>) = self.safe.iter().partition(|candidate| !candidate.bad);
        for candidate in good.into_iter().chain(bad).take(SAFE) {
            let alike = |other: &Candidate| {
                (other.opens, other.schema, other.bad) == (candidate.opens, candidate.schema, candidate.bad)
            };
            match groups.last_mut().filter(|(_, first)| alike(first)) {
                Some((tags, _)) => tags.push(&candidate.tag),
                None => groups.push((vec![&candidate.tag], candidate)),
            }
        }
        let told = groups.into_iter().map(|(tags, first)| {
            let (tags, many) = (tags.join(", "), tags.len() > 1);
            let verb = |one: &'static str, several: &'static str| if many { several } else { one };
            let opens = match (first.opens, first.schema) {
                (Some(true), _) => format!("{tags} {} schema {file}", verb("opens", "open")),
                (Some(false), Some(schema)) => {
                    format!("not {tags}, which {} {schema}", verb("knows", "know"))
                }
                (None, Some(schema)) => format!(
                    "{tags}: unknown ({} schema {schema}, the file has {file})",
                    verb("it knows", "they know")
                ),
                (_, None) => format!("{tags}: unknown"),
            };
            if first.bad { format!("{opens}, and was rolled back from") } else { opens }
        });
        let told = told.collect::<Vec<_>>().join("; ");
        let more = self.safe.len().saturating_sub(SAFE);
        let more = if more == 0 {
            String::new()
        } else {
            format!("; {more} more: cargo xtask log {}", self.facts.environment.name)
        };
        (!told.is_empty()).then(|| told + &more)
    }
}

impl Facts {
    fn pinned_line(&self) -> String {
        let infra = match &self.infra {
            Ok(infra) => infra,
            Err(why) => return format!("unknown: {why}"),
        };
        let pinned = match &infra.pinned {
            Ok(pinned) => pinned,
            Err(why) => return format!("unknown: {why}"),
        };
        let pin = &pinned.pin;
        if pin.is_nothing() {
            return "nothing yet".to_owned();
        }
        let digest = pin
            .digest
            .as_ref()
            .map_or("no digest".to_owned(), |digest| format!("sha256:{}…", digest.short()));
        let who = self.change().map(|change| format!(", {}", self.made(change))).unwrap_or_default();
        format!("{} {digest}{who}", pin.name())
    }

    /// Who made a pin, when, and as what.
    fn made(&self, change: &Change) -> String {
        let age =
            change.commit.time.parse::<Timestamp>().map_or("at an unknown time".to_owned(), |then| {
                format!("{} ago", span(since(then, self.now)))
            });
        let trailers = &change.trailers;
        let by = trailers.by.as_deref().unwrap_or(&change.commit.author);
        let by = by.split(" <").next().unwrap_or(by);
        let verb = match (&trailers.verb, &trailers.from) {
            (Some(verb), Some(from)) if !change.is_foreign() => format!("{verb} from {from}"),
            _ => "by hand".to_owned(),
        };
        let commit = change.commit.id.get(..12).unwrap_or_default();
        format!("{age} by {by} ({verb}, infra {commit})")
    }

    fn runs_line(&self) -> String {
        let Report { version, ready } = match &self.observed {
            Observed::Silent(why) => return format!("unknown: {why}"),
            Observed::Reports(report) => report,
        };
        let ready = if *ready { "ready" } else { "NOT ready" };
        let uptime = version.uptime().map_or_else(String::new, |uptime| format!(", up {}", span(uptime)));
        let commit = version.commit.get(..12).unwrap_or(&version.commit);
        format!("v{} of commit {commit}, {ready}{uptime}", version.version)
    }

    fn data_line(&self) -> String {
        let before = self.seen_before();
        let Some(now) = self.data() else {
            let before = before.map_or_else(String::new, |seen| {
                format!(
                    "; when it was pinned: schema {}, ledger {}, sequence {}",
                    seen.schema.current, seen.ledger, seen.sequence
                )
            });
            return format!("unknown{before}");
        };
        let of = match self.image() {
            Some((_, schema)) if now.schema.current > schema.current => {
                format!(" (the pinned image knows {})", schema.current)
            }
            Some((_, schema)) => format!(" of {}", schema.current),
            None => String::new(),
        };
        let compared = match before {
            Some(seen) if seen.ledger != now.ledger => {
                format!(", ANOTHER than when it was pinned ({})", seen.ledger)
            }
            Some(seen) if seen.sequence == now.sequence => " as when it was pinned".to_owned(),
            Some(seen) if seen.sequence < now.sequence => {
                format!(", {} more than when it was pinned", now.sequence - seen.sequence)
            }
            Some(seen) => format!(", LESS than when it was pinned ({})", seen.sequence),
            None => String::new(),
        };
        let said = if self.report().is_none() { " (from the failed container's log)" } else { "" };
        format!(
            "schema {}{of}, ledger {}, sequence {}{compared}{said}",
            now.schema.current, now.ledger, now.sequence
        )
    }

    fn backup_line(&self) -> String {
        let words = self.last_words().map(|words| words.backups.join(", ")).filter(|ids| !ids.is_empty());
        let Some(report) = self.report() else {
            let words = words.map(|ids| format!("{ids} (on the volume, newest first)"));
            return words.unwrap_or_else(|| "unknown".to_owned());
        };
        let Some(backups) = &report.backups else {
            return "unknown: the service does not list them".to_owned();
        };
        let Some(newest) = backups.first() else {
            return "none on the volume; elsewhere: unknown".to_owned();
        };
        let age = newest
            .made_at
            .parse::<Timestamp>()
            .map_or(String::new(), |then| format!(", {} old", span(since(then, self.now))));
        format!("{}{age}, on the volume; others there: {}", newest.id, backups.len() - 1)
    }

    fn behind_line(&self) -> Option<String> {
        self.pin().filter(|pin| !pin.is_nothing())?;
        Some(match &self.behind {
            Ok(0) => format!("nothing: it is {}'s head", self.branch),
            Ok(1) => format!("{} by 1 commit", self.branch),
            Ok(count) => format!("{} by {count} commits", self.branch),
            Err(why) => format!("unknown: {why}"),
        })
    }

    fn hold_line(&self) -> Option<String> {
        let hold = self.hold()?;
        let age = hold.since.map(|then| format!("for {} ", span(since(then, self.now)))).unwrap_or_default();
        let by = hold.by.as_ref().map(|by| format!("by {by}")).unwrap_or_default();
        let name = &self.environment.name;
        Some(format!("{age}{by}: {}; promote and rollback refuse until: cargo xtask unhold {name}", hold.why))
    }

    /// How long the environment before has run what it would hand on.
    fn soak_line(&self) -> Option<String> {
        let soak = self.environment.soak?;
        let (name, observed) = self.before.as_ref()?;
        let report = match observed {
            Observed::Reports(report) => &report.version,
            Observed::Silent(why) => return Some(format!("{name}: unknown: {why}")),
        };
        if self.report().is_some_and(|mine| mine.commit == report.commit) {
            return None;
        }
        Some(match report.uptime() {
            Some(uptime) if uptime >= soak => {
                format!("{name} has run v{} for {}, of {}: enough", report.version, span(uptime), span(soak))
            }
            Some(uptime) => format!(
                "{name} has run v{} for {} of {}; {} to go",
                report.version,
                span(uptime),
                span(soak),
                span(soak - uptime)
            ),
            None => format!("{name} does not say for how long it has run v{}", report.version),
        })
    }

    fn cluster_line(&self) -> Option<String> {
        match &self.cluster {
            None => Some("not asked: deploy/pipeline.yaml has no `cluster:` for it".to_owned()),
            // It is a problem of its own.
            Some(Err(_)) => None,
            Some(Ok(workload)) if !workload.unseen.is_empty() => {
                Some(format!("not told: {}", workload.unseen.join(", ")))
            }
            Some(Ok(_)) => None,
        }
    }
}

/// The ids of ledgers that were made at one time begin alike.
fn short(id: &str) -> String {
    let letters: Vec<_> = id.chars().collect();
    letters.iter().skip(letters.len().saturating_sub(8)).collect()
}

/// The row of an environment among all: environment, state, pinned, runs, schema, ledger, sequence, behind.
pub fn overview(situation: &Situation) -> Vec<String> {
    let Situation { facts, state, .. } = situation;
    let unknown = || "unknown".to_owned();
    let pinned = facts.pin().map_or_else(unknown, |pin| {
        if pin.is_nothing() { "nothing".to_owned() } else { pin.name().to_owned() }
    });
    let runs = facts.report().map_or_else(unknown, |report| match facts.runs_it() {
        // One thing is to have one name.
        Some(true) => pinned.clone(),
        _ => format!("v{} {}", report.version, report.commit.get(..12).unwrap_or(&report.commit)),
    });
    let data = facts.data();
    let of_data = |show: &dyn Fn(&crate::trailers::Seen) -> String| data.as_ref().map_or_else(unknown, show);
    let state = if *state == State::Ok && situation.is_wrong() { "WRONG" } else { state.word() };
    let behind = facts.behind.as_ref().map_or_else(|_| unknown(), |count| format!("{count}"));
    vec![
        facts.environment.name.clone(),
        if facts.hold().is_some() { format!("{state}, held") } else { state.to_owned() },
        pinned,
        runs,
        of_data(&|seen| seen.schema.current.to_string()),
        of_data(&|seen| format!("…{}", short(&seen.ledger))),
        of_data(&|seen| seen.sequence.to_string()),
        behind,
    ]
}

impl Serialize for Situation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { facts, state, problems, safe } = self;
        let infra = facts.infra.as_ref();
        let change = facts.change().map(|change| {
            let Change { commit, trailers, .. } = change;
            json!({ "commit": commit.id, "at": commit.time, "by": trailers.by.as_ref().unwrap_or(&commit.author),
                "verb": trailers.verb, "from": trailers.from, "by_hand": change.is_foreign(), "seen": trailers.seen })
        });
        let unread = infra.ok().and_then(|infra| infra.pinned.as_ref().err());
        let image = facts.image().map(|(commit, schema)| json!({ "commit": commit, "schema": schema }));
        json!({
            "environment": facts.environment.name, "state": state, "wrong": self.is_wrong(), "headline": self.headline(),
            "pin": facts.pin(), "problem": infra.err().or(unread), "infra": infra.ok().map(|infra| &infra.head),
            "changed": change, "hold": facts.hold(), "image": image, "observed": facts.observed, "data": facts.data(),
            "behind": facts.behind.as_ref().ok(), "cluster": facts.cluster, "problems": problems, "safe": safe, "next": self.next(),
        })
        .serialize(serializer)
    }
}
