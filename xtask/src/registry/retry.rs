//! Tries again what may pass: a cut connection, an overloaded server, a rate limit. Never a refusal.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::http::{HeaderMap, header};

use crate::fault::{Fault, Kind};

/// The pauses between tries where the server names none, and so how many tries there are.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(300),
    Duration::from_millis(1000),
    Duration::from_millis(3000),
    Duration::from_millis(6000),
];
/// Whoever is told to come back later than this comes back as another run of the command.
const LONGEST: Duration = Duration::from_secs(120);
/// How long one command waits for one registry, all its pauses together.
const IN_ALL: Duration = Duration::from_secs(300);
/// Whoever waits longer than this is told why.
const UNTOLD: Duration = Duration::from_secs(5);

/// A fault that may pass, and the pause that the server asked for.
#[derive(Debug)]
pub struct Passing {
    pub fault: Fault,
    pub pause: Option<Duration>,
}

impl std::fmt::Display for Passing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.fault.fmt(f)
    }
}

impl std::error::Error for Passing {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.fault)
    }
}

/// What is left of the time to wait for one registry. Its threads may wait side by side.
#[derive(Debug, Default)]
pub struct Patience(Mutex<Waits>);

#[derive(Debug, Default)]
struct Waits {
    spent: Duration,
    /// When the last of the pauses ends that were granted so far.
    until: Option<Instant>,
}

