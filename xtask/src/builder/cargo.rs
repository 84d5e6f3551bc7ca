//! The release binary by cargo, wherever cargo's configuration puts it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::{Recipe, run};
use crate::fault::Fault;
use crate::image::DIRTY;
use crate::sbom;

/// A line of cargo's JSON messages, as far as it matters here.
#[derive(Deserialize)]
struct Message {
    reason: String,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// The name of the package and of its binary.
const NAME: &str = "dojo";

pub fn build(recipe: &Recipe<'_>, announce: &dyn Fn(&str)) -> anyhow::Result<PathBuf> {
    let duckdb = recipe.duckdb.ok_or_else(|| {
        Fault::usage("cargo needs the folder of DuckDB's static library").help("set DUCKDB_LIB_DIR to it")
    })?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--locked", "--no-default-features", "--package", NAME]);
    cargo.arg("--message-format=json-render-diagnostics").args(recipe.extra);
    cargo.env("DUCKDB_STATIC", "1").env("DUCKDB_LIB_DIR", duckdb);
    // The service says whether it was built from uncommitted changes by the image's label alone.
    cargo.env("DOJO_COMMIT", recipe.labels.revision.trim_end_matches(DIRTY));
    cargo.current_dir(recipe.project);
    let messages = run(&mut cargo, Fault::usage("cargo is not on PATH").help("install Rust"), announce)?;
    executable(&messages).ok_or_else(|| Fault::refused(format!("cargo built no binary called {NAME}")).into())
}

/// What is linked into the binary for a target such as `x86_64-unknown-linux-gnu`, as [`sbom::document`] reads it. Cargo
/// downloads the crates that this machine does not have.
pub fn tree(project: &Path, target: &str) -> anyhow::Result<String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["tree", "--locked", "--no-default-features", "--package", NAME, "--target", target]);
    cargo.args(["--edges", "normal,no-proc-macro", "--prefix", "depth", "--charset", "ascii"]);
    cargo.args(["--color", "never", "--format", sbom::TREE_FORMAT]).current_dir(project);
    run(&mut cargo, Fault::usage("cargo is not on PATH").help("install Rust"), &|_| {})
}

fn executable(messages: &str) -> Option<PathBuf> {
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    let ours = |message: &Message| {
        message.reason == "compiler-artifact"
            && message.target.as_ref().is_some_and(|target| target.name == NAME)
    };
    artifacts.filter(ours).find_map(|message| message.executable)
}
