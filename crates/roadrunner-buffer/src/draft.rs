//! Payloads that arrive piece by piece, such as the body of a request.

use std::io;
use std::sync::Arc;

use roadrunner_sys::Memfd;

use crate::page::{HUGE_PAGE, round_to_pages};
use crate::pool::Home;
use crate::sealed::Sealed;
use crate::shared::SharedPages;
use crate::view::Extent;
use crate::{BufferError, Traffic, doing};

/// A payload that is being written from its beginning to its end, in pages of the host's own that
/// nobody else sees yet. Each piece is copied once, into its place.
#[derive(Debug)]
pub struct Draft {
    place: Place,
    /// Most bytes that it can take.
    room: usize,
    written: usize,
    copied: Traffic,
    home: Home,
}

#[derive(Debug)]
enum Place {
    /// Too short to move.
    Small(Arc<[u8]>),
    /// Of unknown length, and so far too short to move.
    Growing(Vec<u8>),
    Pages {
        slot: Extent,
        /// Whether all of its pages are there already.
        recycled: bool,
    },
    Shared {
        memfd: Memfd,
        view: Extent,
    },
}

impl Draft {
    /// For a payload of `len` bytes. Its pages come as its bytes do, so that who announces much and
    /// sends little holds little.
    ///
    /// # Errors
    /// When the kernel has no address space or mapping left.
    pub fn new(len: usize, home: &Home) -> Result<Self, BufferError> {
        Self::of(len, home, false)
    }

    /// The same in recycled pages where enough of them wait, all at once: several times as fast to
    /// fill, and memory before there is a byte. Where they come from another trust domain, this
    /// takes as long as zeroing them.
    ///
    /// # Errors
    /// As [`Draft::new`].
    pub fn recycled(len: usize, home: &Home) -> Result<Self, BufferError> {
        Self::of(len, home, true)
    }

    fn of(len: usize, home: &Home, recycled: bool) -> Result<Self, BufferError> {
        if !home.break_even.moves(len) {
            let place = Place::Small(std::iter::repeat_n(0, len).collect());
            return Ok(Self::at(place, len, home));
        }
        let pages = round_to_pages(len).unwrap_or(len);
        let mut slot = home.pool.empty(pages).map_err(doing("reserve address space", len))?;
        let recycled = recycled
            && home
                .pool
                .fill(&mut slot, home.domain)
                .map_err(doing("move recycled pages in", len))?;
        Ok(Self::at(Place::Pages { slot, recycled }, len, home))
    }

    /// The same in a memfd where the payload is long enough to move: for other processes.
    ///
    /// # Errors
    /// As [`Draft::new`], and when there is no descriptor left.
    pub fn shared(len: usize, home: &Home) -> Result<Self, BufferError> {
        if !home.break_even.moves(len) {
            return Self::new(len, home);
        }
        let pages = round_to_pages(len).unwrap_or(len);
        let memfd = Memfd::new(pages).map_err(doing("make a memfd", pages))?;
        let view = Extent::reserve(pages).and_then(|mut view| {
            view.make_shared(&memfd)?;
            view.prefer_huge_pages();
            Ok(view)
        });
        let view = view.map_err(doing("map a memfd", pages))?;
        Ok(Self::at(Place::Shared { memfd, view }, len, home))
    }

    /// For a payload of unknown length, at most `room` bytes. Once it is too long to copy it takes that
    /// much address space, and at its end its pages move to a range of its length.
    #[must_use]
    pub fn up_to(room: usize, home: &Home) -> Self {
        let place = Place::Growing(Vec::new());
        Self::at(place, room, home)
    }

    fn at(place: Place, room: usize, home: &Home) -> Self {
        Self { place, room, written: 0, copied: Traffic::default(), home: home.clone() }
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.written
    }

