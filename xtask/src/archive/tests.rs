//! Archives of all kinds that are read, and the ways in which each can be damaged.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;

use serde_json::json;
use tar::{EntryType, Header};

use super::read;
use crate::fault::{Fault, exit_code};
use crate::image::oci::{CONFIG, Config, Descriptor, Index, LAYER, MANIFEST, Manifest, RootFs, Run};
use crate::image::{Digest, Image};

type Files = Vec<(String, Vec<u8>)>;

fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let rootfs = RootFs { kind: "layers".into(), diff_ids: layers.iter().map(|l| Digest::of(l)).collect() };
    let (architecture, os) = ("amd64".into(), "linux".into());
    let config = Config {
        architecture,
        os,
        variant: None,
        created: None,
        config: Run::default(),
        rootfs,
        history: vec![],
    };
    serde_json::to_vec(&config).unwrap()
}

/// Content in which every bit counts, gzipped too.
fn layers() -> Vec<Vec<u8>> {
    let content = |seed: u32| (0..10_000 * seed).map(move |n| (n.wrapping_mul(2_654_435_761) >> 13) as u8);
    (1..=3).map(|seed| content(seed).collect()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// As nix writes it.
fn docker() -> Files {
    let config = config(&layers());
    let name = format!("{}.json", Digest::of(&config).hex());
    let mut files: Files =
        layers().into_iter().map(|l| (format!("{}/layer.tar", Digest::of(&l).hex()), l)).collect();
    let names: Vec<_> = files.iter().map(|(name, _)| name.clone()).collect();
    let manifest = json!([{ "Config": name, "RepoTags": ["dojo:x"], "Layers": names }]);
    files.push((name, config));
    files.push(("manifest.json".into(), serde_json::to_vec(&manifest).unwrap()));
    files
}

/// An image layout with one plain and further gzipped layers.
fn layout() -> Files {
    let mut files = Vec::new();
    let mut add = |kind: &str, bytes: Vec<u8>| {
        let descriptor = Descriptor::of(kind, &bytes);
        files.push((format!("blobs/sha256/{}", descriptor.digest.hex()), bytes));
        descriptor
    };
    let stored = layers()
        .iter()
        .enumerate()
        .map(|(index, layer)| if index == 0 { layer.clone() } else { gzip(layer) })
        .collect::<Vec<_>>();
    let layers_ = stored.into_iter().map(|layer| add(LAYER, layer)).collect();
    let config = add(CONFIG, config(&layers()));
    let manifest = add(MANIFEST, serde_json::to_vec(&Manifest::new(config, layers_)).unwrap());
    let index = Index { manifests: vec![manifest], ..Index::default() };
    files.push(("index.json".into(), serde_json::to_vec(&index).unwrap()));
    files
}

fn tar(files: &Files) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("./{name}"), bytes.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Reads an archive of these bytes, with all its layers.
fn load(bytes: &[u8]) -> anyhow::Result<Image> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.tar");
    fs::write(&path, bytes).unwrap();
    drain(&path)
}

fn drain(path: &Path) -> anyhow::Result<Image> {
    let image = read(path)?;
    for layer in &image.layers {
        let mut bytes = Vec::new();
        layer.open()?.read_to_end(&mut bytes).map_err(|error| error.downcast::<Fault>().unwrap())?;
        assert_eq!(Digest::of(&bytes), layer.diff_id);
    }
    Ok(image)
}

#[test]
fn every_kind_is_read() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in layout() {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let mut both = layout();
    both.push(("manifest.json".into(), b"[]".to_vec()));
    let images = [
        load(&tar(&docker())).unwrap(),
        load(&gzip(&tar(&docker()))).unwrap(),
        load(&tar(&layout())).unwrap(),
        load(&gzip(&tar(&both))).unwrap(),
        drain(folder.path()).unwrap(),
    ];
    for image in images {
        assert_eq!(image.config, config(&layers()));
        assert_eq!(image.layers.len(), 3);
    }
}

#[test]
fn a_layer_that_is_there_twice_may_be_linked() {
    let mut files = docker();
    let (name, _) = files.remove(0);
    let mut tar = tar::Builder::new(tar_open(&files));
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, &name, "../elsewhere/layer.tar").unwrap();
    let mut header = Header::new_gnu();
    header.set_size(layers()[0].len() as u64);
    tar.append_data(&mut header, "elsewhere/layer.tar", layers()[0].as_slice()).unwrap();
    load(&tar.into_inner().unwrap()).unwrap();
}

