//! What the world says about a version: git and its remote, the registry, GitHub. Nothing is changed but the refs
//! below `refs/xtask/`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::plan::{Asked, Candidate, Facts, GithubFacts, PageState, Proposal, proposal_branch};
use crate::changelog;
use crate::checks::{Check, judge};
use crate::fault::Fault;
use crate::gate::{self, Override, ReleaseGate};
use crate::git::Git;
use crate::github::Github;
use crate::image::{Digest, Labels, sha_tag};
use crate::kustomization::{self, Pin, Target};
use crate::manifest;
use crate::pipeline::Pipeline;
use crate::registry::Registry;
use crate::version::{Bump, Series, Version};

/// The overlay that names a released version (spec section 3.3).
const PRODUCTION_OVERLAY: &str = "deploy/k8s/overlays/production/kustomization.yaml";
/// The workspace's own packages in Cargo.lock.
const MEMBERS: [&str; 2] = ["dojo", "xtask"];
/// Of more commits that carry a version, this many of the oldest and of the newest are looked at.
const FIXES: usize = 10;
/// The workflow that a tag starts.
pub const WORKFLOW: &str = "ci.yml";

/// All that is asked.
pub struct Sources {
    pub pipeline: Pipeline,
    pub registry: Registry,
    pub github: Option<Github>,
    pub git: Git,
}

/// The files that prepare a version, by path, and the notes if nobody wrote any.
pub struct Prepared {
    pub files: Vec<(&'static str, String)>,
    pub drafted: Option<String>,
}

/// What the remote has: its branches and tags, and of the tags the versions with their commits.
struct Remote {
    refs: BTreeMap<String, String>,
    tags: Vec<(Version, String)>,
    /// The one that the version is cut from.
    branch: String,
    head: String,
}

impl Sources {
    pub fn open(root: &Path) -> Result<Self> {
        let pipeline = Pipeline::load(root)?;
        let registry = Registry::open(pipeline.registry(), root)?;
        let github = pipeline.github().map(|api| Github::open(&api, &pipeline.repository)).transpose()?;
        Ok(Self { pipeline, registry, github, git: Git::at(root) })
    }

    /// Asks the remote for its tags and for the branch that `version` is cut from: its series' own if there is one.
    fn remote(&self, series: Series) -> Result<Remote> {
        let refs = self.git.remote_refs("origin")?;
        let own = self.pipeline.series_branch(series);
        let is_there = refs.contains_key(&format!("refs/heads/{own}"));
        let branch = if is_there { own } else { self.pipeline.branch.clone() };
        let head = self.git.fetch("origin", &format!("refs/heads/{branch}"))?;
        let tag = |(name, commit): (&String, &String)| {
            Some((self.pipeline.version_of_tag(name.strip_prefix("refs/tags/")?)?, commit.clone()))
        };
        let tags = refs.iter().filter_map(tag).collect();
        Ok(Remote { refs, tags, branch, head })
    }

