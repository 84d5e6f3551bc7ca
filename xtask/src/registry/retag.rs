//! Gives further names to what is there. Every request is a round trip to the registry, so none is made twice, and those
//! that do not need each other's answers are made side by side.

use std::panic::resume_unwind;

use super::{Registry, check_tag, fixed_first};
use crate::fault::Fault;
use crate::image::oci::Stored;
use crate::image::{Digest, is_fixed, may_carry, may_name};

/// What a retag came to.
#[derive(Debug)]
pub struct Retagged {
    pub digest: Digest,
    /// The tags that named it before.
    pub already: Vec<String>,
}

pub fn retag(registry: &Registry, from: &str, tags: &[String]) -> anyhow::Result<Retagged> {
    tags.iter().try_for_each(|tag| check_tag(tag))?;
    let fixed = tags.iter().any(|tag| is_fixed(tag));
    let source = || -> anyhow::Result<(Stored, Option<String>)> {
        let stored = registry.find_manifest(from)?;
        let revision = if fixed { registry.revision(&stored)? } else { None };
        Ok((stored, revision))
    };
    let held = || tags.iter().map(|tag| registry.resolve(tag)).collect::<anyhow::Result<Vec<_>>>();
    let (source, held) = std::thread::scope(|scope| {
        let held = scope.spawn(held);
        (source(), held.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    let ((stored, revision), held) = (source?, held?);

    let mut already = Vec::new();
    for (tag, held) in tags.iter().zip(held) {
        may_carry(revision.as_deref(), tag)?;
        may_name(tag, held.as_ref(), &stored.digest)?;
        if held.as_ref() == Some(&stored.digest) {
            already.push(tag.clone());
        }
    }
    for (nth, tag) in fixed_first(tags).filter(|tag| !already.contains(tag)).enumerate() {
        // What the others named was asked too long ago once the first was put.
        let complete =
            if nth == 0 { registry.put_free(tag, &stored)? } else { registry.put(tag, &stored)? };
        if !complete {
            let fault = Fault::refused(format!("{registry} misses a part of {}", stored.digest));
            return Err(fault.help("push the image again").into());
        }
    }
    Ok(Retagged { digest: stored.digest, already })
}
