//! Sealed memfds: pages that any number of consumers may map, in any process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

use roadrunner_sys::Memfd;

use crate::page::round_to_pages;
use crate::view::Extent;
use crate::{BufferError, doing};

/// Pages in a sealed memfd, which any number of consumers may view.
#[derive(Debug)]
pub struct SharedPages {
    memfd: Memfd,
    len: usize,
    /// Whether another process left bytes behind its payload, which nobody may see.
    littered: bool,
    /// The host's own view, made when it first reads them.
    view: OnceLock<Extent>,
}

impl SharedPages {
    /// Seals a memfd of `len` bytes, which nobody maps for writing any more. It comes back with the
    /// reason when that fails.
    pub(crate) fn seal(memfd: Memfd, len: usize) -> Result<Arc<Self>, (BufferError, Memfd)> {
        match memfd.seal() {
            Ok(()) => Ok(Arc::new(Self { memfd, len, littered: false, view: OnceLock::new() })),
            Err(error) => Err((doing("seal a memfd", len)(error), memfd)),
        }
    }

    /// A sealed memfd of another process, with `payload` bytes and the rest of their last page.
    pub(crate) fn foreign(memfd: Memfd, payload: usize) -> io::Result<Arc<Self>> {
        let len = round_to_pages(payload).unwrap_or(payload);
        // Read, not mapped: the answer stays right, and landing need not fault the page in.
        let mut chunk = [0; 512];
        let (mut at, mut littered) = (payload, false);
        while at < len && !littered {
            let part = &mut chunk[..(len - at).min(512)];
            memfd.file().read_exact_at(part, at as u64)?;
            littered = part.iter().any(|byte| *byte != 0);
            at += part.len();
        }
        Ok(Arc::new(Self { memfd, len, littered, view: OnceLock::new() }))
    }

    /// A memfd with a copy of some bytes.
    pub(crate) fn copy_of(bytes: &[u8]) -> Result<Arc<Self>, BufferError> {
        let len = round_to_pages(bytes.len()).unwrap_or(bytes.len());
        let memfd = Memfd::new(len).map_err(doing("make a memfd", len))?;
        memfd.file().write_all_at(bytes, 0).map_err(doing("copy into a memfd", len))?;
        Self::seal(memfd, len).map_err(|(error, _)| error)
    }

    /// Length in bytes, a multiple of the page size.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The sealed memfd. What lies behind a payload in it may be another process's.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }

    /// Whether a payload of `len` bytes fills them but for zeros on the last page.
    pub(crate) fn hold_only(&self, len: usize) -> bool {
        round_to_pages(len) == Some(self.len) && !self.littered
    }

    /// Whether bytes that nobody may see lie behind the payload.
    pub(crate) fn are_littered(&self) -> bool {
        self.littered
    }

    pub(crate) fn memfd(&self) -> &Memfd {
        &self.memfd
    }

    pub(crate) fn bytes(&self) -> Result<&[u8], BufferError> {
        if let Some(view) = self.view.get() {
            return Ok(view.bytes());
        }
        let fresh = Extent::reserve(self.len).and_then(|mut extent| {
            extent.make_view(&self.memfd)?;
            Ok(extent)
        });
        let fresh = fresh.map_err(doing("map shared pages", self.len))?;
        Ok(self.view.get_or_init(|| fresh).bytes())
    }
}
