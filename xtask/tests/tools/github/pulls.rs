//! Pull requests that follow git: the emulator knows of them, and what merging comes to is git's.

use serde_json::{Value, json};

use super::OWNER;
use super::answers::{Hosted, invalid, json_answer, refusal};
use crate::server::{Answer, Request};

/// A pull request, as git sees it.
struct Merge {
    title: String,
    from: String,
    onto: String,
    head: String,
    base: String,
    /// None if they conflict.
    tree: Option<String>,
}

impl Hosted {
    pub fn open(&self, request: &Request, body: &Value) -> Answer {
        let [head, base] = ["head", "base"].map(|name| body[name].as_str().unwrap_or_default());
        let (owner, _) = self.mirror.name.split_once('/').unwrap();
        let head = head.strip_prefix(&format!("{owner}:")).unwrap_or(head);
        let [from, onto] = [head, base].map(|name| self.mirror.commit(&format!("refs/heads/{name}")));
        let (Some(from), Some(onto)) = (from, onto) else {
            return invalid("PullRequest", "head", "invalid", "");
        };
        if self.mirror.git(&["merge-base", "--is-ancestor", &from, &onto]).is_some() {
            let message = format!("No commits between {base} and {head}");
            return invalid("PullRequest", "head", "custom", &message);
        }
        let open =
            self.mirror.tell("GET", &format!("/pulls?head={owner}:{head}&base={base}"), &Value::Null).json();
        if open.as_array().is_some_and(|open| !open.is_empty()) {
            let message = format!("A pull request already exists for {owner}:{head}.");
            return invalid("PullRequest", "head", "custom", &message);
        }
        self.relayed(request)
    }

    pub fn dress_pull(&self, pull: &mut Value) {
        let head = pull["head"]["ref"].as_str().unwrap_or_default();
        if let Some((commit, at, last)) = pull["number"].as_u64().and_then(|number| self.merged.get(&number))
        {
            pull["merged_at"] = json!(at);
            pull["merge_commit_sha"] = json!(commit);
            pull["head"]["sha"] = json!(last);
        } else if let Some(sha) = self.mirror.commit(&format!("refs/heads/{head}")) {
            pull["head"]["sha"] = json!(sha);
        }
    }

    fn merging(&self, number: u64) -> Merge {
        let mirror = &self.mirror;
        let pull = mirror.tell("GET", &format!("/pulls/{number}"), &Value::Null).json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (title, from, onto) =
            (text(&pull["title"]), text(&pull["head"]["ref"]), text(&pull["base"]["ref"]));
        let [head, base] = [&from, &onto].map(|name| mirror.commit(&format!("refs/heads/{name}")).unwrap());
        let tree = mirror.git(&["merge-tree", "--write-tree", &base, &head]);
        Merge { title, from, onto, head, base, tree }
    }

    /// As GitHub's buttons merge, unless the message is given. Gives the branch's new commit.
    pub fn merge(&mut self, number: u64, how: &str, message: Option<String>) -> String {
        let Merge { title, from, onto, head, base, tree } = self.merging(number);
        let mirror = &self.mirror;
        let usual = || match how {
            "merge" => format!("Merge pull request #{number} from {OWNER}/{from}\n\n{title}"),
            // As it is set unless somebody changes it, and others than who opened it are named below a line.
            "squash" | "squash of others" => {
                let body = mirror.git(&["show", "--no-patch", "--format=%b", &head]).unwrap();
                let author = mirror.git(&["show", "--no-patch", "--format=%an <%ae>", &head]).unwrap();
                let others = format!("\n\n---------\n\nCo-authored-by: {author}");
                let others = if how == "squash" { "" } else { &others };
                format!("{title} (#{number})\n\n{body}{others}").trim_end().to_owned()
            }
            _ => mirror.git(&["show", "--no-patch", "--format=%B", &head]).unwrap(),
        };
        let message = message.filter(|_| how != "rebase").unwrap_or_else(usual);
        let tree = tree.unwrap();
        let mut args = vec!["commit-tree", &tree, "-m", &message, "-p", &base];
        if how == "merge" {
            args.extend(["-p", &head]);
        }
        let commit = mirror.git(&args).unwrap();
        mirror.git(&["update-ref", &format!("refs/heads/{onto}"), &commit, &base]).unwrap();
        let closed = mirror.tell("PATCH", &format!("/pulls/{number}"), &json!({ "state": "closed" }));
        assert_eq!(closed.status, 200);
        self.merged.insert(number, (commit.clone(), jiff::Timestamp::now().to_string(), head));
        self.mirror.follow();
        commit
    }

    /// The API's way, with GitHub's refusals.
    pub fn merge_asked(&mut self, number: &str, body: &Value) -> Answer {
        let Ok(number) = number.parse() else { return refusal(404, "Not Found") };
        let settings = self.mirror.tell("GET", "", &Value::Null).json();
        let text = |name: &str| body[name].as_str();
        let how = text("merge_method").unwrap_or("merge");
        let setting = if how == "merge" { "allow_merge_commit".into() } else { format!("allow_{how}_merge") };
        let merge = self.merging(number);
        if let Some(words) = &self.unmergeable {
            return refusal(405, words);
        }
        if settings[setting] != true {
            return refusal(405, &format!("{how} merges are not allowed on this repository."));
        }
        if text("sha").is_some_and(|sha| sha != merge.head) {
            return refusal(409, "Head branch was modified. Review and try the merge again.");
        }
        if merge.tree.is_none() || self.merged.contains_key(&number) {
            return refusal(405, "Pull Request is not mergeable");
        }
        let message = text("commit_title").map(|title| {
            format!("{title}\n\n{}", text("commit_message").unwrap_or_default()).trim_end().to_owned()
        });
        let commit = self.merge(number, how, message);
        json_answer(
            200,
            &json!({ "sha": commit, "merged": true, "message": "Pull Request successfully merged" }),
        )
    }

    pub fn merge_ref(&self, number: u64) -> String {
        let Merge { head, base, tree, .. } = self.merging(number);
        let message = format!("Merge {head} into {base}");
        let args = ["commit-tree", &tree.unwrap(), "-m", &message, "-p", &base, "-p", &head];
        let (name, commit) = (format!("refs/pull/{number}/merge"), self.mirror.git(&args).unwrap());
        self.mirror.git(&["update-ref", &name, &commit]).unwrap();
        name
    }
}
