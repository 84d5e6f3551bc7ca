//! Check 3 of a pin's edit: before it is pushed, the environment is rendered without it and with it, as far as this
//! machine can.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::gather::Sources;
use crate::fault::{Fault, Kind};
use crate::infra::PinChange;
use crate::kustomization::Pin;
use crate::kustomize::Kustomize;
use crate::pipeline::Environment;
use crate::terminal::Spinner;

mod judge;
use judge::Expected;
pub use judge::{Rendering, stem};

/// Renders what was read of the infra repository, and what the change makes of it; without a change the former alone.
pub fn run(
    sources: &Sources,
    environment: &Environment,
    (from, to): (&Pin, &Pin),
    change: Option<&PinChange<'_>>,
) -> Result<Rendering> {
    let (pipeline, infra) = (&sources.pipeline, &sources.infra);
    let (before, after) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let new = infra.lay_out(environment, change, after.path())?;
    // A new environment's `v0.0.0` is no ref that is there.
    let compared = change.is_some() && !from.is_nothing();
    let old = compared.then(|| infra.lay_out(environment, None, before.path())).transpose()?;
    let digest = to.digest.as_ref().map(|digest| format!("@{}", digest.as_str())).unwrap_or_default();
    let now = change.is_none().then(|| infra.pinned(environment)).transpose()?;
    let expected = Expected {
        environment: &environment.name,
        name: &pipeline.image,
        image: &format!("{}:{}{digest}", pipeline.image, to.name()),
        same_ref: from.git_ref == to.git_ref,
        restore: match change {
            Some(change) => change.restore,
            None => now.as_ref().and_then(|now| now.restore.as_deref()),
        },
    };
    let spinner = Spinner::start(format!("rendering {}", environment.name));
    let kustomize = Kustomize::find();
    let render = |folder: &PathBuf, root: &Path| render(&kustomize, folder, root);
    let (old, new) = std::thread::scope(|scope| {
        let old = old.as_ref().map(|folder| scope.spawn(|| render(folder, before.path())));
        let new = render(&new, after.path());
        (old.and_then(|old| old.join().ok()), new)
    });
    drop(spinner);
    Ok(judge::judge(expected, old, new)?)
}

/// The environment's overlay at a commit of the project, as kustomize renders it with this restore.
pub fn overlay(
    sources: &Sources,
    environment: &Environment,
    commit: &str,
    restore: Option<&str>,
) -> Result<String> {
    let folder = tempfile::tempdir().context("no folder to render in")?;
    sources.project.export(commit, "deploy/k8s", folder.path())?;
    // The restore goes in here: what is rendered has its generated names, and no generator merges into it later.
    let wrapper = folder.path().join("deploy/k8s/with-restore");
    std::fs::create_dir(&wrapper)?;
    let (name, restore) = (&environment.name, restore.unwrap_or_default());
    let text = format!(
        "resources: [../overlays/{name}]\nconfigMapGenerator:\n- {{name: dojo, behavior: merge, literals: [\"DOJO_RESTORE={restore}\"]}}\n"
    );
    std::fs::write(wrapper.join("kustomization.yaml"), text)?;
    Ok(Kustomize::find()?.text(&wrapper)?)
}

/// Its complaints name files as the infra repository does, not where they were laid out.
fn render(kustomize: &Result<Kustomize, Fault>, folder: &Path, root: &Path) -> Result<Vec<Value>, Fault> {
    let objects = kustomize.clone()?.render(folder);
    objects.map_err(|fault| {
        let words = fault.message().replace(&format!("{}/", root.display()), "");
        if fault.kind == Kind::Refused { Fault::refused(words) } else { Fault::remote(words) }
    })
}
