//! What is measured: the cases, and how each tool does them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Serialize;
use tempfile::TempDir;

use crate::docker_archive;
use crate::docker_registry::Registry;
use crate::measure::{Sample, median, run};
use crate::wire::Wire;

/// 30 layers, 197 MB, skewed as a closure's are: one of 95 MB, and 29 that fall from 18 MB to 50 kB.
pub struct Images {
    first: PathBuf,
    /// The same but for its largest layer.
    changed: PathBuf,
}

impl Images {
    pub fn make(folder: &Path) -> Self {
        let others = (1..30).map(|n| ((18_200.0 * 0.814_f64.powi(n - 1)).max(50.0) as u64 * 1024, n as u64));
        let [first, changed] = [("first.tar", 0), ("changed.tar", 1000)].map(|(name, seed)| {
            let layers: Vec<_> = std::iter::once((95_000 * 1024, seed)).chain(others.clone()).collect();
            let path = folder.join(name);
            docker_archive::write(&path, &layers, &"0123456789".repeat(4)).unwrap();
            path
        });
        Self { first, changed }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Job {
    First,
    Unchanged,
    Changed,
    Retag,
}

/// What the ratio of this tool to skopeo should be at most.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Cpu(f64),
    Wall(f64),
}

pub struct Case {
    pub name: &'static str,
    job: Job,
    /// Each tool's compression: skopeo's, and this tool's.
    compression: [&'static str; 2],
    /// skopeo keeps its cache of digests from the push before; else both start with an empty home.
    warm: bool,
    /// How far away the registry is: a round trip, in milliseconds.
    away: u64,
    pub target: Option<Target>,
}

const GZIP: [&str; 2] = ["gzip", "gzip"];

pub const CASES: [Case; 8] = [
    Case {
        name: "first push, gzip",
        job: Job::First,
        compression: GZIP,
        warm: false,
        away: 0,
        target: Some(Target::Cpu(0.55)),
    },
    Case {
        name: "first push, zstd to skopeo's gzip",
        job: Job::First,
        compression: ["gzip", "zstd"],
        warm: false,
        away: 0,
        target: Some(Target::Cpu(0.3)),
    },
    Case {
        name: "first push, zstd",
        job: Job::First,
        compression: ["zstd"; 2],
        warm: false,
        away: 0,
        target: None,
    },
    Case {
        name: "unchanged, fresh runner",
        job: Job::Unchanged,
        compression: GZIP,
        warm: false,
        away: 0,
        target: Some(Target::Cpu(0.02)),
    },
    Case {
        name: "95 MB layer changed, fresh runner",
        job: Job::Changed,
        compression: GZIP,
        warm: false,
        away: 0,
        target: Some(Target::Cpu(0.3)),
    },
    Case {
        name: "95 MB layer changed, skopeo's cache warm",
        job: Job::Changed,
        compression: GZIP,
        warm: true,
        away: 0,
        target: None,
    },
    Case {
        name: "retag",
        job: Job::Retag,
        compression: GZIP,
        warm: false,
        away: 0,
        target: Some(Target::Wall(0.1)),
    },
    Case {
        name: "retag, 20 ms away",
        job: Job::Retag,
        compression: GZIP,
        warm: false,
        away: 20,
        target: None,
    },
];

/// One tool's medians, and the bytes that one further run sent.
#[derive(Serialize)]
pub struct Figures {
    #[serde(flatten)]
    pub median: Sample,
    pub sent: u64,
}

#[derive(Serialize)]
pub struct Measured {
    pub case: &'static str,
    pub target: Option<Target>,
    /// Nothing but manifests may be sent.
    pub no_layer: bool,
    /// Or why it could not be done.
    pub skopeo: Result<Figures, String>,
    pub xtask: Result<Figures, String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tool {
    Skopeo,
    Xtask,
}

impl Case {
    pub fn measure(&self, images: &Images, rounds: usize) -> Measured {
        let mut samples = [const { Vec::new() }; 2];
        let mut failed = [const { None }; 2];
        for round in 1..=rounds {
            eprintln!("{}: round {round} of {rounds}", self.name);
            for (index, tool) in [Tool::Skopeo, Tool::Xtask].into_iter().enumerate() {
                if failed[index].is_none() {
                    match self.once(tool, images, false) {
                        Ok((sample, _)) => samples[index].push(sample),
                        Err(why) => failed[index] = Some(why),
                    }
                }
            }
        }
        let mut figures = [Tool::Skopeo, Tool::Xtask].into_iter().zip(samples).zip(failed).map(
            |((tool, samples), failed)| {
                let (_, sent) = failed.map_or_else(|| self.once(tool, images, true), Err)?;
                Ok(Figures { median: median(&samples), sent })
            },
        );
        let (skopeo, xtask) = (figures.next().unwrap(), figures.next().unwrap());
        drop(figures);
        Measured {
            case: self.name,
            target: self.target,
            no_layer: matches!(self.job, Job::Unchanged | Job::Retag),
            skopeo,
            xtask,
        }
    }

