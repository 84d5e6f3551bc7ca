//! `just bench-image`: what a push costs by skopeo and by this tool, in turns, each against a fresh docker-registry.
//!
//! It measures the dev build, which is what `cargo xtask` runs. A tool's own wall time, CPU time (user and system) and
//! peak memory come from wait4; the registry's share is in no CPU figure. It judges nothing: it ends with 0 whatever the
//! figures are, and with 1 only if it could not measure.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a benchmark stops at what it cannot do"
)]

mod case;
#[path = "../../tests/tools/docker_archive.rs"]
mod docker_archive;
#[path = "../../tests/tools/docker_registry.rs"]
mod docker_registry;
#[path = "../tools/measure.rs"]
mod measure;
#[path = "../../tests/tools/server.rs"]
mod server;
mod table;
#[path = "../tools/table.rs"]
mod tables;
mod wire;

use std::process::ExitCode;

use case::{CASES, Images};
use clap::Parser;

/// skopeo and xtask push the same image, in turns.
#[derive(Parser)]
struct Args {
    /// How often each is measured; the medians are shown
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measure only the cases whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Print the figures as one JSON object
    #[arg(long)]
    json: bool,
    /// What cargo passes to a benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    for program in ["skopeo", "docker-registry"] {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
            eprintln!("error: {program} is not on PATH\nhelp: apt install {program}");
            return ExitCode::FAILURE;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    eprintln!("making the image twice");
    let images = Images::make(folder.path());

    let chosen = CASES.iter().filter(|case| case.name.contains(&args.only));
    let results: Vec<_> = chosen.map(|case| case.measure(&images, args.rounds.max(1))).collect();
    if args.json {
        println!("{}", table::json(&results, args.rounds));
    } else {
        println!("{}", table::text(&results, args.rounds));
    }
    ExitCode::SUCCESS
}
