//! The steps of a release that this tool does itself. Commits are made from objects, so that a kill leaves no
//! half-edited file; what a remote has is looked at before and after.

use anyhow::{Context as _, Result};

use super::Release;
use super::gather::WORKFLOW;
use super::plan::{Facts, Plan, proposal_branch, run_of};
use crate::changelog;
use crate::checks::State;
use crate::fault::{Fault, Kind, exit_code};
use crate::gate;
use crate::git::{Push, breaks_rule};

impl Release<'_> {
    /// Pushes the commit that prepares the version to the branch; the work tree follows only when the remote has it.
    pub(super) fn prepare(&self, facts: &Facts, plan: &Plan) -> Result<()> {
        let Facts { branch, remote_head: base, .. } = facts;
        let commit = self.commit(facts, plan)?;
        match self.sources.git.push("origin", &commit, &format!("refs/heads/{branch}"), Some(base)) {
            Ok(Push::Done) => self.say(&format!("pushed {} to {branch}", &commit[..12])),
            Ok(Push::Raced(lost)) => {
                return Err(self.lost(format!("{branch} moved in the meantime ({lost})")));
            }
            Err(error) => {
                if self.sources.github.is_none() || !breaks_rule(&error) {
                    return Err(error);
                }
                self.say(&format!("{branch} is protected and takes no push: proposing it"));
                return self.propose(facts, plan);
            }
        }
        Ok(())
    }

    /// Pushes it to a branch of its own, and opens the pull request.
    pub(super) fn propose(&self, facts: &Facts, plan: &Plan) -> Result<()> {
        let github = self.sources.github.as_ref().context("there is no GitHub to propose it to")?;
        let git = &self.sources.git;
        let branch = proposal_branch(&facts.tag);
        let reference = format!("refs/heads/{branch}");
        let there = git.remote_ref("origin", &reference)?;
        // One that an earlier run left behind on the same base is as good.
        let usable = match &there {
            Some(there) => {
                git.fetch("origin", &reference)? == *there
                    && git.commit(&format!("{there}^"))?.as_deref() == Some(&facts.remote_head)
                    && self.sources.carries(there, &self.version)?
            }
            None => false,
        };
        if !usable {
            let commit = self.commit(facts, plan)?;
            if let Push::Raced(lost) = git.push("origin", &commit, &reference, there.as_deref())? {
                return Err(self.lost(format!("{branch} moved in the meantime ({lost})")));
            }
        }
        let body = format!(
            "`cargo xtask release {}` prepared this. Once it is merged and CI is green, the same command tags it.",
            self.version
        );
        let title = format!("release: {}", facts.tag);
        let asked = github.propose(&branch, &facts.branch, &title, &body);
        match (asked, github.pull(&branch, &facts.branch)?) {
            (_, Some(pull)) => self.say(&format!("proposed {}", pull.html_url)),
            (Err(error), None) => return Err(error),
            (Ok(_), None) => {}
        }
        Ok(())
    }

    /// The commit `release: VERSION` on top of the remote's branch; nothing points to it yet.
    fn commit(&self, facts: &Facts, plan: &Plan) -> Result<String> {
        let git = &self.sources.git;
        git.identity()?;
        let base = &facts.remote_head;
        let prepared = self.sources.prepare(base, &self.version, facts.since.as_ref())?;
        let files: Vec<_> = prepared.files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        let message = gate::sign(&format!("release: {}", facts.tag), &plan.passed);
        git.commit_files(base, &files, &message)
    }

    pub(super) fn tag(&self, facts: &Facts, plan: &Plan) -> Result<()> {
        let git = &self.sources.git;
        git.identity()?;
        let commit = plan.commit.as_deref().context("there is no commit to tag")?;
        let name = facts.tag.as_str();
        let text = git.show(commit, "CHANGELOG.md")?.unwrap_or_default();
        let notes = changelog::section(&text, &self.version).unwrap_or_default();
        let mut overrides = self.sources.overridden(facts, commit)?;
        for pass in &plan.passed {
            if !overrides.contains(pass) {
                overrides.push(pass.clone());
            }
        }
        let message = gate::sign(&format!("Release {name}\n\n{}", notes.trim()), &overrides);
        if facts.local_tag.is_none() {
            git.tag(name, commit, &message)?;
        } else if !git.is_annotated(name)? || git.tag_message(name)? != message.trim_end() {
            // An earlier run may have left one; another one would say what is not so.
            let what = format!("your own tag {name} does not say what this release is to say");
            let help = format!("git tag --delete {name}, and run the same command again");
            return Err(Fault::refused(what).help(help).into());
        }
        let reference = format!("refs/tags/{name}");
        match git.push("origin", &reference, &reference, None)? {
            Push::Done => self.say(&format!("pushed the tag {name}")),
            // Somebody else was first. If theirs names the same commit, it is this release's; the next look tells.
            Push::Raced(_) => git.replace_tag_from("origin", name)?,
        }
        Ok(())
    }

    /// Starts the tag's run again where it failed, and else anew.
    pub(super) fn restart(&self, facts: &Facts) -> Result<()> {
        let github = self.sources.github.as_ref().context("there is no GitHub to start a run on")?;
        if let Some(run) = run_of(facts).filter(|run| run.state() == State::Red) {
            match github.rerun(run.id) {
                Ok(()) => {
                    self.say(&format!("started {} again", run.html_url));
                    return Ok(());
                }
                // One that is too old, say, can only be replaced.
                Err(error) if exit_code(&error) == Kind::Remote as u8 => return Err(error),
                Err(_) => {}
            }
        }
        github.dispatch(WORKFLOW, &facts.tag)?;
        self.say(&format!("started CI for {}", facts.tag));
        Ok(())
    }

    /// Brings the checked-out branch to the release's commit, if that is all that stands between them. Not having done
    /// it harms nobody: the remote has it.
    pub(super) fn catch_up(&self, facts: &Facts, plan: &Plan) {
        let git = &self.sources.git;
        let Some(commit) = facts.candidates.first().map(|candidate| &candidate.commit) else { return };
        let behind = facts.on_branch.as_ref() == Some(&plan.branch)
            && facts.head != *commit
            && git.is_ancestor(&facts.head, commit).unwrap_or(false);
        if behind && let Err(error) = git.fast_forward(commit) {
            eprintln!("note: your {} stays behind: {error:#}", plan.branch);
        }
    }
}
