//! The recycling pool: pages that were faulted in once wait here for their next payload.
//!
//! First-touch faults cost more than anything else that a large payload meets (100 MiB: 53 ms with
//! 4-KiB pages, 5 ms into recycled ones), so the pages of a payload that is done with are moved
//! here and moved on into the next window. Pages change trust domain only zeroed.

use std::io;
use std::sync::Arc as StdArc;

use crate::segment::{Releases, Segments};
use crate::shelf::Shelf;
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::view::Extent;
use crate::{BreakEven, BufferError, doing};

/// Shortest range in bytes worth recycling: below, two moves cost more than fresh faults
/// (64 KiB: 2 x 4.5 us against 27 us; 16 KiB: 2 x 3 us against 7 us).
pub(crate) const RECYCLE_FROM: usize = 64 << 10;

/// A trust domain: pages pass between the members of one as they are, and zeroed otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Domain(pub u64);

/// Bounds of a pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Bytes of pages that may wait: memory that is resident and does nothing until it is needed.
    pub bytes: usize,
    /// Ranges that may wait: each is a memory mapping, of which a process has 65,530.
    pub ranges: usize,
    /// Empty ranges kept for the next payload of the same length: each is a mapping, without memory.
    pub empty_ranges: usize,
}

impl Default for PoolLimits {
    /// A quarter of what the machine can give now, 4 GiB at most.
    fn default() -> Self {
        let quarter = roadrunner_sys::available_memory().map_or(256 << 20, |bytes| bytes / 4);
        let bytes = usize::try_from(quarter.min(4 << 30)).unwrap_or(256 << 20);
        Self { bytes, ranges: 256, empty_ranges: 64 }
    }
}

/// What a pool holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUse {
    /// Bytes of pages that wait.
    pub bytes: usize,
    /// Empty ranges that wait.
    pub empty_ranges: usize,
    /// Segments of this process's own.
    pub segments: usize,
    /// Of those, the ones that a window, a payload or another process has.
    pub leased: usize,
    /// Segments of other processes that are kept for their next payload.
    pub foreign: usize,
}

/// Pages between two uses. Shared by all instances of a runtime.
#[derive(Debug)]
pub struct Pool {
    state: Mutex<State>,
    limits: PoolLimits,
    pub(crate) segments: StdArc<Segments>,
}

#[derive(Debug)]
struct State {
    shelf: Shelf<Domain, Extent>,
    empty: Vec<Extent>,
}

/// Where a window belongs: the pool its pages go to, the trust domain they come from, and the
/// machine's break-even between copying and moving.
#[derive(Clone, Debug)]
pub struct Home {
    /// The pool.
    pub pool: Arc<Pool>,
    /// The trust domain.
    pub domain: Domain,
    /// From which length on moving wins.
    pub break_even: BreakEven,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(limits: PoolLimits) -> Self {
        let shelf = Shelf::new(limits.bytes, limits.ranges);
        let segments = Segments::new(limits.bytes);
        Self { state: Mutex::new(State { shelf, empty: Vec::new() }), limits, segments }
    }

    /// What it holds now.
    #[must_use]
    pub fn usage(&self) -> PoolUse {
        let (segments, leased, foreign) = self.segments.counts();
        let state = self.lock();
        let (bytes, empty_ranges) = (state.shelf.bytes(), state.empty.len());
        PoolUse { bytes, empty_ranges, segments, leased, foreign }
    }

    /// The process that reads these releases is gone: what is kept for its next payload goes.
    pub fn forget(&self, releases: &StdArc<Releases>) {
        self.segments.forget(releases);
    }

    /// Fills a range with waiting pages of the domain, or zeroed ones of another; `false` where
    /// none of its length wait. The contents are unspecified.
    pub(crate) fn fill(&self, target: &mut Extent, domain: Domain) -> io::Result<bool> {
        let len = target.range().len();
        let Some(taken) = self.lock().shelf.take(&domain, len) else {
            return Ok(false);
        };
        let mut slot = taken.slot;
        target.take_pages(&mut slot)?;
        if !taken.same_domain {
            target.bytes_mut().fill(0);
        }
        // Pages that were left over go back to the kernel, at the latest with their slot.
        if taken.bytes == len || slot.discard().is_ok() {
            self.keep_empty(slot);
        }
        Ok(true)
    }

    /// Moves the pages of a range into a range of the pool's.
    pub(crate) fn lift(&self, from: &mut Extent) -> Result<Extent, BufferError> {
        let len = from.range().len();
        let mut slot = self.empty(len).map_err(doing("reserve address space", len))?;
        slot.take_pages(from).map_err(doing("move pages out of linear memory", len))?;
        Ok(slot)
    }

    /// An empty range of this length, all zero.
    pub(crate) fn empty(&self, len: usize) -> io::Result<Extent> {
        let kept = {
            let mut state = self.lock();
            let at = state.empty.iter().rposition(|extent| extent.range().len() == len);
            at.map(|at| state.empty.swap_remove(at))
        };
        match kept {
            Some(extent) => Ok(extent),
            None => {
                let mut extent = Extent::reserve(len)?;
                extent.prefer_huge_pages();
                Ok(extent)
            }
        }
    }

    /// Keeps an empty range for the next payload of its length.
    pub(crate) fn keep_empty(&self, extent: Extent) {
        let surplus = {
            let mut state = self.lock();
            state.empty.push(extent);
            (state.empty.len() > self.limits.empty_ranges).then(|| state.empty.remove(0))
        };
        drop(surplus);
    }

    /// Puts pages, in a range of the pool's, aside for their next use.
    pub(crate) fn shelve(&self, slot: Extent, domain: Domain) {
        let len = slot.range().len();
        let left = self.lock().shelf.put(domain, len, slot);
        drop(left);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock, so a poisoned one is still in order.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
