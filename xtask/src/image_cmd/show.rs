//! How the image commands look: progress on a terminal, aligned lines, or one JSON object.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::json;

use crate::image::{Compression, Digest, Image, Labels, Schema, Told, contents};
use crate::registry::{Found, Progress, Pushed, Registry};
use crate::terminal::{self, one_line};

const TICK: Duration = Duration::from_millis(100);
/// As much of what a layer holds as fits on a line beside its other columns.
const WIDTH: usize = 64;

/// How much of an image is there, how much of it was sent, and how much did not have to be.
pub struct Bar(ProgressBar, AtomicU64, AtomicU64);

impl Bar {
    pub fn start(bytes: u64) -> Self {
        let bar = ProgressBar::new(bytes);
        bar.set_style(style("{spinner} {elapsed} [{bar:30}] {bytes} of {total_bytes}, {msg}"));
        bar.enable_steady_tick(TICK);
        Self(bar, AtomicU64::new(0), AtomicU64::new(0))
    }

    pub fn step(&self, progress: Progress) {
        match progress {
            Progress::Done(bytes) => self.0.inc(bytes),
            Progress::Sent(bytes) => drop(self.1.fetch_add(bytes, Relaxed)),
            Progress::Saved(bytes) => drop(self.2.fetch_add(bytes, Relaxed)),
        }
        if !self.0.is_hidden() {
            let [sent, saved] = [&self.1, &self.2].map(|bytes| HumanBytes(bytes.load(Relaxed)));
            self.0.set_message(format!("sent {sent}, saved {saved}"));
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
    told(&Told::from_map(&labels.to_map()));
}

pub fn pushed(registry: &Registry, tags: &[String], pushed: &Pushed, json: bool) -> anyhow::Result<()> {
    if json {
        let object = json!({ "repository": registry.to_string(), "tags": tags, "digest": pushed.digest,
            "bytes_sent": pushed.bytes_sent, "bytes_skipped": pushed.bytes_skipped });
        return terminal::json(&object);
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

/// A layer for people: what it is called, what it weighs, and what it holds as far as that is known.
#[derive(Debug, serde::Serialize)]
pub struct Held {
    pub digest: Digest,
    /// Bytes where it lies: compressed in a registry.
    pub size: u64,
    /// `None` for a plain tar.
    pub compression: Option<Compression>,
    pub holds: Vec<String>,
}

impl Held {
    /// The layers of an image in a registry, from the bottom up.
    pub fn of(found: &Found) -> Vec<Self> {
        let holds = contents::told(&found.config);
        let layers = found.manifest.layers.iter();
        let holds = holds.into_iter().chain(std::iter::repeat_with(Vec::new));
        layers
            .zip(holds)
            .map(|(layer, holds)| Self {
                digest: layer.digest.clone(),
                size: layer.size,
                compression: Compression::of(&layer.media_type),
                holds,
            })
            .collect()
    }

    /// What it holds, as far as that fits on a line.
    pub fn held(&self) -> String {
        let mut shown = String::new();
        for (index, name) in self.holds.iter().enumerate() {
            if index > 0 && shown.chars().count() + name.chars().count() > WIDTH {
                return format!("{shown} and {} more", self.holds.len() - index);
            }
            shown.push_str(if index == 0 { "" } else { ", " });
            shown.push_str(name);
        }
        match shown.char_indices().nth(WIDTH) {
            _ if shown.is_empty() => absent(),
            Some((end, _)) => format!("{}…", &shown[..end]),
            None => shown,
        }
    }
}

/// How a table and a line show what is not there.
pub fn absent() -> String {
    "-".to_owned()
}

/// Bytes in a table's column, their units under each other.
pub fn size(bytes: u64) -> String {
    format!("{:>10}", HumanBytes(bytes).to_string())
}

pub fn told(told: &Told) {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(absent);
    let schema =
        |schema: Schema| format!("{}, opened by binaries of {} on", schema.current, schema.oldest_binary);
    lines(&[
        ("revision", text(&told.revision)),
        ("version", text(&told.version)),
        ("source", text(&told.source)),
        ("created", text(&told.created)),
        ("schema", told.schema.map_or_else(absent, schema)),
    ]);
}

pub fn lines(pairs: &[(&str, String)]) {
    for (key, value) in pairs {
        println!("{key:<14} {}", one_line(value));
    }
}
