//! `release status`: how far a version has come, and where it runs. What did not answer is "unknown".

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::gather::Sources;
use super::plan::{self, Asked, Facts, PageState, Planned, Progress, run_of};
use crate::fault::Fault;
use crate::image::{Digest, sha_tag};
use crate::infra::Infra;
use crate::pipeline::Environment;
use crate::report::Observed;
use crate::service;
use crate::terminal;
use crate::version::Version;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask release status v0.1.0
  cargo xtask release status v0.1.0 --json")]
pub struct Args {
    /// The version, for example v0.1.0.
    version: Version,
    /// Print one JSON object in place of the table.
    #[arg(long)]
    json: bool,
}

/// One line: what, how it stands, and where to look.
struct Row(String, String, String);

pub fn run(args: &Args, root: &Path) -> Result<()> {
    let sources = Sources::open(root)?;
    let spinner = terminal::Spinner::start("asking git, the registry, GitHub and the environments");
    let facts = sources.gather(&args.version, &[])?;
    let mut rows = rows(&sources, &facts);
    rows.extend(environments(&sources, &args.version, root));
    drop(spinner);
    let (state, why) = verdict(&facts);
    if args.json {
        let rows: Vec<Value> = rows
            .iter()
            .map(|Row(what, state, place)| json!({ "what": what, "state": state, "where": place }))
            .collect();
        terminal::json(&json!({ "version": args.version, "state": state, "why": why, "rows": rows }))?;
        return Ok(());
    }
    let rows = rows.into_iter().map(|Row(what, state, place)| vec![what, state, place]).collect();
    println!("{}", terminal::table(&["WHAT", "STATE", "WHERE"], rows));
    println!("{}: {state}{}", args.version, why.map_or_else(String::new, |why| format!(": {why}")));
    Ok(())
}

/// In a word how far it is, and what comes next.
fn verdict(facts: &Facts) -> (&'static str, Option<String>) {
    let plan = match plan::plan(facts) {
        Ok(plan) => plan,
        Err(refusal) => return ("refused", refusal.to_string().lines().next().map(str::to_owned)),
    };
    match plan.next() {
        None => ("released", None),
        Some(Planned { progress: Progress::Waiting(why), .. }) => ("waiting", Some(why.clone())),
        Some(Planned { progress: Progress::Unknown(fault), .. }) => ("unknown", Some(first_line(fault))),
        Some(Planned { what, .. }) => ("not released", Some(format!("next: {what}"))),
    }
}

fn rows(sources: &Sources, facts: &Facts) -> Vec<Row> {
    let Facts { version, tag: name, branch, .. } = facts;
    let row = |what: &str, state: String, place: &str| Row(what.to_owned(), state, place.to_owned());
    let candidate = facts.chosen();
    let mut rows = Vec::new();
    match candidate {
        Some(candidate) => {
            rows.push(row("commit", candidate.commit[..12].to_owned(), branch));
            match sources.checks(&candidate.commit) {
                Ok(checks) => rows.extend(
                    checks
                        .into_iter()
                        .map(|check| Row(format!("check {}", check.name), check.said, check.url)),
                ),
                Err(fault) => rows.push(row("checks", unknown(&fault), "")),
            }
            let what = format!("image {}", sha_tag(&candidate.commit));
            rows.push(Row(what, digest(&candidate.image), sources.registry.to_string()));
        }
        None => rows.push(row("commit", "not prepared".into(), branch)),
    }
    let tag = facts.remote_tag.as_ref().map_or("absent".to_owned(), |commit| format!("on {}", &commit[..12]));
    rows.push(Row(format!("tag {name}"), tag, sources.pipeline.repository.clone()));
    rows.push(Row(format!("image {version}"), digest(&facts.published), sources.registry.to_string()));
    if let Some(github) = &facts.github {
        if let Ok(Some(proposal)) = &github.proposal {
            let state = if proposal.merged {
                "merged"
            } else if proposal.open {
                "open"
            } else {
                "closed"
            };
            rows.push(row("pull request", state.to_owned(), &proposal.url));
        }
        if let Some(run) = run_of(facts) {
            rows.push(row("run of the tag", run.said().to_owned(), &run.html_url));
        }
        let (state, place) = match &github.page {
            Ok(PageState::Published { url, complete: true }) => ("published".to_owned(), url.as_str()),
            Ok(PageState::Published { url, .. }) => ("published, lacks files".to_owned(), url.as_str()),
            Ok(PageState::Absent) => ("not published".to_owned(), ""),
            Err(fault) => (unknown(fault), ""),
        };
        rows.push(row("release", state, place));
    }
    rows
}

fn digest(asked: &Asked<Option<Digest>>) -> String {
    match asked {
        Ok(Some(digest)) => digest.short().to_string(),
        Ok(None) => "absent".to_owned(),
        Err(fault) => unknown(fault),
    }
}

fn unknown(fault: &Fault) -> String {
    format!("unknown: {}", first_line(fault))
}

fn first_line(fault: &Fault) -> String {
    fault.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Which environments pin the version, and which run it.
fn environments(sources: &Sources, version: &Version, root: &Path) -> Vec<Row> {
    let infra = Infra::clone(&sources.pipeline, root);
    let name = version.to_string();
    let row = |environment: &Environment| {
        let pinned = match &infra {
            Ok(infra) => match infra.pin(environment) {
                Ok(pin) if pin.tag.as_ref() == Some(&name) => format!("pins {name}"),
                Ok(pin) => format!("pins {}", pin.tag.as_deref().unwrap_or("nothing")),
                Err(_) => "pin unknown".to_owned(),
            },
            Err(_) => "pin unknown".to_owned(),
        };
        let runs = match service::observe(&environment.url) {
            Observed::Reports(report) => format!("runs {}", report.version.version),
            Observed::Silent(_) => "running unknown".to_owned(),
        };
        Row(environment.name.clone(), format!("{pinned}, {runs}"), environment.url.clone())
    };
    sources.pipeline.environments.iter().map(row).collect()
}
