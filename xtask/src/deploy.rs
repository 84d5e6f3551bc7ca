//! `promote` and `rollback`: gather facts, plan, show, and swap one environment's pin in the infra repository.

use std::cell::RefCell;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::cluster::{Cluster, Deployment};
use crate::environment::check_id;
use crate::fault::{self, Fault};
use crate::gate;
use crate::git::Push;
use crate::infra::PinChange;
use crate::kustomize::Kustomize;
use crate::pipeline::{Environment, Manifests, Pipeline};
use crate::situation::Situation;
use crate::terminal;
use crate::version::Version;

mod adopt;
mod apply;
mod args;
mod diff;
mod gather;
mod plan;
mod practice;
mod pull;
mod render;
mod verify;
mod wait;
pub use adopt::{Args as AdoptArgs, run as adopt};
use args::{How, Look};
pub use args::{PromoteArgs, RollbackArgs};
pub use diff::{Args as DiffArgs, run as diff};
use gather::{Asked, Sources};
use plan::{Facts, Plan, Verb};
use render::Rendering;

/// How often a lost race is planned anew before giving up.
const TRIES: usize = 5;

pub fn promote(args: &PromoteArgs, root: &Path) -> Result<()> {
    let PromoteArgs { look, environment, image, follow, how } = args;
    if let Some(Look::Verify(args)) = look {
        return verify::run(args, root);
    }
    // Without one clap has refused it.
    let environment = environment.as_deref().unwrap_or_default();
    run(Verb::Promote, environment, image.as_deref(), None, *follow, how, root)
}

pub fn rollback(args: &RollbackArgs, root: &Path) -> Result<()> {
    let RollbackArgs { environment, to, restore, how } = args;
    run(Verb::Rollback, environment, to.as_deref(), restore.as_deref(), false, how, root)
}

fn run(
    verb: Verb,
    environment: &str,
    image: Option<&str>,
    restore: Option<&str>,
    follow: bool,
    how: &How,
    root: &Path,
) -> Result<()> {
    let (seen, stuck) = (RefCell::new(None), RefCell::new(None));
    let deploy = || -> Result<()> {
        let pipeline = Pipeline::load(root)?;
        restore.map_or(Ok(()), check_id)?;
        let asked = Asked {
            verb,
            environment: environment_of(&pipeline, verb, environment)?,
            image: image.map(str::to_owned),
            restore: restore.map(str::to_owned),
            file_schema: how.file_schema,
            overrides: gate::given(&how.gates, how.because.as_deref())?,
            because: how.because.clone().filter(|_| how.gates.is_empty()),
            follow,
        };
        if follow && (asked.environment.follow.is_none() || image != Some("edge")) {
            return Err(Fault::usage(format!("{environment} does not follow {}", image.unwrap_or("that")))
                .help("--follow is for `edge`, where deploy/pipeline.yaml has `follow: edge`")
                .into());
        }
        let sources = Sources::open(pipeline, root)?;
        Deploy {
            asked,
            how,
            root,
            sources,
            seen: &seen,
            stuck: &stuck,
            rendering: None,
            applied: None,
            waited: None,
        }
        .run()
    };
    let outcome = deploy();
    if let (true, Err(error)) = (how.json, &outcome) {
        terminal::json(
            &json!({ "state": fault::state(error), "error": format!("{error:#}"), "plan": *seen.borrow(), "situation": *stuck.borrow() }),
        )?;
    }
    outcome
}

fn environment_of(pipeline: &Pipeline, verb: Verb, name: &str) -> Result<Environment, Fault> {
    let found = pipeline.environment(name).map_err(|fault| match Version::from_tag(name) {
        Some(version) if verb == Verb::Rollback => {
            Fault::usage(fault.to_string()).help(format!("did you mean: cargo xtask rollback --to {version}"))
        }
        Some(version) => Fault::usage(fault.to_string())
            .help(format!("the environment comes first: promote ENVIRONMENT {version}")),
        None => fault,
    });
    found.cloned()
}

/// One environment on its way to another pin.
struct Deploy<'a> {
    asked: Asked,
    how: &'a How,
    root: &'a Path,
    sources: Sources,
    /// The newest plan, for `--json` when it comes to nothing.
    seen: &'a RefCell<Option<Plan>>,
    /// What was seen when a wait came to nothing.
    stuck: &'a RefCell<Option<Box<Situation>>>,
    /// Of the newest plan.
    rendering: Option<Rendering>,
    applied: Option<apply::Applied>,
    waited: Option<wait::Waited>,
}

