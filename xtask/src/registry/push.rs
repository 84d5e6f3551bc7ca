//! Sends an image: layers compressed and sent side by side, then the config, then the manifest.
//!
//! A layer goes through a temporary file, since its digest must be known before the registry can be asked for it.

use std::io::{self, BufWriter, Read as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use anyhow::Context as _;
use flate2::{Compression, GzBuilder};
use tempfile::NamedTempFile;

use super::{Registry, Stored, check_tag};
use crate::fault::Fault;
use crate::image::hashing::Hashing;
use crate::image::oci::{CONFIG, Descriptor, LAYER_GZIP, MANIFEST, Manifest};
use crate::image::{Digest, Image, Layer, is_fixed, may_carry};

/// The most layers that are under way at once.
const WORKERS: usize = 4;
const PIECE: usize = 1 << 16;

/// What happened since the last call, to draw progress from.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// This many bytes of layers (of [`Layer::size`]) were read to their end.
    Done(u64),
    /// This many bytes went over the wire; a retried upload counts again.
    Sent(u64),
}

/// What a push came to.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Pushed {
    pub digest: Digest,
    pub bytes_sent: u64,
    /// Bytes of blobs that the registry had already.
    pub bytes_skipped: u64,
}

enum Event {
    Progress(Progress),
    Layer(usize, anyhow::Result<(Descriptor, bool)>),
}

pub fn push(
    registry: &Registry,
    image: &Image,
    tag: &str,
    progress: &dyn Fn(Progress),
) -> anyhow::Result<Pushed> {
    check_tag(tag)?;
    if is_fixed(tag) {
        may_carry(image.told()?.revision.as_deref(), tag)?;
    }
    let mut blobs = layers(registry, &image.layers, progress)?;
    let layers = blobs.iter().map(|(descriptor, _)| descriptor.clone()).collect();

    let config = Descriptor::of(CONFIG, &image.config);
    let mut file = registry.scratch()?;
    file.write_all(&image.config)?;
    let sent = send(registry, &config, file, &|bytes| progress(Progress::Sent(bytes)))?;
    blobs.push((config.clone(), sent));

    let bytes = serde_json::to_vec(&Manifest::new(config, layers))?;
    let stored = Stored { digest: Digest::of(&bytes), media_type: MANIFEST.to_owned(), bytes };
    registry.put(tag, &stored)?;

    let total = |wanted| blobs.iter().filter(|(_, sent)| *sent == wanted).map(|(blob, _)| blob.size).sum();
    Ok(Pushed { digest: stored.digest, bytes_sent: total(true), bytes_skipped: total(false) })
}

/// Each layer's descriptor, and whether it had to be sent.
fn layers(
    registry: &Registry,
    layers: &[Layer],
    progress: &dyn Fn(Progress),
) -> anyhow::Result<Vec<(Descriptor, bool)>> {
    let mut largest_first: Vec<usize> = (0..layers.len()).collect();
    largest_first.sort_by_key(|&index| std::cmp::Reverse(layers[index].size));
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut done: Vec<Option<(Descriptor, bool)>> = vec![None; layers.len()];
    let mut failure = None;

    std::thread::scope(|scope| {
        let (events, received) = channel();
        for _ in 0..WORKERS.min(layers.len()) {
            let events = events.clone();
            scope.spawn(|| {
                let events = events;
                while !stop.load(Ordering::Relaxed)
                    && let Some(&index) = largest_first.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let outcome = layer(registry, &layers[index], &events);
                    let _ = events.send(Event::Layer(index, outcome));
                }
            });
        }
        drop(events);
        for event in received {
            match event {
                Event::Progress(step) => progress(step),
                Event::Layer(index, Ok(blob)) => done[index] = Some(blob),
                Event::Layer(_, Err(error)) => {
                    stop.store(true, Ordering::Relaxed);
                    failure.get_or_insert(error);
                }
            }
        }
    });
    failure.map_or_else(|| Ok(done.into_iter().flatten().collect()), Err)
}

fn layer(registry: &Registry, layer: &Layer, events: &Sender<Event>) -> anyhow::Result<(Descriptor, bool)> {
    let step = |step| drop(events.send(Event::Progress(step)));
    let (file, descriptor) = compress(layer, registry.scratch()?)?;
    let sent = send(registry, &descriptor, file, &|bytes| step(Progress::Sent(bytes)))?;
    step(Progress::Done(layer.size));
    Ok((descriptor, sent))
}

/// Sends a blob unless the registry has it.
fn send(
    registry: &Registry,
    descriptor: &Descriptor,
    file: NamedTempFile,
    sent: &dyn Fn(u64),
) -> anyhow::Result<bool> {
    if registry.has_blob(descriptor)? {
        return Ok(false);
    }
    registry.put_blob(descriptor, file, sent)?;
    Ok(true)
}

/// Gzips a layer, the same bytes each time: no name, no time.
fn compress(layer: &Layer, file: NamedTempFile) -> anyhow::Result<(NamedTempFile, Descriptor)> {
    let hashing = Hashing::new(BufWriter::new(file));
    let mut encoder = GzBuilder::new().mtime(0).write(hashing, Compression::default());
    let mut tar = layer.open()?;
    // Deflate's output depends on how its input is cut into pieces, and readers give pieces of any size.
    let mut piece = Vec::with_capacity(PIECE);
    loop {
        piece.clear();
        tar.by_ref().take(PIECE as u64).read_to_end(&mut piece).map_err(cause)?;
        if piece.is_empty() {
            break;
        }
        encoder.write_all(&piece).context("compressing a layer")?;
    }
    let (writer, digest, length) = encoder.finish().context("compressing a layer")?.finish();
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok((file, Descriptor::new(LAYER_GZIP, digest, length)))
}

/// A [`Fault`] that came through a reader, with its exit code.
fn cause(error: io::Error) -> anyhow::Error {
    error.downcast::<Fault>().map_or_else(Into::into, Into::into)
}
