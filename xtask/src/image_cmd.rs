//! `image build|push|load|inspect|sbom`: the image of this commit, from the work tree to a registry or the local docker.

mod sbom;
mod show;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use clap::{Args, Subcommand};

use crate::archive;
use crate::builder::{self, Builder, Recipe};
use crate::duckdb;
use crate::fault::Fault;
use crate::image::{Digest, sha_tag};
use crate::pipeline::Pipeline;
use crate::registry::Registry;
use crate::terminal::Spinner;
use show::Bar;

/// Where images are built, below the project's root.
const OUT: &str = "target/image";

#[derive(Debug, Subcommand)]
pub enum Command {
    Build(Build),
    Push(Push),
    Load(Load),
    Inspect(Inspect),
    Sbom(sbom::Args),
}

/// Build the image of the work tree, by nix or from cargo's binary.
///
/// The image's labels name the commit, and `-dirty` if there are uncommitted changes.
///
/// Examples:
///   cargo xtask image build
///   cargo xtask image build --builder cargo
///   cargo xtask image build -- --offline        (the rest goes to nix or cargo)
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Build {
    /// What builds it
    #[arg(long, value_enum, default_value_t = Builder::Nix)]
    builder: Builder,
    /// The folder to build into [default: target/image]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Further arguments for nix or cargo
    #[arg(last = true)]
    extra: Vec<String>,
}

/// Send a built image to the registry, under the tag of its commit.
///
/// Only what the registry does not have is sent; after a failure, run it again. A version or `sha-…` tag never moves to
/// another digest, and an image of uncommitted changes gets neither.
///
/// Examples:
///   cargo xtask image push
///   cargo xtask image push --archive result --tag edge
///   cargo xtask image push --repository localhost:5000/dojo --json
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Push {
    /// The image: an OCI layout (folder or tar) or a docker archive [default: what `image build` made]
    #[arg(long, value_name = "FILE")]
    archive: Option<PathBuf>,
    /// Where to: `oci:FOLDER` or `HOST[:PORT]/NAME` [default: the pipeline's registry]
    #[arg(long, value_name = "R")]
    repository: Option<String>,
    /// A name for it, may be repeated [default: sha- and the commit's first 12 digits]
    #[arg(long = "tag", value_name = "T")]
    tags: Vec<String>,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// Load a built image into docker, or podman where there is no docker.
///
/// Examples:
///   cargo xtask image load
///   cargo xtask image load --archive result
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Load {
    /// The image's file [default: what `image build` made]
    #[arg(long, value_name = "FILE")]
    archive: Option<PathBuf>,
}

/// Show what an image is: its digest, where it came from, and its layers by size.
///
/// Examples:
///   cargo xtask image inspect                   (what `image build` made)
///   cargo xtask image inspect edge
///   cargo xtask image inspect v0.1.0 --json
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Inspect {
    /// A tag or a digest in the registry [default: what `image build` made]
    #[arg(value_name = "REF")]
    reference: Option<String>,
    /// Where to look: `oci:FOLDER` or `HOST[:PORT]/NAME` [default: the pipeline's registry]
    #[arg(long, value_name = "R")]
    repository: Option<String>,
    /// Print it as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(command: &Command, root: &Path) -> anyhow::Result<()> {
    match command {
        Command::Build(args) => build(args, root),
        Command::Push(args) => push(args, root),
        Command::Load(args) => load(args, root),
        Command::Inspect(args) => inspect(args, root),
        Command::Sbom(args) => sbom::run(args, root),
    }
}

fn build(args: &Build, root: &Path) -> anyhow::Result<()> {
    let pipeline = Pipeline::load(root)?;
    let labels = builder::labels(root, &pipeline.repository)?;
    let duckdb = match args.builder {
        Builder::Cargo => Some(duckdb::library(&root.join("dojo/engine"), &|line| eprintln!("{line}"))?),
        Builder::Nix => None,
    };
    let recipe = Recipe {
        project: root,
        image: &pipeline.image,
        labels: &labels,
        duckdb: duckdb.as_deref(),
        extra: &args.extra,
    };
    let out = args.out.clone().unwrap_or_else(|| root.join(OUT));
    let spinner = Spinner::start("building");
    let path = args.builder.build(&recipe, &out, &|line| spinner.say(line))?;
    drop(spinner);

    let image = archive::read(&path)?;
    image.labels()?.must_agree_with(&labels)?;
    show::built(&path, &image, &labels);
    Ok(())
}

fn push(args: &Push, root: &Path) -> anyhow::Result<()> {
    let image = archive::read(&built(args.archive.as_deref(), root)?)?;
    let registry = registry(args.repository.as_deref(), root)?;
    let mut tags = args.tags.clone();
    if tags.is_empty() {
        tags.push(sha_tag(&image.labels()?.revision));
    }
    let bar = Bar::start(image.layers.iter().map(|layer| layer.size).sum());
    let pushed = registry.push(&image, &tags[0], &|progress| bar.step(progress))?;
    for tag in &tags[1..] {
        registry.tag(&pushed.digest, tag)?;
    }
    bar.end();
    show::pushed(&registry, &tags, &pushed, args.json)
}

fn load(args: &Load, root: &Path) -> anyhow::Result<()> {
    let path = built(args.archive.as_deref(), root)?;
    if path.is_dir() {
        let fault = Fault::usage(format!("{}: docker loads files, not folders", path.display()));
        return Err(fault.help("name a tar, or push it to a registry").into());
    }
    archive::read(&path)?;
    for program in ["docker", "podman"] {
        let spawned = Process::new(program).arg("load").stdin(Stdio::from(File::open(&path)?)).status();
        match spawned {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => {
                let fault = Fault::usage(format!("{program} load failed ({status})"));
                return Err(fault.help(format!("is {program} running, and may you use it?")).into());
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Fault::usage("neither docker nor podman is on PATH").help("install one of them").into())
}

fn inspect(args: &Inspect, root: &Path) -> anyhow::Result<()> {
    let Some(reference) = &args.reference else {
        let path = built(None, root)?;
        return show::archive(&path, &archive::read(&path)?, args.json);
    };
    let registry = registry(args.repository.as_deref(), root)?;
    let digest: Digest = match reference.parse() {
        Ok(digest) => digest,
        Err(_) => registry.resolve(reference)?.ok_or_else(|| {
            Fault::refused(format!("{registry} has no image {reference}"))
                .help("cargo xtask status shows what runs")
        })?,
    };
    show::stored(&registry, reference, &digest, args.json)
}

fn built(named: Option<&Path>, root: &Path) -> Result<PathBuf, Fault> {
    named.map(Path::to_owned).or_else(|| builder::built(&root.join(OUT))).ok_or_else(|| {
        Fault::usage(format!("no image was built in {OUT}")).help("build it first: cargo xtask image build")
    })
}

fn registry(named: Option<&str>, root: &Path) -> anyhow::Result<Registry> {
    match named {
        // What is typed is relative to where it is typed.
        Some(location) => Registry::open(location, Path::new("")),
        None => Registry::open(Pipeline::load(root)?.registry(), root),
    }
}