impl Deploy<'_> {
    fn run(&mut self) -> Result<()> {
        let how = self.how;
        let github = how.pr.then(|| pull::open(&self.sources.pipeline)).transpose()?;
        let facts = self.sources.gather(&self.asked)?;
        if let Some(why) = self.asked.follow.then(|| left_alone(&facts)).flatten() {
            return self.finish("left alone", None, &why);
        }
        let mut plan = self.plan(&facts)?;
        self.say(&plan.to_string());
        if let Some(backup) = &how.rehearse_on {
            let rehearsed = practice::run(backup, &plan, &self.sources.registry, &facts.observed)?;
            self.say(&rehearsed.to_string());
            plan.rehearsed = Some(rehearsed);
            self.seen.replace(Some(plan.clone()));
        }
        if !plan.change && how.wait && !how.apply {
            return self.end("nothing to do", &plan, None, None, "");
        }
        if !plan.change && !how.apply {
            return self.finish("nothing to do", None, "");
        }
        let cluster = self.cluster()?;
        let mut manifests = self.render(&plan)?;
        if let Some(github) = &github {
            return self.propose(github, &plan, manifests.as_deref());
        }
        if how.dry_run {
            return self.finish("dry run", None, "dry run: nothing was changed");
        }
        terminal::confirm(how.yes)?;
        if !plan.change {
            return self.end("nothing to do", &plan, None, cluster.as_ref(), "");
        }
        for _ in 0..TRIES {
            let commit = self.commit(&plan, manifests.as_deref())?;
            let lost =
                match self.sources.infra.push(&self.asked.environment, &commit).map_err(pull::point_to)? {
                    Push::Done => {
                        let line = format!("done: infra commit {commit}");
                        return self.end("done", &plan, Some(&commit), cluster.as_ref(), &line);
                    }
                    Push::Raced(lost) => lost,
                };
            self.sources.infra.refresh()?;
            let meanwhile = "somebody else changed the infra repository in the meantime";
            let facts = self.sources.gather(&self.asked).context(meanwhile)?;
            if let Some(why) = self.asked.follow.then(|| left_alone(&facts)).flatten() {
                return self.finish("left alone", None, &why);
            }
            let mut next = self.plan(&facts).context(meanwhile)?;
            if next.change && !next.is_same(&plan) {
                let name = &self.asked.environment.name;
                let what = if next.from == plan.from { "what it was to get" } else { name.as_str() };
                let race = Fault::race(format!("somebody else changed {what} in the meantime ({lost})"));
                return Err(race.help(format!("nothing was changed; the plan would now be:\n{next}")).into());
            }
            next.rehearsed = plan.rehearsed.take();
            self.seen.replace(Some(next.clone()));
            if next.change || how.apply {
                manifests = self.render(&next)?;
            }
            if !next.change {
                return self.end("nothing to do", &next, None, cluster.as_ref(), &next.to_string());
            }
            plan = next;
        }
        let url = fault::without_credentials(&self.sources.pipeline.infra.url);
        let race = Fault::race(format!("{url} kept moving: {TRIES} pushes were lost"));
        Err(race.help("nothing was changed; run the same command again").into())
    }

    /// For who reads along, and for whoever is asked and has to see what for.
    fn say(&self, text: &str) {
        match (self.how.json, self.how.yes || self.how.dry_run) {
            (false, _) => println!("{text}"),
            (true, false) => eprintln!("{text}"),
            (true, true) => {}
        }
    }

    /// Where it is to be applied.
    fn cluster(&self) -> Result<Option<Cluster>> {
        if !self.how.apply {
            return Ok(None);
        }
        Kustomize::find()?;
        let cluster = Cluster::find(self.how.context.as_deref())?;
        self.say(&format!("  apply   to context {}, then waits for the rollout", cluster.context()));
        Ok(Some(cluster))
    }

    /// The end of the way of a pin that is there now, by this commit or since before what was read.
    fn end(
        &mut self,
        state: &str,
        plan: &Plan,
        commit: Option<&str>,
        cluster: Option<&Cluster>,
        line: &str,
    ) -> Result<()> {
        if let Some(cluster) = cluster {
            let environment = &self.asked.environment;
            let at = commit.map_or_else(|| self.sources.infra.head(environment), Ok)?.to_owned();
            let objects = self.rendering.as_ref().map(|rendering| rendering.objects.as_slice());
            let deployments = Deployment::among(objects.unwrap_or_default());
            let applied = apply::run(cluster, &mut self.sources, environment, plan, &at, &deployments)?;
            self.applied = Some(applied);
        }
        if self.how.wait {
            // Whatever comes of the wait, the pin is there.
            if !line.is_empty() && !self.how.json {
                println!("{line}");
            }
            self.wait(plan)?;
            return self.finish(state, commit, "");
        }
        self.finish(state, commit, line)?;
        if self.applied.is_none() && commit.is_some() {
            eprintln!("note: cargo xtask status {} shows when it runs", plan.environment);
        }
        Ok(())
    }

    fn wait(&mut self, plan: &Plan) -> Result<()> {
        let (pipeline, environment) = (&self.sources.pipeline, &self.asked.environment);
        let wait = wait::Wait { pipeline, root: self.root, environment, plan, limit: self.how.timeout };
        match wait.run() {
            Ok(waited) => {
                self.waited = Some(waited);
                Ok(())
            }
            Err(wait::Failed { fault, situation }) => {
                if let (Some(situation), false) = (&situation, self.how.json) {
                    println!("{situation}");
                }
                self.stuck.replace(situation);
                Err(fault.into())
            }
        }
    }

    fn plan(&self, facts: &Facts) -> Result<Plan> {
        let plan = plan::plan(facts)?;
        self.seen.replace(Some(plan.clone()));
        Ok(plan)
    }

    /// Makes the plan's commit; nothing points to it yet.
    fn commit(&self, plan: &Plan, manifests: Option<&str>) -> Result<String> {
        let Sources { pipeline, infra, .. } = &self.sources;
        let message = plan.message(
            pipeline.service(),
            &self.sources.changes(plan.verb, &plan.from, &plan.to)?,
            &infra.identity()?,
        );
        infra.commit(&self.asked.environment, &change(plan, manifests), &message)
    }

    /// Sees to it that exactly the image of the plan comes out of its commit, as far as kustomize can tell here. Returns
    /// the manifests that the commit is to have, where the environment keeps them rendered.
    fn render(&mut self, plan: &Plan) -> Result<Option<String>> {
        let manifests = match self.asked.environment.manifests {
            Manifests::Rendered if plan.change => {
                let restore = plan.restore.as_deref();
                Some(render::overlay(&self.sources, &self.asked.environment, &plan.commit, restore)?)
            }
            _ => None,
        };
        // What could not be rendered before a lost race may take a minute each time.
        if self.rendering.as_ref().is_some_and(|earlier| earlier.containers.is_none()) {
            return Ok(manifests);
        }
        let change = plan.change.then(|| change(plan, manifests.as_deref()));
        let rendering =
            render::run(&self.sources, &self.asked.environment, (&plan.from, &plan.to), change.as_ref())?;
        let Rendering { image, containers, why, .. } = &rendering;
        match (containers, why) {
            (Some(number), _) => self.say(&format!("  render  {number} containers run {image}")),
            (None, Some(why)) if self.how.apply => {
                let fault = Fault::remote(format!("cannot apply what does not render: {}", why.trim()));
                return Err(fault
                    .help("nothing was changed; see that this machine reaches what the kustomization names")
                    .into());
            }
            (None, why) => {
                let why = shortened(&terminal::one_line(why.as_deref().unwrap_or_default()));
                eprintln!("note: not rendered: {why}");
            }
        }
        let asked = self.how.diff || self.how.dry_run || !self.how.yes;
        let diff = rendering.shown(self.how.diff);
        if asked && !diff.is_empty() {
            self.say(&diff);
        }
        self.rendering = Some(rendering);
        Ok(manifests)
    }

    fn finish(&self, state: &str, commit: Option<&str>, line: &str) -> Result<()> {
        if self.how.json {
            let Self { seen, rendering, applied, waited, .. } = self;
            return terminal::json(
                &json!({ "state": state, "plan": *seen.borrow(), "commit": commit, "rendering": rendering, "applied": applied, "waited": waited }),
            );
        }
        if !line.is_empty() {
            println!("{line}");
        }
        if let Some(applied) = &self.applied {
            println!("{applied}");
        }
        if let Some(waited) = &self.waited {
            println!("{} {waited}", self.asked.environment.name);
        }
        Ok(())
    }
}

