//! Runs of `ci.yml`, and of what other workflows there are. Nothing runs here: a test plays the jobs, and says how they ended.

use serde_json::{Value, json};

use super::answers::{json_answer, page, parameter, refusal};
use super::mirror::Mirror;
use crate::server::Answer;

/// One run of a workflow.
#[derive(Clone, Debug)]
pub struct Run {
    pub id: u64,
    /// Its file's name.
    pub workflow: String,
    /// push or workflow_dispatch
    pub event: String,
    /// The branch or tag.
    pub head_branch: String,
    pub head_sha: String,
    /// queued, in_progress or completed
    pub status: String,
    pub conclusion: Option<String>,
    pub attempt: u64,
    at: String,
}

#[derive(Default)]
pub struct Actions {
    pub runs: Vec<Run>,
    /// What was asked for: `dispatch REF` or `rerun ID`.
    pub asked: Vec<String>,
    /// Whether what was started again still shows as it was, since GitHub takes its time.
    pub slow: bool,
    before: Option<Run>,
    /// The URL of the host that has assets.
    pub uploads: String,
}

impl Actions {
    pub fn add(&mut self, workflow: &str, event: &str, head_branch: &str, head_sha: &str) -> u64 {
        let id = 1000 + self.runs.len() as u64;
        self.runs.push(Run {
            id,
            workflow: workflow.to_owned(),
            event: event.to_owned(),
            head_branch: head_branch.to_owned(),
            head_sha: head_sha.to_owned(),
            status: "queued".to_owned(),
            conclusion: None,
            attempt: 1,
            at: jiff::Timestamp::now().to_string(),
        });
        id
    }

    pub fn run(&mut self, id: u64) -> &mut Run {
        self.runs.iter_mut().find(|run| run.id == id).unwrap()
    }

    pub fn answer(
        &mut self,
        method: &str,
        path: &[&str],
        query: &str,
        body: &Value,
        mirror: &Mirror,
    ) -> Answer {
        let found = |id: &str| self.runs.iter().position(|run| run.id.to_string() == id);
        match (method, path) {
            ("GET", ["runs"]) => self.list(query, mirror),
            ("GET", ["runs", id]) => match found(id) {
                Some(at) => json_answer(200, &shown(&self.runs[at], &repository(mirror))),
                None => refusal(404, "Not Found"),
            },
            ("POST", ["runs", id, "rerun-failed-jobs"]) => match found(id) {
                Some(at) => self.rerun(at),
                None => refusal(404, "Not Found"),
            },
            ("POST", ["workflows", "ci.yml", "dispatches"]) => {
                self.dispatch(body["ref"].as_str().unwrap_or_default(), mirror)
            }
            _ => refusal(404, "Not Found"),
        }
    }

    fn list(&self, query: &str, mirror: &Mirror) -> Answer {
        let wanted = [("head_sha", 0), ("branch", 1), ("event", 2), ("status", 3)];
        let fits = |run: &&Run| {
            let fields = [&run.head_sha, &run.head_branch, &run.event, &run.status];
            wanted.iter().all(|(name, at)| parameter(query, name).is_none_or(|value| value == fields[*at]))
        };
        let repository = repository(mirror);
        let before = |run: &Run| self.before.as_ref().filter(|before| self.slow && before.id == run.id);
        let seen = self.runs.iter().rev().map(|run| before(run).unwrap_or(run)).filter(fits);
        let found: Vec<_> = seen.map(|run| shown(run, &repository)).collect();
        json_answer(200, &json!({ "total_count": found.len(), "workflow_runs": page(&found, query) }))
    }

    fn rerun(&mut self, at: usize) -> Answer {
        let run = &mut self.runs[at];
        if run.status != "completed" {
            return refusal(403, "The workflow run containing this job is already running");
        }
        if run.conclusion.as_deref() == Some("success") {
            return refusal(403, "This workflow run has no failed jobs, so it cannot be retried");
        }
        self.before = Some(run.clone());
        (run.status, run.conclusion, run.attempt) = ("queued".into(), None, run.attempt + 1);
        self.asked.push(format!("rerun {}", run.id));
        json_answer(201, &json!({}))
    }

    fn dispatch(&mut self, name: &str, mirror: &Mirror) -> Answer {
        let short = name.trim_start_matches("refs/heads/").trim_start_matches("refs/tags/");
        let found = ["refs/heads", "refs/tags"].map(|kind| mirror.commit(&format!("{kind}/{short}")));
        let Some(sha) = found.into_iter().flatten().next() else {
            return refusal(422, &format!("No ref found for: {name}"));
        };
        self.add("ci.yml", "workflow_dispatch", short, &sha);
        self.asked.push(format!("dispatch {short}"));
        Answer::new(204)
    }
}

/// What a run says about its repository.
fn repository(mirror: &Mirror) -> Value {
    mirror.tell("GET", "", &Value::Null).json()
}

fn shown(run: &Run, repository: &Value) -> Value {
    let url = format!("{}/actions/runs/{}", repository["url"].as_str().unwrap(), run.id);
    let html_url = format!("{}/actions/runs/{}", repository["html_url"].as_str().unwrap(), run.id);
    let mut shown = json!({ "id": run.id, "node_id": "", "name": run.workflow, "path": format!(".github/workflows/{}", run.workflow),
        "display_title": "ci", "event": run.event, "head_branch": run.head_branch, "head_sha": run.head_sha,
        "status": run.status, "conclusion": run.conclusion, "run_attempt": run.attempt, "run_number": run.id - 999,
        "workflow_id": 1, "check_suite_id": run.id, "pull_requests": [], "created_at": run.at, "updated_at": run.at,
        "run_started_at": run.at, "actor": repository["owner"], "triggering_actor": repository["owner"],
        "head_commit": { "id": run.head_sha, "tree_id": run.head_sha, "message": "", "timestamp": run.at,
            "author": null, "committer": null },
        "repository": repository, "head_repository": repository, "url": url, "html_url": html_url });
    for part in ["jobs", "logs", "artifacts", "cancel", "rerun", "check_suite", "workflow"] {
        shown[format!("{part}_url")] = json!(format!("{url}/{part}"));
    }
    shown
}
