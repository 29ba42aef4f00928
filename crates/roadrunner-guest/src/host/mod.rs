//! The host's functions: the imports of the module, or stand-ins on targets without a host.

use std::ptr;

#[cfg(not(target_family = "wasm"))]
mod native;
#[cfg(target_family = "wasm")]
mod wasm;

#[cfg(not(target_family = "wasm"))]
pub(crate) use native::{buffer_alloc, buffer_free, call, deadline_ns, fail, log, submit, wait};
#[cfg(target_family = "wasm")]
pub(crate) use wasm::{buffer_alloc, buffer_free, call, deadline_ns, fail, log, submit, wait};

/// A buffer as it crosses the border: two `u32` on wasm32.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Slot {
    /// Where the bytes start; unspecified when there are none.
    pub ptr: *mut u8,
    /// How many bytes there are.
    pub len: usize,
}

impl Slot {
    /// No bytes.
    pub(crate) const EMPTY: Self = Self { ptr: ptr::null_mut(), len: 0 };
}
