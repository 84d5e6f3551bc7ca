//! Lays an image's files out in a folder, as far as somebody who is not root can: modes and links, not owners.
//!
//! The image decides about names and links, so each path is looked up inside the folder alone: an absolute link starts
//! at the folder, `..` ends at it. Left out: device nodes and pipes, which are refused, and set-user-id bits.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;
use tar::{Entry, EntryType};

use super::{Found, Registry};
use crate::fault::Fault;
use crate::image::hashing::Hashing;
use crate::image::platform::Platform;
use crate::image::{Digest, Runtime};

const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
/// As many links as Linux follows in one path.
const LINKS: u32 = 40;

pub fn unpack(registry: &Registry, digest: &Digest, into: &Path) -> anyhow::Result<Runtime> {
    if fs::read_dir(into).is_ok_and(|mut entries| entries.next().is_some()) {
        let fault = Fault::usage(format!("{}: there are files already", into.display()));
        return Err(fault.help("name a folder that is empty or absent").into());
    }
    let Found { manifest, config, .. } = registry.image(digest, Some(&Platform::here()))?;
    let diff_ids = &config.rootfs.diff_ids;
    if manifest.layers.len() != diff_ids.len() {
        let (layers, ids) = (manifest.layers.len(), diff_ids.len());
        return Err(
            Fault::refused(format!("image {digest} has {layers} layers and {ids} layer digests")).into()
        );
    }
    let parent = into.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    let folder = tempfile::Builder::new().prefix(".unpacking-").tempdir_in(parent)?;
    for (descriptor, diff_id) in manifest.layers.iter().zip(diff_ids) {
        let layer = registry.layer(descriptor)?;
        apply(layer, diff_id, folder.path()).with_context(|| format!("image {digest}"))?;
    }
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    fs::rename(folder.path(), into).with_context(|| into.display().to_string())?;
    let _ = folder.keep();

    let run = config.config;
    Ok(Runtime {
        entrypoint: run.entrypoint.unwrap_or_default(),
        cmd: run.cmd.unwrap_or_default(),
        env: run.env.unwrap_or_default(),
    })
}

impl Runtime {
    /// The program's file in the folder that the image was unpacked into.
    pub fn program(&self, root: &Path) -> anyhow::Result<PathBuf> {
        let named = self.entrypoint.iter().chain(&self.cmd).next();
        let named = named.ok_or_else(|| Fault::refused("the image names no program to start"))?;
        within(root, Path::new(named))
    }
}

/// Unpacks one layer over those below it.
fn apply(layer: impl Read, diff_id: &Digest, root: &Path) -> anyhow::Result<()> {
    let damaged = |why: &dyn std::fmt::Display| {
        Fault::refused(format!("layer {}: {why}", diff_id.short())).help("push the image again")
    };
    let mut layer = Hashing::new(layer);
    let mut own = BTreeSet::new();
    let mut archive = tar::Archive::new(&mut layer);
    for entry in archive.entries().map_err(|error| damaged(&error))? {
        let mut entry = entry.map_err(|error| damaged(&error))?;
        let name = entry.path().map_err(|error| damaged(&error))?.into_owned();
        place(&mut entry, &name, root, &mut own)
            .with_context(|| format!("layer {}: {}", diff_id.short(), name.display()))?;
    }
    // The digest is that of the whole tar, with what lies behind its last entry.
    io::copy(&mut layer, &mut io::sink()).map_err(|error| damaged(&error))?;
    let found = layer.digest();
    if found != *diff_id {
        return Err(damaged(&format!("has the digest {found} when unpacked")).into());
    }
    Ok(())
}

/// Puts one entry in its place; `own` are the paths that this layer made, which its own whiteouts spare.
fn place(
    entry: &mut Entry<'_, impl Read>,
    name: &Path,
    root: &Path,
    own: &mut BTreeSet<PathBuf>,
) -> anyhow::Result<()> {
    if name.components().any(|part| part == Component::ParentDir) {
        return Err(Fault::refused("a path with .. in it").into());
    }
    let Some(last) = name.file_name() else { return Ok(()) };
    let parent = within(root, name.parent().unwrap_or(Path::new("")))?;
    let last = last.to_string_lossy();
    if last == OPAQUE {
        return clear(&parent, own);
    }
    if let Some(gone) = last.strip_prefix(WHITEOUT) {
        return if gone.is_empty() || gone.starts_with('.') && gone.trim_matches('.').is_empty() {
            Err(Fault::refused("a whiteout of nothing").into())
        } else {
            remove(&parent.join(gone))
        };
    }
    fs::create_dir_all(&parent)?;
    let path = parent.join(&*last);
    let kind = entry.header().entry_type();
    if !(kind.is_dir() && fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir())) {
        remove(&path)?;
    }
    let mode = entry.header().mode()?;
    match kind {
        // The owner must be able to fill the folder, and to delete it.
        EntryType::Directory => {
            fs::create_dir_all(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o1777 | 0o700))?;
        }
        EntryType::Regular | EntryType::Continuous => {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            io::copy(entry, &mut file)?;
            file.set_permissions(fs::Permissions::from_mode(mode & 0o777))?;
        }
        EntryType::Symlink => symlink(link(entry)?, &path)?,
        EntryType::Link => {
            let target = link(entry)?;
            let folder = within(root, target.parent().unwrap_or(Path::new("")))?;
            fs::hard_link(folder.join(target.file_name().unwrap_or_default()), &path)?;
        }
        other => return Err(Fault::refused(format!("an entry of the kind {other:?}")).into()),
    }
    own.insert(path);
    Ok(())
}

fn link(entry: &Entry<'_, impl Read>) -> anyhow::Result<PathBuf> {
    Ok(entry.link_name()?.ok_or_else(|| Fault::refused("a link to nothing"))?.into_owned())
}

/// Removes what lower layers left in a folder.
fn clear(folder: &Path, own: &BTreeSet<PathBuf>) -> anyhow::Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if !own.range(path.clone()..).next().is_some_and(|made| made.starts_with(&path)) {
            remove(&path)?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Ok(fs::remove_dir_all(path)?),
        Ok(_) => Ok(fs::remove_file(path)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Where `path` of an image lies when the image's root is the folder `root`: links are followed as inside the image.
fn within(root: &Path, path: &Path) -> anyhow::Result<PathBuf> {
    let mut found = PathBuf::new();
    let mut rest: Vec<PathBuf> = vec![path.to_owned()];
    let mut links = 0;
    while let Some(next) = rest.pop() {
        let mut parts = next.components();
        let Some(part) = parts.next() else { continue };
        rest.push(parts.as_path().to_owned());
        match part {
            Component::RootDir | Component::Prefix(_) => found = PathBuf::new(),
            Component::CurDir => {}
            Component::ParentDir => drop(found.pop()),
            Component::Normal(name) => {
                found.push(name);
                let Ok(target) = fs::read_link(root.join(&found)) else { continue };
                links += 1;
                if links > LINKS {
                    return Err(Fault::refused(format!("{}: links in a circle", path.display())).into());
                }
                found.pop();
                rest.push(target);
            }
        }
    }
    Ok(root.join(found))
}
