//! Facts -> plan, for `release`: what is done, what comes next, and what stands against it.

use std::fmt;

use serde::Serialize;

use crate::fault::Fault;
use crate::image::{Digest, sha_tag};
use crate::version::Version;

/// All that a plan is made from. "Remote" is what the remote itself answered just now.
#[derive(Clone, Debug)]
pub struct Facts {
    pub version: Version,
    /// The branch that releases are cut from.
    pub branch: String,
    /// The branch that is checked out.
    pub on_branch: Option<String>,
    pub dirty: Vec<String>,
    pub head: String,
    pub remote_head: String,
    /// The highest version that the remote has a tag of.
    pub last: Option<Version>,
    /// The commit on the remote's branch that prepared this version.
    pub prepared: Option<String>,
    pub local_tag: Option<String>,
    pub remote_tag: Option<String>,
    /// What the registry has under the prepared commit's sha tag.
    pub image: Option<Digest>,
    /// What the registry has under the version.
    pub published: Option<Digest>,
}

/// The release in order. Each step can be asked whether it is done, so running again goes on where it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Push the commit that sets the version in Cargo.toml, Cargo.lock, CHANGELOG.md and the production overlay.
    Prepare,
    /// CI tests that commit and pushes its image.
    Image,
    /// Push the annotated tag.
    Tag,
    /// CI gives the image its version names.
    Publish,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub version: Version,
    pub steps: Vec<(Step, bool, String)>,
}

impl Plan {
    /// The first step that is not done.
    pub fn next(&self) -> Option<Step> {
        self.steps.iter().find(|(_, done, _)| !done).map(|(step, ..)| *step)
    }
}

/// Makes the plan, or refuses with every problem at once.
pub fn plan(facts: &Facts) -> Result<Plan, Fault> {
    let problems = problems(facts);
    if !problems.is_empty() {
        let (what, help): (Vec<_>, Vec<_>) = problems.into_iter().unzip();
        return Err(Fault::refused(format!("cannot release {}: {}", facts.version, what.join("; ")))
            .help(help.join("\n      ")));
    }
    let Facts { version, branch, .. } = facts;
    let commit = facts.prepared.as_deref().map_or("its commit", |commit| &commit[..12]);
    let sha = facts.prepared.as_deref().map_or("sha-…".to_owned(), sha_tag);
    let steps = vec![
        (
            Step::Prepare,
            facts.prepared.is_some(),
            format!("push the commit `release: {version}` to {branch}"),
        ),
        (Step::Image, facts.image.is_some(), format!("CI tests {commit} and pushes its image as {sha}")),
        (Step::Tag, facts.remote_tag.is_some(), format!("push the annotated tag {version} on {commit}")),
        (Step::Publish, facts.published.is_some(), format!("CI gives {sha} the name {version}")),
    ];
    Ok(Plan { version: version.clone(), steps })
}

fn problems(facts: &Facts) -> Vec<(String, String)> {
    let mut problems = match &facts.prepared {
        Some(prepared) => problems_of_tags(facts, prepared),
        None => problems_of_tree(facts),
    };
    if let (Some(published), image) = (&facts.published, &facts.image)
        && image.as_ref() != Some(published)
    {
        problems.push((
            format!("the registry has another image under {}: {published}", facts.version),
            "a version is never moved: release the next one".into(),
        ));
    }
    problems
}

fn problems_of_tags(facts: &Facts, prepared: &str) -> Vec<(String, String)> {
    let version = &facts.version;
    let mut problems = Vec::new();
    if let Some(tag) = facts.remote_tag.as_deref().filter(|tag| *tag != prepared) {
        problems.push((
            format!("the remote's tag {version} names {tag}, but {prepared} prepared it"),
            "a version is never moved: release the next one".into(),
        ));
    }
    if let Some(tag) = facts.local_tag.as_deref().filter(|tag| *tag != prepared) {
        problems.push((format!("your own tag {version} names {tag}"), format!("git tag --delete {version}")));
    }
    problems
}

