//! The commits that promotions and rollbacks made, each held against what one must be.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::HashMap;
use std::fmt;

use crate::environments::{Environments, NAMES, Pin, path};

/// One environment's change of pin, whole, on top of what it says that it changed.
#[derive(Clone)]
pub struct PinCommit {
    pub id: String,
    pub environment: String,
    /// How the commit calls the pins: `nothing`, `v…` or `sha-…`.
    pub from: String,
    pub to: String,
    /// Who made it.
    pub by: String,
    /// The environment's kustomization after it.
    pub text: String,
}

impl fmt::Debug for PinCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, environment, from, to, by, .. } = self;
        write!(f, "{id} by {by}: {environment} {from} -> {to}")
    }
}

/// The commits that came to the branch after `since`, oldest first. Fails unless the branch only went forward, one commit
/// on the other, and each is one environment's whole change of pin from what its parent had: so none undid another's. Commits that
/// hold an environment are left out.
pub fn after(stage: &Environments, since: &str) -> Vec<PinCommit> {
    stage.infra.git(&["merge-base", "--is-ancestor", since, "main"]);
    let format = "--format=%H%x1f%P%x1f%s%x1f%(trailers:only,unfold)%x1e";
    let log = stage.infra.git(&["log", "--reverse", format, &format!("{since}..main")]);
    let mut parent = since.to_owned();
    let commits = log.split('\u{1e}').map(str::trim).filter(|entry| !entry.is_empty());
    let commits = commits.filter_map(|entry| {
        let fields: Vec<_> = entry.split('\u{1f}').collect();
        let [id, parents, subject, trailers] = fields[..] else { panic!("{entry}") };
        assert_eq!(parents, parent, "{id} does not stand on the branch's commit before it");
        let commit = check(stage, (id, &parent), subject, trailers);
        id.clone_into(&mut parent);
        commit
    });
    commits.collect()
}

fn check(
    stage: &Environments,
    (id, parent): (&str, &str),
    subject: &str,
    trailers: &str,
) -> Option<PinCommit> {
    let files = stage.infra.git(&["diff-tree", "--no-commit-id", "--name-only", "-r", id]);
    if NAMES.iter().any(|name| files == format!("dojo/{name}/HOLD")) {
        return None;
    }
    let changed = NAMES.iter().find(|name| path(name) == files);
    let environment = changed.unwrap_or_else(|| panic!("{id} ({subject}) changes {files:?}"));
    let text = |commit: &str| stage.infra.git(&["show", &format!("{commit}:{files}")]);
    let (before, after) = (text(parent), text(id));
    assert_eq!(rest(&before), rest(&after), "{id} ({subject}) changes more than the pin");

    let (old, new) = (Pin::of(&before), Pin::of(&after));
    let tag = new.tag.clone().unwrap();
    let image = stage.image(&tag);
    let git_ref = if tag.starts_with('v') { &tag } else { &image.commit };
    let whole = Pin { git_ref: Some(git_ref.clone()), tag: Some(tag), digest: Some(image.digest.clone()) };
    assert_eq!(new, whole, "{id} ({subject}): ref, newTag and digest do not belong together");

    let (from, to) = (name(&old), name(&new));
    assert_eq!(subject, format!("dojo: {environment} {from} -> {to}"), "{id}: its parent pins {from}");
    let trailers: HashMap<_, _> = trailers.lines().filter_map(|line| line.split_once(": ")).collect();
    let schema = image.schema.to_string();
    let told = ["Pin-Environment", "Pin-From", "Pin-To", "Pin-Digest", "Pin-Schema"];
    let expected = [*environment, &from, &to, &image.digest, &schema];
    assert_eq!(told.map(|key| trailers.get(key).copied()), expected.map(Some), "{id} ({subject})");
    let by = trailers["Pin-By"].split(" <").next().unwrap().to_owned();
    Some(PinCommit { id: id.to_owned(), environment: (*environment).to_owned(), from, to, by, text: after })
}

/// All but the lines of the pin.
fn rest(text: &str) -> Vec<&str> {
    let pin = |line: &&str| ["?ref=", "newTag:", "digest:"].iter().any(|key| line.contains(key));
    text.lines().filter(|line| !pin(line)).collect()
}

fn name(pin: &Pin) -> String {
    pin.tag.clone().filter(|tag| tag != "v0.0.0").unwrap_or_else(|| "nothing".into())
}