/// kustomize says first what it was to do, and last what was wrong with it.
fn shortened(words: &str) -> String {
    const ENDS: usize = 200;
    let letters: Vec<_> = words.trim().chars().collect();
    if letters.len() <= 2 * ENDS {
        return letters.into_iter().collect();
    }
    let (start, end) = (&letters[..ENDS], &letters[letters.len() - ENDS..]);
    start.iter().chain(&[' ', '…', ' ']).chain(end).collect()
}

fn change<'a>(plan: &'a Plan, manifests: Option<&'a str>) -> PinChange<'a> {
    PinChange { pin: &plan.to, restore: plan.restore.as_deref(), manifests, base: plan.base.as_ref() }
}

/// Why an environment that follows edge does not now.
fn left_alone(facts: &Facts) -> Option<String> {
    let (name, to) = (&facts.environment.name, &facts.to.name);
    if let Some(why) = &facts.from.hold {
        return Some(format!("{name} is held, and does not follow edge: {why}"));
    }
    if let Some(id) = &facts.from.restore
        && !facts.has_restored(id)
    {
        return Some(format!("{name} is to restore {id} first, and has not said that it did"));
    }
    let commit = facts.bad_since.as_ref()?;
    Some(format!("{name} does not take {to}, which was rolled back from (infra commit {commit})"))
}
