//! An image in a file: an OCI image layout in a tar archive, as `ctr image import`, skopeo and oras take it.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::Path;

use tar::{Archive, Builder, Header};

use crate::artifact::{Artifact, Blob, json};
use crate::manifest::{INDEX_TYPE, MANIFEST_TYPE, Platform};
use crate::{Descriptor, Digest, Document, DocumentError, Index, limit};

/// The file that says what the archive is.
const LAYOUT: (&str, &[u8]) = ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
/// The file that names the images.
const INDEX: &str = "index.json";
/// Where blobs are.
const BLOBS: &str = "blobs/sha256";
/// By which containerd names an image that it imports.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// By which others do.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Files of an archive that are looked at: blobs, and some more of whoever wrote it.
const ENTRIES: usize = 2 * limit::LAYERS;

/// Why a file is no archive of an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// It can't be read, or is no tar archive.
    #[error("it can't be read as a tar archive: {0}")]
    Unreadable(#[from] io::Error),
    /// It is one of something else.
    #[error("it is no OCI image layout: it has no {0}")]
    NoLayout(&'static str),
    /// What it lists is not right.
    #[error("{0}")]
    Document(#[from] DocumentError),
    /// A blob is listed and not there.
    #[error("it lists the blob {0}, which is not in it")]
    Missing(Digest),
    /// A blob is not what it is listed as.
    #[error("its blob {0} is damaged: the bytes have another digest or length")]
    Damaged(Digest),
    /// It has too much in it.
    #[error(
        "it has more than {ENTRIES} files or {} bytes in them, which is the limit",
        limit::IMAGE_BYTES
    )]
    TooLarge,
}

/// Writes an image as an archive. `name`, with a tag, is what containerd calls it then; it is no part of the image.
///
/// # Errors
/// Those of `to`.
pub fn write(artifact: &Artifact, name: Option<&str>, to: impl Write) -> io::Result<()> {
    let mut tar = Builder::new(to);
    let mut annotations = std::collections::BTreeMap::new();
    if let Some(name) = name {
        annotations.insert(CONTAINERD_NAME.to_owned(), name.to_owned());
        annotations.insert(REF_NAME.to_owned(), name.to_owned());
    }
    let manifest = Descriptor {
        media_type: MANIFEST_TYPE.into(),
        digest: artifact.digest(),
        size: artifact.manifest().len() as u64,
        platform: Some(Platform::wasm()),
        annotations,
    };
    let index =
        Index { schema_version: 2, media_type: Some(INDEX_TYPE.into()), manifests: vec![manifest] };
    add(&mut tar, LAYOUT.0, LAYOUT.1)?;
    add(&mut tar, INDEX, &json(&index))?;
    let mut blobs: Vec<(Digest, &[u8])> = vec![(artifact.digest(), artifact.manifest())];
    blobs.extend(artifact.blobs().map(|it| (it.descriptor.digest.clone(), it.bytes.as_slice())));
    // Two modules of the same bytes are one blob.
    blobs.sort_by(|one, other| one.0.cmp(&other.0));
    blobs.dedup_by(|one, other| one.0 == other.0);
    for (digest, bytes) in blobs {
        add(&mut tar, &format!("{BLOBS}/{}", digest.hex()), bytes)?;
    }
    tar.into_inner()?.flush()
}

/// Adds a file that belongs to nobody and was never written: the same input makes the same archive.
fn add(tar: &mut Builder<impl Write>, path: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, path, bytes)
}

/// Reads an archive: the image for WebAssembly in it, with all of its blobs.
///
/// # Errors
/// [`ArchiveError`] for what is none, is damaged or over a limit.
pub fn read(from: impl Read) -> Result<Artifact, ArchiveError> {
    let mut blobs = Blobs::collect(from)?;
    let index = blobs.index.take().ok_or(ArchiveError::NoLayout(INDEX))?;
    let Document::Index(mut index) = Document::parse(&index)? else {
        return Err(ArchiveError::NoLayout(INDEX));
    };
    // An index may list an index, as `docker save` has it; deeper than that nobody goes.
    for _ in 0..2 {
        let listed = index.wasm()?.clone();
        let bytes = blobs.take(&listed)?;
        match Document::parse(&bytes)? {
            Document::Index(inner) => index = inner,
            Document::Manifest(manifest) => {
                let blob = |it: &Descriptor| {
                    let (descriptor, bytes) = (it.clone(), blobs.take(it)?);
                    Ok::<_, ArchiveError>(Blob { descriptor, bytes })
                };
                let config = blob(&manifest.config)?;
                let layers = manifest.layers.iter().map(blob).collect::<Result<_, _>>()?;
                return Ok(Artifact::of_blobs(bytes, config, layers));
            }
        }
    }
    Err(DocumentError::NoPlatform.into())
}