/// A tar without its end, to write on.
fn tar_open(files: &Files) -> Vec<u8> {
    let mut bytes = tar(files);
    bytes.truncate(bytes.len() - 1024);
    bytes
}

#[test]
fn a_truncated_archive_is_refused_by_name() {
    for whole in [tar(&docker()), tar(&layout()), gzip(&tar(&docker()))] {
        // What follows the last file in a tar is zeros, up to 1536 of them, which may be missing.
        for length in (0..whole.len() - 1536).step_by(whole.len() / 40).skip(1) {
            let error = load(&whole[..length]).unwrap_err();
            assert_eq!(exit_code(&error), 3, "{length} of {}: {error:#}", whole.len());
            assert!(format!("{error:#}").contains("some.tar"), "{error:#}");
        }
    }
}

#[test]
fn a_changed_bit_is_refused_wherever_it_counts() {
    for files in [docker(), layout()] {
        for (name, bytes) in &files {
            // Gzip's header has bits that mean nothing.
            for at in [bytes.len() / 2, bytes.len() - 1] {
                let mut changed = files.clone();
                let (_, content) = changed.iter_mut().find(|(other, _)| other == name).unwrap();
                content[at] ^= 0x10;
                let error = load(&tar(&changed)).expect_err(name);
                assert_eq!(exit_code(&error), 3, "{name}: {error:#}");
            }
        }
    }
}

#[test]
fn what_is_missing_or_no_image_is_said() {
    for files in [docker(), layout()] {
        for missing in 0..files.len() {
            let mut fewer = files.clone();
            fewer.remove(missing);
            let error = load(&tar(&fewer)).unwrap_err();
            assert_eq!(exit_code(&error), 3, "{error:#}");
        }
    }
    let said = |bytes: &[u8]| format!("{:#}", load(bytes).unwrap_err());
    assert!(said(b"").contains("is no image"));
    assert!(said(&tar(&vec![("a".into(), vec![])])).contains("is no image"));
    let absent = read(Path::new("no/such.tar")).unwrap_err();
    assert_eq!(exit_code(&absent), 2);
    assert!(absent.to_string().contains("no/such.tar") && absent.to_string().contains("image build"));
}

#[test]
fn a_config_that_lists_other_layers_is_refused() {
    let mut files = docker();
    let position = files.iter().position(|(name, _)| name == "manifest.json").unwrap();
    let mut manifest: serde_json::Value = serde_json::from_slice(&files[position].1).unwrap();
    manifest[0]["Layers"].as_array_mut().unwrap().pop();
    files[position].1 = serde_json::to_vec(&manifest).unwrap();
    let error = load(&tar(&files)).unwrap_err().to_string();
    assert!(error.contains("3 layers") && error.contains("manifest 2"), "{error}");
}

#[test]
fn two_images_in_one_archive_are_refused() {
    let mut files = layout();
    let position = files.iter().position(|(name, _)| name == "index.json").unwrap();
    let mut index: Index = serde_json::from_slice(&files[position].1).unwrap();
    index.manifests.push(Descriptor::of(MANIFEST, b"another"));
    files[position].1 = serde_json::to_vec(&index).unwrap();
    assert!(load(&tar(&files)).unwrap_err().to_string().contains("several images"));
}
