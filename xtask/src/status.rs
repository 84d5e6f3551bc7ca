//! `status`: what each environment pins, what it runs, and whether the two agree. What did not answer is "unknown".

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::infra::Infra;
use crate::kustomization::Pin;
use crate::pipeline::{Environment, Pipeline};
use crate::registry::Registry;
use crate::report::Observed;
use crate::service;
use crate::terminal;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask status
  cargo xtask status production --json")]
pub struct Args {
    /// Only this environment.
    environment: Option<String>,
    /// Print one JSON object in place of the table.
    #[arg(long)]
    json: bool,
}

/// One environment, as the infra repository and the service tell it.
#[derive(Debug, Serialize)]
struct Status {
    environment: String,
    state: &'static str,
    pin: Option<Pin>,
    /// Why nobody is to change the pin.
    hold: Option<String>,
    /// Why the pin could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    observed: Observed,
}

pub fn run(args: &Args, root: &Path) -> Result<()> {
    let pipeline = Pipeline::load(root)?;
    let environments: Vec<Environment> = match &args.environment {
        Some(name) => vec![pipeline.environment(name)?.clone()],
        None => pipeline.environments.clone(),
    };
    let spinner = terminal::Spinner::start("asking the infra repository and the services");
    let infra = Infra::clone(&pipeline, root);
    let statuses = observe(&pipeline, &environments, &infra, root);
    drop(spinner);
    if args.json {
        println!("{}", serde_json::json!({ "environments": statuses }));
        return infra.map(drop);
    }
    let header = ["ENVIRONMENT", "PINNED", "RUNNING", "STATE", "SCHEMA", "LEDGER", "SEQUENCE"];
    println!("{}", terminal::table(&header, statuses.iter().map(row).collect()));
    for status in &statuses {
        if let Observed::Silent(why) = &status.observed {
            println!("{}: no answer: {why}", status.environment);
        }
        if let Some(why) = &status.hold {
            println!("{}: held: {why}", status.environment);
        }
        if let Some(problem) = &status.problem {
            println!("{}: pin unknown: {problem}", status.environment);
        }
    }
    infra.map(drop)
}

/// Asks all sources side by side, so that one slow service delays nobody else's line.
fn observe(
    pipeline: &Pipeline,
    environments: &[Environment],
    infra: &Result<Infra>,
    root: &Path,
) -> Vec<Status> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = environments.iter().map(|e| scope.spawn(|| service::observe(&e.url))).collect();
        let registry = Registry::open(pipeline.registry(), root);
        let pins: Vec<_> = environments
            .iter()
            .map(|environment| match infra {
                Ok(infra) => {
                    // A pin that cannot be read may be held all the same.
                    let hold = infra.hold(environment).ok().flatten();
                    (infra.pin(environment).map_err(|error| Some(error.to_string())), hold)
                }
                // Said once, for all of them.
                Err(_) => (Err(None), None),
            })
            .collect();
        let results = environments.iter().zip(pins).zip(asked);
        results
            .map(|((environment, (pin, hold)), asked)| {
                let observed =
                    asked.join().unwrap_or_else(|_| Observed::Silent("the look at it failed".into()));
                let (pin, problem) = match pin {
                    Ok(pin) => (Some(pin), None),
                    Err(problem) => (None, problem),
                };
                let state = state(pin.as_ref(), &observed, registry.as_ref().ok());
                Status { environment: environment.name.clone(), state, pin, hold, problem, observed }
            })
            .collect()
    })
}

/// One word for a pin and what runs.
fn state(pin: Option<&Pin>, observed: &Observed, registry: Option<&Registry>) -> &'static str {
    let Observed::Reports(report) = observed else { return "unknown" };
    let pinned = pin
        .and_then(|pin| pin.digest.as_ref())
        .zip(registry)
        .and_then(|(digest, registry)| registry.labels(digest).ok());
    match pinned {
        Some(labels) if labels.revision != report.version.commit => "drift",
        Some(_) if report.ready => "ok",
        Some(_) => "not ready",
        None => "unknown",
    }
}

fn row(status: &Status) -> Vec<String> {
    let unknown = || "unknown".to_owned();
    let pinned = status.pin.as_ref().map_or_else(unknown, |pin| {
        let digest = pin.digest.as_ref().map_or(String::new(), |digest| format!(" {}", digest.short()));
        format!("{}{digest}", pin.tag.as_deref().unwrap_or("nothing"))
    });
    let mut row = vec![status.environment.clone(), pinned];
    match &status.observed {
        Observed::Reports(report) => {
            let version = &report.version;
            let commit = version.commit.get(..12).unwrap_or(&version.commit);
            row.push(format!("{} {commit}", version.version));
            row.push(status.state.to_owned());
            row.push(version.schema.file.to_string());
            row.push(version.ledger.id.get(..8).unwrap_or(&version.ledger.id).to_owned());
            row.push(version.ledger.sequence.to_string());
        }
        Observed::Silent(_) => {
            row.extend([unknown(), status.state.to_owned(), unknown(), unknown(), unknown()]);
        }
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_service_is_unknown_in_every_column() {
        let status = Status {
            environment: "staging".into(),
            state: state(None, &Observed::Silent("refused".into()), None),
            pin: Some(Pin { git_ref: None, tag: Some("v0.1.0".into()), digest: None }),
            hold: None,
            problem: None,
            observed: Observed::Silent("refused".into()),
        };
        assert_eq!(
            row(&status),
            ["staging", "v0.1.0", "unknown", "unknown", "unknown", "unknown", "unknown"]
        );
    }
}
