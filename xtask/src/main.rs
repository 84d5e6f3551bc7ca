//! `cargo xtask`: builds, releases, promotes and rolls back dojo. One verb, one file.

#![allow(dead_code, reason = "taken out when the commands are wired")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

mod archive;
mod builder;
mod changelog;
mod check;
mod fault;
mod image;
mod image_cmd;
mod kustomization;
mod kustomize;
mod manifest;
mod pin;
mod pipeline;
mod registry;
mod version;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about)]
enum Cli {
    /// Check the rendered manifests of every environment
    Check(check::Args),
    /// Build, push, load and inspect images
    #[command(subcommand)]
    Image(image_cmd::Command),
    /// Read or change the pin in one kustomization file
    #[command(subcommand)]
    Pin(pin::Command),
}

fn main() -> ExitCode {
    let result = match Cli::parse() {
        Cli::Image(command) => root().and_then(|root| image_cmd::run(&command, &root)),
        Cli::Check(args) => root().and_then(|root| check::run(&args, &root)),
        Cli::Pin(command) => pin::run(&command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(fault::exit_code(&error))
        }
    }
}

/// The project: the nearest folder upwards that has a `deploy/pipeline.yaml`.
fn root() -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir()?;
    let root = here.ancestors().find(|folder| folder.join(pipeline::PATH).is_file());
    root.map(PathBuf::from).ok_or_else(|| fault::Fault::usage("no deploy/pipeline.yaml here").into())
}
