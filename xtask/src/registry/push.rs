//! Sends an image: blobs side by side, then the manifest under each tag.
//!
//! Nothing that the registry has is read, compressed or sent again: an earlier tag's manifest and config together tell under
//! which digest a layer is stored already. A layer that is not goes through a temporary file, since its digest must be
//! known before the registry can be asked for it.

mod cache;

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use super::compress::compress;
use super::{Registry, check_tag, fixed_first, read};
use crate::fault::Fault;
use crate::image::oci::{CONFIG, Descriptor, Document, MANIFEST, Manifest, Stored};
use crate::image::{Blob, Compression, Digest, Finished, Image, Layer, is_fixed, may_carry, may_name};
pub use cache::CacheFrom;
use cache::Known;

/// The most blobs that are under way at once.
const WORKERS: usize = 4;
/// The pauses after a registry did not see a blob yet that it just took.
const UNSEEN: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(3)];

/// How an image is pushed.
#[derive(Debug)]
pub struct Push<'a> {
    /// At least one.
    pub tags: &'a [String],
    pub cache_from: CacheFrom,
    pub compression: Compression,
}

impl<'a> Push<'a> {
    /// Gzip, and whatever `edge` has is not sent again.
    pub fn to(tags: &'a [String]) -> Self {
        Self { tags, cache_from: CacheFrom::default(), compression: Compression::default() }
    }
}

/// What happened since the last call, to draw progress from.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// This many bytes of layers (of [`Layer::size`]) need no more work.
    Done(u64),
    /// This many bytes went over the wire; a retried upload counts again.
    Sent(u64),
    /// This many stored bytes were there already.
    Saved(u64),
}

/// What a push came to.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Pushed {
    pub digest: Digest,
    pub bytes_sent: u64,
    /// Bytes of blobs that the registry had already.
    pub bytes_skipped: u64,
}

/// A blob that is in the registry now, and whether it had to be sent.
#[derive(Clone)]
struct There {
    descriptor: Descriptor,
    sent: bool,
}

pub fn push(
    registry: &Registry,
    image: &Image,
    how: &Push<'_>,
    progress: &dyn Fn(Progress),
) -> anyhow::Result<Pushed> {
    how.tags.iter().try_for_each(|tag| check_tag(tag))?;
    if how.tags.iter().any(|tag| is_fixed(tag)) {
        let revision = match &image.finished {
            Some(finished) => read::revision(finished)?,
            None => image.told()?.revision,
        };
        how.tags.iter().try_for_each(|tag| may_carry(revision.as_deref(), tag))?;
    }
    if let Some(finished) = &image.finished {
        return as_it_is(registry, finished, how.tags, progress);
    }
    if let Some(held) = held(registry, image, how.tags)? {
        let Document::Manifest(manifest) = Document::parse(&held.bytes)? else { return Err(odd(registry)) };
        name(registry, &held, how.tags)?;
        let bytes_skipped = manifest.layers.iter().chain([&manifest.config]).map(|blob| blob.size).sum();
        return Ok(Pushed { digest: held.digest, bytes_sent: 0, bytes_skipped });
    }
    compressed(registry, image, how, progress)
}

/// What a version or `sha-…` tag names already, if that is this very image; another one is refused.
fn held(registry: &Registry, image: &Image, tags: &[String]) -> anyhow::Result<Option<Stored>> {
    let mut same = None;
    for tag in tags.iter().filter(|tag| is_fixed(tag)) {
        let Some(stored) = registry.by_tag(tag)? else { continue };
        let id = image.id();
        let found = Document::parse(&stored.bytes).ok();
        let other = same.as_ref().is_some_and(|same: &Stored| same.digest != stored.digest);
        if other || !matches!(found, Some(Document::Manifest(manifest)) if manifest.config.digest == id) {
            let (repository, held) = (registry, &stored.digest);
            let message =
                format!("{repository}: {tag} names {held} already, and never moves: not to image {id}");
            return Err(Fault::refused(message)
                .help(format!("use the image that {tag} names, or build a new commit"))
                .into());
        }
        same = Some(stored);
    }
    Ok(same)
}

fn compressed(
    registry: &Registry,
    image: &Image,
    how: &Push<'_>,
    progress: &dyn Fn(Progress),
) -> anyhow::Result<Pushed> {
    let mut known = Known::read(registry, &how.cache_from, how.compression)?;
    let mut unique: Vec<&Layer> = Vec::new();
    for layer in &image.layers {
        if !unique.iter().any(|other| other.diff_id == layer.diff_id) {
            unique.push(layer);
        }
    }
    unique.sort_by_key(|layer| std::cmp::Reverse(layer.size));
    let mut sent = 0;
    for pause in UNSEEN {
        std::thread::sleep(pause);
        let done = side_by_side(&unique, progress, |layer, step| {
            let there = one_layer(registry, layer, &known, how.compression, step)?;
            step(Progress::Done(layer.size));
            Ok(there)
        })?;
        let config = Blob::new(Descriptor::of(CONFIG, &image.config), in_memory(&image.config));
        let config = one_blob(registry, &config, progress)?;
        sent +=
            done.iter().chain([&config]).filter(|there| there.sent).map(|t| t.descriptor.size).sum::<u64>();

        let stored: HashMap<_, _> =
            unique.iter().zip(&done).map(|(layer, there)| (&layer.diff_id, &there.descriptor)).collect();
        let layers: Vec<_> =
            image.layers.iter().filter_map(|layer| stored.get(&layer.diff_id).copied().cloned()).collect();
        let total: u64 = done.iter().chain([&config]).map(|there| there.descriptor.size).sum();
        let manifest = Manifest::new(config.descriptor, layers);
        let manifest = Stored::new(MANIFEST, serde_json::to_vec(&manifest)?);
        if name(registry, &manifest, how.tags)? {
            let bytes_skipped = total.saturating_sub(sent);
            return Ok(Pushed { digest: manifest.digest, bytes_sent: sent, bytes_skipped });
        }
        let again = unique.iter().zip(done).map(|(layer, there)| (layer.diff_id.clone(), there.descriptor));
        known.doubt(again.collect());
    }
    Err(odd(registry))
}

