//! `cargo xtask`: builds, releases, promotes and rolls back dojo. One verb, one file.

#![allow(dead_code, reason = "skeleton: taken out when the commands are wired")]

mod changelog;
mod fault;
mod image;
mod kustomization;
mod manifest;
mod pin;
mod pipeline;
mod version;

use std::process::ExitCode;

use clap::Parser as _;

#[derive(Debug, clap::Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Read or change the pin in one kustomization file
    #[command(subcommand)]
    Pin(pin::Command),
}

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Pin(command) => pin::run(&command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(fault::exit_code(&error))
        }
    }
}
