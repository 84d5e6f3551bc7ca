//! A layer's files, written as a tar that is the same each time: sorted, one time for all, numeric owners.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tar::{EntryType, Header};

/// The one time in all tars; some tools take 0 for "unknown".
pub const MTIME: u64 = 1;

#[derive(Debug)]
pub enum Node {
    Folder {
        mode: u32,
        owner: u64,
    },
    /// A file's content, from this machine.
    Copy {
        from: PathBuf,
        mode: u32,
    },
    Text(String),
    Link(PathBuf),
}

/// Paths, relative to the image's root, and what lies there.
#[derive(Debug, Default)]
pub struct Tree(BTreeMap<PathBuf, Node>);

impl Tree {
    /// Adds a node, and the folders above it.
    pub fn add(&mut self, path: impl AsRef<Path>, node: Node) {
        let path = path.as_ref();
        let path = path.strip_prefix("/").unwrap_or(path);
        for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            self.0.entry(parent.to_owned()).or_insert(Node::Folder { mode: 0o755, owner: 0 });
        }
        self.0.insert(path.to_owned(), node);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The image's paths of what was copied from this machine.
    pub fn files(&self) -> Vec<String> {
        let copied = self.0.iter().filter(|(_, node)| matches!(node, Node::Copy { .. }));
        copied.map(|(path, _)| format!("/{}", path.display())).collect()
    }

    pub fn write<W: Write>(&self, writer: W) -> anyhow::Result<W> {
        let mut tar = tar::Builder::new(writer);
        for (path, node) in &self.0 {
            append(&mut tar, path, node).with_context(|| path.display().to_string())?;
        }
        Ok(tar.into_inner()?)
    }
}

fn append(tar: &mut tar::Builder<impl Write>, path: &Path, node: &Node) -> anyhow::Result<()> {
    match node {
        Node::Folder { mode, owner } => {
            let mut header = header(EntryType::Directory, *mode, *owner, 0);
            tar.append_data(&mut header, format!("{}/", path.display()), io::empty())?;
        }
        Node::Copy { from, mode } => {
            let file = File::open(from).with_context(|| from.display().to_string())?;
            let mut header = header(EntryType::Regular, *mode, 0, file.metadata()?.len());
            tar.append_data(&mut header, path, file)?;
        }
        Node::Text(text) => {
            let mut header = header(EntryType::Regular, 0o644, 0, text.len() as u64);
            tar.append_data(&mut header, path, text.as_bytes())?;
        }
        Node::Link(target) => {
            tar.append_link(&mut header(EntryType::Symlink, 0o777, 0, 0), path, target)?;
        }
    }
    Ok(())
}

pub fn header(kind: EntryType, mode: u32, owner: u64, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_mtime(MTIME);
    header.set_size(size);
    header
}
