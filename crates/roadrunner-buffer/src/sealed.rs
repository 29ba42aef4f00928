//! Payloads in flight: nobody can write them any more.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use roadrunner_sys::{Memfd, close_aside};

use crate::lifted::{Hold, Lifted};
use crate::page::round_to_pages;
use crate::pool::Home;
use crate::segment::{Lease, Releases};
use crate::shared::SharedPages;
use crate::view::Extent;
use crate::window::Window;
use crate::{BufferError, Traffic, doing};

/// A payload that was handed over and has not landed yet.
///
/// While it borrows (`'a`) its bytes still lie in the lender's linear memory, and the borrow keeps
/// the lender from running or going away. [`Sealed::detach`] takes them out.
#[derive(Debug)]
pub struct Sealed<'a> {
    pages: Pages<'a>,
    len: usize,
}

#[derive(Debug)]
enum Pages<'a> {
    /// Bytes outside any window, to be copied.
    Borrowed(&'a [u8]),
    /// A copy of such bytes, of a payload too small to move.
    Small(Arc<[u8]>),
    /// A window of the lender, whose pages will move.
    Lent(&'a mut Window),
    /// Pages in a range of the pool's.
    Lifted(Hold<'a>),
    /// Pages in a sealed memfd.
    Shared(Arc<SharedPages>),
    /// Pages of a segment.
    Leased(Arc<Lease>),
}

/// How a payload gets to another process without a copy.
#[derive(Clone, Copy, Debug)]
pub enum Descriptor<'s> {
    /// To any: the sealed memfd that holds this payload and nothing else, zeros behind it on its last
    /// page aside.
    Sealed(BorrowedFd<'s>),
    /// To one of the same trust domain: a segment whose lease goes with it.
    Segment(&'s Arc<Lease>),
}

impl<'a> Sealed<'a> {
    /// A payload of bytes that lie outside any window.
    #[must_use]
    pub fn borrowed(bytes: &'a [u8]) -> Self {
        Self { pages: Pages::Borrowed(bytes), len: bytes.len() }
    }

    pub(crate) fn of_window(window: &'a mut Window, len: usize) -> Self {
        Self { pages: Pages::Lent(window), len }
    }

    pub(crate) fn of_shared(pages: Arc<SharedPages>, len: usize) -> Self {
        Self { pages: Pages::Shared(pages), len }
    }

    /// A payload too small to move.
    pub(crate) fn of_small(bytes: Arc<[u8]>) -> Self {
        let len = bytes.len();
        Self { pages: Pages::Small(bytes), len }
    }

    /// A payload in a range of the pool's that is as long as its pages, zero behind it.
    pub(crate) fn of_slot(slot: Extent, len: usize, home: &Home) -> Self {
        Self { pages: own(Lifted::of(slot, home)), len }
    }

    /// Length of the payload in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The payload's bytes.
    ///
    /// # Errors
    /// When shared pages can't be mapped here.
    pub fn bytes(&self) -> Result<&[u8], BufferError> {
        let all: &[u8] = match &self.pages {
            Pages::Borrowed(bytes) => bytes,
            Pages::Small(bytes) => bytes,
            Pages::Lent(window) => window.extent.bytes(),
            Pages::Lifted(lifted) => lifted.get().bytes(),
            Pages::Shared(pages) => pages.bytes()?,
            Pages::Leased(lease) => lease.segment.bytes()?,
        };
        Ok(&all[..self.len])
    }

    /// Copies the payload to `target`, which has its length.
    ///
    /// # Panics
    /// When the lengths differ.
    ///
    /// # Errors
    /// As [`Sealed::bytes`].
    pub fn copy_to(&self, target: &mut [u8]) -> Result<Traffic, BufferError> {
        target.copy_from_slice(self.bytes()?);
        Ok(Traffic::copied(self.len))
    }

    /// Lays the payload over an extent that is as long as the payload's pages.
    ///
    /// # Panics
    /// When the extent has another length.
    ///
    /// # Errors
    /// When the kernel has no memory or mapping left; the payload comes back with the reason.
    pub fn land(
        self,
        mut extent: Extent,
        home: &Home,
    ) -> Result<(Window, Traffic), (BufferError, Self)> {
        let len = self.len;
        assert_eq!(
            Some(extent.range().len()),
            round_to_pages(len),
            "a window as long as the payload"
        );
        let again = |pages| move |error| (error, Self { pages, len });
        match self.pages {
            Pages::Lent(window) => match window.give(&mut extent) {
                Ok(view) => Ok((Window::receiving(extent, view, home), Traffic::moved(len))),
                Err(error) => Err(again(Pages::Lent(window))(error)),
            },
            Pages::Lifted(mut lifted) => match lifted.get_mut().give(&mut extent) {
                Ok(view) => Ok((Window::receiving(extent, view, home), Traffic::moved(len))),
                Err(error) => Err(again(Pages::Lifted(lifted))(error)),
            },
            Pages::Shared(pages) => Window::viewing(extent, Arc::clone(&pages), len, home)
                .map(|window| (window, Traffic::moved(len)))
                .map_err(again(Pages::Shared(pages))),
            Pages::Leased(lease) => Window::leasing(extent, Arc::clone(&lease), home)
                .map(|window| (window, Traffic::moved(len)))
                .map_err(again(Pages::Leased(lease))),
            Pages::Borrowed(bytes) => Window::holding(extent, bytes, home)
                .map(|window| (window, Traffic::copied(len)))
                .map_err(again(Pages::Borrowed(bytes))),
            Pages::Small(bytes) => Window::holding(extent, &bytes, home)
                .map(|window| (window, Traffic::copied(len)))
                .map_err(again(Pages::Small(bytes))),
        }
    }

    /// Takes the payload out of its lender's memory, so that the lender may run on or go away.
    ///
    /// # Errors
    /// When the kernel has no memory or mapping left.
    pub fn detach(self, home: &Home) -> Result<(Sealed<'static>, Traffic), BufferError> {
        let len = self.len;
        let (pages, traffic) = match self.pages {
            Pages::Small(bytes) => (Pages::Small(bytes), Traffic::default()),
            Pages::Lifted(lifted) => (own(lifted.take()), Traffic::default()),
            Pages::Shared(pages) => (Pages::Shared(pages), Traffic::default()),
            Pages::Leased(lease) => (Pages::Leased(lease), Traffic::default()),
            Pages::Lent(window) if home.break_even.moves(len) => {
                // Counted as moved when it lands.
                (own(Lifted::out_of(window, len)?), Traffic::default())
            }
            Pages::Borrowed(bytes) if home.break_even.moves(len) => {
                let lifted = Lifted::write(len, home, |place| {
                    place.copy_from_slice(bytes);
                    Ok(())
                })?;
                (own(lifted), Traffic::copied(len))
            }
            Pages::Lent(window) => {
                let bytes = &window.extent.bytes()[..len];
                (Pages::Small(Arc::from(bytes)), Traffic::copied(len))
            }
            Pages::Borrowed(bytes) => (Pages::Small(Arc::from(bytes)), Traffic::copied(len)),
        };
        Ok((Sealed { pages, len }, traffic))
    }

    /// Makes one payload into `consumers` payloads with one physical copy. Pages that are not in a
    /// memfd are copied into one, once, and leave the lender; payloads too small to map are copied
    /// for each when they land.
    ///
    /// # Errors
    /// When the kernel has no memory, descriptor or mapping left.
    pub fn split(
        self,
        consumers: usize,
        home: &Home,
    ) -> Result<(Vec<Sealed<'static>>, Traffic), BufferError> {
        let len = self.len;
        if !home.break_even.moves(len) {
            let small = Arc::<[u8]>::from(self.bytes()?);
            let one = || Sealed { pages: Pages::Small(Arc::clone(&small)), len };
            return Ok(((0..consumers).map(|_| one()).collect(), Traffic::copied(len)));
        }
        let (pages, traffic) = match self.pages {
            Pages::Shared(pages) => (pages, Traffic::default()),
            Pages::Lent(window) => window.publish(len)?,
            _ => (SharedPages::copy_of(self.bytes()?)?, Traffic::copied(len)),
        };
        let one = || Sealed::of_shared(Arc::clone(&pages), len);
        Ok(((0..consumers).map(|_| one()).collect(), traffic))
    }

    /// The same payload for somebody who may not be able to take it: it stays here where it does not
    /// land. Once it has landed or was taken otherwise, what is left here is the empty payload.
    pub fn reborrow(&mut self) -> Sealed<'_> {
        let len = self.len;
        let pages = match &mut self.pages {
            Pages::Borrowed(bytes) => Pages::Borrowed(bytes),
            Pages::Small(bytes) => Pages::Borrowed(bytes),
            Pages::Lent(window) => Pages::Lent(window),
            Pages::Lifted(lifted) if lifted.get().is_gone() => return Sealed::empty(),
            Pages::Lifted(lifted) => Pages::Lifted(Hold::Lent(lifted.get_mut())),
            Pages::Shared(pages) => Pages::Shared(Arc::clone(pages)),
            Pages::Leased(lease) => Pages::Leased(Arc::clone(lease)),
        };
        Sealed { pages, len }
    }

    /// The payload for another process, which may be of the same trust domain: [`Sealed::descriptor`]
    /// is there. Pages in a sealed memfd of their own, or in a segment where the domain is the same, are
    /// only named once more, others are copied into a sealed memfd. Payloads too small to map become
    /// bytes without a descriptor. What is here stays here, for the case that the other process doesn't
    /// take it.
    ///
    /// # Errors
    /// When the kernel has no memory, descriptor or mapping left.
    pub fn published(
        &self,
        home: &Home,
        same_domain: bool,
    ) -> Result<(Sealed<'static>, Traffic), BufferError> {
        let len = self.len;
        if !home.break_even.moves(len) {
            let (pages, traffic) = match &self.pages {
                Pages::Small(bytes) => (Pages::Small(Arc::clone(bytes)), Traffic::default()),
                _ => (Pages::Small(Arc::from(self.bytes()?)), Traffic::copied(len)),
            };
            return Ok((Sealed { pages, len }, traffic));
        }
        let lease = match &self.pages {
            Pages::Leased(lease) => Some(lease),
            Pages::Lent(window) => window.lease(),
            Pages::Lifted(lifted) => lifted.get().lease(),
            _ => None,
        };
        if let (Some(lease), true) = (lease, same_domain) {
            return Ok((
                Sealed { pages: Pages::Leased(Arc::clone(lease)), len },
                Traffic::default(),
            ));
        }
        let there = match &self.pages {
            Pages::Shared(pages) => Some(pages),
            Pages::Lent(window) => window.unmodified(),
            _ => None,
        };
        let (pages, traffic) = match there {
            Some(pages) if pages.hold_only(len) => (Arc::clone(pages), Traffic::default()),
            // Another process would have to be trusted with what else is in a memfd.
            _ => (SharedPages::copy_of(self.bytes()?)?, Traffic::copied(len)),
        };
        Ok((Sealed::of_shared(pages, len), traffic))
    }

    /// The memfd that begins with the payload, if it lies in one that nobody can write to any more. What
    /// follows in it may be anybody's.
    #[must_use]
    pub fn sealed_file(&self) -> Option<BorrowedFd<'_>> {
        let pages = match &self.pages {
            Pages::Shared(pages) => pages,
            Pages::Lent(window) => window.unmodified()?,
            Pages::Lifted(lifted) => lifted.get().unmodified()?,
            _ => return None,
        };
        Some(pages.descriptor())
    }

    /// How the payload gets to another process; `None` where it lies in no memfd.
    #[must_use]
    pub fn descriptor(&self) -> Option<Descriptor<'_>> {
        match &self.pages {
            Pages::Shared(pages) if pages.hold_only(self.len) => {
                Some(Descriptor::Sealed(pages.descriptor()))
            }
            Pages::Leased(lease) => Some(Descriptor::Segment(lease)),
            _ => None,
        }
    }
}

