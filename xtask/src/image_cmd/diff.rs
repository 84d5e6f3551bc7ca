//! `image diff`: what changed from one image to another, and what somebody who has the one pulls to get the other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::show::{self, Held};
use super::target::Where;
use crate::image::oci::Config;
use crate::image::platform::Platform;
use crate::registry::{Found, Registry};
use crate::terminal::{self, table};

/// Show what changed from image A to image B: labels, how it runs, its layers, and the bytes to pull.
///
/// Examples:
///   cargo xtask image diff v0.1.0 edge
///   cargo xtask image diff v0.1.0 v0.2.0 --platform linux/arm64
///   cargo xtask image diff v0.1.0 sha256:9f86d081… --json
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The image that is there: a tag or a digest
    #[arg(value_name = "A")]
    from: String,
    /// The image to come: a tag or a digest
    #[arg(value_name = "B")]
    to: String,
    #[command(flatten)]
    at: Where,
    /// Of images for several platforms, the one to compare: `OS/ARCH[/VARIANT]` [default: this machine's]
    #[arg(long, value_name = "P")]
    platform: Option<Platform>,
    /// Print it as one JSON object
    #[arg(long)]
    json: bool,
}

/// A line of what the image says of itself, before and after; JSON's `null` where it said nothing.
#[derive(Debug, PartialEq, serde::Serialize)]
struct Change {
    what: String,
    from: Value,
    to: Value,
}

/// What became of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Fate {
    New,
    /// The same files, compressed to other bytes: they are pulled again.
    Repacked,
    Gone,
    Kept,
}

pub fn run(args: &Args, root: &Path) -> anyhow::Result<()> {
    let registry = args.at.registry(root)?;
    let image = |reference: &str| registry.image(&registry.find(reference)?, args.platform.as_ref());
    let (from, to) = (image(&args.from)?, image(&args.to)?);
    let changes = changes(&from.config, &to.config)?;
    let layers = layers(&from, &to);
    let pull = to.bytes_after(Some(&from));
    if args.json {
        let side = |reference: &str, found: &Found| {
            json!({ "ref": reference, "digest": found.root.digest, "platform": found.config.platform().to_string(),
                "image": found.manifest.config.digest })
        };
        let layers: Vec<_> = layers.iter().map(with_fate).collect::<Result<_, _>>()?;
        return terminal::json(&json!({ "repository": registry.to_string(), "from": side(&args.from, &from),
            "to": side(&args.to, &to), "identical": from.root.digest == to.root.digest,
            "changes": changes, "layers": layers, "bytes_to_pull": pull, "bytes_in_all": to.bytes_after(None) }));
    }
    tell(args, &registry, (&from, &to), &changes, &layers);
    Ok(())
}

fn tell(
    args: &Args,
    registry: &Registry,
    (from, to): (&Found, &Found),
    changes: &[Change],
    layers: &[(Fate, Held)],
) {
    show::lines(&[("repository", registry.to_string())]);
    for (key, reference, found) in [("from", &args.from, from), ("to", &args.to, to)] {
        let digest = &found.root.digest;
        let named =
            if reference == digest.as_str() { digest.to_string() } else { format!("{digest} ({reference})") };
        show::lines(&[(key, named)]);
    }
    if from.root.digest == to.root.digest {
        return println!("\nthey are the same image: nothing to pull");
    }
    if from.platforms.len() + to.platforms.len() > 0 {
        show::lines(&[("platform", to.config.platform().to_string())]);
    }
    if from.entry.digest == to.entry.digest {
        println!("\nthe image for {} is the same", to.config.platform());
    }
    if !changes.is_empty() {
        let rows =
            changes.iter().map(|change| vec![change.what.clone(), plain(&change.from), plain(&change.to)]);
        println!("\n{}", table(&["CHANGED", "FROM", "TO"], rows.collect()));
    }
    let rows = layers.iter().map(|(fate, layer)| {
        let fate = format!("{fate:?}").to_lowercase();
        vec![fate, layer.digest.short().to_owned(), show::size(layer.size), layer.held()]
    });
    println!("\n{}\n", table(&["IS", "LAYER", "SIZE", "HOLDS"], rows.collect()));
    let new = layers.iter().filter(|(fate, _)| matches!(fate, Fate::New | Fate::Repacked)).count();
    let (pull, all) = (HumanBytes(to.bytes_after(Some(from))), HumanBytes(to.bytes_after(None)));
    let of = to.manifest.layers.len();
    show::lines(&[(
        "to pull",
        format!("{pull} of {all}: {new} of {of} layers, for whoever has {}", args.from),
    )]);
}

