//! Pull requests from one branch of the repository into another.

use serde::Deserialize;
use serde_json::json;

use super::Github;
use super::http::Call;

/// A pull request.
#[derive(Clone, Debug, Deserialize)]
pub struct Pull {
    pub number: u64,
    pub html_url: String,
    /// `open` or `closed`.
    pub state: String,
    pub body: Option<String>,
    pub merged_at: Option<String>,
    /// The commit on the branch that it was merged into.
    pub merge_commit_sha: Option<String>,
    base: Base,
}

#[derive(Clone, Debug, Deserialize)]
struct Base {
    #[serde(rename = "ref")]
    name: String,
}

/// What came of asking to merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merged {
    Done,
    /// GitHub's own words: a check or a review is missing, or the branch is another one by now.
    NotYet(String),
}

impl Github {
    /// The newest pull request that asks to merge one branch of this repository into another; `None` if there never was
    /// one.
    pub fn pull(&self, from: &str, into: &str) -> anyhow::Result<Option<Pull>> {
        Ok(self.pulls(from, into, "all")?.into_iter().max_by_key(|pull| pull.number))
    }

    /// The one that is open; GitHub allows one for two branches.
    pub fn open_pull(&self, from: &str, into: &str) -> anyhow::Result<Option<Pull>> {
        Ok(self.pulls(from, into, "open")?.into_iter().next())
    }

    fn pulls(&self, from: &str, into: &str, state: &str) -> anyhow::Result<Vec<Pull>> {
        let head = format!("{}:{from}", self.owner);
        let path = self.path("pulls");
        let query = [("head", head.as_str()), ("state", state), ("per_page", "100")];
        let found: Vec<Pull> = self.http.read(&Call::get(&path).query(&query))?.json()?;
        Ok(found.into_iter().filter(|pull| pull.base.name == into).collect())
    }

    /// Proposes to merge one branch into another.
    pub fn propose(&self, from: &str, into: &str, title: &str, body: &str) -> anyhow::Result<Pull> {
        let content = json!({ "title": title, "head": from, "base": into, "body": body });
        self.http.send(&Call::post(&self.path("pulls")).json(&content))?.json()
    }

    /// Gives a pull request another title and text.
    pub fn describe(&self, pull: u64, title: &str, body: &str) -> anyhow::Result<()> {
        let content = json!({ "title": title, "body": body });
        self.http.send(&Call::patch(&self.path(&format!("pulls/{pull}"))).json(&content)).map(drop)
    }

    /// Merges a pull request if its last commit is `head`, with this message where the way of merging takes one.
    pub fn merge(&self, pull: u64, head: &str, message: &str) -> anyhow::Result<Merged> {
        let (title, text) = message.split_once("\n\n").unwrap_or((message, ""));
        let content = json!({ "sha": head, "merge_method": self.way_of_merging()?,
            "commit_title": title.trim(), "commit_message": text.trim() });
        let path = self.path(&format!("pulls/{pull}/merge"));
        let answer = self.http.send(&Call::put(&path).json(&content).expect(&[405, 409, 422]))?;
        Ok(match answer.status.is_success() {
            true => Merged::Done,
            false => Merged::NotYet(self.http.words(&answer)),
        })
    }

    /// The first that the repository allows: squash, rebase, and as the last resort a merge, which is a second commit.
    fn way_of_merging(&self) -> anyhow::Result<&'static str> {
        // Absent for whoever may not see the settings.
        #[derive(Deserialize)]
        struct Allowed {
            allow_squash_merge: Option<bool>,
            allow_rebase_merge: Option<bool>,
        }
        let allowed: Allowed = self.http.read(&Call::get(&self.repository()))?.json()?;
        Ok(match (allowed.allow_squash_merge, allowed.allow_rebase_merge) {
            (Some(true) | None, _) => "squash",
            (_, Some(true)) => "rebase",
            _ => "merge",
        })
    }
}
