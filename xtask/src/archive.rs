//! A built image as it lies on disk: an OCI image layout (folder or tar) or a docker-archive, plain or gzipped.
//!
//! Nothing is unpacked: layers are read where they lie, when asked for. Digests are checked, so that a truncated or lying
//! file is refused by name.

mod checked;
mod layout;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::fault::Fault;
use crate::image::oci::{Config, DOCUMENT_LIMIT};
use crate::image::{Compression, Digest, Image, Layer};
use checked::Checked;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const BUFFER: usize = 1 << 16;

/// Reads the image at `path`; its layers stay where they are.
pub fn read(path: &Path) -> anyhow::Result<Image> {
    let archive = Archive::open(path)?;
    if archive.member("index.json").is_ok() {
        archive.layout()
    } else if archive.member("manifest.json").is_ok() {
        archive.docker()
    } else {
        Err(archive.corrupt("it holds neither index.json nor manifest.json, so it is no image").into())
    }
}

/// A folder's or a tar's files by name.
struct Archive {
    path: PathBuf,
    files: Files,
}

enum Files {
    Folder,
    Tar(Arc<File>, HashMap<String, Place>),
}

enum Place {
    At(u64, u64),
    /// Older dockers link a layer that is in the archive twice.
    Link(String),
}

/// One file, or the part of a tar that is one.
#[derive(Clone)]
struct Member {
    file: Arc<File>,
    at: u64,
    len: u64,
}

/// An entry of a docker-archive's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    layers: Vec<String>,
}