/// Sends manifests and blobs bit by bit, so that the digest stays what it is.
fn as_it_is(
    registry: &Registry,
    finished: &Finished,
    tags: &[String],
    progress: &dyn Fn(Progress),
) -> anyhow::Result<Pushed> {
    let Some((root, parts)) = finished.manifests.split_last() else { return Err(odd(registry)) };
    for tag in tags.iter().filter(|tag| is_fixed(tag)) {
        may_name(tag, registry.resolve(tag)?.as_ref(), &root.digest)?;
    }
    let mut largest_first: Vec<&Blob> = finished.blobs.iter().collect();
    largest_first.sort_by_key(|blob| std::cmp::Reverse(blob.descriptor.size));
    let total: u64 = largest_first.iter().map(|blob| blob.descriptor.size).sum();
    let mut sent = 0;
    for pause in UNSEEN {
        std::thread::sleep(pause);
        let done = side_by_side(&largest_first, progress, |blob, step| {
            let there = one_blob(registry, blob, step)?;
            step(Progress::Done(blob.descriptor.size));
            Ok(there)
        })?;
        sent += done.iter().filter(|there| there.sent).map(|there| there.descriptor.size).sum::<u64>();
        let mut complete = true;
        for part in parts {
            complete = complete && registry.put_unnamed(part)?;
        }
        if complete && name(registry, root, tags)? {
            let bytes_skipped = total.saturating_sub(sent);
            return Ok(Pushed { digest: root.digest.clone(), bytes_sent: sent, bytes_skipped });
        }
    }
    Err(odd(registry))
}

/// Lets all tags name the manifest. `false` if the registry misses a blob that it names.
fn name(registry: &Registry, manifest: &Stored, tags: &[String]) -> anyhow::Result<bool> {
    for tag in fixed_first(tags) {
        if !registry.put(tag, manifest)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn odd(registry: &Registry) -> anyhow::Error {
    Fault::remote(format!("{registry} does not see a layer that it took"))
        .help("run the same command again")
        .into()
}

fn in_memory(bytes: &[u8]) -> crate::image::Opener {
    let bytes = bytes.to_vec();
    Box::new(move || Ok(Box::new(std::io::Cursor::new(bytes.clone()))))
}

fn one_layer(
    registry: &Registry,
    layer: &Layer,
    known: &Known,
    compression: Compression,
    step: &dyn Fn(Progress),
) -> anyhow::Result<There> {
    if let Some(descriptor) = known.stored(registry, &layer.diff_id)? {
        step(Progress::Saved(descriptor.size));
        return Ok(There { descriptor, sent: false });
    }
    let (mut file, descriptor) = compress(layer, compression, registry.scratch()?)?;
    if registry.has_blob(&descriptor)? {
        step(Progress::Saved(descriptor.size));
        return Ok(There { descriptor, sent: false });
    }
    file.flush()?;
    registry.put_blob(&descriptor, file, &|bytes| step(Progress::Sent(bytes)))?;
    Ok(There { descriptor, sent: true })
}

fn one_blob(registry: &Registry, blob: &Blob, step: &dyn Fn(Progress)) -> anyhow::Result<There> {
    let (descriptor, mut sent) = (blob.descriptor.clone(), false);
    if registry.has_blob(&descriptor)? {
        step(Progress::Saved(descriptor.size));
    } else {
        registry.copy_blob(blob, &|bytes| step(Progress::Sent(bytes)))?;
        sent = true;
    }
    Ok(There { descriptor, sent })
}

/// Does the work for each item in a few threads and gives the outcomes in order; after a failure no further item is begun.
/// Progress is told by this thread alone.
fn side_by_side<T: Sync, R: Send>(
    items: &[T],
    progress: &dyn Fn(Progress),
    work: impl Fn(&T, &dyn Fn(Progress)) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    enum Event<R> {
        Progress(Progress),
        Done(usize, anyhow::Result<R>),
    }
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut done: Vec<Option<R>> = items.iter().map(|_| None).collect();
    let mut failure = None;
    std::thread::scope(|scope| {
        let (events, received) = channel();
        for _ in 0..WORKERS.min(items.len()) {
            let events = events.clone();
            let (next, stop, work) = (&next, &stop, &work);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed)
                    && let index = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(item) = items.get(index)
                {
                    let outcome = work(item, &|step| drop(events.send(Event::Progress(step))));
                    let _ = events.send(Event::Done(index, outcome));
                }
            });
        }
        drop(events);
        for event in received {
            match event {
                Event::Progress(step) => progress(step),
                Event::Done(index, Ok(outcome)) => done[index] = Some(outcome),
                Event::Done(_, Err(error)) => {
                    stop.store(true, Ordering::Relaxed);
                    failure.get_or_insert(error);
                }
            }
        }
    });
    failure.map_or_else(|| Ok(done.into_iter().flatten().collect()), Err)
}
