//! `promote verify`: holds what a pull request of the infra repository would pin against the gates, whoever made it. It
//! runs nothing of that repository, and takes the rules from this one's deploy/pipeline.yaml.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::json;

use super::gather::{Asked, Sources};
use super::plan::{self, Facts, Plan, Verb};
use crate::environment::{Pinned, check_id};
use crate::fault::{Fault, Kind};
use crate::history::is_zero;
use crate::image::is_fixed;
use crate::infra::Proposal;
use crate::kustomization::Pin;
use crate::pipeline::{Environment, Pipeline};
use crate::terminal;
use crate::trailers::{Trailers, overrides};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask promote verify --head refs/pull/7/merge
  cargo xtask promote verify --base main --head pin/production-v0.2.0

Gates are passed by trailers of the commits, `Override: soak because …`, which it lists. A commit with the trailer
Pin-Verb: rollback or Pin-Bad, back to what ran there before, is held against what a rollback must meet; one with Pin-Verb: adopt
must pin what the service says that it runs.")]
pub struct Args {
    /// What it is to be merged into: a branch, ref or commit of the infra repository. Only environments on that branch are
    /// looked at; what is no environment's branch stands for infra's [default: that of the pull request, else infra's branch]
    #[arg(long, value_name = "REF")]
    base: Option<String>,
    /// What is to be merged: a branch, ref or commit of the infra repository [default: in a pull request's job, GITHUB_REF]
    #[arg(long, value_name = "REF")]
    head: Option<String>,
    /// Print one JSON object in place of text.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// Nothing of it is changed, or nothing that is looked at here.
    Unchanged,
    Good,
    Refused,
    /// Nobody could tell.
    Unknown,
}

/// What became of one environment.
#[derive(Debug, Serialize)]
struct Look {
    environment: String,
    file: String,
    state: State,
    says: String,
    plan: Option<Plan>,
    #[serde(skip)]
    fault: Option<Fault>,
}

pub fn run(args: &Args, root: &Path) -> Result<()> {
    let head = head_of(args)?;
    let pipeline = Pipeline::load(root)?;
    let mut sources = Sources::open(pipeline, root)?;
    let (branch, instead) = base_of(args, &sources.pipeline)?;
    if let Some(base) = instead {
        sources.infra.stand_on(&branch, base)?;
    }
    let Sources { pipeline, infra, .. } = &sources;
    let on_branch = |environment: &&Environment| pipeline.infra_branch(environment) == branch;
    let environments: Vec<_> = pipeline.environments.iter().filter(on_branch).collect();
    let first = environments.first().context("no environment lies there")?;
    let (base, proposal) = (infra.head(first)?, infra.proposal(first, &head)?);
    let mut looks = Vec::new();
    for environment in environments {
        let look = Verify { sources: &sources, proposal: &proposal, environment }.look();
        if !args.json {
            println!("{}: {}", look.environment, look.says);
        }
        looks.push(look);
    }
    let fault = fault_of(&looks);
    if args.json {
        let state = match fault.as_ref().map(|fault| fault.kind) {
            None => "verified",
            Some(Kind::Refused) => "refused",
            Some(_) => "failed",
        };
        let head = &proposal.commit;
        terminal::json(&json!({ "state": state, "base": base, "head": head, "environments": looks }))?;
    }
    fault.map_or(Ok(()), |fault| Err(fault.into()))
}

fn head_of(args: &Args) -> Result<String, Fault> {
    args.head
        .clone()
        .or_else(|| of_job("GITHUB_REF").filter(|name| name.starts_with("refs/pull/")))
        .ok_or_else(|| {
            Fault::usage("which pull request?")
                .help("cargo xtask promote verify --head refs/pull/NUMBER/merge")
        })
}

/// What GitHub tells a pull request's job.
fn of_job(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The branch of the infra repository whose environments are looked at, and what is to stand in its place.
fn base_of<'a>(args: &'a Args, pipeline: &Pipeline) -> Result<(String, Option<&'a str>), Fault> {
    let branches = pipeline.infra_branches();
    let known = |name: &str| {
        let name = name.strip_prefix("refs/heads/").unwrap_or(name);
        branches.contains(&name).then(|| name.to_owned())
    };
    let told = args.base.as_deref();
    let of_pull = || of_job("GITHUB_BASE_REF").filter(|_| told.is_none() && args.head.is_none());
    if let Some(branch) = told.and_then(known).or_else(|| known(&of_pull()?)) {
        return Ok((branch, None));
    }
    known(&pipeline.infra.branch).map(|branch| (branch, told)).ok_or_else(|| {
        let what = told.map_or("which branch?".to_owned(), |base| format!("no environment lies on {base}"));
        Fault::usage(what).help(format!("--base with one of {}", branches.join(", ")))
    })
}

/// All that stands against it: refused if one is, else unknown.
fn fault_of(looks: &[Look]) -> Option<Fault> {
    let bad: Vec<_> = looks.iter().filter_map(|look| Some((look, look.fault.as_ref()?))).collect();
    let worst = [Kind::Refused, Kind::Usage, Kind::Remote];
    let kind = worst.into_iter().find(|kind| bad.iter().any(|(_, fault)| fault.kind == *kind))?;
    let told = bad.iter().map(|(look, fault)| format!("{} ({}): {fault}", look.environment, look.file));
    let text = told.collect::<Vec<_>>().join("\n");
    Some(match kind {
        Kind::Refused => Fault::refused(text),
        Kind::Usage => Fault::usage(text),
        _ => Fault::remote(text),
    })
}

