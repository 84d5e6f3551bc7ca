//! `--wait`: follows a pin until its image runs and is ready. Tells for how long nothing answered, and whether the data
//! file is the one of before. Every figure is measured from here, by asking twice a second.

use std::fmt;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jiff::SignedDuration;
use serde::Serialize;

use super::plan::Plan;
use crate::fault::Fault;
use crate::observe;
use crate::pipeline::{Environment, Pipeline};
use crate::report::{Observed, Report};
use crate::service;
use crate::situation::Situation;
use crate::span::span;
use crate::terminal::Spinner;
use crate::trailers::Seen;

/// Between two questions to the service.
const BEAT: Duration = Duration::from_millis(500);
/// Between two looks at everything else.
const LOOK: Duration = Duration::from_secs(10);

/// How a rollout went, as it was seen from here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waited {
    /// Milliseconds from the last answer of what ran before (from the first question, if none came) to the first of the new
    /// one that was ready: at most that long nobody was served, as seen from here. `None` if it was never silent.
    pub gap_milliseconds: Option<u128>,
    /// Milliseconds until it ran and was ready.
    pub milliseconds: u128,
    pub before: Option<Seen>,
    pub after: Seen,
}

/// Why a wait ended without what was waited for, and what was seen then.
#[derive(Debug)]
pub struct Failed {
    pub fault: Fault,
    pub situation: Option<Box<Situation>>,
}

/// The environment on its way to the pin of a plan.
pub struct Wait<'a> {
    pub pipeline: &'a Pipeline,
    pub root: &'a Path,
    pub environment: &'a Environment,
    pub plan: &'a Plan,
    pub limit: Duration,
}

impl Wait<'_> {
    /// Asks until it is there, or its time is over.
    pub fn run(&self) -> Result<Waited, Failed> {
        let (name, to) = (&self.environment.name, self.plan.to.name());
        let spinner = Spinner::start(format!("waiting until {name} runs {to}"));
        let looks = Looks::start(self);
        let start = Instant::now();
        let mut gap = Gap::from(start);
        let mut said = String::new();
        let mut cause = None;
        loop {
            let asked = Instant::now();
            let observed = service::observe(&self.environment.url);
            gap.note(&observed, &self.plan.commit, asked);
            if let Some(report) = self.is_there(&observed) {
                return self.judged(report, gap.milliseconds(), start.elapsed().as_millis());
            }
            for look in looks.seen.try_iter() {
                if let Some(fault) = self.superseded(&look) {
                    return Err(Failed { fault, situation: Some(Box::new(look)) });
                }
                cause = look.facts.cause().map(|cause| cause.what.clone());
            }
            let line = self.seen(&observed, cause.as_deref());
            if line != said {
                spinner.say(&line);
                said = line;
            }
            if start.elapsed() >= self.limit {
                return Err(self.timed_out());
            }
            std::thread::sleep(BEAT.saturating_sub(asked.elapsed()));
        }
    }

    /// The answer that was waited for.
    fn is_there<'o>(&self, observed: &'o Observed) -> Option<&'o Report> {
        let report = observed.report().filter(|report| report.ready)?;
        let restored = report.version.restored.as_ref().map(|restored| restored.id.as_str());
        let done = self.plan.restore.is_none() || self.plan.restore.as_deref() == restored;
        (report.version.commit == self.plan.commit && done).then_some(report)
    }

    fn seen(&self, observed: &Observed, cause: Option<&str>) -> String {
        let name = &self.environment.name;
        let what = match observed {
            Observed::Silent(_) => "nothing answers".to_owned(),
            Observed::Reports(report) if report.version.commit != self.plan.commit => {
                format!("v{} still runs", report.version.version)
            }
            Observed::Reports(report) if !report.ready => {
                format!("{} runs, and is not ready yet", self.plan.to.name())
            }
            Observed::Reports(_) => "the restore is not told yet".to_owned(),
        };
        let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
        format!("{name}: {what}{cause}")
    }

    /// Another pin landed on this one.
    fn superseded(&self, look: &Situation) -> Option<Fault> {
        let pin = look.facts.pin().filter(|pin| **pin != self.plan.to)?;
        let made = look.facts.change().map_or_else(String::new, |change| {
            let by = change.trailers.by.as_ref().unwrap_or(&change.commit.author);
            format!(" (infra commit {} by {by})", change.commit.id)
        });
        let (name, to) = (&self.environment.name, self.plan.to.name());
        Some(
            Fault::race(format!("{to} in {name} is superseded by {}{made}", pin.name()))
                .help(format!("that one counts now; who made it, and why: cargo xtask log {name}")),
        )
    }

    fn timed_out(&self) -> Failed {
        let (name, to) = (&self.environment.name, self.plan.to.name());
        let mut look = observe::look(self.pipeline, std::slice::from_ref(self.environment), self.root);
        let situation = look.situations.pop();
        // It may have landed since the last look.
        if let Some(fault) = situation.as_ref().and_then(|situation| self.superseded(situation)) {
            return Failed { fault, situation: situation.map(Box::new) };
        }
        let limit = span(SignedDuration::try_from(self.limit).unwrap_or_default());
        let next = situation.as_ref().and_then(|situation| situation.next().map(str::to_owned));
        let fault = Fault::remote(format!("{to} is pinned, but {name} does not run it after {limit}"));
        let fault = fault.help(next.unwrap_or_else(|| format!("cargo xtask status {name} --watch")));
        Failed { fault, situation: situation.map(Box::new) }
    }

    /// It runs; now whether it has the data of before.
    fn judged(&self, report: &Report, gap: Option<u128>, milliseconds: u128) -> Result<Waited, Failed> {
        let (after, before) = (Seen::of(&report.version), self.plan.seen.clone());
        let name = &self.environment.name;
        let wrong = before.as_ref().filter(|_| self.plan.restore.is_none()).and_then(|before| {
            if before.ledger != after.ledger {
                Some(format!(
                    "the ledger is {}, and was {} before: another volume",
                    after.ledger, before.ledger
                ))
            } else if before.sequence > after.sequence {
                Some(format!(
                    "the ledger is at sequence {}, and was at {} before: its tail is lost",
                    after.sequence, before.sequence
                ))
            } else {
                None
            }
        });
        if let Some(what) = wrong {
            let fault = Fault::refused(format!("{} runs in {name}, but {what}", self.plan.to.name()));
            let fault = fault.help(format!("let nobody write to it; cargo xtask status {name}"));
            return Err(Failed { fault, situation: None });
        }
        Ok(Waited { gap_milliseconds: gap, milliseconds, before, after })
    }
}

