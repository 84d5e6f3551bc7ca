//! GitHub, asked over its REST API: check runs, workflow runs, in `pulls` pull requests, and in `releases` the release's
//! page.
//!
//! Reading is tried again; what changes something is sent once, since an answer that was lost says nothing about the
//! work. Whoever sent it looks at what is there. Left out: proxies, which octocrab's client does not know.

mod http;
mod pulls;
mod releases;

use serde::Deserialize;
use serde_json::json;

use crate::checks::{CheckRun, WorkflowRun};
use crate::fault::Fault;
use crate::pipeline::Api;
use http::{Call, Http, escaped};
pub use pulls::{Merged, Pull};
pub use releases::Page;

/// How many entries a page of a list has; GitHub's own limit.
const PER_PAGE: usize = 100;
/// Whoever has more pages than this goes in circles.
const PAGES: usize = 100;

/// One repository on GitHub.
#[derive(Debug)]
pub struct Github {
    http: Http,
    owner: String,
    name: String,
    /// `https://HOST/OWNER/NAME`, for people.
    page: String,
}

impl Github {
    /// `repository` is `HOST/OWNER/NAME`. The token is that of GITHUB_TOKEN, GH_TOKEN, or `gh`; without one only what
    /// is public can be read. Nothing is asked yet.
    pub fn open(api: &Api, repository: &str) -> Result<Self, Fault> {
        let mut parts = repository.splitn(3, '/');
        let (Some(host), Some(owner), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Fault::usage(format!("not a repository: {repository}")).help("write HOST/OWNER/NAME"));
        };
        let http = Http::open(api, host)?;
        Ok(Self { http, owner: owner.into(), name: name.into(), page: format!("https://{repository}") })
    }

    /// Where the token was found.
    pub fn login(&self) -> String {
        self.http.login()
    }

    /// Where a person sees the checks of a commit.
    pub fn checks_page(&self, commit: &str) -> String {
        format!("{}/commit/{commit}/checks", self.page)
    }

    /// Where a person sees the runs of the workflow.
    pub fn runs_page(&self) -> String {
        format!("{}/actions", self.page)
    }

    /// All check runs on exactly this commit, earlier tries included: which of them counts is for the caller to judge.
    /// None of a commit that GitHub does not know (yet).
    pub fn check_runs(&self, commit: &str) -> anyhow::Result<Vec<CheckRun>> {
        #[derive(Deserialize)]
        struct Checks {
            /// Absent in the 422 on an unknown commit.
            #[serde(default)]
            check_runs: Vec<CheckRun>,
        }
        self.all(&format!("commits/{commit}/check-runs"), &[("filter", "all")], &[422], |page: Checks| {
            page.check_runs
        })
    }

    /// Sets a status of a commit, which replaces the one of before under the same name.
    pub fn set_status(&self, commit: &str, name: &str, good: bool, description: &str) -> anyhow::Result<()> {
        // GitHub takes no longer one.
        let description: String = description.chars().take(140).collect();
        let state = if good { "success" } else { "failure" };
        let content = json!({ "state": state, "context": name, "description": description });
        self.http.send(&Call::post(&self.path(&format!("statuses/{commit}"))).json(&content)).map(drop)
    }

    /// Whether a branch has rules, of which a push may not meet one.
    pub fn is_protected(&self, branch: &str) -> anyhow::Result<bool> {
        #[derive(Deserialize)]
        struct Branch {
            protected: bool,
        }
        let answer = self.get(&format!("branches/{}", escaped(branch)))?;
        Ok(answer.json::<Branch>()?.protected)
    }

    /// The newest run of a workflow for a tag on this commit; `None` if there is none.
    pub fn run_of_tag(&self, workflow: &str, tag: &str, commit: &str) -> anyhow::Result<Option<WorkflowRun>> {
        #[derive(Deserialize)]
        struct Runs {
            workflow_runs: Vec<WorkflowRun>,
        }
        let path = self.path("actions/runs");
        let answer = self.http.read(&Call::get(&path).query(&[("head_sha", commit), ("per_page", "100")]))?;
        let runs = answer.json::<Runs>()?.workflow_runs;
        let file = format!(".github/workflows/{workflow}");
        // Of a workflow that is called from elsewhere, `@REF` comes after the path.
        let is_its = |run: &WorkflowRun| run.path.split('@').next() == Some(&file);
        let of_tag = runs.into_iter().filter(|run| run.head_branch.as_deref() == Some(tag) && is_its(run));
        Ok(of_tag.max_by_key(|run| run.id))
    }

    /// Starts what failed in a workflow run again.
    pub fn rerun(&self, run: u64) -> anyhow::Result<()> {
        self.http.send(&Call::post(&self.path(&format!("actions/runs/{run}/rerun-failed-jobs")))).map(drop)
    }

    /// Starts a workflow on a tag or branch, as if it had been pushed.
    pub fn dispatch(&self, workflow: &str, reference: &str) -> anyhow::Result<()> {
        let path = self.path(&format!("actions/workflows/{workflow}/dispatches"));
        self.http.send(&Call::post(&path).json(&json!({ "ref": reference }))).map(drop)
    }

    fn repository(&self) -> String {
        format!("/repos/{}/{}", self.owner, self.name)
    }

    fn path(&self, rest: &str) -> String {
        format!("{}/{rest}", self.repository())
    }

    fn get(&self, rest: &str) -> anyhow::Result<http::Answer> {
        self.http.read(&Call::get(&self.path(rest)))
    }

    /// A list, page by page, until one is not full.
    fn all<P: serde::de::DeserializeOwned, T>(
        &self,
        rest: &str,
        filter: &[(&str, &str)],
        expected: &[u16],
        entries: impl Fn(P) -> Vec<T>,
    ) -> anyhow::Result<Vec<T>> {
        let (path, size) = (self.path(rest), PER_PAGE.to_string());
        let mut all = Vec::new();
        for number in 1..=PAGES {
            let number = number.to_string();
            let query = [filter, &[("per_page", size.as_str()), ("page", number.as_str())]].concat();
            let answer = self.http.read(&Call::get(&path).query(&query).expect(expected))?;
            let page = entries(answer.json()?);
            let last = page.len() < PER_PAGE;
            all.extend(page);
            if last {
                return Ok(all);
            }
        }
        Err(Fault::remote(format!("{path}: the list has no end")).into())
    }
}
