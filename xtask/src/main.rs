//! `cargo xtask`: builds, releases, promotes and rolls back dojo. One verb, one file; this one only chooses.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[macro_use]
mod terminal;

mod archive;
mod board;
mod bounded;
mod builder;
mod changelog;
mod check;
mod checks;
mod ci;
mod cluster;
mod data_file;
mod deploy;
mod docker;
mod doctor;
mod duckdb;
mod engine;
mod environment;
mod fault;
mod gate;
mod git;
mod github;
mod history;
mod hold;
mod image;
mod image_cmd;
mod infra;
mod init;
mod kustomization;
mod kustomize;
mod manifest;
mod observe;
mod pin;
mod pin_log;
mod pipeline;
mod program;
mod registry;
mod rehearse;
mod release;
mod report;
mod sbom;
mod service;
mod situation;
mod span;
mod status;
mod trailers;
mod version;
mod workload;

/// Builds, releases, promotes and rolls back dojo.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, or nothing to do; 1 a remote failed or is not ready, run it again; 2 usage, \
configuration, credentials or a missing tool; 3 refused by a guard; 4 lost a race."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Play the whole pipeline inside one folder: real git, a real image, the real service.
    Rehearse(rehearse::Args),
    /// Cut a release: prepare, wait for CI, tag, see it published.
    Release(release::Args),
    /// Make an environment run another image.
    Promote(deploy::PromoteArgs),
    /// Make an environment run what it ran before.
    Rollback(deploy::RollbackArgs),
    /// Let nobody change what an environment pins.
    Hold(hold::HoldArgs),
    /// End a hold.
    Unhold(hold::UnholdArgs),
    /// What each environment pins and runs, what is wrong, and what to do.
    Status(status::Args),
    /// The same as one page for a browser, with what happened and what waits.
    Board(board::Args),
    /// Pin what an environment runs, where its pin was lost or broken.
    Adopt(deploy::AdoptArgs),
    /// What a promotion would change: commits, migrations, manifests, required keys, bytes to pull.
    Diff(deploy::DiffArgs),
    /// Who changed what an environment pins, when, from what to what, and why.
    Log(pin_log::Args),
    /// Build, push, load and inspect images.
    #[command(subcommand)]
    Image(image_cmd::Command),
    /// Read and set an image's pin in a kustomization, losslessly.
    #[command(subcommand)]
    Pin(pin::Command),
    /// Render the manifests and hold them against the rules.
    Check(check::Args),
    /// All checks and tests; and the steps of GitHub Actions.
    Ci(ci::Args),
    /// Make this checkout another owner's: names, hosts, and an infra repository to start from.
    Init(init::Args),
    /// Compile DuckDB once, and print the folder with its library.
    Engine(engine::Args),
    /// Which tools, logins and remotes this machine has.
    Doctor(doctor::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    terminal::show_notices();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(fault::exit_code(&error))
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    match &cli.verb {
        Verb::Pin(command) => pin::run(command),
        Verb::Rehearse(args) => rehearse::run(args, &root()?),
        Verb::Release(args) => release::run(args, &root()?),
        Verb::Promote(args) => deploy::promote(args, &root()?),
        Verb::Rollback(args) => deploy::rollback(args, &root()?),
        Verb::Hold(args) => hold::hold(args, &root()?),
        Verb::Unhold(args) => hold::unhold(args, &root()?),
        Verb::Status(args) => status::run(args, &root()?),
        Verb::Board(args) => board::run(args, &root()?),
        Verb::Adopt(args) => deploy::adopt(args, &root()?),
        Verb::Diff(args) => deploy::diff(args, &root()?),
        Verb::Log(args) => pin_log::run(args, &root()?),
        Verb::Image(command) => image_cmd::run(command, &root()?),
        Verb::Check(args) => check::run(args, &root()?),
        Verb::Ci(args) => ci::run(args, &root()?),
        Verb::Init(args) => init::run(args, &root()?),
        Verb::Engine(args) => engine::run(args, &root()?),
        Verb::Doctor(args) => doctor::run(args, &root()?),
    }
}

/// The project: the nearest folder upwards that has a `deploy/pipeline.yaml`.
fn root() -> Result<PathBuf> {
    let here = std::env::current_dir()?;
    let root = here.ancestors().find(|folder| folder.join(pipeline::PATH).is_file());
    root.map(PathBuf::from).ok_or_else(|| {
        fault::Fault::usage(format!("{} lies in no project with a {}", here.display(), pipeline::PATH))
            .help("run it inside a checkout of the project")
            .into()
    })
}
