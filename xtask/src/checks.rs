//! What CI says about a commit, and whether that is enough to tag it: check runs by name, and workflow runs. What is
//! missing or not understood is never green.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One check run, as GitHub's REST API gives it.
#[derive(Clone, Debug, Deserialize)]
pub struct CheckRun {
    pub id: u64,
    pub name: String,
    pub status: String,
    pub conclusion: Option<String>,
    pub html_url: Option<String>,
    /// One event's way through one workflow, all its tries together.
    pub check_suite: Option<Suite>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Suite {
    pub id: u64,
}

/// One workflow run: a push's or a tag's way through the workflow.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct WorkflowRun {
    pub id: u64,
    pub status: Option<String>,
    pub conclusion: Option<String>,
    pub html_url: String,
    /// The branch, or the tag, that was pushed.
    pub head_branch: Option<String>,
    /// Of the workflow's file.
    pub path: String,
    /// Counts from 1.
    pub run_attempt: Option<u64>,
}

/// How it stands with something that CI does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Green,
    Pending,
    /// It was never started, or was not needed.
    Missing,
    /// It ended otherwise than well, or in a way that this tool does not know.
    Red,
}

/// A required check and how it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: String,
    pub state: State,
    /// GitHub's own word for it.
    pub said: String,
    pub url: String,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "check {} is {}, {}", self.name, self.said, self.url)
    }
}

/// The required checks among all runs on one commit; `page` is where a person looks for one that is missing.
///
/// One name can have several runs, of a pull request and of a push: the worst of them counts, of the tries in one suite
/// the newest. A run that was skipped says nothing: a tag's run skips what its commit's run did.
pub fn judge(required: &[String], runs: &[CheckRun], page: &str) -> Vec<Check> {
    let check = |name: &String| {
        let newer = |run: &CheckRun| {
            let same = |other: &CheckRun| other.name == run.name && other.check_suite == run.check_suite;
            runs.iter().any(|other| same(other) && other.id > run.id)
        };
        let named = runs.iter().filter(|run| run.name == *name && !newer(run));
        // Of a failed run that was started again, what comes after the part that runs now still shows how it ended before.
        let runs_again = |run: &CheckRun| {
            let same =
                |other: &&CheckRun| other.check_suite.is_some() && other.check_suite == run.check_suite;
            runs.iter().filter(same).any(|other| !newer(other) && other.state() == State::Pending)
        };
        let state = |run: &CheckRun| match run.state() {
            State::Red if runs_again(run) => State::Pending,
            state => state,
        };
        let worst = named.map(|run| (state(run), run)).max_by_key(|(state, _)| rank(*state));
        let Some((state, run)) = worst else {
            return Check {
                name: name.clone(),
                state: State::Missing,
                said: "missing".into(),
                url: page.to_owned(),
            };
        };
        let said = run.conclusion.as_ref().filter(|_| run.status == "completed").unwrap_or(&run.status);
        let url = run.html_url.clone().unwrap_or_else(|| page.to_owned());
        Check { name: name.clone(), state, said: said.clone(), url }
    };
    required.iter().map(check).collect()
}

/// The state of all of them together: that of the worst.
pub fn overall(checks: &[Check]) -> State {
    let worst = checks.iter().map(|check| check.state).max_by_key(|state| rank(*state));
    // A missing one may still come; a green one beside it does not make up for it.
    match worst {
        Some(State::Green) | None if checks.iter().any(|check| check.state == State::Missing) => {
            State::Missing
        }
        Some(state) => state,
        None => State::Green,
    }
}

impl CheckRun {
    fn state(&self) -> State {
        state(Some(&self.status), self.conclusion.as_deref())
    }
}

impl WorkflowRun {
    pub fn state(&self) -> State {
        state(self.status.as_deref(), self.conclusion.as_deref())
    }

    /// GitHub's own word for how it stands.
    pub fn said(&self) -> &str {
        self.conclusion.as_deref().or(self.status.as_deref()).unwrap_or("unknown")
    }
}

/// `skipped` and `neutral` say nothing, and are as good as no run at all.
fn state(status: Option<&str>, conclusion: Option<&str>) -> State {
    match (status, conclusion) {
        (Some("completed"), Some("success")) => State::Green,
        (Some("completed"), Some("skipped" | "neutral")) => State::Missing,
        (Some("queued" | "in_progress" | "waiting" | "requested" | "pending"), _) => State::Pending,
        _ => State::Red,
    }
}