/// What the two configs say differently: labels, then how the image runs.
fn changes(from: &Config, to: &Config) -> anyhow::Result<Vec<Change>> {
    let (from, to) = (told(from)?, told(to)?);
    let keys: BTreeSet<_> = from.keys().chain(to.keys()).collect();
    let value = |side: &BTreeMap<_, Value>, key| side.get(key).cloned().unwrap_or(Value::Null);
    let changes = keys.into_iter().map(|key| Change {
        what: key.1.clone(),
        from: value(&from, key),
        to: value(&to, key),
    });
    Ok(changes.filter(|change| change.from != change.to).collect())
}

/// Everything that a config says of the image, by its place in the list and its name.
fn told(config: &Config) -> anyhow::Result<BTreeMap<(u8, String), Value>> {
    let mut told = BTreeMap::new();
    for (key, value) in config.label_map() {
        let known = key.strip_prefix("org.opencontainers.image.");
        let place = if known.is_some() || key.starts_with("dojo.") { 0 } else { 1 };
        told.insert((place, format!("label {}", known.unwrap_or(key))), json!(value));
    }
    for variable in config.config.env.iter().flatten() {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        told.insert((3, format!("env {name}")), json!(value));
    }
    told.insert((2, "platform".to_owned()), json!(config.platform().to_string()));
    if let Value::Object(run) = serde_json::to_value(&config.config)? {
        let rest = run.into_iter().filter(|(key, _)| key != "Labels" && key != "Env");
        told.extend(rest.map(|(key, value)| ((2, words(&key)), value)));
    }
    Ok(told)
}

/// `WorkingDir` is "working dir".
fn words(key: &str) -> String {
    let mut words = String::new();
    for letter in key.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => show::absent(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(" "),
        Value::Object(keys) => keys.keys().cloned().collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// Each layer of both once: what is new, what is gone, what is kept, the larger first.
fn layers(from: &Found, to: &Found) -> Vec<(Fate, Held)> {
    let digests = |found: &Found| {
        found.manifest.layers.iter().map(|layer| layer.digest.clone()).collect::<BTreeSet<_>>()
    };
    let (before, after) = (digests(from), digests(to));
    let contents: BTreeSet<_> = from.config.rootfs.diff_ids.iter().collect();
    let mut layers = Vec::new();
    for (layer, diff_id) in Held::of(to).into_iter().zip(&to.config.rootfs.diff_ids) {
        let fate = match (before.contains(&layer.digest), contents.contains(diff_id)) {
            (true, _) => Fate::Kept,
            (false, true) => Fate::Repacked,
            (false, false) => Fate::New,
        };
        layers.push((fate, layer));
    }
    let repacked: BTreeSet<_> = to.config.rootfs.diff_ids.iter().collect();
    for (layer, diff_id) in Held::of(from).into_iter().zip(&from.config.rootfs.diff_ids) {
        if !after.contains(&layer.digest) && !repacked.contains(diff_id) {
            layers.push((Fate::Gone, layer));
        }
    }
    layers.sort_by_key(|(fate, layer)| (*fate as u8, std::cmp::Reverse(layer.size)));
    layers
}

fn with_fate((fate, layer): &(Fate, Held)) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(layer)?;
    value["is"] = serde_json::to_value(fate)?;
    Ok(value)
}