    /// Whether none were.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.written == 0
    }

    /// Bytes that it can still take.
    #[must_use]
    pub fn room(&self) -> usize {
        self.room - self.written
    }

    /// Bytes of memory that it may hold once `more` bytes are written.
    #[must_use]
    pub fn memory_with(&self, more: usize) -> usize {
        let len = self.written.saturating_add(more);
        let touched = len.checked_next_multiple_of(HUGE_PAGE).unwrap_or(len);
        match &self.place {
            Place::Small(bytes) => bytes.len(),
            Place::Growing(_) if !self.home.break_even.moves(len) => self.home.break_even.bytes(),
            Place::Growing(_) => touched,
            Place::Pages { slot, recycled: true } => slot.range().len(),
            Place::Pages { slot, .. } | Place::Shared { view: slot, .. } => {
                touched.min(slot.range().len())
            }
        }
    }

    /// Writes the next piece.
    ///
    /// # Errors
    /// When there is no room for it, with [`io::ErrorKind::StorageFull`] as the source's kind, or the
    /// kernel has no address space left.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), BufferError> {
        if piece.len() > self.room() {
            let full = io::ErrorKind::StorageFull.into();
            return Err(doing("write a payload", self.written)(full));
        }
        let end = self.written + piece.len();
        if let Place::Growing(bytes) = &mut self.place {
            if self.home.break_even.moves(end) {
                let begun = std::mem::take(bytes);
                self.place = Self::pages_up_to(self.room)?;
                self.written = 0;
                self.put(&begun);
            } else {
                // Once, so that nothing is copied while it grows.
                bytes.reserve_exact(self.home.break_even.bytes().saturating_sub(bytes.len()));
            }
        }
        self.put(piece);
        Ok(())
    }

    /// Pages for a payload whose length is not known: never recycled ones, as most are not needed.
    fn pages_up_to(room: usize) -> Result<Place, BufferError> {
        let pages = round_to_pages(room).unwrap_or(room);
        let reserved = Extent::reserve(pages).map(|mut slot| {
            slot.prefer_huge_pages();
            Place::Pages { slot, recycled: false }
        });
        reserved.map_err(doing("reserve address space", room))
    }

    /// Copies a piece that there is room for.
    fn put(&mut self, piece: &[u8]) {
        let end = self.written + piece.len();
        let place = match &mut self.place {
            Place::Growing(bytes) => {
                bytes.extend_from_slice(piece);
                None
            }
            Place::Small(bytes) => Arc::get_mut(bytes),
            Place::Pages { slot, .. } => Some(slot.bytes_mut()),
            Place::Shared { view, .. } => Some(view.bytes_mut()),
        };
        if let Some(place) = place {
            place[self.written..end].copy_from_slice(piece);
        }
        self.written = end;
        self.copied += Traffic::copied(piece.len());
    }

    /// Ends the payload here, and says what was copied for it.
    ///
    /// # Errors
    /// When the kernel has no mapping or descriptor left.
    pub fn seal(self) -> Result<(Sealed<'static>, Traffic), BufferError> {
        let Self { place, room, written: len, mut copied, home } = self;
        let sealed = match place {
            _ if len == 0 => Sealed::empty(),
            Place::Small(bytes) if len == room => Sealed::of_small(bytes),
            Place::Small(bytes) => {
                copied += Traffic::copied(len);
                Sealed::of_small(Arc::from(&bytes[..len]))
            }
            Place::Growing(bytes) => {
                copied += Traffic::copied(len);
                Sealed::of_small(Arc::from(bytes))
            }
            Place::Pages { mut slot, .. } if Some(slot.range().len()) == round_to_pages(len) => {
                // Recycled pages have something there.
                slot.bytes_mut()[len..].fill(0);
                Sealed::of_slot(slot, len, &home)
            }
            Place::Pages { slot, .. } => Sealed::of_slot(cut(slot, len, &home)?, len, &home),
            Place::Shared { memfd, view } => {
                let pages = view.range().len();
                drop(view);
                if Some(pages) == round_to_pages(len) {
                    let pages = SharedPages::seal(memfd, pages).map_err(|(error, _)| error)?;
                    Sealed::of_shared(pages, len)
                } else {
                    return Err(doing("write a payload", len)(io::ErrorKind::UnexpectedEof.into()));
                }
            }
        };
        Ok((sealed, copied))
    }
}

/// Moves the first pages of a range into one that is as long as the payload.
fn cut(mut slot: Extent, len: usize, home: &Home) -> Result<Extent, BufferError> {
    let pages = round_to_pages(len).unwrap_or(len);
    let mut exact = home.pool.empty(pages).map_err(doing("reserve address space", len))?;
    exact.take_pages(&mut slot).map_err(doing("move pages", len))?;
    exact.bytes_mut()[len..].fill(0);
    Ok(exact)
}