fn problems_of_tree(facts: &Facts) -> Vec<(String, String)> {
    let Facts { version, branch, .. } = facts;
    let mut problems = Vec::new();
    if let Some(tag) = facts.remote_tag.as_ref().or(facts.local_tag.as_ref()) {
        problems.push((
            format!("a tag {version} stands on {tag}, and no commit on {branch} prepared it"),
            format!(
                "if it was never published: git push --delete origin {version}; git tag --delete {version}"
            ),
        ));
    }
    if let Some(last) = facts.last.as_ref().filter(|last| *last >= version) {
        problems.push((format!("{last} is released already"), "choose a version above it".into()));
    }
    if facts.on_branch.as_ref() != Some(branch) {
        let on = facts.on_branch.as_deref().unwrap_or("a detached HEAD");
        problems.push((
            format!("you are on {on}; releases are cut from {branch}"),
            format!("git switch {branch}"),
        ));
    }
    if !facts.dirty.is_empty() {
        let paths = facts.dirty.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
        problems.push((
            format!("{} paths differ from HEAD: {paths}", facts.dirty.len()),
            "commit or stash them".into(),
        ));
    }
    if facts.head != facts.remote_head {
        problems.push((
            format!("HEAD is {}, the remote's {branch} is {}", &facts.head[..12], &facts.remote_head[..12]),
            "git pull --rebase, then git push".into(),
        ));
    }
    problems
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "release {}", self.version)?;
        for (number, (_, done, what)) in self.steps.iter().enumerate() {
            let state = if *done { "done" } else { "to do" };
            write!(f, "\n  {}  {state:5}  {what}", number + 1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(digit: &str) -> String {
        digit.repeat(40)
    }

    fn fresh() -> Facts {
        Facts {
            version: "v0.2.0".parse().unwrap(),
            branch: "master".into(),
            on_branch: Some("master".into()),
            dirty: vec![],
            head: commit("a"),
            remote_head: commit("a"),
            last: Some("v0.1.0".parse().unwrap()),
            prepared: None,
            local_tag: None,
            remote_tag: None,
            image: None,
            published: None,
        }
    }

    #[test]
    fn each_state_has_its_next_step() {
        let prepared = Facts { prepared: Some(commit("b")), remote_head: commit("b"), ..fresh() };
        let built = Facts { image: Some(Digest::of(b"image")), ..prepared.clone() };
        let tagged =
            Facts { remote_tag: Some(commit("b")), last: Some("v0.2.0".parse().unwrap()), ..built.clone() };
        let published = Facts { published: Some(Digest::of(b"image")), ..tagged.clone() };
        let next = |facts: &Facts| plan(facts).unwrap().next();
        assert_eq!(next(&fresh()), Some(Step::Prepare));
        assert_eq!(next(&prepared), Some(Step::Image));
        assert_eq!(next(&built), Some(Step::Tag));
        assert_eq!(next(&tagged), Some(Step::Publish));
        assert_eq!(next(&published), None);
    }

    #[test]
    fn going_on_needs_no_clean_tree() {
        let facts =
            Facts { prepared: Some(commit("b")), dirty: vec!["a.rs".into()], on_branch: None, ..fresh() };
        assert_eq!(plan(&facts).unwrap().next(), Some(Step::Image));
    }

    #[test]
    fn every_problem_is_named_at_once_with_its_remedy() {
        let facts = Facts {
            on_branch: Some("topic".into()),
            dirty: vec!["dojo/src/main.rs".into()],
            head: commit("c"),
            last: Some("v0.2.0".parse().unwrap()),
            ..fresh()
        };
        let text = plan(&facts).unwrap_err().to_string();
        for part in [
            "on topic",
            "dojo/src/main.rs",
            "HEAD is cccccccccccc",
            "v0.2.0 is released",
            "git switch master",
            "stash",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn a_version_is_never_moved() {
        let moved_tag = Facts { prepared: Some(commit("b")), remote_tag: Some(commit("d")), ..fresh() };
        assert!(plan(&moved_tag).unwrap_err().to_string().contains("names dddd"));
        let foreign_tag = Facts { remote_tag: Some(commit("d")), ..fresh() };
        assert!(plan(&foreign_tag).unwrap_err().to_string().contains("no commit on master prepared it"));
        let moved_image = Facts {
            prepared: Some(commit("b")),
            image: Some(Digest::of(b"image")),
            published: Some(Digest::of(b"other")),
            ..fresh()
        };
        assert!(plan(&moved_image).unwrap_err().to_string().contains("another image under v0.2.0"));
        let foreign_image = Facts { published: Some(Digest::of(b"other")), ..fresh() };
        assert!(plan(&foreign_image).is_err());
    }

    #[test]
    fn the_plan_reads_as_the_runbook() {
        let facts = Facts { prepared: Some(commit("b")), ..fresh() };
        assert_eq!(
            plan(&facts).unwrap().to_string(),
            "release v0.2.0
  1  done   push the commit `release: v0.2.0` to master
  2  to do  CI tests bbbbbbbbbbbb and pushes its image as sha-bbbbbbbbbbbb
  3  to do  push the annotated tag v0.2.0 on bbbbbbbbbbbb
  4  to do  CI gives sha-bbbbbbbbbbbb the name v0.2.0"
        );
    }
}
