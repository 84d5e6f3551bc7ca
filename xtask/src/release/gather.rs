//! What the world says about a version: git and its remote, the registry, GitHub. Nothing is changed but the refs
//! below `refs/xtask/`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::plan::{Asked, Candidate, Facts, GithubFacts, Override, PageState, Proposal, proposal_branch};
use crate::changelog;
use crate::checks::{Check, judge};
use crate::fault::Fault;
use crate::git::Git;
use crate::github::Github;
use crate::image::sha_tag;
use crate::kustomization::{self, Pin, Target};
use crate::manifest;
use crate::pipeline::Pipeline;
use crate::registry::Registry;
use crate::version::{Bump, Series, Version};

/// The overlay that names a released version (spec section 3.3).
const PRODUCTION_OVERLAY: &str = "deploy/k8s/overlays/production/kustomization.yaml";
/// The workspace's own packages in Cargo.lock.
const MEMBERS: [&str; 2] = ["dojo", "xtask"];
/// How many commits after one that is red are looked at.
const FIXES: usize = 50;

/// All that is asked.
pub struct Sources {
    pub pipeline: Pipeline,
    pub registry: Registry,
    pub github: Option<Github>,
    pub git: Git,
}

/// The files that prepare a version, by path, and whether the notes were drafted.
pub struct Prepared {
    pub files: Vec<(&'static str, String)>,
    pub drafted: bool,
}

/// What the remote has: its tags of versions with their commits, and its branches of series.
pub struct Remote {
    tags: Vec<(Version, String)>,
    branch: String,
    pub head: String,
}

impl Sources {
    pub fn open(root: &Path) -> Result<Self> {
        let pipeline = Pipeline::load(root)?;
        let registry = Registry::open(pipeline.registry(), root)?;
        let github = pipeline.github().map(|api| Github::open(&api, &pipeline.repository)).transpose()?;
        Ok(Self { pipeline, registry, github, git: Git::at(root) })
    }

    /// Asks the remote for its tags and for the branch that `version` is cut from: its series' own if there is one.
    pub fn remote(&self, series: Series) -> Result<Remote> {
        let refs = self.git.remote_refs("origin")?;
        let own = series.branch();
        let is_there = refs.contains_key(&format!("refs/heads/{own}"));
        let branch = if is_there { own } else { self.pipeline.branch.clone() };
        let head = self.git.fetch("origin", &format!("refs/heads/{branch}"))?;
        let tags = refs.into_iter().filter_map(|(name, commit)| {
            Some((Version::from_tag(name.strip_prefix("refs/tags/")?)?, commit))
        });
        Ok(Remote { tags: tags.collect(), branch, head })
    }

    /// The version that `--bump` means on the branch that is checked out. One that is tagged and not wholly published
    /// is finished first.
    pub fn bumped(&self, bump: Bump) -> Result<Version> {
        let on = self.git.branch()?.unwrap_or_default();
        let series = Series::of_branch(&on);
        let zero = "v0.0.0".parse::<Version>()?;
        let tags = self.git.remote_tags("origin")?;
        let mut versions: Vec<_> = tags.iter().filter_map(|(tag, _)| Version::from_tag(tag)).collect();
        versions.retain(|version| series.is_none_or(|series| Series::of(version) == series));
        versions.sort();
        let Some(last) = versions.pop() else { return Ok(zero.bumped(bump, series)) };
        let before = versions.pop().unwrap_or(zero);
        let is_done = self.registry.resolve(&last.to_string())?.is_some()
            && match &self.github {
                Some(github) => github.published(&last)?.is_some_and(|page| !page.draft),
                None => true,
            };
        if is_done {
            return Ok(last.bumped(bump, series));
        }
        if before.bumped(bump, series) == last {
            return Ok(last);
        }
        Err(Fault::refused(format!("{last} is tagged, and not wholly released"))
            .help(format!("finish it first: cargo xtask release {last}"))
            .into())
    }

