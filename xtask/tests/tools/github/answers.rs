//! What the emulator lacks, or takes more lightly than GitHub does: tokens, drafts, the bytes of assets, pull requests
//! that follow git, and Actions, of which it has nothing that can be used here. In front of it, and no more than the
//! project's calls need.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::actions::Actions;
use super::mirror::Mirror;
use crate::docker_archive::hex;
use crate::server::{Answer, Request};

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// One repository as GitHub has it.
pub struct Hosted {
    pub mirror: Mirror,
    pub tokens: Vec<(String, Access)>,
    pub actions: Actions,
    /// By id; none if the upload ended in the middle.
    pub assets: HashMap<u64, Option<Vec<u8>>>,
    /// The branches that take changes by pull request only. To the emulator they are as any, since it follows git.
    pub protected: HashSet<String>,
    /// Whether what is published can change, which is a setting of a repository.
    pub mutable: bool,
    /// By id of a check run: what it concluded, if the emulator does not know the word.
    pub conclusions: HashMap<u64, String>,
    /// GitHub's words against each merge that is asked for: a check that is required is missing, say.
    pub unmergeable: Option<String>,
    /// By number: the commit that the pull request became, when, and its own last commit.
    pub merged: HashMap<u64, (String, String, String)>,
    /// The emulator takes a tag's name once; ours are told apart by a mark that no answer shows.
    drafts: usize,
}

/// As GitHub says no.
pub fn refusal(status: u16, message: &str) -> Answer {
    json_answer(status, &json!({ "message": message, "documentation_url": "https://docs.github.com/rest" }))
}

pub fn invalid(resource: &str, field: &str, code: &str, message: &str) -> Answer {
    let error = json!({ "resource": resource, "field": field, "code": code, "message": message });
    json_answer(
        422,
        &json!({ "message": "Validation Failed", "errors": [error],
        "documentation_url": "https://docs.github.com/rest" }),
    )
}

pub fn json_answer(status: u16, body: &Value) -> Answer {
    Answer::new(status).header("Content-Type", "application/json; charset=utf-8").body(&body.to_string())
}

impl Hosted {
    pub fn new(mirror: Mirror, tokens: Vec<(String, Access)>) -> Self {
        Self {
            mirror,
            tokens,
            actions: Actions::default(),
            assets: HashMap::new(),
            protected: HashSet::new(),
            mutable: false,
            conclusions: HashMap::new(),
            unmergeable: None,
            merged: HashMap::new(),
            drafts: 0,
        }
    }

    /// Why this request is not even looked at.
    pub fn barred(&self, request: &Request) -> Option<Answer> {
        if request.header("user-agent").is_none_or(str::is_empty) {
            return Some(refusal(
                403,
                "Request forbidden by administrative rules. Please make sure your request has a User-Agent header",
            ));
        }
        let words = request.authorization.as_deref().and_then(|text| text.split_once(' '));
        let token = words.filter(|(scheme, _)| ["bearer", "token"].contains(&scheme.to_lowercase().as_str()));
        match token.and_then(|(_, token)| self.tokens.iter().find(|(known, _)| known == token)) {
            None => Some(refusal(401, "Bad credentials")),
            Some((_, Access::Read)) if request.method != "GET" => {
                Some(refusal(403, "Resource not accessible by personal access token"))
            }
            Some(_) => None,
        }
    }

    /// `path` is what comes after the repository's name, in parts.
    pub fn answer(&mut self, request: &Request, path: &[&str], query: &str) -> Answer {
        self.mirror.follow();
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        match (request.method.as_str(), path) {
            ("GET", ["commits", sha, "check-runs"]) => self.check_runs(request, sha, query),
            ("GET", ["branches", ..] | ["releases"] | ["releases", _] | ["releases", _, "assets"])
            | ("GET" | "PATCH", ["pulls", _])
            | ("GET", [] | ["pulls"])
            | ("DELETE", ["releases", _]) => self.relayed(request),
            ("POST", ["pulls"]) => self.open(request, &body),
            ("PUT", ["pulls", number, "merge"]) => self.merge_asked(number, &body),
            ("POST", ["releases"]) => self.create(request, &body),
            ("PATCH", ["releases", id]) => self.change(request, id, body),
            ("GET", ["releases", "tags", tag]) => self.by_tag(tag),
            ("GET", ["releases", "assets", id]) => self.asset(request, id),
            ("DELETE", ["releases", "assets", id]) => self.delete_asset(request, id),
            (method, ["actions", rest @ ..]) => self.actions.answer(method, rest, query, &body, &self.mirror),
            _ => refusal(404, "Not Found"),
        }
    }

