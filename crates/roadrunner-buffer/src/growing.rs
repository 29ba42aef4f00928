//! Bytes of a length that nobody knows before they are all there, such as a command's output.
//!
//! [`crate::Draft`] takes an HTTP body of unknown length instead: such a body has a bound that it was admitted
//! with, so that its address space is there at once, in huge pages, and it is short more often than not, so
//! that it begins on the heap. Output has no bound but the largest payload, is written in place, and may go
//! to several consumers.

use roadrunner_sys::Memfd;

use crate::page::round_to_pages;
use crate::pool::Home;
use crate::view::Extent;
use crate::window::{Backing, Window};
use crate::{BufferError, doing};

/// Address space for the first bytes. Each time it is full there is twice as much: pages move as often
/// as that takes and are never copied, and a host that grants little gives what is needed.
const FIRST: usize = 64 << 10;

/// Bytes that are written one after the other, in pages of the host's own which move on as a
/// window's do.
#[derive(Debug)]
pub struct Growing {
    extent: Extent,
    /// What the extent maps, where the bytes are for several consumers. At least as long.
    memfd: Option<Memfd>,
    len: usize,
}

impl Growing {
    /// Room without a byte in it yet.
    ///
    /// # Errors
    /// When the kernel has no address space, descriptor or mapping left.
    pub fn new(backing: Backing) -> Result<Self, BufferError> {
        let reserved = Extent::reserve(FIRST);
        let mut extent = reserved.map_err(doing("reserve address space", FIRST))?;
        let memfd = match backing {
            Backing::Private => None,
            // A segment's length is fixed; what grows goes as a sealed memfd.
            Backing::Memfd | Backing::Segment => {
                let memfd = Memfd::new(FIRST).map_err(doing("make a memfd", FIRST))?;
                extent.make_shared(&memfd).map_err(doing("map a memfd", FIRST))?;
                Some(memfd)
            }
        };
        Ok(Self { extent, memfd, len: 0 })
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.extent.bytes()[..self.len]
    }

    /// The place of the next `len` bytes, which are zeros until they are written.
    ///
    /// # Errors
    /// When the kernel has no address space, memory or mapping left; there are no more bytes than
    /// before then.
    pub fn extend(&mut self, len: usize) -> Result<&mut [u8], BufferError> {
        let too_many =
            || doing("reserve address space", len)(std::io::ErrorKind::OutOfMemory.into());
        let end = self.len.checked_add(len).ok_or_else(too_many)?;
        if end > self.extent.range().len() {
            let room = end.checked_next_power_of_two().ok_or_else(too_many)?;
            self.resize(room).map_err(doing("reserve address space", room))?;
        }
        let start = std::mem::replace(&mut self.len, end);
        Ok(&mut self.extent.bytes_mut()[start..end])
    }

    /// A mapping must never be longer than its file.
    fn resize(&mut self, len: usize) -> std::io::Result<()> {
        let set_len = |memfd: &Option<Memfd>| match memfd {
            Some(memfd) => memfd.file().set_len(len as u64),
            None => Ok(()),
        };
        if len > self.extent.range().len() {
            set_len(&self.memfd)?;
            self.extent.resize(len)
        } else {
            self.extent.resize(len)?;
            set_len(&self.memfd)
        }
    }

    /// A window that is just as long as the pages of these bytes, of which there is at least one.
    ///
    /// # Panics
    /// When there are no bytes.
    ///
    /// # Errors
    /// When the kernel has no mapping left; all is as before then.
    pub fn into_window(mut self, home: &Home) -> Result<Window, (BufferError, Self)> {
        assert!(self.len > 0, "a window of no bytes");
        let pages = round_to_pages(self.len).unwrap_or(self.len);
        match self.resize(pages) {
            Ok(()) => Ok(Window::grown(self.extent, self.memfd, home)),
            Err(error) => Err((doing("cut what was written", pages)(error), self)),
        }
    }
}
