//! An OCI image layout folder as a registry: `oci-layout`, `index.json` with a name per tag, `blobs/sha256/…`.
//!
//! Every file appears whole (temporary file, fsync, rename), and `index.json` changes only under a file lock, so that
//! several processes can push at once and a kill at any point leaves a valid layout.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

use super::referrers;
use crate::fault::Fault;
use crate::image::hashing::Hashing;
use crate::image::oci::{DOCUMENT_LIMIT, Descriptor, Document, Index, LAYOUT, REF_NAME, Stored, media_type};
use crate::image::{Digest, may_name};

/// How unfinished files are called, and after what time they can only be a killed process's.
const UNFINISHED: &str = ".unfinished-";
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug)]
pub struct Layout {
    folder: PathBuf,
    /// Blobs that this process read or wrote as what they should be.
    good: Mutex<HashSet<Digest>>,
}

impl Layout {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, good: Mutex::default() }
    }

    pub fn tags(&self) -> anyhow::Result<Vec<String>> {
        Ok(self.index()?.manifests.iter().filter_map(Descriptor::ref_name).map(str::to_owned).collect())
    }

    pub fn by_tag(&self, tag: &str) -> anyhow::Result<Option<Stored>> {
        let index = self.index()?;
        let Some(entry) = index.manifests.iter().find(|entry| entry.ref_name() == Some(tag)) else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        self.blob(entry)?.read_to_end(&mut bytes)?;
        Ok(Some(Stored { digest: entry.digest.clone(), media_type: entry.media_type.clone(), bytes }))
    }

    pub fn by_digest(&self, digest: &Digest) -> anyhow::Result<Option<Stored>> {
        let path = self.blob_path(digest);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let index = self.index()?;
        let media_type = match index.manifests.iter().find(|entry| entry.digest == *digest) {
            Some(entry) => entry.media_type.clone(),
            None => media_type(&bytes).map_err(|error| self.damaged(&path, error))?,
        };
        Ok(Some(Stored { digest: Digest::of(&bytes), media_type, bytes }))
    }

    pub fn blob(&self, descriptor: &Descriptor) -> anyhow::Result<File> {
        let path = self.blob_path(&descriptor.digest);
        Ok(verified(&path, descriptor).map_err(|why| self.damaged(&path, why))?)
    }

    /// Whether the blob is here, undamaged: whoever pushes it again repairs it. Each is hashed once.
    pub fn has_blob(&self, descriptor: &Descriptor) -> bool {
        let path = self.blob_path(&descriptor.digest);
        let there = fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() == descriptor.size);
        if !there || self.good().contains(&descriptor.digest) {
            return there;
        }
        let good = verified(&path, descriptor).is_ok();
        if good {
            self.good().insert(descriptor.digest.clone());
        }
        good
    }

    fn good(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.good.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn scratch(&self) -> anyhow::Result<NamedTempFile> {
        self.create()?;
        tempfile::Builder::new()
            .prefix(UNFINISHED)
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(&self.folder)
            .with_context(|| format!("a new file in {}", self.folder.display()))
    }

    pub fn put_blob(&self, digest: &Digest, file: NamedTempFile) -> anyhow::Result<()> {
        self.finish(file, &self.blob_path(digest))?;
        self.good().insert(digest.clone());
        Ok(())
    }

    /// Whether everything is here that a manifest names.
    pub fn holds_all_of(&self, stored: &Stored) -> anyhow::Result<bool> {
        let document = Document::parse(&stored.bytes).map_err(|error| {
            Fault::refused(format!("the manifest {} is malformed: {error}", stored.digest))
        })?;
        Ok(match document {
            Document::Manifest(manifest) => {
                manifest.layers.iter().chain([&manifest.config]).all(|blob| self.has_blob(blob))
            }
            Document::Index(index) => index.manifests.iter().all(|entry| self.has_blob(entry)),
        })
    }

    /// Puts a manifest there without a name of its own.
    pub fn put_unnamed(&self, stored: &Stored) -> anyhow::Result<()> {
        self.create()?;
        self.write(&self.blob_path(&stored.digest), &stored.bytes)
    }

    pub fn put(&self, tag: &str, stored: &Stored) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        let mut index = self.index()?;
        let held = index.manifests.iter().find(|entry| entry.ref_name() == Some(tag));
        may_name(tag, held.map(|entry| &entry.digest), &stored.digest)?;
        self.write(&self.blob_path(&stored.digest), &stored.bytes)?;

        let mut entry = Descriptor::new(&stored.media_type, stored.digest.clone(), stored.bytes.len() as u64);
        entry.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
        index.manifests.retain(|other| other.ref_name() != Some(tag));
        index.manifests.push(entry);
        self.write(&self.index_path(), &serde_json::to_vec_pretty(&index)?)
    }

    /// Adds an artifact's manifest without a name, unless it is there.
    pub fn attach(&self, entry: Descriptor, manifest: &[u8]) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        self.write(&self.blob_path(&entry.digest), manifest)?;
        let mut index = self.index()?;
        if index.manifests.iter().any(|other| other.digest == entry.digest) {
            return Ok(());
        }
        index.manifests.push(entry);
        self.write(&self.index_path(), &serde_json::to_vec_pretty(&index)?)
    }

    /// The entries of the manifests that have this subject, whoever added them.
    pub fn referrers(&self, subject: &Digest) -> anyhow::Result<Vec<Descriptor>> {
        let mut found: Vec<Descriptor> = Vec::new();
        for other in self.index()?.manifests {
            // What is missing or damaged is told to whoever asks for it by name.
            let Ok(bytes) = fs::read(self.blob_path(&other.digest)) else { continue };
            match referrers::entry(&bytes) {
                Some((of, entry)) if of == *subject && !found.contains(&entry) => found.push(entry),
                _ => {}
            }
        }
        Ok(found)
    }

    /// Held while `index.json` changes; makes the layout if there is none.
    fn lock(&self) -> anyhow::Result<File> {
        self.create()?;
        let path = self.folder.join(".lock");
        let lock = File::create(&path).with_context(|| path.display().to_string())?;
        lock.lock().with_context(|| path.display().to_string())?;
        self.forget_abandoned();
        Ok(lock)
    }

    /// Makes the folder a layout. A folder that holds something else is left alone.
    fn create(&self) -> anyhow::Result<()> {
        let marker = self.folder.join("oci-layout");
        if marker.is_file() {
            return Ok(());
        }
        let context = || self.folder.display().to_string();
        fs::create_dir_all(&self.folder).with_context(context)?;
        let foreign = fs::read_dir(&self.folder).with_context(context)?.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            !name.starts_with('.') && !["blobs", "oci-layout", "index.json"].contains(&&*name)
        });
        if foreign {
            let fault = Fault::usage(format!("{} holds files, and is no OCI image layout", context()));
            return Err(fault.help("name a folder that is empty or absent").into());
        }
        fs::create_dir_all(self.folder.join("blobs/sha256")).with_context(context)?;
        self.write(&marker, LAYOUT.as_bytes())
    }

    fn index(&self) -> anyhow::Result<Index> {
        let path = self.index_path();
        match fs::read(&path) {
            Ok(bytes) => self.parse(&path, &bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Index::default()),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    fn parse<T: DeserializeOwned>(&self, path: &Path, bytes: &[u8]) -> anyhow::Result<T> {
        if bytes.len() as u64 > DOCUMENT_LIMIT {
            return Err(self.damaged(path, "it is too long").into());
        }
        serde_json::from_slice(bytes).map_err(|error| self.damaged(path, error).into())
    }

    fn damaged(&self, path: &Path, why: impl std::fmt::Display) -> Fault {
        Fault::refused(format!("{}: {why}", path.display()))
            .help(format!("the layout {} is damaged: push its images again", self.folder.display()))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(&self.folder)
            .with_context(|| format!("a new file in {}", self.folder.display()))?;
        file.write_all(bytes).with_context(|| path.display().to_string())?;
        self.finish(file, path)
    }

    /// Lets a complete file appear under its name, for good.
    fn finish(&self, file: NamedTempFile, path: &Path) -> anyhow::Result<()> {
        let context = || path.display().to_string();
        file.as_file().sync_all().with_context(context)?;
        file.persist(path).with_context(context)?;
        let parent = path.parent().unwrap_or(&self.folder);
        File::open(parent).and_then(|folder| folder.sync_all()).with_context(context)
    }

    /// Killed processes leave unfinished files; a running one's are younger than this.
    fn forget_abandoned(&self) {
        let Some(limit) = SystemTime::now().checked_sub(ABANDONED) else { return };
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let old = entry.metadata().and_then(|found| found.modified()).is_ok_and(|time| time < limit);
            if old && entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn index_path(&self) -> PathBuf {
        self.folder.join("index.json")
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs/sha256").join(digest.hex())
    }
}

/// The file, at its start, or why it is not this blob.
fn verified(path: &Path, descriptor: &Descriptor) -> Result<File, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut hashing = Hashing::new(&file);
    io::copy(&mut hashing, &mut io::sink()).map_err(|error| error.to_string())?;
    let (_, found, length) = hashing.finish();
    if length != descriptor.size {
        return Err(format!("it has {length} bytes, and its manifest says {}", descriptor.size));
    }
    if found != descriptor.digest {
        return Err(format!("its content has the digest {found}"));
    }
    (&file).rewind().map_err(|error| error.to_string())?;
    Ok(file)
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "oci:{}", self.folder.display())
    }
}
