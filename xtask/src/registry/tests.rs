//! Images made in memory, through a layout folder and back to files.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};
use tempfile::TempDir;

use super::{Push, Registry};
use crate::fault::exit_code;
use crate::image::oci::{Descriptor, INDEX, Index, Stored};
use crate::image::platform::{Platform, architecture};
use crate::image::{Digest, Image, Layer, Runtime};

/// An entry of a layer: what it is, its name, and its content or where it links to.
type Entry<'a> = (EntryType, &'a str, &'a str);
const FILE: EntryType = EntryType::Regular;
const FOLDER: EntryType = EntryType::Directory;
const LINK: EntryType = EntryType::Symlink;
const HARD: EntryType = EntryType::Link;

fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (kind, name, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o750);
        // Written by hand, as the crate itself refuses to write `..`.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        if *kind == FILE {
            header.set_size(content.len() as u64);
        } else {
            header.set_size(0);
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        header.set_cksum();
        tar.append(&header, if *kind == FILE { content.as_bytes() } else { b"" }).unwrap();
    }
    tar.into_inner().unwrap()
}

fn image(layers: &[&[Entry<'_>]]) -> Image {
    let layers: Vec<_> = layers.iter().map(|entries| layer(tar(entries))).collect();
    let diff_ids: Vec<_> = layers.iter().map(|layer| &layer.diff_id).collect();
    let config = serde_json::json!({
        "architecture": architecture(), "os": "linux",
        "config": { "Entrypoint": ["/bin/dojo"], "Cmd": ["serve"], "Env": ["A=b=c"], "User": "1000:1000" },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    Image::new(serde_json::to_vec(&config).unwrap(), layers)
}

fn layer(bytes: Vec<u8>) -> Layer {
    let (diff_id, size) = (Digest::of(&bytes), bytes.len() as u64);
    Layer::new(diff_id, size, Box::new(move || Ok(Box::new(std::io::Cursor::new(bytes.clone())))))
}

struct Store {
    folder: TempDir,
    registry: Registry,
}

impl Store {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open("oci:registry", folder.path()).unwrap();
        Self { folder, registry }
    }

    fn push(&self, image: &Image, tag: &str) -> anyhow::Result<Digest> {
        self.registry.push(image, &Push::to(&[tag.to_owned()]), &|_| ()).map(|pushed| pushed.digest)
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.folder.path().join("registry/blobs/sha256").join(digest.hex())
    }

    fn unpack(&self, layers: &[&[Entry<'_>]]) -> anyhow::Result<(PathBuf, Runtime)> {
        let digest = self.push(&image(layers), "edge")?;
        let into = self.folder.path().join("root");
        let runtime = self.registry.unpack(&digest, &into)?;
        Ok((into, runtime))
    }
}

fn read(root: &Path, name: &str) -> String {
    fs::read_to_string(root.join(name)).unwrap()
}

#[test]
fn upper_layers_change_and_remove_what_lower_ones_brought() {
    let store = Store::new();
    let lower =
        [(FILE, "bin/dojo", "one"), (FILE, "etc/gone", "x"), (FILE, "var/old", "x"), (FOLDER, "srv/", "")];
    let upper = [
        (FILE, "./bin/dojo", "two"),
        (HARD, "bin/same", "bin/dojo"),
        (FILE, "etc/.wh.gone", ""),
        (FILE, "var/new", "kept"),
        (FILE, "var/.wh..wh..opq", ""),
        (FILE, "srv", "now a file"),
    ];
    let (root, runtime) = store.unpack(&[&lower, &upper]).unwrap();
    assert_eq!(
        [read(&root, "bin/dojo"), read(&root, "bin/same"), read(&root, "srv")],
        ["two", "two", "now a file"]
    );
    assert!(!root.join("etc/gone").exists() && !root.join("var/old").exists());
    assert_eq!(read(&root, "var/new"), "kept", "an opaque folder spares its own layer's files");
    assert_eq!(fs::metadata(root.join("bin/dojo")).unwrap().permissions().mode() & 0o7777, 0o750);
    assert_eq!(runtime.entrypoint, ["/bin/dojo"]);
    assert_eq!((runtime.cmd, runtime.env), (vec!["serve".into()], vec!["A=b=c".into()]));
}

#[test]
fn a_links_target_is_looked_up_inside_the_image() {
    let store = Store::new();
    let lower = [
        (FILE, "store/v1/dojo", "program"),
        (LINK, "bin/dojo", "/store/v1/dojo"),
        (LINK, "lib64", "/usr/lib"),
    ];
    let upper = [(FILE, "lib64/libc.so", "c"), (FILE, "/abs", "at the root")];
    let (root, runtime) = store.unpack(&[&lower, &upper]).unwrap();
    assert_eq!(runtime.program(&root).unwrap(), root.join("store/v1/dojo"));
    assert_eq!(read(&root, "usr/lib/libc.so"), "c");
    assert_eq!(read(&root, "abs"), "at the root");
}

#[test]
fn nothing_is_written_outside_the_folder() {
    for entries in [
        &[(FILE, "../escaped", "x")][..],
        &[(FILE, "a/../../escaped", "x")],
        &[(HARD, "stolen", "../../secret")],
        &[(LINK, "circle", "circle"), (FILE, "circle/x", "x")],
        &[(EntryType::Char, "dev/null", "")],
        &[(FILE, ".wh.", "")],
        &[(FILE, ".wh...", "")],
    ] {
        let store = Store::new();
        fs::write(store.folder.path().join("secret"), "secret").unwrap();
        assert!(store.unpack(&[entries]).is_err(), "{entries:?}");
        assert!(!store.folder.path().join("root").exists(), "half an image was left: {entries:?}");
        assert!(!store.folder.path().join("escaped").exists());
    }
    let store = Store::new();
    let target = store.folder.path().join("target");
    fs::create_dir(&target).unwrap();
    let absolute = target.to_str().unwrap();
    store
        .unpack(&[
            &[(LINK, "out", absolute)],
            &[(FILE, "out/escaped", "x")],
            &[(FILE, "out/.wh.escaped", "")],
        ])
        .unwrap();
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    let store = Store::new();
    let (root, _) = store.unpack(&[&[(LINK, "up", "../../../.."), (FILE, "up/clamped", "x")]]).unwrap();
    assert_eq!(read(&root, "clamped"), "x");
}

#[test]
fn a_folder_with_files_is_not_unpacked_over() {
    let store = Store::new();
    fs::create_dir(store.folder.path().join("root")).unwrap();
    store.unpack(&[&[(FILE, "a", "x")]]).unwrap();
    let again = store.unpack(&[&[(FILE, "a", "x")]]).unwrap_err();
    assert_eq!(exit_code(&again), 2, "{again:#}");
}

#[test]
fn the_same_layers_have_the_same_digest_and_are_sent_once() {
    let (one, two) = (Store::new(), Store::new());
    let image = image(&[&[(FILE, "a", "x")], &[(FILE, "b", "y")]]);
    assert_eq!(one.push(&image, "edge").unwrap(), two.push(&image, "edge").unwrap());
    let again = one.registry.push(&image, &Push::to(&["latest".to_owned()]), &|_| ()).unwrap();
    assert_eq!(again.bytes_sent, 0);
    assert!(again.bytes_skipped > 0);
    assert_eq!(one.registry.tags().unwrap(), ["edge", "latest"]);
}

/// Gives one, two, three … bytes at a time, as a decompressor might.
struct Crumbs(std::io::Cursor<Vec<u8>>, usize);

impl std::io::Read for Crumbs {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.1 = self.1 % 5000 + 1;
        let length = buffer.len().min(self.1);
        std::io::Read::read(&mut self.0, &mut buffer[..length])
    }
}

#[test]
fn the_digest_does_not_depend_on_how_a_layer_is_read() {
    let text: String = (0..60_000_u64).map(|n| (n * n * 2_654_435_761 % 9973).to_string()).collect();
    let whole = image(&[&[(FILE, "a", &text)]]);
    let mut crumbs = image(&[&[(FILE, "a", &text)]]);
    let bytes = tar(&[(FILE, "a", &text)]);
    let open = move || -> anyhow::Result<Box<dyn std::io::Read + Send>> {
        Ok(Box::new(Crumbs(std::io::Cursor::new(bytes.clone()), 0)))
    };
    crumbs.layers = vec![Layer::new(whole.layers[0].diff_id.clone(), 0, Box::new(open))];
    let store = Store::new();
    assert_eq!(store.push(&whole, "whole").unwrap(), store.push(&crumbs, "crumbs").unwrap());
}

#[test]
fn what_is_damaged_is_refused_by_name() {
    let store = Store::new();
    let image = image(&[&[(FILE, "a", "x")]]);
    let digest = store.push(&image, "edge").unwrap();
    let manifest = store.registry.manifest(&digest).unwrap();
    for damaged in [&digest, &manifest.config.digest, &manifest.layers[0].digest] {
        let good = fs::read(store.blob(damaged)).unwrap();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        for content in [Some(bad), Some(good[..good.len() / 2].to_vec()), None] {
            match content {
                Some(content) => fs::write(store.blob(damaged), content).unwrap(),
                None => fs::remove_file(store.blob(damaged)).unwrap(),
            }
            let into = store.folder.path().join("root");
            let error = store.registry.unpack(&digest, &into).unwrap_err();
            assert_eq!(exit_code(&error), 3, "{error:#}");
            assert!(format!("{error:#}").contains(damaged.hex()), "{error:#}");
            assert!(!into.exists());
        }
        fs::write(store.blob(damaged), good).unwrap();
    }
    // Pushing it again repairs it, from another process, which has not seen it whole.
    for part in [&manifest.layers[0].digest, &manifest.config.digest, &digest] {
        let mut same_length = fs::read(store.blob(part)).unwrap();
        *same_length.last_mut().unwrap() ^= 1;
        for content in [b"short".to_vec(), same_length] {
            fs::write(store.blob(part), content).unwrap();
            let registry = Registry::open("oci:registry", store.folder.path()).unwrap();
            registry.push(&image, &Push::to(&["edge".to_owned()]), &|_| ()).unwrap();
            assert_eq!(Digest::of(&fs::read(store.blob(part)).unwrap()), *part);
        }
    }
    store.registry.unpack(&digest, &store.folder.path().join("root")).unwrap();
}

#[test]
fn a_lying_layer_is_refused_when_pushed_and_when_unpacked() {
    let store = Store::new();
    let mut lying = image(&[&[(FILE, "a", "x")]]);
    lying.layers = vec![layer(tar(&[(FILE, "a", "y")]))];
    // An archive checks as it reads; this image does not, so that unpacking must.
    let digest = store.push(&lying, "edge").unwrap();
    let error = store.registry.unpack(&digest, &store.folder.path().join("root")).unwrap_err();
    assert_eq!(exit_code(&error), 3, "{error:#}");
}

#[test]
fn a_foreign_folder_is_not_made_a_layout() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.tex"), "x").unwrap();
    let registry = Registry::open("oci:.", folder.path()).unwrap();
    let edge = ["edge".to_owned()];
    let error = registry.push(&image(&[&[(FILE, "a", "x")]]), &Push::to(&edge), &|_| ()).unwrap_err();
    assert_eq!(exit_code(&error), 2, "{error:#}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_absent_layout_is_empty_and_a_broken_one_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open("oci:none", folder.path()).unwrap();
    assert_eq!((registry.tags().unwrap(), registry.resolve("edge").unwrap()), (Vec::<String>::new(), None));
    assert!(!folder.path().join("none").exists());
    fs::create_dir(folder.path().join("none")).unwrap();
    fs::write(folder.path().join("none/index.json"), "{").unwrap();
    assert_eq!(exit_code(&registry.resolve("edge").unwrap_err()), 3);
    fs::remove_file(folder.path().join("none/index.json")).unwrap();
    symlink("index.json", folder.path().join("none/index.json")).unwrap();
    assert!(registry.resolve("edge").is_err(), "unreadable is not absent");
}

#[test]
fn of_an_index_the_image_for_this_machine_is_unpacked() {
    let store = Store::new();
    let [here, other] = ["here", "elsewhere"].map(|text| {
        let digest = store.push(&image(&[&[(FILE, "bin/dojo", text)]]), text).unwrap();
        store.registry.stored(&digest).unwrap().descriptor()
    });
    let index = |entries: &[(&Descriptor, &str)]| {
        let manifests = entries.iter().map(|(entry, architecture)| {
            let platform = Some(Platform::new("linux", architecture, None));
            Descriptor { platform, ..(*entry).clone() }
        });
        let index = Index { manifests: manifests.collect(), ..Index::default() };
        let bytes = serde_json::to_vec(&index).unwrap();
        let stored = Stored::new(INDEX, bytes);
        store.registry.put("index", &stored).unwrap();
        stored.digest
    };
    let into = store.folder.path().join("root");
    store.registry.unpack(&index(&[(&other, "riscv64"), (&here, architecture())]), &into).unwrap();
    assert_eq!(read(&into, "bin/dojo"), "here");
    let refusal = store.registry.unpack(&index(&[(&other, "riscv64")]), &into.join("none")).unwrap_err();
    assert!(refusal.to_string().contains("linux/riscv64"), "{refusal}");
}
