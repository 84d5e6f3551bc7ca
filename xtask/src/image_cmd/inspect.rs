//! `image inspect`: any image, of this tool or not, in the registry or in a file.

use std::path::{Path, PathBuf};

use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::show::{self, Held};
use super::target::{Where, built};
use crate::archive;
use crate::image::oci::{Config, Descriptor};
use crate::image::platform::Platform;
use crate::image::{Image, Told, contents};
use crate::registry::{Found, Referrer, Registry, size};
use crate::terminal::{self, table};

/// Show what an image is: its digest, where it came from, how it runs, and its layers by size with how each is compressed
/// and what it holds.
///
/// Of an image for several platforms the one for this machine is shown, or for --platform; the digest is the index's.
///
/// Examples:
///   cargo xtask image inspect                   (what `image build` made)
///   cargo xtask image inspect edge
///   cargo xtask image inspect v0.1.0 --json
///   cargo xtask image inspect latest --platform linux/arm64 --repository ghcr.io/OWNER/NAME
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
    /// Of an image for several platforms, the one to show: `OS/ARCH[/VARIANT]` [default: this machine's]
    #[arg(long, value_name = "P", requires = "reference")]
    platform: Option<Platform>,
    /// Print it as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, root: &Path) -> anyhow::Result<()> {
    let Some(reference) = &args.reference else {
        let path = built(args.archive.as_deref(), root)?;
        return file(&path, &archive::read(&path)?, args.json);
    };
    let registry = args.at.registry(root)?;
    let found = registry.image(&registry.find(reference)?, args.platform.as_ref())?;
    stored(&registry, reference, &found, args.json)
}

fn file(path: &Path, image: &Image, json: bool) -> anyhow::Result<()> {
    let config = image.parsed_config()?;
    let mut layers = Vec::new();
    for (layer, mut holds) in image.layers.iter().zip(contents::told(&config)) {
        if holds.is_empty() {
            holds = contents::top(layer.open()?)?;
        }
        let (digest, compression) = (layer.diff_id.clone(), layer.compression);
        layers.push(Held { digest, size: layer.size, compression, holds });
    }
    let head = [
        ("archive", path.display().to_string()),
        ("platform", config.platform().to_string()),
        ("image", image.id().to_string()),
    ];
    tell(&head, &[], &config, layers, &[], json)
}

fn stored(registry: &Registry, reference: &str, found: &Found, json: bool) -> anyhow::Result<()> {
    let head = [
        ("repository", registry.to_string()),
        ("ref", reference.to_owned()),
        ("digest", found.root.digest.to_string()),
        ("media_type", found.root.media_type.clone()),
        ("platform", found.config.platform().to_string()),
        ("image", found.manifest.config.digest.to_string()),
    ];
    let mut platforms = Vec::new();
    for entry in &found.platforms {
        let size = if entry.digest == found.entry.digest {
            found.size()
        } else {
            size(&registry.manifest(&entry.digest)?) + entry.size
        };
        platforms.push((entry, size));
    }
    let referrers = registry.referrers(&found.root.digest)?;
    tell(&head, &platforms, &found.config, Held::of(found), &referrers, json)
}

fn tell(
    head: &[(&str, String)],
    platforms: &[(&Descriptor, u64)],
    config: &Config,
    mut layers: Vec<Held>,
    referrers: &[Referrer],
    json: bool,
) -> anyhow::Result<()> {
    layers.sort_by_key(|layer| std::cmp::Reverse(layer.size));
    let (told, run) = (Told::from_map(config.label_map()), &config.config);
    let size: u64 = layers.iter().map(|layer| layer.size).sum();
    if json {
        let mut object: serde_json::Map<_, _> =
            head.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let platforms: Vec<_> = platforms
            .iter()
            .map(|(entry, size)| json!({ "platform": entry.platform_name(), "digest": entry.digest, "size": size }))
            .collect();
        let rest = json!({ "platforms": platforms, "labels": told, "all_labels": config.label_map(),
            "user": run.user, "entrypoint": run.entrypoint, "cmd": run.cmd, "env": run.env,
            "working_dir": run.working_dir, "size": size, "layers": layers, "referrers": referrers });
        object.extend(rest.as_object().cloned().unwrap_or_default());
        return terminal::json(&Value::Object(object));
    }
    for (key, value) in head {
        show::lines(&[(&key.replace('_', " "), value.clone())]);
    }
    show::told(&told);
    let words =
        |words: &Option<Vec<String>>| words.as_ref().map_or_else(show::absent, |words| words.join(" "));
    show::lines(&[
        ("user", run.user.clone().filter(|user| !user.is_empty()).unwrap_or_else(|| "root".to_owned())),
        ("entrypoint", words(&run.entrypoint)),
        ("cmd", words(&run.cmd)),
    ]);
    for variable in run.env.iter().flatten() {
        show::lines(&[("env", variable.clone())]);
    }
    show::lines(&[("size", format!("{} in {} layers", HumanBytes(size), layers.len()))]);
    if !platforms.is_empty() {
        let rows = platforms
            .iter()
            .map(|(entry, size)| vec![entry.platform_name(), entry.digest.to_string(), show::size(*size)]);
        println!("\n{}", table(&["PLATFORM", "DIGEST", "SIZE"], rows.collect()));
    }
    let rows = layers.iter().map(|layer| {
        let share = layer.size.saturating_mul(100).checked_div(size).unwrap_or(0);
        let share = if share == 0 { "< 1 %".to_owned() } else { format!("{share:>3} %") };
        let stored = layer.compression.map_or_else(show::absent, |compression| compression.to_string());
        vec![layer.digest.short().to_owned(), show::size(layer.size), share, stored, layer.held()]
    });
    println!("\n{}", table(&["LAYER", "SIZE", "SHARE", "STORED", "HOLDS"], rows.collect()));
    if !referrers.is_empty() {
        let rows = referrers.iter().map(|referrer| {
            vec![referrer.digest.short().to_owned(), show::size(referrer.size), referrer.kind.clone()]
        });
        println!("\n{}", table(&["REFERRER", "SIZE", "KIND"], rows.collect()));
    }
    Ok(())
}
