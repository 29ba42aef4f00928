//! Blobs that were pulled: a folder with a file for each, under its digest. A file appears complete or not at all.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::{Digest, limit};

/// Bytes that are read at once to look at a blob.
const BUFFER: usize = 64 << 10;

/// What can't be done in the folder.
#[derive(Debug, thiserror::Error)]
#[error("can't {what} the cache of images in {}: {reason}", dir.display())]
pub struct CacheError {
    what: &'static str,
    dir: PathBuf,
    reason: io::Error,
}

/// A folder of blobs.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
}

/// A blob that is being written. Without [`Draft::keep`] nothing of it stays.
#[derive(Debug)]
pub(crate) struct Draft<'c> {
    cache: &'c Cache,
    file: NamedTempFile,
    hash: Sha256,
    left: u64,
}

impl Cache {
    /// In this folder, which is made when something is written.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("sha256").join(digest.hex())
    }

    pub(crate) fn failed(&self, what: &'static str) -> impl FnOnce(io::Error) -> CacheError {
        let dir = self.dir.clone();
        move |reason| CacheError { what, dir, reason }
    }

    /// Where a blob is, if it is there and whole: one that the disk lost bytes of counts as missing.
    ///
    /// # Errors
    /// [`CacheError`] if the folder can't be read.
    pub fn find(&self, digest: &Digest) -> Result<Option<PathBuf>, CacheError> {
        let path = self.path(digest);
        let found = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.and_then(digest_of).map_err(self.failed("read"))?,
        };
        Ok((found == *digest).then_some(path))
    }

    /// The bytes of a small blob, such as a manifest.
    ///
    /// # Errors
    /// [`CacheError`] if the folder can't be read.
    pub fn read(&self, digest: &Digest) -> Result<Option<Vec<u8>>, CacheError> {
        let Some(path) = self.find(digest)? else { return Ok(None) };
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(limit::MANIFEST_BYTES + 1).read_to_end(&mut bytes))
            .map_err(self.failed("read"))?;
        Ok((Digest::of(&bytes) == *digest).then_some(bytes))
    }

    /// Keeps these bytes.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<(), CacheError> {
        let mut draft = self.draft(bytes.len() as u64)?;
        draft.write(bytes).map_err(self.failed("write to"))?;
        draft.keep(&Digest::of(bytes)).map(drop)
    }

    /// Begins a blob of at most so many bytes.
    pub(crate) fn draft(&self, most: u64) -> Result<Draft<'_>, CacheError> {
        let dir = self.dir.join("sha256");
        let made = fs::create_dir_all(&dir)
            .and_then(|()| tempfile::Builder::new().prefix(".").suffix(".part").tempfile_in(&dir));
        let file = made.map_err(self.failed("write to"))?;
        Ok(Draft { cache: self, file, hash: Sha256::new(), left: most })
    }
}

impl Draft<'_> {
    /// Adds bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            let what = "it gives more bytes of a layer than the image's manifest says";
            io::Error::new(io::ErrorKind::FileTooLarge, what)
        })?;
        self.hash.update(bytes);
        self.file.write_all(bytes)
    }

    /// Keeps it if it is what it should be; says where.
    pub(crate) fn keep(self, digest: &Digest) -> Result<Option<PathBuf>, CacheError> {
        let Self { cache, file, hash, .. } = self;
        if Digest::end(hash) != *digest {
            return Ok(None);
        }
        let path = cache.path(digest);
        file.persist(&path).map_err(|error| cache.failed("write to")(error.error))?;
        Ok(Some(path))
    }
}

fn digest_of(mut file: File) -> io::Result<Digest> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; BUFFER]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::end(hash)),
            len => hash.update(&buffer[..len]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().join("images"));
        let digest = Digest::of(b"blob");
        assert_eq!(cache.find(&digest).unwrap(), None);
        let mut long = cache.draft(4).unwrap();
        long.write(b"bl").unwrap();
        assert_eq!(cache.find(&digest).unwrap(), None);
        long.write(b"ob").unwrap();
        assert!(long.write(b"!").is_err(), "it is longer than it may be");
        drop(long);
        let mut draft = cache.draft(4).unwrap();
        draft.write(b"blab").unwrap();
        assert_eq!(draft.keep(&digest).unwrap(), None, "it is another one");
        cache.put(b"blob").unwrap();
        let path = cache.find(&digest).unwrap().expect("it was put there");
        assert_eq!(cache.read(&digest).unwrap().unwrap(), b"blob");
        let left = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "drafts are left");
        fs::write(&path, "blab").unwrap();
        assert_eq!(cache.find(&digest).unwrap(), None, "it is damaged");
        cache.put(b"blob").unwrap();
        assert_eq!(cache.find(&digest).unwrap(), Some(path));
    }
}