struct Verify<'a> {
    sources: &'a Sources,
    proposal: &'a Proposal,
    environment: &'a Environment,
}

impl Verify<'_> {
    fn look(&self) -> Look {
        let Environment { name, kustomization, .. } = self.environment;
        let (environment, file) = (name.clone(), kustomization.clone());
        let look = |state, says, plan, fault| Look { environment, file, state, says, plan, fault };
        match self.judge() {
            Ok((state, says, plan)) => look(state, says, plan, None),
            Err(error) => {
                let fault = Fault::from(error);
                let (state, word) = match fault.kind {
                    Kind::Refused => (State::Refused, "refused"),
                    _ => (State::Unknown, "unknown"),
                };
                look(state, word.to_owned(), None, Some(fault))
            }
        }
    }

    fn judge(&self) -> Result<(State, String, Option<Plan>)> {
        let unchanged = |says: &str| Ok((State::Unchanged, says.to_owned(), None));
        let infra = &self.sources.infra;
        let Some(to) = infra.proposed(self.proposal, self.environment)? else {
            return unchanged("unchanged");
        };
        // One that nobody can read may be what is put right.
        let (from, _) = self.sources.legible(self.environment)?;
        if (&from.pin, &from.restore) == (&to.pin, &to.restore) {
            return unchanged(&match (from.hold == to.hold, &to.hold) {
                (true, _) => "changed, but not in its pin: that is not looked at here".to_owned(),
                (false, Some(why)) => format!("the pin stays, and it is held: {why}"),
                (false, None) => "the pin stays, and it is no longer held".to_owned(),
            });
        }
        let facts = self.gather(&from, &to)?;
        let plan = plan::plan(&facts)?;
        let (verb, from, to) = (plan.verb, plan.from.name(), plan.to.name());
        let passed = plan.overrides.iter().map(|pass| format!("\n  passed  {}: {}", pass.gate, pass.because));
        let says = format!("{verb} {from} -> {to}: every gate is met{}", passed.collect::<String>());
        let says =
            if plan.overrides.is_empty() { says } else { says.replace(" is met", " is met or passed") };
        Ok((State::Good, says, Some(plan)))
    }

    /// The facts of a promotion or a rollback to what is proposed, whose three values must belong together.
    fn gather(&self, from: &Pinned, to: &Pinned) -> Result<Facts> {
        let tag = to.pin.tag.as_deref().filter(|tag| is_fixed(tag) && !is_zero(tag)).ok_or_else(|| {
            let tag = to.pin.tag.as_deref().unwrap_or("none");
            Fault::refused(format!("newTag would be {tag}, which is no image for good"))
                .help("pin a version or a commit's sha-…, as cargo xtask promote does")
        })?;
        let messages = self.sources.infra.messages(self.proposal, self.environment)?;
        let mut told = messages.iter().map(|message| Trailers::parse(message));
        let of_this = |told: &Trailers| told.environment.as_ref() == Some(&self.environment.name);
        let told = told.find(of_this).unwrap_or_default();
        let restore = to.restore.clone().filter(|_| to.restore != from.restore);
        if let Some(id) = &restore {
            check_id(id).map_err(|fault| Fault::refused(fault.to_string()))?;
        }
        let asked = Asked {
            verb: self.verb(&told, from, &to.pin)?,
            environment: self.environment.clone(),
            image: Some(tag.to_owned()),
            restore,
            file_schema: told.told,
            overrides: messages.iter().flat_map(|message| overrides(message)).collect(),
            because: None,
            follow: false,
        };
        let facts = self.sources.gather(&asked)?;
        let whole = facts.to.pin();
        let by_commit = Pin { git_ref: Some(facts.to.revision.clone()), ..whole.clone() };
        if to.pin == whole || to.pin == by_commit {
            return Ok(facts);
        }
        let (name, image) = (&self.environment.name, &facts.to.name);
        if facts.verb == Verb::Adopt {
            return Err(Fault::refused(format!("it is to adopt {}, and {name} runs {image}", to.pin.name()))
                .help(format!("look again: cargo xtask adopt {name} --pr"))
                .into());
        }
        Err(Fault::refused(format!("{} do not belong together", values(&to.pin)))
            .help(format!("the image has {}: cargo xtask promote {name} {image} --pr", values(&whole)))
            .into())
    }

    /// A rollback is what says so, leaves what is pinned, and returns to what ran there.
    fn verb(&self, told: &Trailers, from: &Pinned, to: &Pin) -> Result<Verb> {
        // That it runs is asked of the service.
        if told.verb.as_deref() == Some(Verb::Adopt.word()) {
            return Ok(Verb::Adopt);
        }
        let says = told.verb.as_deref() == Some(Verb::Rollback.word());
        let leaves = says || told.bad.is_some() && told.bad == from.pin.digest || from.pin == *to;
        let history = self.sources.infra.history(self.environment).context("what ran there")?;
        let ran = |pin: &Pin| pin.tag == to.tag && pin.digest == to.digest;
        let returns = history.iter().filter_map(|change| change.pin.as_ref()).any(ran);
        Ok(if leaves && returns { Verb::Rollback } else { Verb::Promote })
    }
}

fn values(pin: &Pin) -> String {
    let show = |value: Option<&str>| value.unwrap_or("none").to_owned();
    let digest = pin.digest.as_ref().map_or("none".to_owned(), ToString::to_string);
    format!("ref {}, newTag {} and digest {digest}", show(pin.git_ref.as_deref()), show(pin.tag.as_deref()))
}
