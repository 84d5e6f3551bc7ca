//! What an image built here and now says of itself: read from git, Cargo.toml and the migrations' schema.toml.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use toml_edit::{DocumentMut, Item};

use crate::fault::Fault;
use crate::image::{DIRTY, Labels, Schema};
use crate::manifest;

const SCHEMA: &str = "dojo/migrations/schema.toml";

/// The labels for the work tree at `project`; `repository` is the pipeline's `HOST/OWNER/NAME`.
pub fn labels(project: &Path, repository: &str) -> anyhow::Result<Labels> {
    let commit = git(project, &["rev-parse", "--verify", "HEAD"])?;
    let dirty = if git(project, &["status", "--porcelain"])?.is_empty() { "" } else { DIRTY };
    let seconds = git(project, &["show", "-s", "--format=%ct", "HEAD"])?;
    let created = jiff::Timestamp::from_second(seconds.parse().context("git's commit time")?)?;
    let version = manifest::workspace_version(&text(project, "Cargo.toml")?)?;
    let schema: DocumentMut =
        text(project, SCHEMA)?.parse().map_err(|error| Fault::usage(format!("{SCHEMA}: {error}")))?;
    let number = |key: &str| {
        let value = schema.get(key).and_then(Item::as_integer).and_then(|value| u32::try_from(value).ok());
        value.ok_or_else(|| Fault::usage(format!("{SCHEMA}: {key} is not there or not a number")))
    };
    Ok(Labels {
        revision: format!("{commit}{dirty}"),
        version: version.bare(),
        source: format!("https://{repository}"),
        created: created.to_string(),
        schema: Schema { current: number("current")?, oldest_binary: number("oldest_binary")? },
    })
}

fn text(project: &Path, name: &str) -> Result<String, Fault> {
    let path = project.join(name);
    fs::read_to_string(&path).map_err(|error| {
        Fault::usage(format!("{}: {error}", path.display())).help("is this the project's root?")
    })
}

/// Asks the project's own repository, whatever repository a surrounding git hook names in the environment.
fn git(project: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let mut git = Command::new("git");
    git.arg("-C").arg(project).args(arguments);
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        git.env_remove(name);
    }
    let output = git.output().map_err(|error| Fault::usage(format!("git: {error}")).help("install git"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let message = format!("git {} in {}: {}", arguments.join(" "), project.display(), said.trim());
        return Err(Fault::usage(message).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