    /// One run against a fresh registry, and the bytes that it sent if they were counted.
    fn once(&self, tool: Tool, images: &Images, counted: bool) -> Result<(Sample, u64), String> {
        let (registry, mut home) = (Registry::open(), tempfile::tempdir().unwrap());
        // Nothing stands between in a timed run, unless the distance is what is measured.
        let wire =
            (counted || self.away > 0).then(|| Wire::to(&registry.host, Duration::from_millis(self.away)));
        let host = wire.as_ref().map_or(&registry.host, |wire| &wire.host);
        let repository = format!("{host}/team/dojo");
        if self.job != Job::First {
            let from_near = format!("{}/team/dojo", registry.host);
            let repository = if self.away > 0 { &from_near } else { &repository };
            run(self.push(tool, &images.first, repository, &home))?;
        }
        if !self.warm {
            home = tempfile::tempdir().unwrap();
        }
        let command = match self.job {
            Job::First | Job::Unchanged => self.push(tool, &images.first, &repository, &home),
            Job::Changed => self.push(tool, &images.changed, &repository, &home),
            Job::Retag => tool.retag(&repository, &home),
        };
        if let Some(wire) = &wire {
            wire.reset();
        }
        let sample = run(command)?;
        Ok((sample, wire.map_or(0, |wire| wire.sent())))
    }

    fn push(&self, tool: Tool, archive: &Path, repository: &str, home: &TempDir) -> Command {
        let mut command = tool.command(home);
        let [skopeo, own] = self.compression;
        match tool {
            Tool::Skopeo => {
                command.args([
                    "copy",
                    "--quiet",
                    "--dest-tls-verify=false",
                    "--dest-compress-format",
                    skopeo,
                ]);
                command.arg(format!("docker-archive:{}", archive.display()));
                command.arg(format!("docker://{repository}:edge"));
            }
            Tool::Xtask => {
                command
                    .args(["image", "push", "--repository", repository, "--tag", "edge", "--archive"])
                    .arg(archive);
                if own != "gzip" {
                    command.args(["--compression", own]);
                }
            }
        }
        command
    }
}

impl Tool {
    fn retag(self, repository: &str, home: &TempDir) -> Command {
        let mut command = self.command(home);
        match self {
            Self::Skopeo => {
                command.args(["copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"]);
                command.args(["edge", "v0.1.0"].map(|tag| format!("docker://{repository}:{tag}")));
            }
            Self::Xtask => {
                command.args(["image", "retag", "--repository", repository, "edge", "v0.1.0"]);
            }
        }
        command
    }

    /// As on a fresh runner: an empty home, and nobody's settings.
    fn command(self, home: &TempDir) -> Command {
        let mut command = match self {
            Self::Skopeo => Command::new("skopeo"),
            Self::Xtask => Command::new(env!("CARGO_BIN_EXE_xtask")),
        };
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home.path());
        if self == Self::Skopeo {
            command.arg("--insecure-policy");
            // Else root's cache of digests is one in /var/lib, wherever its home is.
            command.env("_CONTAINERS_ROOTLESS_UID", "1000").env("XDG_RUNTIME_DIR", home.path());
        } else {
            command.current_dir(env!("CARGO_MANIFEST_DIR"));
        }
        command
    }
}
