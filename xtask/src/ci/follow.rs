//! Environments that follow `edge` take each image that it comes to name, by the very command that a person would give.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;

use crate::fault::{Fault, Kind};
use crate::pipeline::Pipeline;

/// How often a promotion is tried again that lost a race against somebody else's.
const TRIES: usize = 3;

/// What became of one environment.
#[derive(Debug, Serialize)]
pub struct Followed {
    pub environment: String,
    /// `done`, `nothing to do`, `left alone`, or why it did not follow.
    pub state: String,
    /// The exit code of its promotion.
    exit: i32,
}

/// Promotes what `edge` names to each environment that follows it. What fails is told in the end: the image is published
/// all the same.
pub fn edge(pipeline: &Pipeline, root: &Path) -> Result<Vec<Followed>> {
    let following = pipeline.environments.iter().filter(|environment| environment.follow.is_some());
    following.map(|environment| promote(&environment.name, root)).collect()
}

/// The worst of them, as this command's own end.
pub fn judge(followed: &[Followed]) -> Result<(), Fault> {
    let Some(worst) =
        followed.iter().filter(|followed| followed.exit != 0).max_by_key(|followed| followed.exit)
    else {
        return Ok(());
    };
    let message =
        format!("the image is published, but {} does not follow: {}", worst.environment, worst.state);
    let fault = match worst.exit {
        2 => Fault::usage(message),
        3 => Fault::refused(message),
        _ => Fault::remote(message),
    };
    let name = &worst.environment;
    Err(fault
        .help(format!("by hand: cargo xtask promote {name} edge; what CI needs for it: docs/promoting.md")))
}

fn promote(environment: &str, root: &Path) -> Result<Followed> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let args = ["promote", environment, "edge", "--follow", "--yes", "--json"];
    let mut last = None;
    for _ in 0..TRIES {
        let mut command = Command::new(&program);
        let output = command.args(args).current_dir(root).stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("cannot run {}", program.display()))?;
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let exit = output.status.code().unwrap_or(Kind::Remote as i32);
        let said = if exit == 0 { &answer["state"] } else { &answer["error"] };
        let said =
            said.as_str().map_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned(), str::to_owned);
        last = Some(Followed { environment: environment.to_owned(), state: said, exit });
        if exit != Kind::Race as i32 {
            break;
        }
    }
    last.context("nobody tried")
}
