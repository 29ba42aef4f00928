//! Arithmetic on pages and page-aligned ranges of host addresses. Pure.

use roadrunner_sys::page_size;

/// Size in bytes of a huge page (a page-middle directory entry) with 4-KiB base pages.
pub const HUGE_PAGE: usize = 2 << 20;

/// The smallest multiple of the page size that holds `len` bytes; `None` beyond the address space.
#[must_use]
pub fn round_to_pages(len: usize) -> Option<usize> {
    len.checked_next_multiple_of(page_size())
}

/// A page-aligned, non-empty range of host addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRange {
    start: usize,
    len: usize,
}

impl PageRange {
    /// The range of `len` bytes at `start`, where both are multiples of the page size, `len` is not
    /// zero and the end does not wrap.
    #[must_use]
    pub fn new(start: usize, len: usize) -> Option<Self> {
        let page = page_size();
        let aligned = start.is_multiple_of(page) && len.is_multiple_of(page);
        (aligned && len > 0 && start.checked_add(len).is_some()).then_some(Self { start, len })
    }

    /// The best range of `len` bytes (a multiple of the page size) between the addresses `from` and
    /// `to`: on a huge-page boundary where one is wanted and fits, else on a page boundary.
    #[must_use]
    pub fn fit(from: usize, to: usize, len: usize) -> Option<Self> {
        let at = |align: usize| {
            let start = from.checked_next_multiple_of(align)?;
            let range = Self::new(start, len)?;
            (range.end() <= to).then_some(range)
        };
        let huge = if len >= HUGE_PAGE { at(HUGE_PAGE) } else { None };
        huge.or_else(|| at(page_size()))
    }

    /// Bytes of slack that make [`PageRange::fit`] succeed at its preferred alignment for any start.
    #[must_use]
    pub fn slack(len: usize) -> usize {
        if len >= HUGE_PAGE { HUGE_PAGE } else { page_size() }
    }

    /// First address.
    #[must_use]
    pub fn start(self) -> usize {
        self.start
    }

    /// Length in bytes, never zero.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub fn len(self) -> usize {
        self.len
    }

    /// First address behind the range.
    #[must_use]
    pub fn end(self) -> usize {
        self.start + self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_aligned_and_never_empty() {
        let page = page_size();
        assert!(PageRange::new(page, page).is_some());
        assert!(PageRange::new(page + 1, page).is_none());
        assert!(PageRange::new(page, page - 1).is_none());
        assert!(PageRange::new(page, 0).is_none());
        assert!(PageRange::new(usize::MAX - page + 1, page).is_none());
    }

    #[test]
    fn large_ranges_sit_on_huge_pages_where_they_fit() {
        let page = page_size();
        let from = 5 * HUGE_PAGE + 16;
        let fit = |len: usize, room: usize| PageRange::fit(from, from + room, len);
        let len = 3 * HUGE_PAGE + page;
        assert_eq!(fit(len, len + PageRange::slack(len)).unwrap().start(), 6 * HUGE_PAGE);
        assert_eq!(fit(len, len + page).unwrap().start(), 5 * HUGE_PAGE + page, "no room: a page");
        assert_eq!(fit(len, len), None);
        assert_eq!(fit(page, 2 * page).unwrap().start(), 5 * HUGE_PAGE + page);
        assert_eq!(PageRange::fit(usize::MAX - 5, usize::MAX, page), None);
    }
}