    /// What the emulator says, as GitHub would.
    pub fn relayed(&self, request: &Request) -> Answer {
        let relayed = self.mirror.relay(request);
        let answer = relayed.answer();
        if relayed.body.is_empty() {
            return answer;
        }
        answer.body(&self.dressed(relayed.json()).to_string())
    }

    /// Adds what the emulator leaves out, and takes away our marks.
    pub fn dressed(&self, mut value: Value) -> Value {
        self.dress(&mut value);
        value
    }

    fn dress(&self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.dress(item)),
            Value::String(text) => {
                if let Some((before, rest)) = text.split_once("~draft") {
                    let after = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
                    *text = format!("{before}{after}");
                }
            }
            Value::Object(fields) => {
                fields.values_mut().for_each(|field| self.dress(field));
                if fields.contains_key("browser_download_url") {
                    self.dress_asset(value);
                } else if fields.contains_key("merge_commit_sha") {
                    self.dress_pull(value);
                } else if fields.contains_key("protection_url") {
                    let name = value["name"].as_str().unwrap_or_default();
                    value["protected"] = json!(self.protected.contains(name));
                } else if fields.contains_key("check_suite") {
                    let id = value["id"].as_u64().unwrap_or_default();
                    if let Some(conclusion) = self.conclusions.get(&id) {
                        value["conclusion"] = json!(conclusion);
                    }
                } else if fields.contains_key("annotations_count") {
                    value["annotations_url"] = json!(format!("https://api.github.com/{}", self.mirror.name));
                }
            }
            _ => {}
        }
    }

    fn dress_asset(&self, asset: &mut Value) {
        let bytes = asset["id"].as_u64().and_then(|id| self.assets.get(&id)).and_then(Option::as_ref);
        asset["digest"] = bytes
            .map_or(Value::Null, |bytes| json!(format!("sha256:{}", hex(Sha256::digest(bytes).as_slice()))));
        if bytes.is_none() {
            asset["state"] = json!("starter");
        }
    }

    /// The emulator gives all of them on each page.
    fn check_runs(&self, request: &Request, sha: &str, query: &str) -> Answer {
        let relayed = self.mirror.relay(request);
        if relayed.status == 404 {
            return refusal(422, &format!("No commit found for SHA: {sha}"));
        }
        let mut answer = self.dressed(relayed.json());
        let runs = answer["check_runs"].take();
        answer["check_runs"] = page(runs.as_array().unwrap(), query);
        json_answer(relayed.status, &answer)
    }

    pub fn releases(&self) -> Vec<Value> {
        let all = self.mirror.tell("GET", "/releases?per_page=100", &Value::Null).json();
        self.dressed(all).as_array().unwrap().clone()
    }

    fn published(&self, tag: &str) -> Option<Value> {
        self.releases().into_iter().find(|release| release["tag_name"] == tag && release["draft"] == false)
    }

    /// GitHub shows no drafts here.
    fn by_tag(&self, tag: &str) -> Answer {
        self.published(tag).map_or_else(|| refusal(404, "Not Found"), |release| json_answer(200, &release))
    }

    fn create(&mut self, request: &Request, body: &Value) -> Answer {
        if let Some(refused) = self.publishable(body, &Value::Null) {
            return refused;
        }
        let answer = self.marked(request, body.clone());
        if body["draft"] != true {
            self.publish(body);
        }
        answer
    }

    fn change(&mut self, request: &Request, id: &str, body: Value) -> Answer {
        let Some(mut release) = self.releases().into_iter().find(|release| has_id(release, id)) else {
            return refusal(404, "Not Found");
        };
        let locked = ["tag_name", "target_commitish"];
        if self.is_locked(&release)
            && locked.iter().any(|name| !body[*name].is_null() && body[*name] != release[*name])
        {
            return invalid("Release", "tag_name", "custom", "an immutable release cannot change");
        }
        let was = release.clone();
        for (name, value) in body.as_object().into_iter().flatten() {
            release[name] = value.clone();
        }
        if let Some(refused) = self.publishable(&release, &was) {
            return refused;
        }
        let answer = self.marked(request, body);
        if was["draft"] == true && release["draft"] == false {
            self.publish(&release);
        }
        answer
    }

    fn is_locked(&self, release: &Value) -> bool {
        release["draft"] == false && !self.mutable
    }

    /// One tag has one published release, and any number of drafts.
    fn publishable(&self, release: &Value, was: &Value) -> Option<Answer> {
        let tag = release["tag_name"].as_str().unwrap_or_default();
        let other = self.published(tag).filter(|other| other["id"] != was["id"]);
        (release["draft"] != true && other.is_some())
            .then(|| invalid("Release", "tag_name", "already_exists", ""))
    }

    fn marked(&mut self, request: &Request, mut body: Value) -> Answer {
        if let Some(tag) = body["tag_name"].as_str() {
            self.drafts += 1;
            body["tag_name"] = json!(format!("{tag}~draft{}", self.drafts));
        }
        self.relayed(&Request { body: body.to_string().into_bytes(), ..request.clone() })
    }

    /// GitHub makes the tag that a release is published for, if there is none.
    fn publish(&self, release: &Value) {
        let tag = format!("refs/tags/{}", release["tag_name"].as_str().unwrap_or_default());
        if self.mirror.commit(&tag).is_none() {
            let target = release["target_commitish"].as_str().unwrap_or("HEAD");
            self.mirror.git(&["update-ref", &tag, &self.mirror.commit(target).unwrap()]).unwrap();
        }
    }

    fn asset(&self, request: &Request, id: &str) -> Answer {
        let relayed = self.mirror.relay(request);
        if request.header("accept") != Some("application/octet-stream") || relayed.status != 200 {
            return relayed.answer().body(&self.dressed(relayed.json()).to_string());
        }
        // GitHub's 302. Prism would follow it, so the gate makes it one.
        let location = format!("{}/objects/{}/{id}", self.actions.uploads, self.mirror.name);
        relayed.answer().header("Redirect-To", &location)
    }

    fn delete_asset(&mut self, request: &Request, id: &str) -> Answer {
        let of = |release: &&Value| -> bool {
            release["assets"].as_array().unwrap().iter().any(|asset| has_id(asset, id))
        };
        if self.releases().iter().find(of).is_some_and(|release| self.is_locked(release)) {
            return invalid(
                "ReleaseAsset",
                "release",
                "custom",
                "Cannot delete asset from an immutable release.",
            );
        }
        self.relayed(request)
    }

    /// The other host, which takes uploads.
    pub fn upload(&mut self, request: &Request, release: &str) -> Answer {
        let [length, kind] = ["content-length", "content-type"].map(|name| request.header(name));
        if length.is_none() || kind.is_none() {
            return refusal(
                if length.is_none() { 411 } else { 400 },
                "Content-Length and Content-Type are required",
            );
        }
        let found = self.releases().into_iter().find(|found| has_id(found, release));
        if found.as_ref().is_some_and(|found| self.is_locked(found)) {
            return invalid(
                "ReleaseAsset",
                "release",
                "custom",
                "Cannot upload assets to an immutable release.",
            );
        }
        let relayed = self.mirror.relay(request);
        let made = relayed.json();
        let same = |asset: &&Value| asset["name"] == made["name"] && made["name"].is_string();
        if found.is_some_and(|found| found["assets"].as_array().unwrap().iter().any(|asset| same(&asset))) {
            let path = format!("/releases/assets/{}", made["id"]);
            assert_eq!(self.mirror.tell("DELETE", &path, &Value::Null).status, 204);
            return invalid("ReleaseAsset", "name", "already_exists", "");
        }
        if let Some(id) = made["id"].as_u64() {
            self.assets.insert(id, request.is_whole().then(|| request.body.clone()));
        }
        relayed.answer().body(&self.dressed(made).to_string())
    }
}

fn has_id(value: &Value, id: &str) -> bool {
    id.parse().is_ok_and(|id: u64| value["id"] == id)
}

/// The part of a list that `per_page` and `page` ask for.
pub fn page(items: &[Value], query: &str) -> Value {
    let number = |name: &str, usual: usize| {
        parameter(query, name).and_then(|value| value.parse().ok()).unwrap_or(usual)
    };
    let (size, page) = (number("per_page", 30).clamp(1, 100), number("page", 1));
    items.iter().skip((page - 1) * size).take(size).cloned().collect()
}

pub fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}
