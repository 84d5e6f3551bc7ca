//! `ci`: what GitHub Actions runs, and what a person runs before pushing.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::duckdb;
use crate::fault::Fault;

mod follow;
mod page;
mod publish;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask ci                           all checks and tests
  cargo xtask ci --require-tools           the same, and no test may be skipped
  GITHUB_REF=refs/heads/master cargo xtask ci publish")]
pub struct Args {
    #[command(subcommand)]
    job: Option<Job>,
    /// Fail, where a test would be skipped because a program is missing.
    #[arg(long, global = true)]
    require_tools: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Job {
    /// All checks and tests (the default).
    Test,
    /// Build and push the image that GITHUB_REF asks for, name it, and publish a version's release.
    Publish(publish::Args),
}

pub fn run(args: &Args, root: &Path) -> Result<()> {
    match &args.job {
        Some(Job::Publish(publish)) => publish::run(publish, root),
        Some(Job::Test) | None => test(args.require_tools, root),
    }
}

/// Both packages, with dojo linked against the ready DuckDB instead of compiling its own.
const OURS: [&str; 3] = ["--workspace", "--no-default-features", "--locked"];

fn test(require_tools: bool, root: &Path) -> Result<()> {
    let library = duckdb::library(&root.join("dojo/engine"), &|line| eprintln!("{line}"))?;
    let skips = tempfile::NamedTempFile::new()?;
    let cargo = |args: &[&str]| -> Result<()> {
        let shown = args.iter().take_while(|arg| **arg != "--").copied().collect::<Vec<_>>().join(" ");
        eprintln!("\n== cargo {shown}");
        let start = Instant::now();
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(args).current_dir(root);
        command.env("DUCKDB_STATIC", "1").env("DUCKDB_LIB_DIR", &library);
        command.env("DOJO_SKIPS", skips.path()).env("RUSTDOCFLAGS", "-D warnings");
        if require_tools {
            command.env("DOJO_REQUIRE_TOOLS", "1");
        }
        let status = command.status().context("cannot run cargo")?;
        if status.success() {
            eprintln!("== ok after {:.0} s", start.elapsed().as_secs_f64());
            return Ok(());
        }
        Err(Fault::refused(format!("cargo {shown} failed")).help("its output stands above").into())
    };
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&[&["clippy"], &OURS[..], &["--all-targets", "--", "-D", "warnings"]].concat())?;
    cargo(&[&["doc"], &OURS[..], &["--no-deps", "--document-private-items"]].concat())?;
    cargo(&[&["test"], &OURS[..]].concat())?;
    tell_skips(&std::fs::read_to_string(skips.path())?);
    Ok(())
}

/// Lines are `TEST\tWHAT\tREMEDY`, written by the tests themselves: libtest hides what a passing test prints.
fn tell_skips(skips: &str) {
    let lines: BTreeSet<_> = skips.lines().collect();
    if lines.is_empty() {
        println!("all checks passed; no test was skipped");
        return;
    }
    let tests: BTreeSet<_> = lines.iter().filter_map(|line| line.split('\t').next()).collect();
    println!(
        "all checks passed; {} tests were skipped, whole or in part (.ci/run installs what they need):",
        tests.len()
    );
    for line in lines {
        let mut fields = line.split('\t');
        let mut next = || fields.next().unwrap_or("?");
        println!("  {}: needs {} ({})", next(), next(), next());
    }
}
