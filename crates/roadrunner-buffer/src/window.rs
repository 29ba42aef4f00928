//! Windows: payloads inside somebody's linear memory.

use std::sync::Arc;

use roadrunner_sys::Memfd;

use crate::page::round_to_pages;
use crate::pool::{Home, RECYCLE_FROM};
use crate::sealed::Sealed;
use crate::segment::Lease;
use crate::shared::SharedPages;
use crate::view::Extent;
use crate::{BufferError, Traffic, doing};

/// What kind of pages a fresh window gets, chosen by where the payload will go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Private anonymous pages, which `mremap` hands to one consumer in this process.
    Private,
    /// A memfd that is sealed when it leaves, which several consumers or other processes can map.
    Memfd,
    /// A segment, for one consumer in another process of the same trust domain. A memfd where there
    /// are too many segments.
    Segment,
}

/// What a fresh window shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Zeros.
    Zeroed,
    /// Anything that the same trust domain wrote before, or zeros.
    Unspecified,
}

/// A payload's place in linear memory, from the moment the pages come until they leave.
///
/// Dropping it puts reusable pages aside for the next payload and leaves plain memory behind.
#[derive(Debug)]
pub struct Window {
    pub(crate) extent: Extent,
    kind: Kind,
    home: Home,
}

/// What is mapped in a window.
#[derive(Debug)]
enum Kind {
    /// Anonymous pages that are part of the memory around them: nothing needs undoing.
    Plain,
    /// Anonymous pages in a mapping of their own, which must be replaced by plain memory.
    Moved,
    /// The pages left; the mapping is still one of its own.
    Empty,
    /// The pages left, and the range is part of the memory around it.
    Spent,
    /// The one writable mapping of a memfd.
    Writable(Memfd),
    /// A private copy-on-write view of pages that others may view too.
    View(Arc<SharedPages>),
    /// A segment that this process has the lease of.
    Leased(Arc<Lease>),
}

/// What the pages that left a window are part of, where they are not anonymous.
#[derive(Debug)]
pub(crate) enum Source {
    View(Arc<SharedPages>),
    Leased(Arc<Lease>),
}

impl Window {
    /// Lays a fresh window over an extent.
    ///
    /// # Errors
    /// When the kernel has no memory, descriptor or mapping left.
    pub fn fresh(
        mut extent: Extent,
        backing: Backing,
        contents: Contents,
        home: &Home,
    ) -> Result<Self, BufferError> {
        let len = extent.range().len();
        let kind = match backing {
            Backing::Segment => Self::lay_segment(&mut extent, contents, home)?,
            Backing::Memfd => Self::lay_memfd(&mut extent)?,
            Backing::Private if contents == Contents::Unspecified && len >= RECYCLE_FROM => {
                let filled = home.pool.fill(&mut extent, home.domain);
                if filled.map_err(doing("move recycled pages in", len))? {
                    Kind::Moved
                } else {
                    Self::lay_plain(&mut extent)?
                }
            }
            Backing::Private => Self::lay_plain(&mut extent)?,
        };
        Ok(Self { extent, kind, home: home.clone() })
    }

    fn lay_memfd(extent: &mut Extent) -> Result<Kind, BufferError> {
        let len = extent.range().len();
        let memfd = Memfd::new(len).map_err(doing("make a memfd", len))?;
        extent.make_shared(&memfd).map_err(doing("map a memfd", len))?;
        extent.prefer_huge_pages();
        Ok(Kind::Writable(memfd))
    }

    fn lay_segment(
        extent: &mut Extent,
        contents: Contents,
        home: &Home,
    ) -> Result<Kind, BufferError> {
        let len = extent.range().len();
        let leased = home.pool.segments.lease(home.domain, len);
        let Some((lease, fresh)) = leased.map_err(doing("make a segment", len))? else {
            return Self::lay_memfd(extent);
        };
        lease.segment.place(extent).map_err(doing("map a segment", len))?;
        if contents == Contents::Zeroed && !fresh {
            extent.bytes_mut().fill(0);
        }
        Ok(Kind::Leased(lease))
    }

    fn lay_plain(extent: &mut Extent) -> Result<Kind, BufferError> {
        let len = extent.range().len();
        extent.make_plain().map_err(doing("map fresh memory", len))?;
        // Advice splits the mapping from its neighbours, so it has to be undone in the end.
        Ok(if extent.prefer_huge_pages() { Kind::Moved } else { Kind::Plain })
    }

    /// A window on a private view of shared pages, the payload's `len` bytes and zeros.
    pub(crate) fn viewing(
        mut extent: Extent,
        pages: Arc<SharedPages>,
        len: usize,
        home: &Home,
    ) -> Result<Self, BufferError> {
        extent.make_view(pages.memfd()).map_err(doing("map a copy-on-write view", len))?;
        let littered = pages.are_littered();
        let mut window = Self { extent, kind: Kind::View(pages), home: home.clone() };
        if littered {
            window.zero_tail(len);
        }
        Ok(window)
    }

