//! `xtask check`: renders every overlay of `deploy/k8s` and holds it against what keeps a ledger safe in a cluster.
//!
//! Asks no cluster and no registry. That the objects are of Kubernetes' own form is for `kubernetes-validate` (a test);
//! the rules here are this project's.

mod manifest;
mod rules;
#[cfg(test)]
mod tests;

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::fault::Fault;
use crate::kustomize::Kustomize;
use crate::pipeline::{self, Pipeline};
use manifest::{Manifest, Role, Violation};

const OVERLAYS: &str = "deploy/k8s/overlays";
const INIT: &str = "deploy/k8s/init";

/// Check the rendered manifests of every environment
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    checked: Vec<Checked>,
    violations: Vec<Violation>,
}

#[derive(Debug, Serialize)]
struct Checked {
    folder: String,
    objects: usize,
    violations: usize,
}

pub fn run(args: &Args, root: &Path) -> Result<()> {
    let report = gather(root)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        for Checked { folder, objects, violations } in &report.checked {
            println!("{folder}: {objects} objects, {}", if *violations == 0 { "good" } else { "refused" });
        }
    }
    refuse(&report.violations).map_err(Into::into)
}

fn gather(root: &Path) -> Result<Report> {
    let file = root.join(pipeline::PATH);
    let text = std::fs::read_to_string(&file)
        .with_context(|| Fault::usage(format!("{} cannot be read", file.display())))?;
    let pipeline = Pipeline::parse(&text)?;
    let kustomize = Kustomize::find()?;
    let mut report = Report { checked: Vec::new(), violations: Vec::new() };
    for (folder, role) in folders(root, &pipeline)? {
        let objects = kustomize.render(&root.join(&folder))?;
        let found =
            rules::check(&Manifest { folder: &folder, role, image: &pipeline.image, objects: &objects });
        report.checked.push(Checked { folder, objects: objects.len(), violations: found.len() });
        report.violations.extend(found);
    }
    Ok(report)
}

/// What there is to render: each overlay, whether the pipeline names it or not, and the Job that makes a ledger.
fn folders<'a>(root: &Path, pipeline: &'a Pipeline) -> Result<Vec<(String, Role<'a>)>> {
    let overlays = root.join(OVERLAYS);
    let mut names = Vec::new();
    for entry in
        std::fs::read_dir(&overlays).with_context(|| format!("cannot list {}", overlays.display()))?
    {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    if let Some(missing) = pipeline.environments.iter().find(|environment| !names.contains(&environment.name))
    {
        return Err(Fault::refused(format!("{OVERLAYS}/{} does not exist", missing.name))
            .help(format!("{} names that environment: add the overlay or take it out there", pipeline::PATH))
            .into());
    }
    let role = |name: &str| {
        pipeline.environments.iter().find(|e| e.name == name).map_or(Role::Local, Role::Deployed)
    };
    let overlays = names.iter().map(|name| (format!("{OVERLAYS}/{name}"), role(name)));
    Ok(overlays.chain([(INIT.to_owned(), Role::Init)]).collect())
}

fn refuse(violations: &[Violation]) -> Result<(), Fault> {
    if violations.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = violations.iter().map(ToString::to_string).collect();
    Err(Fault::refused(format!("the manifests break {} rules:\n{}", lines.len(), lines.join("\n")))
        .help("`cargo xtask check` renders and checks them again"))
}
