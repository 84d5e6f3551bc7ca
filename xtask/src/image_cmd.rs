//! `image …`: the image of this commit, from the work tree to a registry or the local docker, and any image by its names.

mod diff;
mod inspect;
mod load;
mod retag;
mod sbom;
mod show;
mod target;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::archive;
use crate::builder::{self, Builder, Recipe};
use crate::duckdb;
use crate::fault::Fault;
use crate::image::{Compression, sha_tag};
use crate::pipeline::Pipeline;
use crate::registry::{self, CacheFrom};
use crate::terminal::Spinner;
use show::Bar;
use target::{Where, built};

/// Where images are built, below the project's root.
const OUT: &str = "target/image";

#[derive(Debug, Subcommand)]
pub enum Command {
    Build(Build),
    Push(Push),
    Retag(retag::Args),
    Inspect(inspect::Args),
    Diff(diff::Args),
    Load(load::Args),
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
/// another digest, and an image of uncommitted changes gets neither; all other tags go where they are told. What such a
/// tag names already, and an OCI layout whose layers are compressed, is pushed as it is, whatever --compression says: to
/// give an image a further name without making it anew, use `image retag`.
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
    #[command(flatten)]
    at: Where,
    /// A name for it, may be repeated [default: sha- and the commit's first 12 digits]
    #[arg(long = "tag", value_name = "T")]
    tags: Vec<String>,
    /// An image whose layers need not be read or sent again, in the same or another repository
    #[arg(long, value_name = "[R:]TAG", default_value = "edge")]
    cache_from: String,
    /// How layers are stored [default: the pipeline's, else gzip]
    #[arg(long, value_enum)]
    compression: Option<Compression>,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(command: &Command, root: &Path) -> anyhow::Result<()> {
    match command {
        Command::Build(args) => build(args, root),
        Command::Push(args) => push(args, root),
        Command::Retag(args) => retag::run(args, root),
        Command::Inspect(args) => inspect::run(args, root),
        Command::Diff(args) => diff::run(args, root),
        Command::Load(args) => load::run(args, root),
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
    let registry = args.at.registry(root)?;
    let mut tags = args.tags.clone();
    if tags.is_empty() {
        let revision = image.told()?.revision;
        tags.push(sha_tag(&revision.ok_or_else(|| {
            Fault::usage("the image names no commit, so it has no tag of its own")
                .help("name one: --tag NAME")
        })?));
    }
    let compression = match (args.compression, &args.at.repository) {
        (Some(compression), _) => compression,
        (None, Some(_)) => Compression::default(),
        (None, None) => Pipeline::load(root)?.compression,
    };
    let how = registry::Push { tags: &tags, cache_from: cache_from(args, root)?, compression };
    let bar = Bar::start(image.bytes());
    let pushed = registry.push(&image, &how, &|progress| bar.step(progress))?;
    bar.end();
    show::pushed(&registry, &tags, &pushed, args.json)
}

/// `TAG`, or a tag of another repository.
fn cache_from(args: &Push, root: &Path) -> anyhow::Result<CacheFrom> {
    match args.cache_from.rsplit_once(':') {
        Some((repository, tag)) => Ok(CacheFrom::Other(args.at.beside(repository, root)?, tag.to_owned())),
        None => Ok(CacheFrom::Tag(args.cache_from.clone())),
    }
}