    /// A window on a segment.
    pub(crate) fn leasing(
        mut extent: Extent,
        lease: Arc<Lease>,
        home: &Home,
    ) -> Result<Self, BufferError> {
        let len = extent.range().len();
        lease.segment.place(&mut extent).map_err(doing("map a segment", len))?;
        Ok(Self { extent, kind: Kind::Leased(lease), home: home.clone() })
    }

    /// A window on pages that [`Window::give`] or a lifted payload gave.
    pub(crate) fn receiving(extent: Extent, source: Option<Source>, home: &Home) -> Self {
        let kind = match source {
            None => Kind::Moved,
            Some(Source::View(pages)) => Kind::View(pages),
            Some(Source::Leased(lease)) => Kind::Leased(lease),
        };
        Self { extent, kind, home: home.clone() }
    }

    /// A window with a copy of some bytes.
    pub(crate) fn holding(extent: Extent, bytes: &[u8], home: &Home) -> Result<Self, BufferError> {
        let mut window = Self::fresh(extent, Backing::Private, Contents::Unspecified, home)?;
        let place = window.extent.bytes_mut();
        place[..bytes.len()].copy_from_slice(bytes);
        place[bytes.len()..].fill(0);
        Ok(window)
    }

    /// A window on what was written to a range of the host's own, or to a memfd that it maps.
    pub(crate) fn grown(extent: Extent, memfd: Option<Memfd>, home: &Home) -> Self {
        Self { extent, kind: memfd.map_or(Kind::Moved, Kind::Writable), home: home.clone() }
    }

    /// First address.
    #[must_use]
    pub fn start(&self) -> usize {
        self.extent.range().start()
    }

    /// Length in bytes, a multiple of the page size.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a window is never empty")]
    pub fn len(&self) -> usize {
        self.extent.range().len()
    }

