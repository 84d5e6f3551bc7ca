//! The image from one binary: what it needs to run, busybox to look around, and the folders that it may write to.
//!
//! Layers go from what changes least to what changes most. The result is an OCI image layout in a tar, with docker's
//! `manifest.json` beside it, so that docker and podman load it too. The same inputs give the same bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek as _, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use tar::EntryType;

use super::libraries::{Library, needed};
use super::tree::{Node, Tree, header};
use crate::image::hashing::Hashing;
use crate::image::oci::{
    CONFIG, Config, Descriptor, History, Index, LAYER, LAYOUT, MANIFEST, Manifest, REF_NAME, RootFs, Run,
};
use crate::image::platform::architecture;
use crate::image::{Digest, Labels};
use crate::sbom::FILES;

const USER: u64 = 1000;
const PORT: &str = "8000/tcp";

/// A layer's tar in an unnamed file.
struct Written {
    file: File,
    digest: Digest,
    size: u64,
    holds: String,
    files: Vec<String>,
}

/// Writes the image of `binary` to `archive`, which appears complete or not at all.
pub fn assemble(binary: &Path, labels: &Labels, reference: &str, archive: &Path) -> anyhow::Result<()> {
    let libraries = needed(binary)?;
    let trees = [
        (names(&libraries), shared(&libraries)),
        ("busybox".to_owned(), busybox(&libraries)?),
        ("users and folders".to_owned(), base()),
        (format!("dojo-{}", labels.version), program(binary)),
    ];
    let mut layers = Vec::new();
    for (holds, tree) in trees.into_iter().filter(|(_, tree)| !tree.is_empty()) {
        layers.push(layer(&tree, holds)?);
    }
    let config = serde_json::to_vec(&config(&layers, labels))?;
    let folder = archive.parent().context("the archive has no folder")?;
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(|| folder.display().to_string())?;
    write(BufWriter::new(&mut file), &mut layers, &config, reference)?;
    file.as_file().sync_all()?;
    file.persist(archive).with_context(|| archive.display().to_string())?;
    Ok(())
}

/// The libraries as `ls` would show them.
fn names(libraries: &[Library]) -> String {
    let names = libraries.iter().filter_map(|library| library.to.file_name());
    names.map(|name| name.to_string_lossy()).collect::<Vec<_>>().join(", ")
}

fn shared(libraries: &[Library]) -> Tree {
    let mut tree = Tree::default();
    for library in libraries {
        tree.add(&library.to, Node::Copy { from: library.from.clone(), mode: 0o755 });
    }
    tree
}

/// Busybox, if this machine has one that runs in the image.
fn busybox(libraries: &[Library]) -> anyhow::Result<Tree> {
    let mut tree = Tree::default();
    let Some(program) = on_path("busybox") else { return Ok(tree) };
    if !needed(&program)?.iter().all(|library| libraries.contains(library)) {
        return Ok(tree);
    }
    let listed = Command::new(&program).arg("--list").output().context("busybox --list")?;
    for applet in String::from_utf8_lossy(&listed.stdout).lines().filter(|applet| *applet != "busybox") {
        tree.add(Path::new("bin").join(applet), Node::Link("busybox".into()));
    }
    tree.add("bin/busybox", Node::Copy { from: program, mode: 0o755 });
    Ok(tree)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn base() -> Tree {
    let mut tree = Tree::default();
    tree.add("app", Node::Folder { mode: 0o755, owner: USER });
    tree.add("data", Node::Folder { mode: 0o755, owner: USER });
    tree.add("tmp", Node::Folder { mode: 0o1777, owner: 0 });
    let passwd = "root:x:0:0:root:/:/bin/sh\ndojo:x:1000:1000:dojo:/nonexistent:/bin/sh\n";
    tree.add("etc/passwd", Node::Text(passwd.to_owned()));
    tree.add("etc/group", Node::Text("root:x:0:\ndojo:x:1000:\n".to_owned()));
    tree
}

fn program(binary: &Path) -> Tree {
    let mut tree = Tree::default();
    tree.add("bin/dojo", Node::Copy { from: binary.to_owned(), mode: 0o755 });
    tree
}

fn layer(tree: &Tree, holds: String) -> anyhow::Result<Written> {
    let file = tempfile::tempfile().context("a temporary file for a layer")?;
    let hashing = tree.write(Hashing::new(BufWriter::new(file)))?;
    let (writer, digest, size) = hashing.finish();
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(Written { file, digest, size, holds, files: tree.files() })
}

fn config(layers: &[Written], labels: &Labels) -> Config {
    let strings = |items: &[&str]| Some(items.iter().map(|item| (*item).to_owned()).collect());
    let created = Some(labels.created.clone());
    Config {
        architecture: architecture().to_owned(),
        os: "linux".to_owned(),
        variant: None,
        created: created.clone(),
        config: Run {
            entrypoint: strings(&["/bin/dojo"]),
            cmd: strings(&["serve"]),
            env: strings(&["PATH=/bin", "DOJO_DB_PATH=/data/ledger.duckdb", "DOJO_ENV=production"]),
            working_dir: Some("/app".to_owned()),
            user: Some(format!("{USER}:{USER}")),
            exposed_ports: Some(BTreeMap::from([(PORT.to_owned(), serde_json::json!({}))])),
            labels: Some(labels.to_map()),
        },
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids: layers.iter().map(|layer| layer.digest.clone()).collect(),
        },
        history: layers
            .iter()
            .map(|layer| History {
                created: created.clone(),
                created_by: Some(layer.holds.clone()),
                comment: (!layer.files.is_empty()).then(|| format!("{FILES}{}", layer.files.join(", "))),
                ..History::default()
            })
            .collect(),
    }
}

