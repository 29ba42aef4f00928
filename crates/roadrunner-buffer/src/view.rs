//! The one place of this crate that touches memory by address.
//!
//! An [`Extent`] is the exclusive right to a page-aligned range of host addresses: to rearrange
//! what is mapped there and to read and write it. Everything else in the crate is safe code on top.
//!
//! Rules that the SAFETY lines below refer to:
//!
//! * **E1** Exclusive: [`Extent::claim`]'s caller promises that nobody else rearranges the range
//!   while the extent exists, and that nobody reads or writes it while one of the extent's methods
//!   runs or a slice from it lives. [`Extent::reserve`] keeps that promise by owning the range.
//! * **E2** Mapped: the range is mapped readable and writable from the first moment to the last. A
//!   method that replaces the mapping succeeds, or leaves the old one, or lays plain memory, or the
//!   process ends.
//! * **E3** Steady: what a file mapping shows can't shrink away or change behind our back, because
//!   the files are memfds made here, at full length, whose only writable mapping is an extent; or
//!   another process's that the kernel says are sealed, at full length ([`Memfd::adopt`]).

#![allow(unsafe_code, reason = "this module is one of the three rooms for unsafe code")]

use std::io;
use std::os::fd::AsFd;

use roadrunner_sys::{self as sys, Advice, Memfd};

use crate::page::{HUGE_PAGE, PageRange};

/// The exclusive right to a page-aligned range of host addresses, mapped readable and writable.
///
/// Dropping it gives up the right and leaves the mapping as it is, unless it was reserved here.
#[derive(Debug)]
pub struct Extent {
    range: PageRange,
    right: Right,
}

/// Whose a range is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    /// Somebody else's, who keeps it mapped.
    Claimed,
    /// Reserved here: it goes with the extent.
    Reserved,
    /// Reserved here, and perhaps another thread's by now, see [`Extent::whole`].
    GivenUp,
}

impl Extent {
    /// Claims a range that somebody else keeps mapped, as linear memory is.
    ///
    /// # Safety
    /// Until the extent is dropped the range stays mapped readable and writable, nobody else changes
    /// its mapping, and nobody reads or writes it while a method of the extent runs or a slice
    /// from it lives.
    #[must_use]
    pub unsafe fn claim(range: PageRange) -> Self {
        Self { range, right: Right::Claimed }
    }

    /// Reserves fresh plain memory of `len` bytes (a multiple of the page size), on a huge-page
    /// boundary where it is that long. Costs no memory until it is written.
    ///
    /// # Errors
    /// When the kernel has no address space or no mapping left.
    pub fn reserve(len: usize) -> io::Result<Self> {
        let align = if len >= HUGE_PAGE { HUGE_PAGE } else { sys::page_size() };
        let start = sys::reserve(len, align)?;
        Ok(Self {
            range: PageRange::new(start, len).ok_or(io::ErrorKind::InvalidInput)?,
            right: Right::Reserved,
        })
    }

    /// Whether the range was reserved here.
    pub(crate) fn is_reserved(&self) -> bool {
        self.right != Right::Claimed
    }

    /// Where it lies.
    #[must_use]
    pub fn range(&self) -> PageRange {
        self.range
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: E1 (nobody writes while the slice lives), E2 (mapped), E3 (steady).
        unsafe { std::slice::from_raw_parts(self.range.start() as *const u8, self.range.len()) }
    }

