//! Builds the image of a commit: by nix from the flake, or from cargo's binary with the shared libraries that it needs.
//!
//! Left out: DuckDB's static library, which the caller has built already, and anything about registries.

mod assemble;
mod cargo;
mod labels;
mod libraries;
mod tree;

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::fault::Fault;
use crate::image::oci::Config;
use crate::image::{Labels, sha_tag};
use crate::sbom;
pub use labels::labels;

/// How the image is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Builder {
    /// `nix build .#docker`: bit-identical on every machine
    Nix,
    /// The same image from `cargo build`: needs no nix, and takes this machine's shared libraries
    Cargo,
}

/// What the image is built from.
#[derive(Debug)]
pub struct Recipe<'a> {
    /// The project's root; its work tree is what is built.
    pub project: &'a Path,
    /// The image's name without a tag; `docker load` will add the tag of the commit.
    pub image: &'a str,
    pub labels: &'a Labels,
    /// The folder of DuckDB's static library; only cargo needs it, nix builds its own.
    pub duckdb: Option<&'a Path>,
    /// Further arguments for nix or cargo.
    pub extra: &'a [String],
}

/// What the builders leave in their folder, newest kind only.
const MADE: [&str; 2] = ["image.tar", "result"];

impl Builder {
    /// Builds into the folder `out` and gives the archive; `announce` gets each line that nix or cargo says.
    pub fn build(self, recipe: &Recipe<'_>, out: &Path, announce: &dyn Fn(&str)) -> anyhow::Result<PathBuf> {
        fs::create_dir_all(out).with_context(|| out.display().to_string())?;
        for name in MADE {
            let path = out.join(name);
            if path.symlink_metadata().is_ok() {
                fs::remove_file(&path).with_context(|| path.display().to_string())?;
            }
        }
        match self {
            Self::Nix => nix(recipe, &out.join("result"), announce),
            Self::Cargo => {
                let binary = cargo::build(recipe, announce)?;
                let archive = out.join("image.tar");
                let reference = format!("{}:{}", recipe.image, sha_tag(&recipe.labels.revision));
                assemble::assemble(&binary, recipe.labels, &reference, &archive)?;
                Ok(archive)
            }
        }
    }
}

impl std::fmt::Display for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nix => "nix",
            Self::Cargo => "cargo",
        })
    }
}

/// The bill of materials of an image that was built from the work tree at `project`; one of another commit is refused.
pub fn sbom(project: &Path, image: &str, config: &Config, tree: &Labels) -> anyhow::Result<String> {
    config.labels()?.must_agree_with(tree)?;
    let target = match config.architecture.as_str() {
        "amd64" => "x86_64-unknown-linux-gnu",
        "arm64" => "aarch64-unknown-linux-gnu",
        other => return Err(Fault::refused(format!("no target of Rust is known for {other}")).into()),
    };
    let lock = project.join("Cargo.lock");
    let lock = fs::read_to_string(&lock).with_context(|| lock.display().to_string())?;
    sbom::document(image, config, &cargo::tree(project, target)?, &lock)
}

/// What the last build left in the folder `out`.
pub fn built(out: &Path) -> Option<PathBuf> {
    MADE.map(|name| out.join(name)).into_iter().find(|path| path.exists())
}

fn nix(recipe: &Recipe<'_>, link: &Path, announce: &dyn Fn(&str)) -> anyhow::Result<PathBuf> {
    let mut nix = Command::new("nix");
    nix.args([
        "--extra-experimental-features",
        "nix-command flakes",
        "build",
        ".#docker",
        "-L",
        "--out-link",
    ]);
    nix.arg(link).args(recipe.extra).current_dir(recipe.project);
    let missing = Fault::usage("nix is not on PATH")
        .help("install nix, or build from cargo's binary: cargo xtask image build --builder cargo");
    run(&mut nix, missing, announce)?;
    Ok(link.to_owned())
}

/// Runs a build tool, passing on what it says on stderr, and gives its stdout.
fn run(command: &mut Command, missing: Fault, announce: &dyn Fn(&str)) -> anyhow::Result<String> {
    let name = Path::new(command.get_program()).file_name().map(OsStr::to_os_string).unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => anyhow::Error::from(missing),
        _ => anyhow::Error::from(error).context(name.clone()),
    })?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (output, last) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut text = String::new();
            stdout.map_or(Ok(0), |mut stdout| stdout.read_to_string(&mut text)).map(|_| text)
        });
        let last = last_lines(stderr, announce);
        (reader.join(), last)
    });
    let status = child.wait()?;
    if !status.success() {
        let said = Vec::from(last).join("\n");
        return Err(Fault::refused(format!("{name} failed ({status}):\n{said}")).into());
    }
    output.unwrap_or_else(|_| Ok(String::new())).context(name)
}

/// The end of what a tool said, for the error if it fails.
fn last_lines(stderr: Option<impl Read>, announce: &dyn Fn(&str)) -> VecDeque<String> {
    let mut last = VecDeque::new();
    for line in
        stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).split(b'\n')).map_while(Result::ok)
    {
        let line = String::from_utf8_lossy(&line).into_owned();
        announce(&line);
        if last.len() == 25 {
            last.pop_front();
        }
        last.push_back(line);
    }
    last
}
