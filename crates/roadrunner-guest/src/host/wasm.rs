//! The imports, with the types that pointers and lengths have on wasm32.
//!
//! Safety, for every block here: the host checks each pointer and length, reads and writes only
//! what it is given, and a `&str` or `&mut Slot` is valid for the duration of a call.

use super::Slot;
use roadrunner_abi::Errno;

mod import {
    use super::Slot;

    // Names and signatures are those of `roadrunner_abi::import`.
    #[link(wasm_import_module = "roadrunner")]
    unsafe extern "C" {
        pub(crate) safe fn buffer_alloc(len: usize, flags: u32) -> *mut u8;
        pub(super) fn buffer_free(ptr: *mut u8) -> i32;
        pub(super) fn call(
            name: *const u8,
            name_len: usize,
            payload: *const u8,
            len: usize,
            flags: u32,
            out: *mut Slot,
        ) -> i32;
        pub(super) fn submit(
            name: *const u8,
            name_len: usize,
            payload: *const u8,
            len: usize,
            flags: u32,
        ) -> i32;
        pub(super) fn wait(ticket: i32, out: *mut Slot) -> i32;
        pub(super) fn fail(message: *const u8, len: usize) -> !;
        pub(super) fn log(level: u32, message: *const u8, len: usize);
        pub(crate) safe fn deadline_ns() -> i64;
    }
}

pub(crate) use import::{buffer_alloc, deadline_ns};

/// An error of a later host than this crate is still an error.
fn errno(code: i32) -> Errno {
    Errno::from_code(code).unwrap_or(Errno::Invalid)
}

/// # Safety
/// The caller owns the buffer that starts at `ptr` and forgets it.
pub(crate) unsafe fn buffer_free(ptr: *mut u8) {
    // SAFETY: see the rule above. A refusal leaves nothing to do: the buffer is gone either way.
    let _ = unsafe { import::buffer_free(ptr) };
}

/// # Safety
/// Unless `flags` share it, the caller owns a buffer that starts at `payload`.
pub(crate) unsafe fn call(
    target: &str,
    payload: *const u8,
    len: usize,
    flags: u32,
    out: &mut Slot,
) -> Errno {
    // SAFETY: see the rule above.
    errno(unsafe { import::call(target.as_ptr(), target.len(), payload, len, flags, out) })
}

/// # Safety
/// As for [`call`].
pub(crate) unsafe fn submit(
    target: &str,
    payload: *const u8,
    len: usize,
    flags: u32,
) -> Result<i32, Errno> {
    // SAFETY: see the rule above.
    let ticket = unsafe { import::submit(target.as_ptr(), target.len(), payload, len, flags) };
    if ticket > 0 { Ok(ticket) } else { Err(errno(ticket.wrapping_neg())) }
}

pub(crate) fn wait(ticket: i32, out: &mut Slot) -> Errno {
    // SAFETY: see the rule above.
    errno(unsafe { import::wait(ticket, out) })
}

pub(crate) fn fail(message: &str) -> ! {
    // SAFETY: see the rule above.
    unsafe { import::fail(message.as_ptr(), message.len()) }
}

pub(crate) fn log(level: u32, message: &str) {
    // SAFETY: see the rule above.
    unsafe { import::log(level, message.as_ptr(), message.len()) };
}
