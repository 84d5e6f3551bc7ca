//! `image load`: an image into the local docker or podman.

use std::path::{Path, PathBuf};

use super::show::{self, Bar};
use super::target::{Where, built};
use crate::archive;
use crate::docker::{self, Archive, Layer};
use crate::image::platform::Platform;
use crate::image::{Digest, Told, sha_tag};
use crate::pipeline::Pipeline;
use crate::registry::Progress;

/// Load an image into docker, or podman where there is no docker: what was built, or one of the registry.
///
/// It gets the pipeline's name for it, with the tag that was asked for or else that of its commit; an image that names no
/// commit gets no name.
///
/// Examples:
///   cargo xtask image load                      (what `image build` made)
///   cargo xtask image load --archive result
///   cargo xtask image load v0.1.0
///   cargo xtask image load edge --repository localhost:5000/dojo --platform linux/arm64
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A tag or a digest in the registry [default: what `image build` made]
    #[arg(value_name = "REF")]
    reference: Option<String>,
    /// An image's file or layout folder in place of REF
    #[arg(long, value_name = "FILE", conflicts_with_all = ["reference", "repository", "platform"])]
    archive: Option<PathBuf>,
    #[command(flatten)]
    at: Where,
    /// Of an image for several platforms, the one to load: `OS/ARCH[/VARIANT]` [default: this machine's]
    #[arg(long, value_name = "P", requires = "reference")]
    platform: Option<Platform>,
}

pub fn run(args: &Args, root: &Path) -> anyhow::Result<()> {
    let name = Pipeline::load(root)?.image;
    let Some(reference) = &args.reference else {
        let image = archive::read(&built(args.archive.as_deref(), root)?)?;
        let layers = image.layers.iter().map(|layer| Layer {
            diff_id: layer.diff_id.clone(),
            size: layer.size,
            open: Box::new(|| Ok(layer.open()?)),
        });
        let tag = image.told()?.revision.map(|revision| sha_tag(&revision));
        return load(&image.config, layers.collect(), &name, tag);
    };
    let registry = args.at.registry(root)?;
    let wanted = args.platform.clone().unwrap_or_else(Platform::here);
    let found = registry.image(&registry.find(reference)?, Some(&wanted))?;
    let parts = found.manifest.layers.iter().zip(&found.config.rootfs.diff_ids);
    let layers = parts.map(|(descriptor, diff_id)| Layer {
        diff_id: diff_id.clone(),
        size: descriptor.size,
        open: Box::new(|| registry.layer(descriptor)),
    });
    let tag = match reference.parse::<Digest>() {
        Ok(_) => Told::from_map(found.config.label_map()).revision.map(|revision| sha_tag(&revision)),
        Err(_) => Some(reference.clone()),
    };
    load(&found.config_bytes, layers.collect(), &name, tag)
}

fn load(config: &[u8], layers: Vec<Layer<'_>>, name: &str, tag: Option<String>) -> anyhow::Result<()> {
    let name = tag.map(|tag| format!("{name}:{tag}"));
    let bar = Bar::start(layers.iter().map(|layer| layer.size).sum());
    let image = Archive { config, layers, name: name.as_deref() };
    let program = docker::load(&image, &|bytes| bar.step(Progress::Done(bytes)))?;
    bar.end();
    show::lines(&[
        (&format!("in {program}"), name.clone().unwrap_or_else(show::absent)),
        ("image", Digest::of(config).to_string()),
    ]);
    Ok(())
}