    /// Its bytes, to write.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as `bytes`, and `&mut self` makes this the only slice.
        unsafe { std::slice::from_raw_parts_mut(self.range.start() as *mut u8, self.range.len()) }
    }

    /// Replaces it by plain anonymous memory, all zero, which merges with plain neighbours.
    ///
    /// # Errors
    /// When the kernel has no mapping left to split one; the old mapping is then still there.
    pub fn make_plain(&mut self) -> io::Result<()> {
        // SAFETY: E1.
        let done = unsafe { sys::map_plain(self.range.start(), self.range.len()) };
        self.whole(done)
    }

    /// Replaces it by plain memory, or ends the process: linear memory that goes back to its owner
    /// with somebody's pages in it would hand them to the next guest.
    ///
    /// What was reserved here goes back to nobody, so there it may fail.
    pub fn must_be_plain(&mut self) {
        if self.right == Right::GivenUp || self.make_plain().is_ok() || self.is_reserved() {
            return;
        }
        // A process with every mapping in use is refused the exchange, and may still end one mapping
        // and then make one. Should another thread's mapping land in between, the second step fails.
        // SAFETY: E1, and the range is mapped again before anybody looks, or the process ends.
        let ended = unsafe { sys::unmap(self.range.start(), self.range.len()) };
        if ended.is_err() || sys::map_plain_in_hole(self.range.start(), self.range.len()).is_err() {
            std::process::abort();
        }
    }

    /// Asks for huge pages where they fit, and says whether the kernel took note. One without them
    /// is no error.
    pub fn prefer_huge_pages(&mut self) -> bool {
        self.range.len() >= HUGE_PAGE
            && sys::advise(self.range.start(), self.range.len(), Advice::HugePages).is_ok()
    }

    /// Replaces it by the one writable mapping of a memfd that is at least as long.
    ///
    /// # Errors
    /// As [`Extent::make_plain`].
    pub(crate) fn make_shared(&mut self, memfd: &Memfd) -> io::Result<()> {
        // SAFETY: E1; E3 by the caller's choice of file, which this crate makes itself: a sealed one
        // the kernel refuses.
        let done = unsafe { sys::map_shared(self.range.start(), self.range.len(), memfd.as_fd()) };
        self.whole(done)
    }

    /// Replaces it by a private copy-on-write view of a memfd that is at least as long.
    ///
    /// # Errors
    /// As [`Extent::make_plain`].
    pub(crate) fn make_view(&mut self, memfd: &Memfd) -> io::Result<()> {
        // SAFETY: E1; E3 as above.
        let done = unsafe { sys::map_private(self.range.start(), self.range.len(), memfd.as_fd()) };
        self.whole(done)
    }

    /// Takes the first `self.range().len()` bytes of another extent, whose anonymous pages leave
    /// zeros behind. The pages of that part of `from` must be one mapping.
    ///
    /// # Errors
    /// When `from` is shorter, or the kernel has no mapping left, or the pages are several
    /// mappings; `from` is unchanged then.
    pub fn take_pages(&mut self, from: &mut Self) -> io::Result<()> {
        let (source, target) = (from.range, self.range);
        if source.len() < target.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: E1 for both; two extents never overlap, as each is exclusive.
        let done = unsafe { sys::move_pages(source.start(), target.start(), target.len()) };
        self.whole(done)
    }

    /// Takes all of another extent into its own first pages, which map `memfd` as a whole. The pages of
    /// `from` must be one mapping; where that is a file's, `from` shows the file again. Nobody else
    /// maps the memfd from its start, writable and shared, while this runs.
    ///
    /// # Errors
    /// As [`Extent::take_pages`], when `from` is the longer one. This one maps the memfd still then,
    /// or is of no further use.
    pub(crate) fn take_front(&mut self, from: &mut Self, memfd: &Memfd) -> io::Result<()> {
        let (source, target) = (from.range, self.range);
        if target.len() < source.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: E1 for both; two extents never overlap, as each is exclusive.
        let done = unsafe { sys::move_pages(source.start(), target.start(), source.len()) };
        let is_as_before = |id| sys::is_whole_file(target.start(), target.len(), id);
        if done.is_err() && memfd.id().is_ok_and(is_as_before) {
            // The one look that tells whose a mapping is: who else could have made this one, doesn't.
            return done;
        }
        self.whole(done)
    }

    /// Makes a reserved extent longer, by zeros, or shorter. Where the kernel finds no room behind it,
    /// its pages move elsewhere. A file that it maps must be as long.
    ///
    /// # Errors
    /// `InvalidInput` for a claimed extent, or no multiple of the page size. Else when the kernel has no
    /// address space or mapping left; nothing has changed then.
    pub(crate) fn resize(&mut self, len: usize) -> io::Result<()> {
        let (start, before) = (self.range.start(), self.range.len());
        if self.right != Right::Reserved || PageRange::new(start, len).is_none() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: E1; E3 by the caller's care for the file.
        let start = unsafe { sys::resize(start, before, len) }?;
        self.range = PageRange::new(start, len).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(())
    }

    /// Drops its pages; where it is anonymous memory it reads as zeros afterwards.
    ///
    /// # Errors
    /// None that the rules here allow for; the kernel's answer is passed on.
    pub fn discard(&mut self) -> io::Result<()> {
        // SAFETY: E1.
        unsafe { sys::discard_pages(self.range.start(), self.range.len()) }
    }

    /// Whether a view has been written to since it was mapped.
    ///
    /// # Errors
    /// When `/proc` can't be read.
    pub fn is_modified(&self) -> io::Result<bool> {
        sys::is_modified(self.range.start(), self.range.len())
    }

    /// Sees to rule E2 where the kernel may have unmapped a range before it refused. `mremap` unmaps
    /// its target before it looks at the limit on address space (`ulimit -v`) and, in most versions, at
    /// the source; it and `mmap` can run out of memory for their own book-keeping later still. The
    /// errno doesn't tell: one mapping too many, which is refused before anything is unmapped
    /// and must be survived, is ENOMEM too, and an EFAULT comes before or after, by version.
    ///
    /// So this looks, and is deceived in one case: the range was unmapped, and before the look
    /// other threads' mappings have filled it. Part of it is not enough, as that ends the
    /// process below; and around a window everything is mapped, so they must be just as long
    /// together. Until the window ends and replaces them, its guest could then write to them. No call
    /// says whose a mapping is, and to replace one unseen could destroy another thread's.
    ///
    /// For the same reason a range that was reserved here is never unmapped after a refusal, unless a
    /// hole was found and filled: it is leaked. That is address space, and no memory where it was made
    /// to take pages in, which is what refusals of one mapping too many are about.
    fn whole(&mut self, done: io::Result<()>) -> io::Result<()> {
        let (start, len) = (self.range.start(), self.range.len());
        if done.is_ok() {
            return done;
        }
        if sys::is_mapped(start, len) {
            if self.right == Right::Reserved {
                self.right = Right::GivenUp;
            }
        } else if sys::map_plain_in_hole(start, len).is_err() {
            // A hole in linear memory is where the next mapping of this process lands, in a guest's
            // reach. Ending is the only safe answer.
            std::process::abort();
        }
        done
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        if self.right == Right::Reserved {
            // SAFETY: reserved by this value, which nobody can use any more. A failure leaks it.
            let _ = unsafe { sys::unmap(self.range.start(), self.range.len()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_private_and_tells_when_it_was_written() {
        let len = 4 * sys::page_size();
        let memfd = Memfd::new(len).unwrap();
        let mut writer = Extent::reserve(len).unwrap();
        writer.make_shared(&memfd).unwrap();
        writer.bytes_mut().fill(9);
        writer.make_plain().unwrap();
        memfd.seal().unwrap();
        let (mut one, mut two) = (Extent::reserve(len).unwrap(), Extent::reserve(len).unwrap());
        one.make_view(&memfd).unwrap();
        two.make_view(&memfd).unwrap();
        one.bytes_mut()[0] = 1;
        assert!(one.is_modified().unwrap());
        assert!(!two.is_modified().unwrap());
        assert_eq!(two.bytes()[0], 9);
        assert_eq!(writer.bytes()[0], 0);
    }

    #[test]
    fn a_range_that_may_be_anothers_by_now_is_not_unmapped() {
        let len = sys::page_size();
        let memfd = Memfd::new(len).unwrap();
        memfd.seal().unwrap();
        let [mut refused, mut whole] = [0; 2].map(|_| Extent::reserve(len).unwrap());
        assert!(refused.make_shared(&memfd).is_err());
        whole.make_view(&memfd).unwrap();
        let is_mapped = |range: PageRange| sys::is_mapped(range.start(), range.len());
        let ranges = [refused.range(), whole.range()];
        refused.must_be_plain();
        drop((refused, whole));
        assert_eq!(ranges.map(is_mapped), [true, false]);
    }

    #[test]
    fn a_file_that_is_still_mapped_after_a_refused_move_is_unmapped_in_the_end() {
        let page = sys::page_size();
        let memfd = Memfd::new(4 * page).unwrap();
        let mut rest = Extent::reserve(4 * page).unwrap();
        rest.make_shared(&memfd).unwrap();
        let mut window = Extent::reserve(3 * page).unwrap();
        window.make_shared(&memfd).unwrap();
        // SAFETY: nobody looks into the hole.
        unsafe { sys::unmap(window.range().start(), page) }.unwrap();
        assert!(rest.take_front(&mut window, &memfd).is_err());
        rest.bytes_mut()[0] = 7;
        let range = rest.range();
        drop(rest);
        assert!(!sys::is_mapped(range.start(), range.len()), "the memfd's pages stay for ever");
    }

    #[test]
    fn a_refused_move_leaves_both_sides_mapped() {
        let page = sys::page_size();
        let mut whole = Extent::reserve(3 * page).unwrap();
        whole.bytes_mut().fill(5);
        let mut target = Extent::reserve(3 * page).unwrap();
        let mut short = Extent::reserve(page).unwrap();
        assert!(target.take_pages(&mut short).is_err());
        assert!(target.bytes().iter().all(|byte| *byte == 0));
        target.take_pages(&mut whole).unwrap();
        assert!(target.bytes().iter().all(|byte| *byte == 5));
        assert!(whole.bytes().iter().all(|byte| *byte == 0));
    }
}