impl Patience {
    /// Tries again after a [`Kind::Remote`] fault, a few times.
    pub fn retry<T>(&self, attempt: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<T> {
        for pause in PAUSES {
            let error = match attempt() {
                Err(error) => error,
                done => return done,
            };
            let Some(asked) = asked(&error) else { return Err(plain(error)) };
            let pause = asked.unwrap_or(pause).max(pause);
            if pause > LONGEST || !self.grants(pause, Instant::now()) {
                return Err(plain(error));
            }
            if pause > UNTOLD {
                log::info!("trying again in {} s: {}", pause.as_secs(), first_line(&error));
            }
            std::thread::sleep(pause);
        }
        attempt().map_err(plain)
    }

    /// Whether there is time for one more pause. Pauses at the same time count once.
    fn grants(&self, pause: Duration, now: Instant) -> bool {
        let mut waits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let end = now + pause;
        let more = end.saturating_duration_since(waits.until.map_or(now, |until| until.max(now)));
        let granted = waits.spent + more <= IN_ALL;
        if granted {
            waits.spent += more;
            waits.until = waits.until.max(Some(end));
        }
        granted
    }
}

fn first_line(error: &anyhow::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Whether an error may pass, and the pause that was asked for.
fn asked(error: &anyhow::Error) -> Option<Option<Duration>> {
    if let Some(passing) = error.downcast_ref::<Passing>() {
        return Some(passing.pause);
    }
    let faults = error.chain().filter_map(|cause| cause.downcast_ref::<Fault>());
    faults.into_iter().any(|fault| fault.kind == Kind::Remote).then_some(None)
}

/// Only [`Patience::retry`] has a use for the pause.
fn plain(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Passing>() {
        Ok(passing) => passing.fault.into(),
        Err(error) => error,
    }
}

/// The pause that an answer asks for: in its `Retry-After` (RFC 9110 section 10.2.3), or as ghcr.io writes it into its
/// message, `retry-after: 1.5s, allowed: …`.
pub fn pause(headers: &HeaderMap, said: Option<&str>) -> Option<Duration> {
    let header = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    header.and_then(|text| seconds(text).or_else(|| until(text))).or_else(|| {
        let (_, rest) = said?.split_once("retry-after:")?;
        go_duration(rest.trim_start().split([',', ' ', ';']).next()?)
    })
}

/// Whether a 403 is no refusal but one of GitHub's rate limits.
pub fn is_rate_limit(said: &str) -> bool {
    let said = said.to_lowercase();
    said.contains("rate limit") || said.contains("toomanyrequests")
}

fn seconds(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

fn until(text: &str) -> Option<Duration> {
    let then = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
    Some(Duration::try_from(then.duration_since(jiff::Timestamp::now())).unwrap_or_default())
}

/// `1m2.5s`, `259.8µs`: what Go's `time.Duration` prints.
fn go_duration(text: &str) -> Option<Duration> {
    Duration::try_from(text.parse::<jiff::SignedDuration>().ok()?).ok()
}

/// The errors in a registry's answer, as `CODE: message` (distribution spec, error codes).
pub fn said(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        errors: Vec<Reason>,
    }
    #[derive(Deserialize)]
    struct Reason {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    if let Ok(answer) = serde_json::from_slice::<Answer>(body) {
        let reasons: Vec<_> = answer.errors.iter().map(|e| format!("{}: {}", e.code, e.message)).collect();
        return Some(reasons.join("; "));
    }
    // Rate limits come from what stands before the registry, and speak as they like.
    let text = String::from_utf8_lossy(body);
    let line = text.lines().next().map(str::trim);
    line.filter(|line| !line.is_empty() && !line.starts_with('<')).map(str::to_owned)
}

/// What a server said as part of one line, once secrets are struck out of it.
pub fn shown(said: &str) -> String {
    said.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::RETRY_AFTER, value.parse().unwrap())])
    }

    #[test]
    fn the_pause_is_read_in_every_form_it_comes_in() {
        assert_eq!(pause(&header("7"), None), Some(Duration::from_secs(7)));
        assert_eq!(pause(&header("Wed, 21 Oct 2015 07:28:00 GMT"), None), Some(Duration::ZERO));
        let then = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(90);
        let date = then.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let pause_until = pause(&header(&date), None).unwrap();
        assert!((88..=90).contains(&pause_until.as_secs()), "{pause_until:?}");
        let none = HeaderMap::new();
        let said = "TOOMANYREQUESTS: retry-after: 259.8µs, allowed: 44000/minute";
        assert_eq!(pause(&none, Some(said)), Some(Duration::from_nanos(259_800)));
        assert_eq!(pause(&none, Some("retry-after: 1m2.5s")), Some(Duration::from_millis(62_500)));
        for nothing in [None, Some("slow down"), Some("retry-after: soon"), Some("retry-after:")] {
            assert_eq!(pause(&none, nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn a_refusal_is_tried_once_and_a_long_wait_is_left_to_the_next_run() {
        let tries = std::cell::Cell::new(0);
        let count = |error: fn() -> anyhow::Error| {
            tries.set(0);
            let outcome: anyhow::Result<()> = Patience::default().retry(|| {
                tries.set(tries.get() + 1);
                Err(error())
            });
            (tries.get(), crate::fault::exit_code(&outcome.unwrap_err()))
        };
        assert_eq!(count(|| Fault::refused("no").into()), (1, 3));
        assert_eq!(count(|| Fault::usage("who are you?").into()), (1, 2));
        let busy = || Passing { fault: Fault::remote("busy"), pause: Some(Duration::from_secs(3600)) }.into();
        assert_eq!(count(busy), (1, 1));
    }

    #[test]
    fn pauses_add_up_and_those_of_threads_count_once() {
        let (patience, start) = (Patience::default(), Instant::now());
        let minute = Duration::from_secs(60);
        for nth in 0..5 {
            assert!(patience.grants(minute, start + nth * minute));
            assert!(patience.grants(minute, start + nth * minute), "beside it");
        }
        let later = start + 10 * minute;
        assert!(!patience.grants(Duration::from_millis(1), later), "five minutes were waited");
    }

    #[test]
    fn what_was_said_is_one_line() {
        assert_eq!(
            said(br#"{"errors":[{"code":"DENIED","message":"not yours"}]}"#).unwrap(),
            "DENIED: not yours"
        );
        assert_eq!(
            said(b"You have exceeded a secondary rate limit.\nmore").unwrap(),
            "You have exceeded a secondary rate limit."
        );
        assert_eq!(said(b"<html>"), None);
        assert!(is_rate_limit("You have exceeded a secondary rate limit"));
        assert!(!is_rate_limit("DENIED: permission_denied: write_package"));
    }
}
