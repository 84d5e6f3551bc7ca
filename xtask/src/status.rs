//! `status`: what each environment pins and runs, what is wrong, and what to do. What did not answer is "unknown".

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::bounded;
use crate::fault::Fault;
use crate::github::Github;
use crate::observe::{self, Look};
use crate::pipeline::{Environment, Pipeline};
use crate::situation::{Situation, overview};
use crate::terminal;

/// How long `--watch` rests between two looks.
const REST: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask status
  cargo xtask status production
  cargo xtask status production --watch
  cargo xtask status --check --json     for a monitor
  cargo xtask status --check --post     for a scheduled workflow of the infra repository

States: ok: it runs what is pinned, and is ready. rolling out: the pin is younger than ten minutes, and does not run yet. NOT READY:
it runs what is pinned, and is not ready. DRIFT: it runs something else than what is pinned. DOWN: the cluster says that no pod is
available. NO ANSWER: the service does not answer. UNKNOWN: nobody could tell. WRONG: it runs and is ready, but something is wrong
with its data, its pin, or what could be asked. It exits with 0 whatever it sees; with --check with 1 if anything is wrong or unknown.

The cluster is asked, read-only, where deploy/pipeline.yaml has `cluster:` for the environment.")]
pub struct Args {
    /// Only this environment, in full.
    environment: Option<String>,
    /// Look again and again: a terminal is drawn anew, elsewhere each change is printed.
    #[arg(long, conflicts_with_all = ["check", "post"])]
    watch: bool,
    /// Exit with 1 if anything is wrong or unknown.
    #[arg(long)]
    check: bool,
    /// Also post the outcome to GitHub: on the infra repository's commit that was read, one status an environment.
    #[arg(long, requires = "check")]
    post: bool,
    /// Print one JSON object in place of the screen; with --watch one a line, at each change.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, root: &Path) -> Result<()> {
    let pipeline = Pipeline::load(root)?;
    let environments: Vec<Environment> = match &args.environment {
        Some(name) => vec![pipeline.environment(name)?.clone()],
        None => pipeline.environments.clone(),
    };
    let interrupted = interrupted()?;
    if args.watch {
        return watch(args, &pipeline, &environments, root, &interrupted);
    }
    let spinner = terminal::Spinner::start("asking the infra repository, the registry and the services");
    let look = observe::look(&pipeline, &environments, root);
    drop(spinner);
    if interrupted.try_recv().is_ok() {
        std::process::exit(130);
    }
    if args.json {
        terminal::json(&object(&look))?;
    } else {
        println!("{}", screen(args, &look));
    }
    if args.post {
        post(&pipeline, &look)?;
    }
    if args.check { check(&look) } else { Ok(()) }
}

fn object(look: &Look) -> Value {
    json!({ "tip": look.tip.as_ref().ok(), "environments": look.situations })
}

/// One environment in full; of several a table, and in full those that need it.
fn screen(args: &Args, look: &Look) -> String {
    if args.environment.is_some() {
        return look.situations.iter().map(ToString::to_string).collect();
    }
    let header = ["ENVIRONMENT", "STATE", "PINNED", "RUNS", "SCHEMA", "LEDGER", "SEQUENCE", "BEHIND"];
    let mut text = terminal::table(&header, look.situations.iter().map(overview).collect());
    for situation in &look.situations {
        if situation.is_wrong() {
            text += &format!("\n\n{situation}");
            continue;
        }
        let name = &situation.facts.environment.name;
        let notes = situation.problems.iter().map(|problem| problem.what.clone());
        let held = situation.facts.hold().map(|hold| format!("held: {}", hold.why));
        held.into_iter().chain(notes).for_each(|note| text += &format!("\n{name}: {note}"));
    }
    if !look.situations.iter().any(Situation::is_wrong) {
        text += "\n\nnothing needs a look";
    }
    text
}

/// Hears of Ctrl-C. What the look started is ended; the look then comes to its end by itself, and takes its folder along.
fn interrupted() -> Result<Receiver<()>> {
    let (tell, interrupted) = channel();
    let heard = move || {
        bounded::end_all();
        let _ = tell.send(());
    };
    ctrlc::set_handler(heard).context("cannot handle Ctrl-C")?;
    Ok(interrupted)
}

fn watch(
    args: &Args,
    pipeline: &Pipeline,
    environments: &[Environment],
    root: &Path,
    interrupted: &Receiver<()>,
) -> Result<()> {
    let terminal = std::io::stdout().is_terminal() && !args.json;
    let mut shown = None;
    loop {
        let look = observe::look(pipeline, environments, root);
        if interrupted.try_recv().is_ok() {
            std::process::exit(130);
        }
        // What only grows older is no change.
        let what: Vec<_> = look.situations.iter().map(Situation::gist).collect();
        let changed = shown.as_ref() != Some(&what);
        if args.json && changed {
            let mut stdout = std::io::stdout();
            writeln!(stdout, "{}", object(&look))?;
            stdout.flush()?;
        } else if terminal {
            print!("\x1b[H\x1b[2J");
            println!(
                "{}\n\n{}   Ctrl-C ends this",
                screen(args, &look),
                jiff::Timestamp::now().strftime("%H:%M:%S UTC")
            );
        } else if changed {
            // Who read along may be gone.
            writeln!(std::io::stdout(), "{}\n", terminal::plain(&screen(args, &look)))?;
        }
        shown = Some(what);
        if interrupted.recv_timeout(REST).is_ok() {
            std::process::exit(130);
        }
    }
}

/// Sets the status `dojo/ENVIRONMENT` of the commits that say what runs, for whoever looks at them on GitHub.
fn post(pipeline: &Pipeline, look: &Look) -> Result<()> {
    let (api, repository) = pipeline.infra.pulls()?;
    let github = Github::open(&api, &repository)?;
    for situation in &look.situations {
        let name = &situation.facts.environment.name;
        let Ok(infra) = &situation.facts.infra else {
            eprintln!("note: {name}: the infra repository does not answer, so there is no commit to post to");
            continue;
        };
        let context = format!("{}/{name}", pipeline.service());
        github.set_status(&infra.head, &context, !situation.is_wrong(), &situation.headline())?;
    }
    Ok(())
}

/// Ends with 1 if anything is wrong.
fn check(look: &Look) -> Result<()> {
    let wrong: Vec<_> = look.situations.iter().filter(|situation| situation.is_wrong()).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = wrong.iter().map(|situation| situation.facts.environment.name.as_str()).collect();
    Err(Fault::remote(format!("{} needs a look", names.join(", "))).into())
}