fn write(writer: impl Write, layers: &mut [Written], config: &[u8], reference: &str) -> anyhow::Result<()> {
    let descriptors =
        layers.iter().map(|layer| Descriptor::new(LAYER, layer.digest.clone(), layer.size)).collect();
    let config_blob = Descriptor::of(CONFIG, config);
    let manifest = serde_json::to_vec(&Manifest::new(config_blob.clone(), descriptors))?;
    let mut entry = Descriptor::of(MANIFEST, &manifest);
    let manifest_name = blob(&entry.digest);
    let tag = reference.rsplit(':').next().unwrap_or(reference);
    entry.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
    let index = serde_json::to_vec(&Index { manifests: vec![entry], ..Index::default() })?;
    let docker = serde_json::to_vec(&serde_json::json!([{
        "Config": blob(&config_blob.digest),
        "RepoTags": [reference],
        "Layers": layers.iter().map(|layer| blob(&layer.digest)).collect::<Vec<_>>(),
    }]))?;

    let mut tar = tar::Builder::new(writer);
    let documents = [
        ("oci-layout".to_owned(), LAYOUT.as_bytes()),
        ("index.json".to_owned(), &index),
        ("manifest.json".to_owned(), &docker),
        (manifest_name, &manifest),
        (blob(&config_blob.digest), config),
    ];
    for (name, bytes) in documents {
        let mut header = header(EntryType::Regular, 0o644, 0, bytes.len() as u64);
        tar.append_data(&mut header, name, bytes)?;
    }
    for layer in layers {
        layer.file.rewind()?;
        let mut header = header(EntryType::Regular, 0o644, 0, layer.size);
        tar.append_data(&mut header, blob(&layer.digest), &layer.file)?;
    }
    tar.into_inner()?.flush().context("writing the archive")
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::image::Schema;

    fn labels() -> Labels {
        Labels {
            revision: "0123456789abcdef0123456789abcdef01234567".into(),
            version: "0.1.0".into(),
            source: "https://github.com/blogle/dojo".into(),
            created: "2026-01-02T03:04:05Z".into(),
            schema: Schema { current: 1, oldest_binary: 1 },
        }
    }

    #[test]
    fn the_same_binary_gives_the_same_bytes_whatever_its_times_are() {
        let folder = tempfile::tempdir().unwrap();
        let made = |name: &str| {
            let binary = folder.path().join(name);
            fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
            let archive = folder.path().join(format!("{name}.tar"));
            assemble(&binary, &labels(), "dojo:sha-0123456789ab", &archive).unwrap();
            fs::read(archive).unwrap()
        };
        let first = made("one");
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert!(first == made("two"), "the archives differ");
    }

    #[test]
    fn the_layers_hold_what_the_service_needs() {
        let names = |tree: &Tree| {
            let mut tar = tar::Archive::new(io::Cursor::new(tree.write(Vec::new()).unwrap()));
            let entries = tar.entries().unwrap().map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                let owner = (header.uid().unwrap(), header.gid().unwrap());
                assert_eq!(header.mtime().unwrap(), super::super::tree::MTIME);
                (entry.path().unwrap().display().to_string(), header.mode().unwrap(), owner)
            });
            entries.collect::<Vec<_>>()
        };
        let base = names(&base());
        for expected in
            [("app/", 0o755, (1000, 1000)), ("data/", 0o755, (1000, 1000)), ("tmp/", 0o1777, (0, 0))]
        {
            let expected = (expected.0.to_owned(), expected.1, expected.2);
            assert!(base.contains(&expected), "{expected:?} is not in {base:?}");
        }
        let program = names(&program(&std::env::current_exe().unwrap()));
        assert_eq!(program.last().unwrap(), &("bin/dojo".to_owned(), 0o755, (0, 0)));
        let needed = needed(&std::env::current_exe().unwrap()).unwrap();
        let shared = names(&shared(&needed));
        assert!(shared.iter().any(|(name, ..)| name.ends_with("/libc.so.6")), "{shared:?}");
    }
}