/// Looks at all of it, again and again, on a thread that ends with this.
struct Looks {
    seen: Receiver<Situation>,
    /// Dropped to stop it.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Looks {
    fn start(wait: &Wait<'_>) -> Self {
        let (tell, seen) = channel();
        let (stop, stopped) = channel::<()>();
        let (pipeline, environment, root) =
            (wait.pipeline.clone(), wait.environment.clone(), wait.root.to_owned());
        let thread = std::thread::spawn(move || {
            loop {
                let mut look = observe::look(&pipeline, std::slice::from_ref(&environment), &root);
                let Some(situation) = look.situations.pop() else { return };
                let heard = tell.send(situation).is_ok();
                if !heard || stopped.recv_timeout(LOOK) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        Self { seen, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Looks {
    /// A look that is on its way ends first, and takes its folder along.
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// For how long nobody was served, between answers.
#[derive(Debug)]
struct Gap {
    /// When the last answer of the image of before was asked for; else the first question.
    last_old: Instant,
    silent: bool,
    first_new: Option<Instant>,
}

impl Gap {
    fn from(start: Instant) -> Self {
        Self { last_old: start, silent: false, first_new: None }
    }

    fn note(&mut self, observed: &Observed, commit: &str, asked: Instant) {
        match observed {
            Observed::Reports(report) if report.version.commit != commit => self.last_old = asked,
            Observed::Reports(report) if report.ready => self.first_new = Some(Instant::now()),
            _ => self.silent = true,
        }
    }

    fn milliseconds(&self) -> Option<u128> {
        let new = self.first_new.filter(|_| self.silent)?;
        Some(new.duration_since(self.last_old).as_millis())
    }
}

impl fmt::Display for Waited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gap_milliseconds, milliseconds, before, after } = self;
        let tenths = |milliseconds: u128| format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100);
        write!(f, "runs and is ready after {}", tenths(*milliseconds))?;
        match gap_milliseconds {
            Some(gap) => write!(f, "; nobody was served for {} at most", tenths(*gap))?,
            None => write!(f, "; no gap was seen")?,
        }
        let Seen { schema, ledger, sequence } = after;
        write!(f, "\ndata: schema {}, ledger {ledger}, sequence {sequence}", schema.current)?;
        match before {
            Some(before) if before.ledger == *ledger => {
                write!(
                    f,
                    "; before: schema {}, the same ledger, sequence {}",
                    before.schema.current, before.sequence
                )
            }
            Some(before) => write!(
                f,
                "; before: schema {}, ledger {}, sequence {}",
                before.schema.current, before.ledger, before.sequence
            ),
            None => write!(f, "; before: unknown"),
        }
    }
}

/// `90s`, `10m`, `1h 30m`, as it is written on the command line.
pub fn limit(text: &str) -> Result<Duration> {
    let parsed = text.parse::<SignedDuration>().ok().filter(SignedDuration::is_positive);
    let parsed = parsed.with_context(|| format!("{text:?} is no time such as 90s or 10m"))?;
    Ok(Duration::try_from(parsed)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_positive_time() {
        assert_eq!(limit("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(limit("1h 30m").unwrap(), Duration::from_secs(5400));
        for bad in ["", "0s", "-1m", "soon", "10"] {
            limit(bad).unwrap_err();
        }
    }
}