    /// Seals the first `len` bytes for handing over. What lies behind them on their last page
    /// becomes zero. The pages leave when the payload lands or is detached; the window is of no
    /// further use to its guest then.
    ///
    /// # Panics
    /// When `len` is zero or greater than the window.
    ///
    /// # Errors
    /// When a memfd can't be sealed; the payload is still here then.
    pub fn lend(&mut self, len: usize) -> Result<Sealed<'_>, BufferError> {
        self.check(len);
        self.zero_tail(len);
        if let Kind::Writable(memfd) = &self.kind {
            // What lies behind the payload is nobody's business, and so is never sealed in.
            let behind = round_to_pages(len).unwrap_or(len);
            memfd.discard_from(behind).map_err(doing("cut a memfd", len))?;
            self.kind = Kind::View(self.close_memfd()?);
        }
        Ok(Sealed::of_window(self, len))
    }

    /// Makes the first `len` bytes visible to others, who can't change them, and keeps them here
    /// too, as a private copy-on-write view. Pages that are not yet in a memfd of their own, and
    /// parts of a window, are copied once.
    ///
    /// # Panics
    /// As [`Window::lend`].
    ///
    /// # Errors
    /// When the kernel has no memory, descriptor or mapping left; the payload is still here then.
    pub fn share(&mut self, len: usize) -> Result<(Sealed<'static>, Traffic), BufferError> {
        self.check(len);
        let end = round_to_pages(len).unwrap_or(len);
        // What lies behind the payload stays the owner's, and must not be seen by others.
        if end != self.len() || self.extent.bytes()[len..end].iter().any(|byte| *byte != 0) {
            let pages = SharedPages::copy_of(&self.extent.bytes()[..len])?;
            return Ok((Sealed::of_shared(pages, len), Traffic::copied(len)));
        }
        let (pages, traffic) = match &self.kind {
            Kind::View(pages) if pages.len() == self.len() && self.unmodified().is_some() => {
                (Arc::clone(pages), Traffic::default())
            }
            Kind::Writable(_) => (self.close_memfd()?, Traffic::default()),
            _ => {
                let pages = SharedPages::copy_of(&self.extent.bytes()[..len])?;
                let doing = doing("map a copy-on-write view", len);
                self.extent.make_view(pages.memfd()).map_err(doing)?;
                (pages, Traffic::copied(len))
            }
        };
        self.kind = Kind::View(Arc::clone(&pages));
        Ok((Sealed::of_shared(pages, len), traffic))
    }

    /// Seals the window's memfd, after a private view of it has replaced its writable mapping. When
    /// that fails the window is as before.
    fn close_memfd(&mut self) -> Result<Arc<SharedPages>, BufferError> {
        let len = self.len();
        // Empty on the way: undone when dropped, whatever is mapped then.
        let Kind::Writable(memfd) = std::mem::replace(&mut self.kind, Kind::Empty) else {
            unreachable!("only asked of a window with a writable memfd");
        };
        let viewed = self.extent.make_view(&memfd);
        let sealed = match viewed.map_err(doing("end the writable mapping of a memfd", len)) {
            Ok(()) => SharedPages::seal(memfd, len),
            Err(error) => Err((error, memfd)),
        };
        sealed.map_err(|(error, memfd)| {
            if self.extent.make_shared(&memfd).is_ok() {
                self.kind = Kind::Writable(memfd);
            } else {
                // Nothing may be left of the view: nobody would know it for one.
                self.extent.must_be_plain();
                self.kind = Kind::Spent;
            }
            error
        })
    }

    fn check(&self, len: usize) {
        assert!(len > 0 && len <= self.len(), "a payload of 1 to {} bytes, not {len}", self.len());
    }

    /// Zeroes what lies behind the payload on its last page.
    fn zero_tail(&mut self, len: usize) {
        let end = round_to_pages(len).unwrap_or(len);
        let tail = &mut self.extent.bytes_mut()[len..end];
        // Writing only where needed spares a page of a view the copy.
        if tail.iter().any(|byte| *byte != 0) {
            tail.fill(0);
        }
    }

    /// Moves its first pages, as many as `target` has, out of this window, which is of no further
    /// use then. The pages of a view come with what they are a view of.
    pub(crate) fn give(&mut self, target: &mut Extent) -> Result<Option<Source>, BufferError> {
        let len = target.range().len();
        target.take_pages(&mut self.extent).map_err(doing("move pages", len))?;
        Ok(match std::mem::replace(&mut self.kind, Kind::Spent) {
            // The source of a moved file mapping shows the file again: not for the producer.
            Kind::View(pages) => {
                self.extent.must_be_plain();
                Some(Source::View(pages))
            }
            Kind::Leased(lease) => {
                self.extent.must_be_plain();
                Some(Source::Leased(lease))
            }
            Kind::Plain | Kind::Spent => None,
            _ => {
                self.kind = Kind::Empty;
                None
            }
        })
    }

    /// Takes the first `len` bytes out of the owner's memory, for several others: a view that shows
    /// just its file gives that file, anything else is copied once.
    pub(crate) fn publish(
        &mut self,
        len: usize,
    ) -> Result<(Arc<SharedPages>, Traffic), BufferError> {
        let published = match self.unmodified() {
            Some(pages) => (Arc::clone(pages), Traffic::default()),
            None => (SharedPages::copy_of(&self.extent.bytes()[..len])?, Traffic::copied(len)),
        };
        self.retire();
        Ok(published)
    }

    /// The pages that it shows, where it is a view that nobody has written to.
    pub(crate) fn unmodified(&self) -> Option<&Arc<SharedPages>> {
        match &self.kind {
            // Unreadable page bookkeeping means a copy, never stale bytes.
            Kind::View(pages) if !self.extent.is_modified().unwrap_or(true) => Some(pages),
            _ => None,
        }
    }

    /// The lease of the segment that it shows.
    pub(crate) fn lease(&self) -> Option<&Arc<Lease>> {
        match &self.kind {
            Kind::Leased(lease) => Some(lease),
            _ => None,
        }
    }

    fn retire(&mut self) {
        self.recycle();
        self.extent.must_be_plain();
        self.kind = Kind::Spent;
    }

    /// Puts reusable pages aside for another payload: a segment's, or anonymous ones, and enough of
    /// them. Where that fails they stay.
    fn recycle(&mut self) {
        if let Kind::Leased(lease) = &self.kind {
            lease.segment.take_back(&mut self.extent);
            self.kind = Kind::Spent;
            return;
        }
        if matches!(self.kind, Kind::Plain | Kind::Moved)
            && self.len() >= RECYCLE_FROM
            && let Ok(slot) = self.home.pool.lift(&mut self.extent)
        {
            self.home.pool.shelve(slot, self.home.domain);
        }
    }

    /// The home of its pages.
    pub(crate) fn home(&self) -> &Home {
        &self.home
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.recycle();
        // What was reserved here goes with its extent.
        if !matches!(self.kind, Kind::Plain | Kind::Spent) && !self.extent.is_reserved() {
            self.extent.must_be_plain();
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::{BreakEven, Domain, Pool, PoolLimits};

    #[test]
    fn a_memfd_that_can_not_be_sealed_keeps_its_payload() {
        let home = Home {
            pool: Arc::new(Pool::new(PoolLimits::default())),
            domain: Domain(0),
            break_even: BreakEven::fixed(0),
        };
        let page = roadrunner_sys::page_size();
        let place = Extent::reserve(3 * page).unwrap();
        let mut window = Window::fresh(place, Backing::Memfd, Contents::Zeroed, &home).unwrap();
        window.extent.bytes_mut().fill(7);
        let Kind::Writable(memfd) = &window.kind else {
            panic!("a memfd was asked for");
        };
        // Another writable mapping, as a fork of this process would have for a moment.
        let mut other = Extent::reserve(page).unwrap();
        other.make_shared(memfd).unwrap();
        assert!(window.lend(2 * page).is_err());
        assert!(window.share(3 * page).is_err());
        window.extent.bytes_mut()[0] = 8;
        drop(other);
        let sealed = window.lend(page).unwrap();
        assert_eq!(sealed.bytes().unwrap()[..2], [8, 7]);
    }
}
