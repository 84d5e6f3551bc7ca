//! Under which digest a layer is stored already, by an earlier image's word.
//!
//! A manifest lists compressed layers and its config the digests of the same layers uncompressed, in the same order. Nothing is
//! kept on this machine, so a fresh one knows as much. Whoever may push that earlier tag is believed; a runtime holds each
//! layer against the config anyway.

use std::collections::HashMap;

use crate::fault::{self, Kind};
use crate::image::oci::Descriptor;
use crate::image::{Compression, Digest};
use crate::registry::Registry;

/// The earlier image whose layers need not be sent again.
#[derive(Debug)]
pub enum CacheFrom {
    /// A tag of the same repository.
    Tag(String),
    /// A tag of another one; its layers are mounted where the registry lets them.
    Other(Registry, String),
}

impl Default for CacheFrom {
    fn default() -> Self {
        Self::Tag("edge".to_owned())
    }
}

pub struct Known {
    layers: HashMap<Digest, Descriptor>,
    /// The repository to mount from.
    mount: Option<String>,
    /// Whether the registry must be asked for each layer.
    doubted: bool,
}

impl Known {
    /// A tag that is not there, or names something that cannot be read, tells nothing.
    pub fn read(registry: &Registry, from: &CacheFrom, compression: Compression) -> anyhow::Result<Self> {
        let (source, tag, mount) = match from {
            CacheFrom::Tag(tag) => (registry, tag, None),
            CacheFrom::Other(other, tag) => (other, tag, registry.mounts_from(other).map(str::to_owned)),
        };
        let layers = match layers(source, tag, compression) {
            Ok(layers) => layers,
            Err(error) if passed_over(&error, from) => {
                if let CacheFrom::Other(other, tag) = from {
                    let error = error.to_string();
                    let why = error.lines().next().unwrap_or_default();
                    log::warn!("{other}:{tag} cannot be read, so its layers are sent: {why}");
                }
                HashMap::new()
            }
            Err(error) => return Err(error),
        };
        // A folder says at once whether it has a file; and what another repository has is not here yet.
        let doubted = matches!(from, CacheFrom::Other(..)) || matches!(registry, Registry::Layout(_));
        Ok(Self { layers, mount, doubted })
    }

    /// The stored form of a layer, if it is there or can be mounted.
    pub fn stored(&self, registry: &Registry, diff_id: &Digest) -> anyhow::Result<Option<Descriptor>> {
        let Some(descriptor) = self.layers.get(diff_id) else { return Ok(None) };
        let there = !self.doubted
            || registry.has_blob(descriptor)?
            || match &self.mount {
                Some(name) => registry.mount(descriptor, name)?,
                None => false,
            };
        Ok(there.then(|| descriptor.clone()))
    }

    /// The registry missed something: from now on it is asked for each of these layers.
    pub fn doubt(&mut self, layers: HashMap<Digest, Descriptor>) {
        (self.layers, self.doubted) = (layers, true);
    }
}

/// Nothing is lost without another repository, nor without an image that cannot be read.
fn passed_over(error: &anyhow::Error, from: &CacheFrom) -> bool {
    matches!(from, CacheFrom::Other(..)) || fault::exit_code(error) == Kind::Refused as u8
}

fn layers(
    registry: &Registry,
    tag: &str,
    compression: Compression,
) -> anyhow::Result<HashMap<Digest, Descriptor>> {
    let Some(digest) = registry.resolve(tag)? else { return Ok(HashMap::new()) };
    let manifest = registry.manifest(&digest)?;
    let diff_ids = registry.config(&digest)?.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        return Ok(HashMap::new());
    }
    let pairs = diff_ids.into_iter().zip(manifest.layers);
    let stored = pairs.filter(|(_, layer)| compression.is_of(&layer.media_type));
    // What docker pushed has docker's names for the same bytes.
    Ok(stored
        .map(|(diff_id, layer)| {
            (diff_id, Descriptor::new(compression.media_type(), layer.digest, layer.size))
        })
        .collect())
}
