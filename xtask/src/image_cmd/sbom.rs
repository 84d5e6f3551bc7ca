//! `image sbom`: the bill of materials of what was built here, or the one that is attached to an image in the registry.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::target::{Where, built};
use crate::archive;
use crate::builder;
use crate::fault::Fault;
use crate::image::oci::Config;
use crate::pipeline::Pipeline;
use crate::registry::Registry;
use crate::sbom::MEDIA_TYPE;

/// Print an image's bill of materials (SBOM), a CycloneDX document.
///
/// Of an image in the registry it is the one that `ci publish` attached. Of what `image build` made, it is made now: by
/// cargo, as long as the commit that it was built from is checked out.
///
/// Examples:
///   cargo xtask image sbom                      (what `image build` made)
///   cargo xtask image sbom --archive result
///   cargo xtask image sbom v0.1.0
///   cargo xtask image sbom edge --out sbom.cdx.json
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A tag or a digest in the registry [default: what `image build` made]
    #[arg(value_name = "REF")]
    reference: Option<String>,
    /// An image's file or layout folder in place of REF
    #[arg(long, value_name = "FILE", conflicts_with_all = ["reference", "repository"])]
    archive: Option<PathBuf>,
    #[command(flatten)]
    at: Where,
    /// The file to write [default: stdout]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn run(args: &Args, root: &Path) -> anyhow::Result<()> {
    let document = match &args.reference {
        Some(reference) => attached(reference, &args.at.registry(root)?)?,
        None => of_build(args.archive.as_deref(), root)?.into_bytes(),
    };
    match &args.out {
        Some(path) => std::fs::write(path, document).with_context(|| path.display().to_string()),
        // Somebody else may have attached it.
        None if std::io::stdout().is_terminal() => {
            println!("{}", String::from_utf8_lossy(&document).trim_end());
            Ok(())
        }
        None => Ok(std::io::stdout().write_all(&document)?),
    }
}

fn of_build(archive: Option<&Path>, root: &Path) -> anyhow::Result<String> {
    let path = built(archive, root)?;
    let pipeline = Pipeline::load(root)?;
    let config: Config = serde_json::from_slice(&archive::read(&path)?.config)
        .map_err(|error| Fault::refused(format!("{}: {error}", path.display())))?;
    let tree = builder::labels(root, &pipeline.repository)?;
    builder::sbom(root, &pipeline.image, &config, &tree)
}

fn attached(reference: &str, registry: &Registry) -> anyhow::Result<Vec<u8>> {
    let digest = registry.find(reference)?;
    let mut referrers = registry.referrers(&digest)?.into_iter();
    let bill = referrers.find(|referrer| referrer.kind == MEDIA_TYPE).ok_or_else(|| {
        Fault::refused(format!("{registry}: no SBOM is attached to {reference}"))
            .help("cargo xtask ci publish attaches one, also to an image that is there already")
    })?;
    registry.attached(&bill.digest)
}