impl Sealed<'static> {
    /// The empty payload.
    #[must_use]
    pub fn empty() -> Self {
        Self::borrowed(&[])
    }

    /// A payload of `len` bytes in a descriptor that another process sent: a sealed memfd, as long as
    /// the payload's pages ([`Memfd::adopt`]). What the sender left behind the payload on its last
    /// page is never seen: who lands it sees zeros there.
    ///
    /// # Errors
    /// With [`io::ErrorKind::InvalidData`] as the source's kind when the descriptor is something else,
    /// or `len` is zero. The descriptor is closed then, aside.
    pub fn adopt(fd: OwnedFd, len: usize) -> Result<Self, BufferError> {
        let pages = match round_to_pages(len) {
            Some(pages) if pages > 0 => Memfd::adopt(fd, pages),
            _ => {
                close_aside([fd]);
                Err(io::Error::new(io::ErrorKind::InvalidData, "no memfd has such a payload"))
            }
        };
        let pages = pages.and_then(|memfd| SharedPages::foreign(memfd, len));
        Ok(Self::of_shared(pages.map_err(doing("adopt a memfd", len))?, len))
    }

    /// A payload of `len` bytes in a segment that another process of the same trust domain passed on
    /// with its lease. `releases` hears of the lease's end, for that process.
    ///
    /// # Errors
    /// As [`Sealed::adopt`].
    pub fn adopt_segment(
        fd: OwnedFd,
        len: usize,
        home: &Home,
        releases: &Arc<Releases>,
    ) -> Result<Self, BufferError> {
        let lease = home.pool.segments.adopt(fd, len, releases);
        let pages = Pages::Leased(lease.map_err(doing("adopt a segment", len))?);
        Ok(Self { pages, len })
    }

    /// A payload of `len` bytes that `write` fills in place, in pages that can move.
    ///
    /// # Errors
    /// When the kernel has no memory, or `write` fails.
    pub fn write(
        len: usize,
        home: &Home,
        write: impl FnOnce(&mut [u8]) -> io::Result<()>,
    ) -> Result<Self, BufferError> {
        if home.break_even.moves(len) {
            return Ok(Self { pages: own(Lifted::write(len, home, write)?), len });
        }
        let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, len).collect();
        let place = Arc::get_mut(&mut bytes).unwrap_or_default();
        write(place).map_err(doing("write a payload", len))?;
        Ok(Self { pages: Pages::Small(bytes), len })
    }

    /// As [`Sealed::write`], in a sealed memfd where the payload is long enough to move: for other
    /// processes.
    ///
    /// # Errors
    /// As [`Sealed::write`], and when there is no descriptor left.
    pub fn write_shared(
        len: usize,
        home: &Home,
        write: impl FnOnce(&mut [u8]) -> io::Result<()>,
    ) -> Result<Self, BufferError> {
        if !home.break_even.moves(len) {
            return Self::write(len, home, write);
        }
        let pages = round_to_pages(len).unwrap_or(len);
        let memfd = Memfd::new(pages).map_err(doing("make a memfd", pages))?;
        let place = Extent::reserve(pages).and_then(|mut place| {
            place.make_shared(&memfd)?;
            place.prefer_huge_pages();
            Ok(place)
        });
        let mut place = place.map_err(doing("map a memfd", pages))?;
        write(&mut place.bytes_mut()[..len]).map_err(doing("write a payload", len))?;
        drop(place);
        let pages = SharedPages::seal(memfd, pages).map_err(|(error, _)| error)?;
        Ok(Self::of_shared(pages, len))
    }
}

fn own<'a>(lifted: Lifted) -> Pages<'a> {
    Pages::Lifted(Hold::Own(lifted))
}