    pub fn gather(&self, version: &Version, overrides: &[Override]) -> Result<Facts> {
        let remote = self.remote(Series::of(version))?;
        let tagged = remote.tags.iter().find(|(tag, _)| tag == version).map(|(_, commit)| commit.clone());
        let since = self.since(&remote, version)?;
        let candidates = self.candidates(&remote, version, tagged.as_deref(), since.as_ref())?;
        let from = since.as_ref().map(|(_, commit)| commit.as_str());
        let (count, notes) = if candidates.is_empty() {
            let notes = self.prepare(&remote.head, version, from).map(|prepared| prepared.drafted);
            (self.git.count(from, &remote.head)?, notes.map_err(Fault::from))
        } else {
            (0, Ok(false))
        };
        let series = Series::of_branch(&remote.branch);
        let of_branch = |version: &&Version| series.is_none_or(|series| Series::of(version) == series);
        let local = self.git.commit(&format!("refs/tags/{version}"))?;
        let manifest = self.git.show(&remote.head, "Cargo.toml")?.unwrap_or_default();
        Ok(Facts {
            version: version.clone(),
            on_branch: self.git.branch()?,
            dirty: self.git.dirty()?,
            head: self.git.commit("HEAD")?.context("the project has no commit yet")?,
            last: remote.tags.iter().map(|(tag, _)| tag).filter(of_branch).max().cloned(),
            since: (since.map(|(version, _)| version), count),
            declared: manifest::workspace_version(&manifest)?,
            notes,
            tag_age: self.tag_age(version, tagged.is_some())?,
            local_tag: local,
            published: self.registry.resolve(&version.to_string()).map_err(Fault::from),
            github: self.github.as_ref().map(|github| ask(github, version, &remote, tagged.as_deref())),
            remote_tag: tagged,
            overrides: overrides.to_vec(),
            branch: remote.branch,
            remote_head: remote.head,
            candidates,
        })
    }

    /// The highest version, other than this one, that the branch contains, with its commit.
    fn since(&self, remote: &Remote, version: &Version) -> Result<Option<(Version, String)>> {
        let mut tags: Vec<_> = remote.tags.iter().filter(|(tag, _)| tag < version).collect();
        tags.sort();
        for (tag, commit) in tags.into_iter().rev() {
            if self.git.is_ancestor(commit, &remote.head)? {
                return Ok(Some((tag.clone(), commit.clone())));
            }
        }
        Ok(None)
    }

    /// The commits of the branch that carry the version; see [`Facts::candidates`].
    fn candidates(
        &self,
        remote: &Remote,
        version: &Version,
        tagged: Option<&str>,
        since: Option<&(Version, String)>,
    ) -> Result<Vec<Candidate>> {
        let Remote { head, .. } = remote;
        if let Some(tagged) = tagged {
            let is_ours = self.git.is_ancestor(tagged, head)? && self.carries(tagged, version)?;
            return Ok(if is_ours { vec![self.candidate(tagged, false)] } else { Vec::new() });
        }
        if !self.carries(head, version)? {
            return Ok(Vec::new());
        }
        let from = since.map(|(_, commit)| commit.as_str());
        let bare = version.bare();
        let needles = ["## [", "## [v", "## ", "## v"].map(|start| format!("{start}{bare}"));
        let Some(first) = self.git.commit_that_added(from, head, "CHANGELOG.md", &needles)? else {
            return Ok(Vec::new());
        };
        let mut candidates = Vec::new();
        for commit in std::iter::once(first.clone()).chain(self.git.first_parent_after(&first, head, FIXES)?)
        {
            if !self.carries(&commit, version)? {
                continue;
            }
            let candidate = self.candidate(&commit, true);
            let hopeful = !candidate.is_red();
            candidates.push(candidate);
            if hopeful {
                break;
            }
        }
        Ok(candidates)
    }

