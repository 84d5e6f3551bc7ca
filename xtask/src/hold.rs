//! `hold` and `unhold`: a file `HOLD` beside an environment's kustomization, which promotions and rollbacks heed. Who held
//! it, and since when, is in the infra repository's history.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use crate::fault::{self, Fault, without_credentials};
use crate::git::Push;
use crate::infra::Infra;
use crate::pipeline::{Environment, Pipeline};
use crate::terminal;

/// How often a lost race against a change of something else is tried again.
const TRIES: usize = 5;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask hold production \"the books are being audited, until Friday\"
  cargo xtask promote production v0.2.1 --override hold --because \"the audit found it\"
  cargo xtask unhold production")]
pub struct HoldArgs {
    /// The environment, as deploy/pipeline.yaml names it.
    environment: String,
    /// Why, in one line: whoever is refused reads it.
    why: String,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
pub struct UnholdArgs {
    /// The environment, as deploy/pipeline.yaml names it.
    environment: String,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
struct How {
    /// Do not ask before the change.
    #[arg(long, short)]
    yes: bool,
    /// Print one JSON object in place of text.
    #[arg(long)]
    json: bool,
}

pub fn hold(args: &HoldArgs, root: &Path) -> Result<()> {
    let why = args.why.trim();
    if why.is_empty() || why.chars().any(char::is_control) {
        return Err(Fault::usage("a hold needs a reason, in one line").into());
    }
    set(&args.environment, Some(why), &args.how, root)
}

pub fn unhold(args: &UnholdArgs, root: &Path) -> Result<()> {
    set(&args.environment, None, &args.how, root)
}

fn set(name: &str, why: Option<&str>, how: &How, root: &Path) -> Result<()> {
    let outcome = change(name, why, how, root);
    if let (true, Err(error)) = (how.json, &outcome) {
        terminal::json(
            &json!({ "state": fault::state(error), "environment": name, "error": format!("{error:#}") }),
        )?;
    }
    outcome
}

fn change(name: &str, why: Option<&str>, how: &How, root: &Path) -> Result<()> {
    let pipeline = Pipeline::load(root)?;
    let environment = pipeline.environment(name)?;
    let spinner = terminal::Spinner::start(format!("reading {}", without_credentials(&pipeline.infra.url)));
    let mut infra = Infra::clone(&pipeline, root)?;
    drop(spinner);
    let before = infra.hold(environment)?;
    if before.as_deref() == why {
        return tell(how, environment, "nothing to do", why, None);
    }
    if let (Some(was), Some(_)) = (&before, why) {
        return Err(Fault::refused(format!("{name} is held already: {was}"))
            .help(format!("whoever ends that hold would end yours; first: cargo xtask unhold {name}"))
            .into());
    }
    if !how.json || !how.yes {
        let was = before.as_deref().map_or_else(String::new, |was| format!(" (until now: {was})"));
        let line = match why {
            Some(why) => format!("hold {name}: {why}{was}"),
            None => format!("unhold {name}{was}"),
        };
        if how.json { eprintln!("{line}") } else { println!("{line}") }
    }
    terminal::confirm(how.yes)?;
    for _ in 0..TRIES {
        let verb = if why.is_some() { "hold" } else { "unhold" };
        let subject = format!("{}: {verb} {name}", pipeline.service());
        let reason = why.map_or_else(String::new, |why| format!("\n{why}\n"));
        let message =
            format!("{subject}\n{reason}\nPin-Environment: {name}\nPin-By: {}\n", infra.identity()?);
        let commit = infra.commit_hold(environment, why, &message)?;
        if infra.push(environment, &commit)? == Push::Done {
            return tell(how, environment, "done", why, Some(&commit));
        }
        infra.refresh()?;
        let now = infra.hold(environment)?;
        if now.as_deref() == why {
            return tell(how, environment, "nothing to do", why, None);
        }
        if now != before {
            let now = now.map_or("is not held".to_owned(), |now| format!("is held: {now}"));
            let race = Fault::race(format!("somebody else changed the hold in the meantime: {name} {now}"));
            return Err(race.help("nothing was changed; run the same command again to change that").into());
        }
    }
    let race = Fault::race(format!(
        "{} kept moving: {TRIES} pushes were lost",
        without_credentials(&pipeline.infra.url)
    ));
    Err(race.help("nothing was changed; run the same command again").into())
}

fn tell(
    how: &How,
    environment: &Environment,
    state: &str,
    why: Option<&str>,
    commit: Option<&str>,
) -> Result<()> {
    let name = &environment.name;
    if how.json {
        return terminal::json(
            &json!({ "state": state, "environment": name, "hold": why, "commit": commit }),
        );
    }
    match (commit, why) {
        (Some(commit), _) => println!("done: infra commit {commit}"),
        (None, Some(_)) => println!("{name} is held for that reason already: nothing to do"),
        (None, None) => println!("{name} is not held: nothing to do"),
    }
    Ok(())
}
