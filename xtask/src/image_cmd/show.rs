//! How the image commands look: progress on a terminal, aligned lines, or one JSON object.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::json;

use crate::image::oci::Descriptor;
use crate::image::{Digest, Image, Labels};
use crate::registry::{Progress, Pushed, Referrer, Registry};

const TICK: Duration = Duration::from_millis(100);

/// How much of an image was sent.
pub struct Bar(ProgressBar, AtomicU64);

impl Bar {
    pub fn start(bytes: u64) -> Self {
        let bar = ProgressBar::new(bytes);
        bar.set_style(style("{spinner} {elapsed} [{bar:30}] {bytes} of {total_bytes}, sent {msg}"));
        bar.enable_steady_tick(TICK);
        Self(bar, AtomicU64::new(0))
    }

    pub fn step(&self, progress: Progress) {
        match progress {
            Progress::Done(bytes) => self.0.inc(bytes),
            Progress::Sent(bytes) => {
                self.0.set_message(HumanBytes(self.1.fetch_add(bytes, Relaxed) + bytes).to_string());
            }
        }
    }

    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

pub fn built(path: &Path, image: &Image, labels: &Labels) {
    let size = image.layers.iter().map(|layer| layer.size).sum();
    lines(&[("archive", path.display().to_string()), ("image", image.id().to_string())]);
    lines(&[("size", HumanBytes(size).to_string())]);
    self::labels(labels);
}

pub fn pushed(registry: &Registry, tags: &[String], pushed: &Pushed, json: bool) -> anyhow::Result<()> {
    if json {
        let object = json!({ "repository": registry.to_string(), "tags": tags, "digest": pushed.digest,
            "bytes_sent": pushed.bytes_sent, "bytes_skipped": pushed.bytes_skipped });
        println!("{}", serde_json::to_string_pretty(&object)?);
        return Ok(());
    }
    lines(&[
        ("repository", registry.to_string()),
        ("tags", tags.join(", ")),
        ("digest", pushed.digest.to_string()),
        ("sent", HumanBytes(pushed.bytes_sent).to_string()),
        ("there already", HumanBytes(pushed.bytes_skipped).to_string()),
    ]);
    Ok(())
}

pub fn archive(path: &Path, image: &Image, json: bool) -> anyhow::Result<()> {
    let layers = image.layers.iter().map(|layer| (&layer.diff_id, layer.size)).collect();
    let head = [("archive", path.display().to_string()), ("image", image.id().to_string())];
    whole(&head, &image.labels()?, layers, &[], json)
}

pub fn stored(registry: &Registry, reference: &str, digest: &Digest, json: bool) -> anyhow::Result<()> {
    let manifest = registry.manifest(digest)?;
    let layers = manifest.layers.iter().map(|Descriptor { digest, size, .. }| (digest, *size)).collect();
    let head = [
        ("repository", registry.to_string()),
        ("ref", reference.to_owned()),
        ("digest", digest.to_string()),
        ("image", manifest.config.digest.to_string()),
    ];
    whole(&head, &registry.labels(digest)?, layers, &registry.referrers(digest)?, json)
}

fn whole(
    head: &[(&str, String)],
    labels: &Labels,
    mut layers: Vec<(&Digest, u64)>,
    referrers: &[Referrer],
    json: bool,
) -> anyhow::Result<()> {
    layers.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    if json {
        let mut object: serde_json::Map<_, _> =
            head.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        object.insert("labels".to_owned(), json!(labels));
        let layers: Vec<_> =
            layers.iter().map(|(digest, size)| json!({ "digest": digest, "size": size })).collect();
        object.insert("layers".to_owned(), json!(layers));
        object.insert("referrers".to_owned(), json!(referrers));
        println!("{}", serde_json::to_string_pretty(&object)?);
        return Ok(());
    }
    lines(head);
    self::labels(labels);
    for (digest, size) in layers {
        lines(&[("layer", format!("{:>10}  {}", HumanBytes(size).to_string(), digest.short()))]);
    }
    for Referrer { kind, digest, size } in referrers {
        lines(&[("referrer", format!("{:>10}  {}  {kind}", HumanBytes(*size).to_string(), digest.short()))]);
    }
    Ok(())
}

fn labels(labels: &Labels) {
    let schema = labels.schema;
    lines(&[
        ("revision", labels.revision.clone()),
        ("version", labels.version.clone()),
        ("source", labels.source.clone()),
        ("created", labels.created.clone()),
        ("schema", format!("{}, opened by binaries of {} on", schema.current, schema.oldest_binary)),
    ]);
}

fn lines(pairs: &[(&str, String)]) {
    for (key, value) in pairs {
        println!("{key:<14} {value}");
    }
}