/// The files of an archive that mean something.
#[derive(Default)]
struct Blobs {
    index: Option<Vec<u8>>,
    /// By what they are called, which may be wrong.
    all: HashMap<Digest, Vec<u8>>,
}

impl Blobs {
    fn collect(from: impl Read) -> Result<Self, ArchiveError> {
        let (mut found, mut all) = (Self::default(), 0_u64);
        let mut archive = Archive::new(from);
        for (at, entry) in archive.entries()?.enumerate() {
            let mut entry = entry?;
            all = all.saturating_add(entry.size());
            if at >= ENTRIES || all > limit::IMAGE_BYTES {
                return Err(ArchiveError::TooLarge);
            }
            let path = entry.path()?.into_owned();
            let blob = path.strip_prefix(BLOBS).ok().and_then(Path::to_str);
            let digest = blob.and_then(|hex| format!("sha256:{hex}").parse().ok());
            if digest.is_none() && path != Path::new(INDEX) {
                continue;
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            match digest {
                Some(digest) => drop(found.all.insert(digest, bytes)),
                None => found.index = Some(bytes),
            }
        }
        Ok(found)
    }

    fn take(&self, listed: &Descriptor) -> Result<Vec<u8>, ArchiveError> {
        let digest = &listed.digest;
        let bytes = self.all.get(digest).ok_or_else(|| ArchiveError::Missing(digest.clone()))?;
        if bytes.len() as u64 != listed.size || Digest::of(bytes) != *digest {
            return Err(ArchiveError::Damaged(digest.clone()));
        }
        Ok(bytes.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Form, Module};

    const CORE: &[u8] = b"\0asm\x01\0\0\0";

    fn artifact() -> Artifact {
        let module = |title: &str| Module {
            title: title.into(),
            path: Some(format!("build/{title}")),
            bytes: CORE.into(),
        };
        let modules = vec![module("a.wasm"), module("b.wasm")];
        Artifact::of_workflow(b"manifest".into(), modules, "a.wasm", Form::Artifact).unwrap()
    }

    fn archive(name: Option<&str>) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&artifact(), name, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn an_archive_is_read_as_it_was_written() {
        let image = read(&archive(None)[..]).unwrap();
        assert_eq!(image.digest(), artifact().digest());
        let digests =
            |image: &Artifact| image.blobs().map(|it| Digest::of(&it.bytes)).collect::<Vec<_>>();
        assert_eq!(digests(&image), digests(&artifact()));
        assert_eq!(image.blobs().count(), 4, "with the same blob twice");
    }

    #[test]
    fn the_same_input_makes_the_same_bytes() {
        assert_eq!(archive(None), archive(None));
        let named = archive(Some("registry.example/a:1"));
        assert_ne!(named, archive(None));
        assert_eq!(read(&named[..]).unwrap().digest(), artifact().digest());
    }

    #[test]
    fn what_was_changed_or_cut_is_noticed() {
        let whole = archive(None);
        let place = whole.windows(8).position(|bytes| bytes == CORE).unwrap();
        let mut changed = whole.clone();
        changed[place + 7] ^= 1;
        let refused = read(&changed[..]).unwrap_err().to_string();
        assert!(refused.contains("is damaged"), "{refused}");
        assert!(matches!(read(&whole[..place]), Err(ArchiveError::Unreadable(_))));
        // At the border of two files nothing looks cut.
        let refused = read(&whole[..place - 512]).unwrap_err();
        assert!(matches!(refused, ArchiveError::Missing(_)), "{refused}");
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let mut tar = Builder::new(Vec::new());
        add(&mut tar, "file", b"text").unwrap();
        let other = tar.into_inner().unwrap();
        assert!(matches!(read(&other[..]), Err(ArchiveError::NoLayout(_))));
        assert!(matches!(read(&b""[..]), Err(ArchiveError::NoLayout(_))));
        assert!(matches!(read(&[7; 1024][..]), Err(ArchiveError::Unreadable(_))));
        let mut header = Header::new_ustar();
        header.set_size(limit::IMAGE_BYTES + 1);
        header.set_path(INDEX).unwrap();
        header.set_cksum();
        assert!(matches!(read(&header.as_bytes()[..]), Err(ArchiveError::TooLarge)));
    }
}