/// Among runs of one name: one that was skipped beside a green one counts for nothing.
fn rank(state: State) -> u8 {
    match state {
        State::Missing => 0,
        State::Green => 1,
        State::Pending => 2,
        State::Red => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run in a suite of its own.
    fn run(name: &str, status: &str, conclusion: Option<&str>) -> CheckRun {
        use std::sync::atomic::{AtomicU64, Ordering};
        static ID: AtomicU64 = AtomicU64::new(1);
        let id = ID.fetch_add(1, Ordering::SeqCst);
        let (status, conclusion) = (status.to_owned(), conclusion.map(str::to_owned));
        let html_url = Some(format!("https://example.com/{name}"));
        CheckRun { id, name: name.into(), status, conclusion, html_url, check_suite: Some(Suite { id }) }
    }

    fn judged(runs: &[CheckRun]) -> (State, String) {
        let checks = judge(&["test".into()], runs, "https://example.com/commit");
        (checks[0].state, checks[0].to_string())
    }

    #[test]
    fn only_success_is_green() {
        assert_eq!(judged(&[run("test", "completed", Some("success"))]).0, State::Green);
        for conclusion in
            ["failure", "cancelled", "timed_out", "action_required", "stale", "startup_failure", "new"]
        {
            let (state, said) = judged(&[run("test", "completed", Some(conclusion))]);
            assert_eq!(state, State::Red, "{conclusion}");
            assert_eq!(said, format!("check test is {conclusion}, https://example.com/test"));
        }
        assert_eq!(judged(&[run("test", "completed", None)]).0, State::Red);
        assert_eq!(judged(&[run("test", "someday", Some("success"))]).0, State::Red);
        for status in ["queued", "in_progress", "waiting", "requested", "pending"] {
            assert_eq!(judged(&[run("test", status, None)]).0, State::Pending, "{status}");
        }
    }

    #[test]
    fn a_missing_one_is_named_with_where_to_look() {
        let expected = (State::Missing, "check test is missing, https://example.com/commit".to_owned());
        assert_eq!(judged(&[]), expected);
        assert_eq!(judged(&[run("tests", "completed", Some("success"))]), expected);
    }

    #[test]
    fn the_worst_run_of_a_name_counts_and_a_skipped_one_says_nothing() {
        let [green, red, skipped, queued] = [
            run("test", "completed", Some("success")),
            run("test", "completed", Some("failure")),
            run("test", "completed", Some("skipped")),
            run("test", "queued", None),
        ];
        assert_eq!(judged(&[green.clone(), skipped.clone()]).0, State::Green);
        assert_eq!(judged(&[skipped]).0, State::Missing);
        assert_eq!(judged(&[queued.clone(), green.clone()]).0, State::Pending);
        assert_eq!(judged(&[red, queued, green]).0, State::Red);
    }

    #[test]
    fn a_second_try_takes_the_place_of_the_first() {
        let first = run("test", "completed", Some("failure"));
        let second = CheckRun { check_suite: first.check_suite, ..run("test", "completed", Some("success")) };
        assert_eq!(judged(&[second.clone(), first.clone()]).0, State::Green);
        let running = CheckRun { check_suite: first.check_suite, ..run("test", "queued", None) };
        assert_eq!(judged(&[first.clone(), second, running]).0, State::Pending);
        // What it needs runs again, and it will.
        let before = CheckRun { check_suite: first.check_suite, ..run("lint", "in_progress", None) };
        assert_eq!(judged(&[first.clone(), before]).0, State::Pending);
        assert_eq!(judged(&[first, run("lint", "in_progress", None)]).0, State::Red);
    }

    #[test]
    fn all_of_them_are_as_good_as_the_worst() {
        let required = ["test", "build"].map(str::to_owned);
        let of = |runs: &[CheckRun]| overall(&judge(&required, runs, ""));
        let [test, build] = ["test", "build"].map(|name| run(name, "completed", Some("success")));
        assert_eq!(of(&[test.clone(), build]), State::Green);
        assert_eq!(of(std::slice::from_ref(&test)), State::Missing);
        assert_eq!(of(&[test.clone(), run("build", "queued", None)]), State::Pending);
        assert_eq!(of(&[test, run("build", "completed", Some("failure"))]), State::Red);
        assert_eq!(overall(&[]), State::Green, "nothing is required");
    }
}
