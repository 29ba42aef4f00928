//! Stand-ins for targets that have no host: buffers are heap memory and nobody can be called.

use super::Slot;
use crate::memory;
use roadrunner_abi::Errno;

pub(crate) fn buffer_alloc(len: usize, _flags: u32) -> *mut u8 {
    let ptr = memory::allocate(len);
    if !ptr.is_null() {
        // SAFETY: `allocate` gave `len` bytes. Rust has no unspecified bytes, so they are zeroed
        // whatever the flags are.
        unsafe { ptr.write_bytes(0, len) };
    }
    ptr
}

/// # Safety
/// `ptr` came from [`buffer_alloc`] and the caller forgets it.
pub(crate) unsafe fn buffer_free(ptr: *mut u8) {
    // SAFETY: `buffer_alloc` got it from `allocate`.
    unsafe { memory::deallocate(ptr) };
}

/// # Safety
/// None is needed here; the signature is the one of the real import.
pub(crate) unsafe fn call(
    _target: &str,
    _payload: *const u8,
    _len: usize,
    _flags: u32,
    _out: &mut Slot,
) -> Errno {
    Errno::Unavailable
}

/// # Safety
/// As for [`call`].
pub(crate) unsafe fn submit(
    _target: &str,
    _payload: *const u8,
    _len: usize,
    _flags: u32,
) -> Result<i32, Errno> {
    Err(Errno::Unavailable)
}

pub(crate) fn wait(_ticket: i32, _out: &mut Slot) -> Errno {
    Errno::BadTicket
}

#[allow(clippy::panic, reason = "the nearest thing to ending the invocation")]
pub(crate) fn fail(message: &str) -> ! {
    panic!("{message}")
}

pub(crate) fn log(level: u32, message: &str) {
    eprintln!("[{level}] {message}");
}

pub(crate) fn deadline_ns() -> i64 {
    i64::MAX
}
