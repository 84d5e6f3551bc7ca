//! An OCI image layout (image spec 1.1, image layout): one image, or one index of several platforms' images.
//!
//! Layers that are compressed already are fit for a registry: the whole is then sent as it is, under the digest that it has
//! here.

use std::io::Read;

use super::{Archive, Member};
use crate::archive::checked::Checked;
use crate::image::oci::{Descriptor, Document, Index, Manifest, Stored};
use crate::image::{Blob, Digest, Finished, Image};

/// An index may hold indexes (image spec, image index), but nobody nests them further than this.
const DEPTH: u32 = 3;

impl Archive {
    pub(super) fn layout(&self) -> anyhow::Result<Image> {
        let index: Index = self.json("index.json", &self.bytes("index.json")?)?;
        // A registry's folder may also hold what is attached to the image.
        let mut images = index.manifests.iter().filter(|entry| entry.artifact_type().is_none());
        let Some(first) = images.next() else {
            return Err(self.corrupt("index.json names no image").into());
        };
        if images.any(|entry| entry.digest != first.digest) {
            return Err(self.corrupt("index.json names several images, and one is wanted").into());
        }
        let mut all = Finished { manifests: Vec::new(), blobs: Vec::new() };
        self.collect(first, &mut all, DEPTH)?;
        let manifest = self.picked(first)?;
        let members = manifest.layers.iter().map(|layer| self.sized(layer)).collect::<anyhow::Result<_>>()?;
        let mut image = self.image(self.blob(&manifest.config)?, members)?;
        let plain = |layer: &Descriptor| layer.media_type.ends_with(".tar");
        let single = all.manifests.len() == 1;
        image.finished = (!single || !manifest.layers.iter().any(plain)).then_some(all);
        Ok(image)
    }

    /// The image of this machine's platform, or that of another one.
    fn picked(&self, root: &Descriptor) -> anyhow::Result<Manifest> {
        match self.document(root)? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(index) => match index.preferred() {
                Some(entry) => self.picked(entry),
                None => Err(self.corrupt("the index holds no image").into()),
            },
        }
    }

    fn collect(&self, root: &Descriptor, all: &mut Finished, depth: u32) -> anyhow::Result<()> {
        if depth == 0 {
            return Err(self.corrupt("an index of indexes of indexes").into());
        }
        if all.manifests.iter().any(|manifest| manifest.digest == root.digest) {
            return Ok(());
        }
        match self.document(root)? {
            Document::Index(index) => {
                for entry in &index.manifests {
                    self.collect(entry, all, depth - 1)?;
                }
            }
            Document::Manifest(manifest) => {
                for descriptor in manifest.layers.iter().chain([&manifest.config]) {
                    if !all.blobs.iter().any(|blob| blob.descriptor.digest == descriptor.digest) {
                        all.blobs.push(self.stored_blob(descriptor)?);
                    }
                }
            }
        }
        all.manifests.push(Stored::new(&root.media_type, self.blob(root)?));
        Ok(())
    }

    fn stored_blob(&self, descriptor: &Descriptor) -> anyhow::Result<Blob> {
        let member = self.sized(descriptor)?;
        let (path, expected) = (self.path.clone(), descriptor.digest.clone());
        let open = move || -> anyhow::Result<Box<dyn Read + Send>> {
            let length = Some(member.len);
            Ok(Box::new(Checked::new(member.reader(), "blob", &expected, length, &path)))
        };
        Ok(Blob::new(descriptor.clone(), Box::new(open)))
    }

    fn document(&self, descriptor: &Descriptor) -> anyhow::Result<Document> {
        let name = blob_name(&descriptor.digest);
        Document::parse(&self.blob(descriptor)?)
            .map_err(|error| self.corrupt(format!("{name}: {error}")).into())
    }

    /// A config or manifest, into memory.
    fn blob(&self, descriptor: &Descriptor) -> anyhow::Result<Vec<u8>> {
        let name = blob_name(&descriptor.digest);
        self.sized(descriptor)?;
        let bytes = self.bytes(&name)?;
        self.verify(&name, &bytes, &descriptor.digest)?;
        Ok(bytes)
    }

    fn sized(&self, descriptor: &Descriptor) -> anyhow::Result<Member> {
        let name = blob_name(&descriptor.digest);
        let member = self.member(&name)?;
        if member.len == descriptor.size {
            return Ok(member);
        }
        let why = format!("{name} should have {} bytes and has {}", descriptor.size, member.len);
        Err(self.corrupt(why).into())
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
