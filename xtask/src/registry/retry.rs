//! Tries again what may pass: a cut connection, an overloaded server, a rate limit. Never a refusal.

use std::time::Duration;

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
const PATIENCE: Duration = Duration::from_secs(120);

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

/// Tries again after a [`Kind::Remote`] fault, a few times.
pub fn retry<T>(attempt: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    for pause in PAUSES {
        match attempt() {
            Err(error) => match asked(&error) {
                Some(asked) if asked.unwrap_or(pause) <= PATIENCE => {
                    std::thread::sleep(asked.unwrap_or(pause).max(pause));
                }
                _ => return Err(plain(error)),
            },
            done => return done,
        }
    }
    attempt().map_err(plain)
}

/// Whether an error may pass, and the pause that was asked for.
fn asked(error: &anyhow::Error) -> Option<Option<Duration>> {
    if let Some(passing) = error.downcast_ref::<Passing>() {
        return Some(passing.pause);
    }
    let faults = error.chain().filter_map(|cause| cause.downcast_ref::<Fault>());
    faults.into_iter().any(|fault| fault.kind == Kind::Remote).then_some(None)
}

/// Only [`retry`] has a use for the pause.
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
            let outcome: anyhow::Result<()> = retry(|| {
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
