//! Payload buffers: who owns the bytes, and who may write them.
//!
//! ```text
//!   producer's linear memory        in flight               consumer's linear memory
//!   Window (a loan) --- lend ---->  Sealed  --- land ---->  Window (a view)
//!                                     |  detach: pages leave the producer's memory
//!                                     |  share:  pages become one memfd for many consumers
//! ```
//!
//! A [`Window`] is a page-aligned range of somebody's linear memory that the host may rearrange.
//! Handing over is page-table work: `mremap` from window to window, or a private copy-on-write
//! mapping of a memfd. Payloads below the [`BreakEven`] are copied, which is faster there. Every
//! step says what it moved and what it copied ([`Traffic`]).
//!
//! This crate doesn't know Wasm: whoever owns the linear memory claims an [`Extent`] of it, which
//! is the crate's one unsafe door. All unsafe code stands in `view.rs`.

mod break_even;
mod draft;
mod growing;
mod lifted;
mod page;
mod pool;
mod sealed;
mod segment;
mod shared;
mod shelf;
mod sync;
mod view;
mod window;

pub use break_even::BreakEven;
pub use draft::Draft;
pub use growing::Growing;
pub use page::{HUGE_PAGE, PageRange, round_to_pages};
pub use pool::{Domain, Home, Pool, PoolLimits, PoolUse};
pub use sealed::{Descriptor, Sealed};
pub use segment::{Lease, Lent, Releases};
pub use shared::SharedPages;
pub use shelf::Shelf;
pub use view::Extent;
pub use window::{Backing, Contents, Window};

use std::ops::{Add, AddAssign};

/// What handing a payload over cost, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Payload bytes that the processor copied.
    pub copied: u64,
    /// Payload bytes whose pages changed hands instead.
    pub moved: u64,
}

impl Traffic {
    pub(crate) fn copied(len: usize) -> Self {
        Self { copied: len as u64, moved: 0 }
    }

    pub(crate) fn moved(len: usize) -> Self {
        Self { copied: 0, moved: len as u64 }
    }
}

impl Add for Traffic {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        // What a peer says it copied may be any number.
        Self {
            copied: self.copied.saturating_add(other.copied),
            moved: self.moved.saturating_add(other.moved),
        }
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// What a step of a hand-over was doing when the kernel refused it.
#[derive(Debug, thiserror::Error)]
#[error("{doing} ({len} bytes): {source}")]
pub struct BufferError {
    pub(crate) doing: &'static str,
    pub(crate) len: usize,
    pub(crate) source: std::io::Error,
}

impl BufferError {
    /// A refusal while doing something to `len` bytes, worded to follow "could not".
    #[must_use]
    pub fn new(doing: &'static str, len: usize, source: std::io::Error) -> Self {
        Self { doing, len, source }
    }
}

/// Attaches what was being done to a kernel's refusal.
pub(crate) fn doing(what: &'static str, len: usize) -> impl FnOnce(std::io::Error) -> BufferError {
    move |source| BufferError { doing: what, len, source }
}