    /// The version that `--bump` means on the branch that is checked out. One that is tagged and not wholly published
    /// is finished first.
    pub fn bumped(&self, bump: Bump) -> Result<Version> {
        let on = self.git.branch()?.unwrap_or_default();
        let series = self.pipeline.series_of_branch(&on);
        let zero = "v0.0.0".parse::<Version>()?;
        let tags = self.git.remote_tags("origin")?;
        let mut versions: Vec<_> =
            tags.iter().filter_map(|(tag, _)| self.pipeline.version_of_tag(tag)).collect();
        versions.retain(|version| !version.is_zero());
        versions.retain(|version| series.is_none_or(|series| Series::of(version) == series));
        versions.sort();
        let Some(last) = versions.pop() else {
            return Ok(series.map_or_else(|| zero.bumped(bump, None), |series| series.first(bump)));
        };
        let before = versions.pop().unwrap_or(zero);
        let is_done = self.registry.resolve(&last.to_string())?.is_some()
            && match &self.github {
                Some(github) => {
                    github.published(&self.pipeline.git_tag(&last))?.is_some_and(|page| !page.draft)
                }
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

    pub fn gather(&self, version: &Version, overrides: &[Override<ReleaseGate>]) -> Result<Facts> {
        let (tag, own) = (self.pipeline.git_tag(version), Series::of(version));
        let remote = self.remote(own)?;
        let tagged = remote.tags.iter().find(|(tag, _)| tag == version).map(|(_, commit)| commit.clone());
        let since = self.since(&remote, version)?;
        let from = since.as_ref().map(|(_, commit)| commit.as_str());
        let mut candidates = self.candidates(&remote, version, tagged.is_some(), from)?;
        let published = self.registry.resolve(&version.to_string()).map_err(Fault::from);
        if let (Ok(Some(published)), Some(tagged)) = (&published, candidates.first_mut()) {
            self.stand_in(published, tagged);
        }
        let (count, notes) = if candidates.is_empty() {
            let notes = self.prepare(&remote.head, version, since.as_ref()).map(|prepared| prepared.drafted);
            (self.git.count(from, &remote.head)?, notes.map_err(Fault::from))
        } else {
            (0, Ok(None))
        };
        let series = self.pipeline.series_of_branch(&remote.branch);
        let of_branch = |version: &&Version| series.is_none_or(|series| Series::of(version) == series);
        let last = remote.tags.iter().map(|(tag, _)| tag).filter(of_branch).max().cloned();
        let manifest = self.git.show(&remote.head, "Cargo.toml")?.unwrap_or_default();
        let declared = manifest::workspace_version(&manifest)?;
        let is_tagged = remote.tags.iter().any(|(tag, _)| *tag == declared);
        let under_way = declared != *version && !is_tagged && self.carries(&remote.head, &declared)?;
        let github = self
            .github
            .as_ref()
            .map(|github| self.ask(github, version, &remote, tagged.as_deref(), !candidates.is_empty()));
        Ok(Facts {
            version: version.clone(),
            tag: tag.clone(),
            series_branch: self.pipeline.series_branch(own),
            on_branch: self.git.branch()?,
            dirty: self.git.dirty()?,
            head: self.git.commit("HEAD")?.context("the project has no commit yet")?,
            last,
            since,
            commits: count,
            under_way: under_way.then(|| declared.clone()),
            declared,
            notes,
            local_tag: self.git.commit(&format!("refs/tags/{tag}"))?,
            remote_tag: tagged,
            latest: if version.is_prerelease() || !matches!(published, Ok(Some(_))) {
                Ok(true)
            } else {
                self.registry.resolve("latest").map(|latest| latest.is_some()).map_err(Fault::from)
            },
            published,
            github,
            overrides: overrides.to_vec(),
            branch: remote.branch,
            remote_head: remote.head,
            candidates,
        })
    }

    /// Where `sha-…` was cleaned away, the version's image can speak for the commit: its label says which that is.
    fn stand_in(&self, published: &Digest, candidate: &mut Candidate) {
        let is_its = |labels: Labels| labels.revision == candidate.commit;
        if matches!(candidate.image, Ok(None)) && self.registry.labels(published).is_ok_and(is_its) {
            candidate.image = Ok(Some(published.clone()));
        }
    }

    /// The highest version below this one that the branch contains, with its commit; pre-releases only count for
    /// pre-releases.
    fn since(&self, remote: &Remote, version: &Version) -> Result<Option<(Version, String)>> {
        let mut tags: Vec<_> = remote.tags.iter().filter(|(tag, _)| tag < version).collect();
        tags.retain(|(tag, _)| version.is_prerelease() || !tag.is_prerelease());
        tags.sort();
        for (tag, commit) in tags.into_iter().rev() {
            if self.git.is_ancestor(commit, &remote.head)? {
                return Ok(Some((tag.clone(), commit.clone())));
            }
        }
        Ok(None)
    }

    /// The commits that carry the version; see [`Facts::candidates`].
    fn candidates(
        &self,
        remote: &Remote,
        version: &Version,
        tagged: bool,
        from: Option<&str>,
    ) -> Result<Vec<Candidate>> {
        if tagged {
            let commit =
                self.git.fetch("origin", &format!("refs/tags/{}", self.pipeline.git_tag(version)))?;
            let candidate = |commit| vec![self.candidate(commit, false)];
            return Ok(if self.carries(&commit, version)? { candidate(commit) } else { Vec::new() });
        }
        let Some(first) = self.first_that_carries(version, from, &remote.head)? else {
            return Ok(Vec::new());
        };
        let later = self.git.first_parent_after(&first, &remote.head, usize::MAX)?;
        let mut commits: Vec<_> = std::iter::once(first).chain(later).collect();
        if commits.len() > 2 * FIXES {
            commits.drain(FIXES..commits.len() - FIXES);
        }
        let mut candidates = Vec::new();
        for commit in commits {
            let candidate = self.candidate(commit, true);
            let decides = candidate.is_ready() || candidate.is_under_way();
            candidates.push(candidate);
            if decides {
                break;
            }
        }
        Ok(candidates)
    }

    /// The commit from which on all up to `head` carry the version, so that a preparation that was taken back is
    /// none; `None` if `head` does not carry it. Only what changes the two files can begin it.
    fn first_that_carries(
        &self,
        version: &Version,
        from: Option<&str>,
        head: &str,
    ) -> Result<Option<String>> {
        if !self.carries(head, version)? {
            return Ok(None);
        }
        for commit in self.git.changes(from, head, &["CHANGELOG.md", "Cargo.toml"])? {
            match self.git.commit(&format!("{commit}^"))? {
                Some(parent) if self.carries(&parent, version)? => {}
                _ => return Ok(Some(commit)),
            }
        }
        Ok(None)
    }

    /// Whether a commit was made to be this version: its Cargo.toml says so, and its changelog has the notes.
    pub fn carries(&self, commit: &str, version: &Version) -> Result<bool> {
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

    fn candidate(&self, commit: String, checked: bool) -> Candidate {
        let checks = if checked { self.checks(&commit) } else { Ok(Vec::new()) };
        let image = self.registry.resolve(&sha_tag(&commit)).map_err(Fault::from);
        Candidate { commit, checks, image }
    }

    /// What GitHub says of what still matters, as far as it answers.
    fn ask(
        &self,
        github: &Github,
        version: &Version,
        remote: &Remote,
        tagged: Option<&str>,
        prepared: bool,
    ) -> GithubFacts {
        let (mut protected, mut proposal) = (Ok(false), Ok(None));
        if !prepared {
            protected = github.is_protected(&remote.branch).map_err(Fault::from);
            proposal = self.proposal(github, version, remote).map_err(Fault::from);
        }
        let page = self.page(github, version).map_err(Fault::from);
        let run = match tagged {
            Some(commit) if !matches!(page, Ok(PageState::Published { complete: true, .. })) => {
                github.run_of_tag(WORKFLOW, &self.pipeline.git_tag(version), commit).map_err(Fault::from)
            }
            _ => Ok(None),
        };
        let waited = matches!(run, Ok(None)) && tagged.is_some();
        let tag_age = if waited { self.tag_age(version).unwrap_or_default() } else { None };
        GithubFacts { protected, proposal, page, run, tag_age, runs_page: github.runs_page() }
    }

    /// The pull request that prepares the version. One whose branch is gone, or whose merge was taken back, is
    /// history.
    fn proposal(&self, github: &Github, version: &Version, remote: &Remote) -> Result<Option<Proposal>> {
        let from = proposal_branch(&self.pipeline.git_tag(version));
        let Some(pull) = github.pull(&from, &remote.branch)? else { return Ok(None) };
        let (open, merged) = (pull.state == "open", pull.merged_at.is_some());
        if !open && !merged && !remote.refs.contains_key(&format!("refs/heads/{from}")) {
            return Ok(None);
        }
        if let Some(merge) = pull.merge_commit_sha.filter(|_| merged)
            && self.git.commit(&merge)?.is_some()
            && self.git.is_ancestor(&merge, &remote.head)?
        {
            return Ok(None);
        }
        Ok(Some(Proposal { url: pull.html_url, open, merged }))
    }

    fn page(&self, github: &Github, version: &Version) -> Result<PageState> {
        let Some(page) = github.published(&self.pipeline.git_tag(version))?.filter(|page| !page.draft) else {
            return Ok(PageState::Absent);
        };
        let has =
            |name: &String| page.assets.iter().any(|asset| asset.name == *name && asset.state == "uploaded");
        let complete = self.pipeline.release_files(version).iter().all(has);
        Ok(PageState::Published { url: page.html_url, complete })
    }

    /// How long ago the remote's tag was made; `None` if it does not say, or is of the future.
    fn tag_age(&self, version: &Version) -> Result<Option<Duration>> {
        let made = self.git.remote_tag_time("origin", &self.pipeline.git_tag(version))?;
        let now = jiff::Timestamp::now().as_second();
        Ok(made.and_then(|made| u64::try_from(now - made).ok()).map(Duration::from_secs))
    }

    /// What the commit that prepares a version changes; notes are drafted of what came after `since`.
    pub fn prepare(
        &self,
        head: &str,
        version: &Version,
        since: Option<&(Version, String)>,
    ) -> Result<Prepared> {
        let text = |path: &str| {
            self.git
                .show(head, path)?
                .with_context(|| Fault::refused(format!("{path} is not in the repository")))
        };
        let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        let overlay =
            Target { path: PRODUCTION_OVERLAY, image: &self.pipeline.image, source: None, comment: false };
        let pin = Pin { git_ref: None, tag: Some(version.to_string()), digest: None };
        let tag = |version: &Version| self.pipeline.git_tag(version);
        let mut notes = text("CHANGELOG.md")?;
        let mut drafted = None;
        if changelog::unreleased(&notes)?.is_empty() {
            let draft = self.notes(&notes, head, version, since)?;
            notes = changelog::fill(&notes, &draft)?;
            drafted = Some(draft);
        }
        let files = vec![
            ("Cargo.toml", manifest::set_workspace_version(&text("Cargo.toml")?, version)?),
            ("Cargo.lock", manifest::set_lock_versions(&text("Cargo.lock")?, &MEMBERS, version)?),
            ("CHANGELOG.md", changelog::roll(&notes, version, &today, &self.pipeline.repository, &tag)?),
            (PRODUCTION_OVERLAY, kustomization::write(&text(PRODUCTION_OVERLAY)?, &overlay, &pin)?),
        ];
        Ok(Prepared { files, drafted })
    }

    /// What is said of a version of which nobody wrote anything: what was said of its pre-releases, else the subjects of
    /// its commits.
    fn notes(
        &self,
        text: &str,
        head: &str,
        version: &Version,
        since: Option<&(Version, String)>,
    ) -> Result<String> {
        let mut before = changelog::between(text, since.map(|(version, _)| version), version);
        before.retain(|(before, notes)| before.is_prerelease() && !notes.is_empty());
        if !version.is_prerelease() && !before.is_empty() {
            return Ok(before.into_iter().map(|(_, notes)| notes).collect::<Vec<_>>().join("\n\n"));
        }
        let subjects = self.git.subjects(since.map(|(_, commit)| commit.as_str()), head)?;
        let draft = changelog::draft(&subjects);
        Ok(if draft.is_empty() { "- Nothing changed but the version.".to_owned() } else { draft })
    }

    /// What was overridden when the version was prepared, by the preparation that stands. Checks are none of it: they
    /// are passed when it is tagged, or not at all.
    pub fn overridden(&self, facts: &Facts, commit: &str) -> Result<Vec<Override<ReleaseGate>>> {
        let first = facts.candidates.first().map_or(commit, |candidate| &candidate.commit);
        let before = self.git.commit(&format!("{first}^"))?;
        let start = format!("release: {}", facts.tag);
        let messages = self.git.messages_that_begin(before.as_deref(), commit, &start)?;
        // A squash puts more below: whose work it was, or other commits.
        let paragraphs = messages.iter().flat_map(|message| message.split("\n\n").skip(1));
        let passed = paragraphs.flat_map(|paragraph| gate::overrides(&format!("\n\n{paragraph}")));
        Ok(passed.filter(|pass| pass.gate != ReleaseGate::Checks).collect())
    }
}