    /// Whether a commit was made to be this version: its Cargo.toml says so, and its changelog has the notes.
    fn carries(&self, commit: &str, version: &Version) -> Result<bool> {
        let text = self.git.show(commit, "CHANGELOG.md")?.unwrap_or_default();
        if changelog::section(&text, version).is_none() {
            return Ok(false);
        }
        let manifest = self.git.show(commit, "Cargo.toml")?.unwrap_or_default();
        Ok(manifest::workspace_version(&manifest).is_ok_and(|found| found == *version))
    }

    /// How it stands with the required checks on a commit; none where nobody can be asked.
    pub fn checks(&self, commit: &str) -> Asked<Vec<Check>> {
        let Some(github) = &self.github else { return Ok(Vec::new()) };
        let runs = github.check_runs(commit).map_err(Fault::from)?;
        Ok(judge(self.pipeline.checks(), &runs, &github.checks_page(commit)))
    }

    fn candidate(&self, commit: &str, checked: bool) -> Candidate {
        let checks = if checked { self.checks(commit) } else { Ok(Vec::new()) };
        let image = self.registry.resolve(&sha_tag(commit)).map_err(Fault::from);
        Candidate { commit: commit.to_owned(), checks, image }
    }

    fn tag_age(&self, version: &Version, tagged: bool) -> Result<Option<Duration>> {
        if !tagged {
            return Ok(None);
        }
        let made = self.git.remote_tag_time("origin", &version.to_string())?;
        let now = jiff::Timestamp::now().as_second();
        Ok(made.and_then(|made| u64::try_from(now - made).ok()).map(Duration::from_secs))
    }

    /// What the commit that prepares a version changes; `from` is the commit that notes are drafted since.
    pub fn prepare(&self, head: &str, version: &Version, from: Option<&str>) -> Result<Prepared> {
        let text = |path: &str| {
            self.git
                .show(head, path)?
                .with_context(|| Fault::refused(format!("{path} is not in the repository")))
        };
        let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        let overlay = Target { path: PRODUCTION_OVERLAY, image: &self.pipeline.image, source: None };
        let pin = Pin { git_ref: None, tag: Some(version.to_string()), digest: None };
        let mut notes = text("CHANGELOG.md")?;
        let drafted = changelog::unreleased(&notes)?.is_empty();
        if drafted {
            let draft = changelog::draft(&self.git.subjects(from, head)?);
            let nothing = "- Nothing changed but the version.";
            notes = changelog::fill(&notes, if draft.is_empty() { nothing } else { &draft })?;
        }
        let files = vec![
            ("Cargo.toml", manifest::set_workspace_version(&text("Cargo.toml")?, version)?),
            ("Cargo.lock", manifest::set_lock_versions(&text("Cargo.lock")?, &MEMBERS, version)?),
            ("CHANGELOG.md", changelog::roll(&notes, version, &today, &self.pipeline.repository)?),
            (PRODUCTION_OVERLAY, kustomization::write(&text(PRODUCTION_OVERLAY)?, &overlay, &pin)?),
        ];
        Ok(Prepared { files, drafted })
    }
}

/// What GitHub says, as far as it answers.
fn ask(github: &Github, version: &Version, remote: &Remote, tagged: Option<&str>) -> GithubFacts {
    let proposal = github.pull(&proposal_branch(version)).map(|pull| {
        pull.map(|pull| Proposal {
            open: pull.state == "open",
            merged: pull.merged_at.is_some(),
            url: pull.html_url,
        })
    });
    let run = match tagged {
        Some(commit) => github.run_of_tag(&version.to_string(), commit),
        None => Ok(None),
    };
    GithubFacts {
        protected: github.is_protected(&remote.branch).map_err(Fault::from),
        proposal: proposal.map_err(Fault::from),
        page: page(github, version).map_err(Fault::from),
        run: run.map_err(Fault::from),
        runs_page: github.runs_page(),
    }
}

fn page(github: &Github, version: &Version) -> Result<PageState> {
    if let Some(page) = github.published(version)?.filter(|page| !page.draft) {
        return Ok(PageState::Published(page.html_url));
    }
    Ok(if github.pages(version)?.is_empty() { PageState::Absent } else { PageState::Draft })
}