impl Archive {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let path = path.to_owned();
        let mut file = File::open(&path).map_err(|error| {
            Fault::usage(format!("{}: {error}", path.display()))
                .help("build the image first: cargo xtask image build")
        })?;
        if file.metadata()?.is_dir() {
            return Ok(Self { path, files: Files::Folder });
        }
        let mut archive = Self { path, files: Files::Folder };
        if start(&file)?.starts_with(&GZIP) {
            file = archive.inflated(&file)?;
        }
        let members = index(&file).map_err(|error| archive.corrupt(error))?;
        archive.files = Files::Tar(Arc::new(file), members);
        Ok(archive)
    }

    /// The whole archive inflated into an unnamed file, since a gzip stream cannot be read at an offset.
    fn inflated(&self, file: &File) -> anyhow::Result<File> {
        let mut plain = tempfile::tempfile().context("a temporary file for the inflated archive")?;
        let mut inflater = MultiGzDecoder::new(BufReader::new(file));
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = inflater.read(&mut buffer).map_err(|error| self.corrupt(error))?;
            if length == 0 {
                plain.rewind()?;
                return Ok(plain);
            }
            io::Write::write_all(&mut plain, &buffer[..length]).context("inflating the archive")?;
        }
    }

    fn corrupt(&self, why: impl fmt::Display) -> Fault {
        Fault::refused(format!("{}: {why}", self.path.display())).help("build the image again")
    }

    fn member(&self, name: &str) -> anyhow::Result<Member> {
        let absent = || self.corrupt(format!("{name} is missing"));
        match &self.files {
            Files::Folder => {
                let file = File::open(self.path.join(name)).map_err(|_| absent())?;
                let len = file.metadata()?.len();
                Ok(Member { file: Arc::new(file), at: 0, len })
            }
            Files::Tar(file, members) => {
                let mut place = members.get(name);
                if let Some(Place::Link(target)) = place {
                    place = members.get(target);
                }
                let Some(Place::At(at, len)) = place else { return Err(absent().into()) };
                Ok(Member { file: Arc::clone(file), at: *at, len: *len })
            }
        }
    }

    fn bytes(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        let member = self.member(name)?;
        if member.len > DOCUMENT_LIMIT {
            return Err(self.corrupt(format!("{name} is {} bytes long: too long", member.len)).into());
        }
        let mut bytes = Vec::new();
        member.reader().read_to_end(&mut bytes).map_err(|error| self.corrupt(format!("{name}: {error}")))?;
        Ok(bytes)
    }

    fn json<T: DeserializeOwned>(&self, name: &str, bytes: &[u8]) -> anyhow::Result<T> {
        serde_json::from_slice(bytes).map_err(|error| self.corrupt(format!("{name}: {error}")).into())
    }

    fn verify(&self, name: &str, bytes: &[u8], digest: &Digest) -> Result<(), Fault> {
        let found = Digest::of(bytes);
        if found == *digest {
            return Ok(());
        }
        Err(self.corrupt(format!("{name} should have the digest {digest} and has {found}")))
    }

    fn docker(&self) -> anyhow::Result<Image> {
        let images: Vec<DockerImage> = self.json("manifest.json", &self.bytes("manifest.json")?)?;
        let [image] = images.as_slice() else {
            let why = format!("manifest.json names {} images, and one is wanted", images.len());
            return Err(self.corrupt(why).into());
        };
        let config = self.bytes(&image.config)?;
        let stem = image.config.trim_end_matches(".json");
        if let Ok(digest) = format!("sha256:{stem}").parse() {
            self.verify(&image.config, &config, &digest)?;
        }
        let members = image.layers.iter().map(|name| self.member(name));
        self.image(config, members.collect::<anyhow::Result<_>>()?)
    }

    /// Pairs the layers with the digests that the config gives for them.
    fn image(&self, config: Vec<u8>, members: Vec<Member>) -> anyhow::Result<Image> {
        let diff_ids = self.json::<Config>("the config", &config)?.rootfs.diff_ids;
        if diff_ids.len() != members.len() {
            let why =
                format!("the config lists {} layers and the manifest {}", diff_ids.len(), members.len());
            return Err(self.corrupt(why).into());
        }
        let layers = diff_ids.into_iter().zip(members).map(|(diff_id, member)| self.layer(diff_id, member));
        Ok(Image::new(config, layers.collect::<anyhow::Result<_>>()?))
    }

    fn layer(&self, diff_id: Digest, member: Member) -> anyhow::Result<Layer> {
        let mut magic = Vec::new();
        member.reader().take(4).read_to_end(&mut magic)?;
        let (size, path, expected) = (member.len, self.path.clone(), diff_id.clone());
        let compression = match magic.as_slice() {
            magic if magic.starts_with(&GZIP) => Some(Compression::Gzip),
            magic if magic == ZSTD => Some(Compression::Zstd),
            _ => None,
        };
        let open = move || -> anyhow::Result<Box<dyn Read + Send>> {
            let reader = BufReader::with_capacity(BUFFER, member.reader());
            let plain: Box<dyn Read + Send> = match compression {
                Some(Compression::Gzip) => Box::new(MultiGzDecoder::new(reader)),
                Some(Compression::Zstd) => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
                None => Box::new(member.reader()),
            };
            Ok(Box::new(Checked::new(plain, "layer", &expected, None, &path)))
        };
        let mut layer = Layer::new(diff_id, size, Box::new(open));
        layer.compression = compression;
        Ok(layer)
    }
}

fn start(file: &File) -> io::Result<Vec<u8>> {
    let mut magic = vec![0; 2];
    let length = file.read_at(&mut magic, 0)?;
    magic.truncate(length);
    Ok(magic)
}

/// Where the files of a tar lie in it.
fn index(file: &File) -> io::Result<HashMap<String, Place>> {
    let length = file.metadata()?.len();
    let mut members = HashMap::new();
    for entry in tar::Archive::new(file).entries_with_seek()? {
        let entry = entry?;
        let name = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
        let kind = entry.header().entry_type();
        if kind.is_file() {
            let (at, size) = (entry.raw_file_position(), entry.size());
            if at.checked_add(size).is_none_or(|end| end > length) {
                return Err(io::Error::other(format!("{name} is cut short")));
            }
            members.insert(name, Place::At(at, size));
        } else if (kind.is_symlink() || kind.is_hard_link())
            && let Some(target) = entry.link_name()?
        {
            let target = target.to_string_lossy();
            members.insert(name, Place::Link(target.trim_start_matches("../").to_owned()));
        }
    }
    Ok(members)
}

impl Member {
    fn reader(&self) -> Section {
        Section { file: Arc::clone(&self.file), at: self.at, end: self.at + self.len }
    }
}

/// Reads a part of a shared file without moving anybody's place in it.
struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.file.read_at(&mut buffer[..left], self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}
