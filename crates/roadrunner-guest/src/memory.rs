//! The guest's allocator as the host sees it: the exports `allocate_memory` and
//! `deallocate_memory`.
//!
//! ```text
//! | len: usize, padded to 16 | len bytes, handed out and never touched here |
//! ^ what the Rust allocator  ^ what the caller gets, 16-aligned
//!   gave
//! ```
//!
//! The host lays its windows over this memory, so nothing is written to it: a written page is a
//! page fault, and a payload of 100 MiB has 25,600 pages.

use std::alloc::{Layout, alloc, dealloc};
use std::ptr;

/// Bytes before each allocation, which hold its length; also the alignment.
const HEADER: usize = 16;

fn layout(len: usize) -> Option<Layout> {
    Layout::from_size_align(len.checked_add(HEADER)?, HEADER).ok()
}

/// Gives `len` bytes, 16-aligned and of unspecified contents, or null when there are none left.
pub(crate) fn allocate(len: usize) -> *mut u8 {
    let Some(layout) = layout(len) else {
        return ptr::null_mut();
    };
    // SAFETY: the layout has at least the header's size, so it is not empty.
    let base = unsafe { alloc(layout) };
    if base.is_null() {
        return base;
    }
    // SAFETY: `base` is 16-aligned and holds 16 bytes more than `len`.
    unsafe { base.cast::<usize>().write(len) };
    // SAFETY: the header lies inside the allocation.
    unsafe { base.add(HEADER) }
}

/// Takes back what [`allocate`] gave; null is ignored.
///
/// # Safety
/// `ptr` is null or came from [`allocate`] and was not given back since.
pub(crate) unsafe fn deallocate(ptr: *mut u8) {
    if ptr.is_null() {
        return;
    }
    // SAFETY: `allocate` put its header in front of what it gave.
    let base = unsafe { ptr.sub(HEADER) };
    // SAFETY: `allocate` wrote the length there.
    let len = unsafe { base.cast::<usize>().read() };
    if let Some(layout) = layout(len) {
        // SAFETY: the layout is the one of the allocation, as it is made from the same length.
        unsafe { dealloc(base, layout) };
    }
}

#[cfg(target_family = "wasm")]
mod exports {
    #[unsafe(no_mangle)]
    extern "C" fn allocate_memory(len: usize) -> *mut u8 {
        super::allocate(len)
    }

    #[unsafe(no_mangle)]
    extern "C" fn deallocate_memory(ptr: *mut u8) {
        // SAFETY: the host gives back what it got from `allocate_memory`, once.
        unsafe { super::deallocate(ptr) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_aligned_and_disjoint() {
        let lens = [0, 1, 15, 16, 17, 4096, 1 << 20];
        let mut ranges: Vec<_> = lens.iter().map(|len| (allocate(*len), *len)).collect();
        ranges.sort();
        for (ptr, _) in &ranges {
            assert!(!ptr.is_null());
            assert_eq!(ptr.addr() % HEADER, 0);
        }
        for pair in ranges.windows(2) {
            assert!(pair[0].0.addr() + pair[0].1 <= pair[1].0.addr());
        }
        for (ptr, _) in ranges {
            // SAFETY: each came from `allocate` above and is given back once.
            unsafe { deallocate(ptr) };
        }
    }

    #[test]
    fn impossible_lengths_are_null() {
        assert!(allocate(usize::MAX).is_null());
        assert!(allocate(isize::MAX.unsigned_abs()).is_null());
        // SAFETY: null is allowed.
        unsafe { deallocate(ptr::null_mut()) };
    }
}
