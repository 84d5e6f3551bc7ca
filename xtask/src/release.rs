//! `release`: prepare a version on the branch, wait for CI's image of that very commit, tag it, and see it published.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::changelog;
use crate::fault::Fault;
use crate::git::{Git, Push};
use crate::image::sha_tag;
use crate::kustomization::{self, Pin, Target};
use crate::manifest;
use crate::pipeline::Pipeline;
use crate::registry::Registry;
use crate::terminal;
use crate::version::Version;

mod plan;
use plan::{Facts, Plan, Step};

/// The overlay that names a released version (spec 3.3).
const PRODUCTION_OVERLAY: &str = "deploy/k8s/overlays/production/kustomization.yaml";
/// The workspace's own packages in Cargo.lock.
const MEMBERS: [&str; 2] = ["dojo", "xtask"];
/// How often `--wait` looks, and for how long.
const POLL: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(90 * 60);

#[derive(Debug, clap::Args)]
#[command(after_help = "Run the same command again after any failure: it goes on from what it finds.

Examples:
  cargo xtask release v0.1.0 --dry-run
  cargo xtask release v0.1.0 --wait
  cargo xtask release v0.2.0-rc.1 --yes")]
pub struct Args {
    /// The version, for example v0.1.0.
    version: Version,
    /// Print the plan and stop; needs no right to write.
    #[arg(long)]
    dry_run: bool,
    /// Follow CI to the end.
    #[arg(long)]
    wait: bool,
    /// Do not ask before the first change.
    #[arg(long, short)]
    yes: bool,
    /// Print one JSON object in place of text.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, root: &Path) -> Result<()> {
    if args.version.is_zero() {
        return Err(Fault::usage("v0.0.0 stands for \"nothing released\"").help("start with v0.1.0").into());
    }
    let pipeline = Pipeline::load(root)?;
    let registry = Registry::open(pipeline.registry(), root)?;
    let release = Release { args, pipeline, registry, git: Git::at(root) };
    let mut facts = release.gather()?;
    let mut plan = plan::plan(&facts)?;
    match args.json {
        false => println!("{plan}"),
        // Whoever is asked has to see what for.
        true if !args.yes => eprintln!("{plan}"),
        true => {}
    }
    if args.dry_run && plan.next().is_some() {
        return release.finish(&plan, "dry run");
    }
    let mut confirmed = args.yes;
    loop {
        let step = plan.next();
        if let Some(Step::Prepare | Step::Tag) = step {
            release.git.identity()?;
            terminal::confirm(confirmed)?;
            confirmed = true;
        }
        match (step, facts.prepared) {
            (None, _) => return release.finish(&plan, "released"),
            (Some(Step::Prepare), _) => release.prepare(&facts.head)?,
            (Some(Step::Tag), Some(commit)) => release.tag(&commit)?,
            (Some(step), _) if args.wait => release.follow(step)?,
            (Some(step), _) => return release.not_yet(&plan, step),
        }
        facts = release.gather()?;
        plan = plan::plan(&facts)?;
    }
}

struct Release<'a> {
    args: &'a Args,
    pipeline: Pipeline,
    registry: Registry,
    git: Git,
}

