//! `just bench-release`: what the plan of a release costs in a long history, by this tool and by release-plz, in turns.
//!
//! `release --dry-run` against `release-plz update`, each in its own clone of the same repository. It measures the dev
//! build, which is what `cargo xtask` runs, without cargo's own start. Git and cargo, which both tools call, count: CPU
//! time (user and system) comes from wait4 and is the whole process tree's. It judges nothing: it ends with 0 whatever the
//! figures are, and with 1 only if it could not measure.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a benchmark stops at what it cannot do"
)]

mod history;
#[path = "../tools/measure.rs"]
mod measure;
#[path = "../../tests/tools/project.rs"]
mod project;
#[path = "../tools/table.rs"]
mod tables;

use std::process::{Command, ExitCode};

use clap::Parser;
use history::{COMMITS, NEXT, Project, TAGS};
use measure::{Sample, median, run};
use serde_json::{Value, json};
use tables::{Verdict, profile, table, wanted};

/// The plan of this tool takes at most so many CPU seconds, and this share of release-plz's.
const CPU: f64 = 0.5;
const RATIO: f64 = 0.1;

/// xtask and release-plz look at the same project, in turns.
#[derive(Parser)]
struct Args {
    /// How often each is measured; the medians are shown
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Print the figures as one JSON object
    #[arg(long)]
    json: bool,
    /// What cargo passes to a benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy)]
enum Tool {
    ReleasePlz,
    Xtask,
}

/// A tool's medians, or why there are none.
type Measured = Result<Sample, String>;

fn main() -> ExitCode {
    let args = Args::parse();
    let folder = tempfile::tempdir().unwrap();
    eprintln!("making {COMMITS} commits");
    let project = Project::make(folder.path());
    let [release_plz, xtask] = measure(&project, args.rounds.max(1));
    if args.json {
        println!("{}", as_json(&release_plz, &xtask, args.rounds));
    } else {
        println!("{}", text(&release_plz, &xtask, args.rounds));
    }
    if xtask.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// release-plz and this tool. Each first runs once untimed, so that both find git's files in memory.
fn measure(project: &Project, rounds: usize) -> [Measured; 2] {
    let tools = [Tool::ReleasePlz, Tool::Xtask];
    let mut samples = tools.map(|tool| tool.once(project).map(|_| Vec::new()));
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for (tool, samples) in tools.into_iter().zip(&mut samples) {
            let Ok(taken) = samples else { continue };
            match tool.once(project) {
                Ok(sample) => taken.push(sample),
                Err(why) => *samples = Err(why),
            }
        }
    }
    samples.map(|samples| samples.map(|samples| median(&samples)))
}

impl Tool {
    fn once(self, project: &Project) -> Measured {
        let mut command = match self {
            Self::ReleasePlz => {
                let mut command = Command::new("release-plz");
                command.arg("update").current_dir(&project.release_plz);
                command
            }
            Self::Xtask => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
                command.args(["release", NEXT, "--dry-run"]).current_dir(&project.xtask);
                command
            }
        };
        history::settings(&mut command);
        // Neither asks GitHub, and the cargo that runs this benchmark is not the projects'.
        for name in ["GITHUB_TOKEN", "GH_TOKEN", "CARGO_TARGET_DIR", "CARGO", "RUSTFLAGS"] {
            command.env_remove(name);
        }
        let sample = run(command);
        if matches!(self, Self::ReleasePlz) {
            project.restore();
        }
        sample
    }
}

fn verdicts(release_plz: &Measured, xtask: &Measured) -> Vec<Verdict> {
    let Ok(own) = xtask else { return Vec::new() };
    let verdict = |what: &str, value: f64, most: f64| Verdict {
        what: what.to_owned(),
        target: most.to_string(),
        value,
        met: value <= most,
    };
    let mut verdicts = vec![verdict("CPU seconds", own.cpu, CPU)];
    if let Ok(other) = release_plz {
        verdicts.push(verdict("CPU ratio to release-plz", own.cpu / other.cpu, RATIO));
    }
    verdicts
}

fn text(release_plz: &Measured, xtask: &Measured, rounds: usize) -> String {
    let mut figures = table(&["what", "wall s", "CPU s", "peak MB"]);
    let mut failures = String::new();
    let own = format!("xtask release {NEXT} --dry-run");
    for (what, measured) in [("release-plz update", release_plz), (own.as_str(), xtask)] {
        match measured {
            Ok(Sample { wall, cpu, peak }) => {
                let figure = |figure: &f64| format!("{figure:.3}");
                let peak = format!("{:.1}", *peak as f64 / 1e6);
                figures.add_row([what.to_owned(), figure(wall), figure(cpu), peak]);
            }
            Err(why) => failures += &format!("not measured: {what}: {why}\n"),
        }
    }
    if release_plz.as_ref().is_err_and(|why| why.starts_with("cannot run")) {
        failures += "help: cargo install release-plz --locked\n";
    }
    let [figures, wanted] = [figures, wanted(verdicts(release_plz, xtask))].map(|table| table.trim_fmt());
    format!(
        "{}; medians of {rounds} rounds, in turns; {COMMITS} commits, {TAGS} tags\n\n{figures}\n\n{failures}\n{wanted}",
        profile()
    )
}

fn as_json(release_plz: &Measured, xtask: &Measured, rounds: usize) -> Value {
    let wanted = tables::json(&verdicts(release_plz, xtask));
    let history = json!({ "commits": COMMITS, "tags": TAGS });
    json!({
        "build": profile(), "rounds": rounds, "history": history,
        "release-plz": release_plz, "xtask": xtask, "wanted": wanted,
    })
}
