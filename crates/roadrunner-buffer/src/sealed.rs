//! Payloads in flight: nobody can write them any more.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

use roadrunner_sys::Memfd;

use crate::page::round_to_pages;
use crate::pool::Home;
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
    Lifted(Lifted),
    /// Pages in a sealed memfd.
    Shared(Arc<SharedPages>),
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
            Pages::Lifted(lifted) => lifted.bytes(),
            Pages::Shared(pages) => pages.bytes()?,
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
            Pages::Lifted(lifted) => match lifted.give(&mut extent) {
                Ok(view) => Ok((Window::receiving(extent, view, home), Traffic::moved(len))),
                Err((error, lifted)) => Err(again(Pages::Lifted(lifted))(error)),
            },
            Pages::Shared(pages) => Window::viewing(extent, Arc::clone(&pages), home)
                .map(|window| (window, Traffic::moved(len)))
                .map_err(again(Pages::Shared(pages))),
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
            Pages::Lifted(lifted) => (Pages::Lifted(lifted), Traffic::default()),
            Pages::Shared(pages) => (Pages::Shared(pages), Traffic::default()),
            Pages::Lent(window) if home.break_even.moves(len) => {
                // Counted as moved when it lands.
                (Pages::Lifted(Lifted::out_of(window, len)?), Traffic::default())
            }
            Pages::Borrowed(bytes) if home.break_even.moves(len) => {
                let lifted = Lifted::write(len, home, |place| {
                    place.copy_from_slice(bytes);
                    Ok(())
                })?;
                (Pages::Lifted(lifted), Traffic::copied(len))
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
}

impl Sealed<'static> {
    /// The empty payload.
    #[must_use]
    pub fn empty() -> Self {
        Self::borrowed(&[])
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
            return Ok(Self { pages: Pages::Lifted(Lifted::write(len, home, write)?), len });
        }
        let mut bytes = vec![0; len];
        write(&mut bytes).map_err(doing("write a payload", len))?;
        Ok(Self { pages: Pages::Small(Arc::from(bytes)), len })
    }
}

/// Anonymous pages, or pages of a view, in a range of the pool's own.
#[derive(Debug)]
struct Lifted {
    /// Always there until the value is taken apart.
    slot: Option<Extent>,
    view: Option<Arc<SharedPages>>,
    home: Home,
}

impl Lifted {
    fn out_of(window: &mut Window, len: usize) -> Result<Self, BufferError> {
        let home = window.home().clone();
        let pages = round_to_pages(len).unwrap_or(len);
        let mut slot = home.pool.empty(pages).map_err(doing("reserve address space", len))?;
        let view = window.give(&mut slot)?;
        Ok(Self { slot: Some(slot), view, home })
    }

    fn write(
        len: usize,
        home: &Home,
        write: impl FnOnce(&mut [u8]) -> io::Result<()>,
    ) -> Result<Self, BufferError> {
        let pages = round_to_pages(len).unwrap_or(len);
        let mut slot = home.pool.empty(pages).map_err(doing("reserve address space", len))?;
        home.pool.fill(&mut slot, home.domain).map_err(doing("move recycled pages in", len))?;
        let lifted = |slot| Self { slot: Some(slot), view: None, home: home.clone() };
        write(&mut slot.bytes_mut()[..len]).map_err(doing("write a payload", len))?;
        slot.bytes_mut()[len..].fill(0);
        Ok(lifted(slot))
    }

    fn bytes(&self) -> &[u8] {
        self.slot.as_ref().map_or(&[], Extent::bytes)
    }

    fn give(
        mut self,
        target: &mut Extent,
    ) -> Result<Option<Arc<SharedPages>>, (BufferError, Self)> {
        let Some(mut slot) = self.slot.take() else {
            return Ok(None);
        };
        if let Err(error) = target.take_pages(&mut slot) {
            let error = doing("move pages", slot.range().len())(error);
            self.slot = Some(slot);
            return Err((error, self));
        }
        let view = self.view.take();
        if view.is_none() {
            self.home.pool.keep_empty(slot);
        }
        Ok(view)
    }
}

impl Drop for Lifted {
    fn drop(&mut self) {
        // A view's slot is unmapped instead: its pages are the memfd's.
        if let (Some(slot), None) = (self.slot.take(), &self.view) {
            self.home.pool.shelve(slot, self.home.domain);
        }
    }
}

/// Pages in a sealed memfd, which any number of consumers may view.
#[derive(Debug)]
pub struct SharedPages {
    memfd: Memfd,
    len: usize,
    /// The host's own view, made when it first reads them.
    view: OnceLock<Extent>,
}

impl SharedPages {
    /// Seals a memfd of `len` bytes, which nobody maps for writing any more. It comes back with the
    /// reason when that fails.
    pub(crate) fn seal(memfd: Memfd, len: usize) -> Result<Arc<Self>, (BufferError, Memfd)> {
        match memfd.seal() {
            Ok(()) => Ok(Arc::new(Self { memfd, len, view: OnceLock::new() })),
            Err(error) => Err((doing("seal a memfd", len)(error), memfd)),
        }
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

    pub(crate) fn memfd(&self) -> &Memfd {
        &self.memfd
    }

    fn bytes(&self) -> Result<&[u8], BufferError> {
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