impl Release<'_> {
    fn gather(&self) -> Result<Facts> {
        let version = &self.args.version;
        let branch = self.pipeline.branch.clone();
        let remote_head = self.git.fetch("origin", &format!("refs/heads/{branch}"))?;
        let prepared = self.prepared(&remote_head)?;
        let tags = self.git.remote_tags("origin")?;
        let tagged = |name: &str| tags.iter().find(|(tag, _)| tag == name).map(|(_, commit)| commit.clone());
        let image = match &prepared {
            Some(commit) => self.registry.resolve(&sha_tag(commit))?,
            None => None,
        };
        Ok(Facts {
            version: version.clone(),
            on_branch: self.git.branch()?,
            dirty: self.git.dirty()?,
            head: self.git.commit("HEAD")?.context("the project has no commit yet")?,
            last: tags.iter().filter_map(|(tag, _)| Version::from_tag(tag)).max(),
            local_tag: self.git.commit(&format!("refs/tags/{version}"))?,
            remote_tag: tagged(&version.to_string()),
            published: self.registry.resolve(&version.to_string())?,
            branch,
            remote_head,
            prepared,
            image,
        })
    }

    fn subject(&self) -> String {
        format!("release: {}", self.args.version)
    }

    /// The commit on the remote's branch that set this version.
    fn prepared(&self, remote_head: &str) -> Result<Option<String>> {
        for commit in self.git.commits_called(remote_head, &self.subject())? {
            let manifest = self.git.show(&commit, "Cargo.toml")?.unwrap_or_default();
            if manifest::workspace_version(&manifest).is_ok_and(|version| version == self.args.version) {
                return Ok(Some(commit));
            }
        }
        Ok(None)
    }

    /// Makes the release commit from objects on top of `head`, which the plan saw on both sides, and pushes it; the work
    /// tree follows only when the remote has it.
    fn prepare(&self, head: &str) -> Result<()> {
        let version = &self.args.version;
        let branch = &self.pipeline.branch;
        let text = |path: &str| {
            self.git
                .show(head, path)?
                .with_context(|| Fault::refused(format!("{path} is not in the repository")))
        };
        let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        let overlay = Target { path: PRODUCTION_OVERLAY, image: &self.pipeline.image, source: None };
        let pin = Pin { git_ref: None, tag: Some(version.to_string()), digest: None };
        let files = [
            ("Cargo.toml", manifest::set_workspace_version(&text("Cargo.toml")?, version)?),
            ("Cargo.lock", manifest::set_lock_versions(&text("Cargo.lock")?, &MEMBERS, version)?),
            (
                "CHANGELOG.md",
                changelog::roll(&self.changelog(head)?, version, &today, &self.pipeline.repository)?,
            ),
            (PRODUCTION_OVERLAY, kustomization::write(&text(PRODUCTION_OVERLAY)?, &overlay, &pin)?),
        ];
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        let commit = self.git.commit_files(head, &files, &format!("{}\n", self.subject()))?;
        match self.git.push("origin", &commit, &format!("refs/heads/{branch}"), Some(head))? {
            Push::Done => self.say(&format!("pushed {} to {branch}", &commit[..12])),
            Push::Raced(lost) => {
                return Err(Fault::race(format!("{branch} moved in the meantime ({lost})"))
                    .help("nothing was changed; git pull --rebase, look at what came, and run the same command again")
                    .into());
            }
        }
        self.git.fast_forward(&commit)
    }

    /// CHANGELOG.md at a commit, with a draft from the commit subjects where Unreleased is empty.
    fn changelog(&self, head: &str) -> Result<String> {
        let text = self
            .git
            .show(head, "CHANGELOG.md")?
            .context(Fault::refused("CHANGELOG.md is not in the repository"))?;
        if !changelog::unreleased(&text)?.is_empty() {
            return Ok(text);
        }
        let last = self
            .git
            .remote_tags("origin")?
            .into_iter()
            .filter_map(|(tag, commit)| Some((Version::from_tag(&tag)?, commit)));
        let subjects = self.git.subjects(last.max().map(|(_, commit)| commit).as_deref(), head)?;
        Ok(changelog::fill(&text, &changelog::draft(&subjects))?)
    }

    fn tag(&self, commit: &str) -> Result<()> {
        let version = self.args.version.to_string();
        if self.git.commit(&format!("refs/tags/{version}"))?.is_none() {
            let text = self.git.show(commit, "CHANGELOG.md")?.unwrap_or_default();
            let notes = changelog::section(&text, &self.args.version).unwrap_or_default();
            self.git.tag(&version, commit, &format!("Release {version}\n\n{}\n", notes.trim()))?;
        } else if !self.git.is_annotated(&version)? {
            return Err(Fault::refused(format!("your own tag {version} is not annotated"))
                .help(format!("git tag --delete {version}, and run the same command again"))
                .into());
        }
        let reference = format!("refs/tags/{version}");
        match self.git.push("origin", &reference, &reference, None)? {
            Push::Done => self.say(&format!("pushed the tag {version}")),
            // The next look at the facts tells whether it is the same tag.
            Push::Raced(_) => {}
        }
        Ok(())
    }

    /// Waits until CI has done its step.
    fn follow(&self, step: Step) -> Result<()> {
        let spinner = terminal::Spinner::start(format!("waiting for CI ({step:?})"));
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if plan::plan(&self.gather()?)?.next() != Some(step) {
                drop(spinner);
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
        Err(Fault::remote("CI did not finish in 90 minutes")
            .help("see its run, then run the same command again")
            .into())
    }

    fn not_yet(&self, plan: &Plan, step: Step) -> Result<()> {
        if self.args.json {
            self.finish(plan, "waiting")?;
        }
        let what = plan.steps.iter().find(|(other, ..)| *other == step).map_or("", |(_, _, what)| what);
        Err(Fault::remote(format!("{} is not released yet: waiting until {what}", self.args.version))
            .help("run the same command again when CI is green, or with --wait")
            .into())
    }

    fn finish(&self, plan: &Plan, state: &str) -> Result<()> {
        if self.args.json {
            println!("{}", json!({ "state": state, "plan": plan }));
        } else {
            self.say(&format!("{}: {state}", self.args.version));
        }
        Ok(())
    }

    fn say(&self, line: &str) {
        if !self.args.json {
            println!("{line}");
        }
    }
}
