//! A payload that the guest owns.

use crate::error::Error;
use crate::host::{self, Slot};
use crate::report::fail;
use roadrunner_abi::{ALLOC_UNSPECIFIED, Errno, pack};
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

/// A payload that this function owns: bytes that the host can hand over by moving their pages.
///
/// It derefs to `[u8]`, is freed when it is dropped, and has a fixed length that
/// [`Buffer::truncate`] can shorten.
///
/// ```
/// use roadrunner_guest::Buffer;
///
/// let mut buffer = Buffer::zeroed(1 << 20)?;
/// buffer[..5].copy_from_slice(b"hello");
/// buffer.truncate(5);
/// assert_eq!(&*buffer, b"hello");
/// # Ok::<(), roadrunner_guest::Error>(())
/// ```
pub struct Buffer {
    /// Dangling while `len` is 0: the empty buffer holds nothing.
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a buffer owns its bytes alone, as `Vec<u8>` does.
unsafe impl Send for Buffer {}
// SAFETY: as above; `&Buffer` gives only `&[u8]`.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// A buffer without bytes; it costs nothing.
    #[must_use]
    pub const fn empty() -> Self {
        Self { start: NonNull::dangling(), len: 0 }
    }

    /// A buffer of `len` bytes, all zero.
    ///
    /// # Errors
    /// [`Errno::Limit`] when the host gives no buffer of this length.
    pub fn zeroed(len: usize) -> Result<Self, Error> {
        Self::allocate(len, 0)
    }

    /// A buffer of `len` bytes whose contents are unspecified: they may be what functions of
    /// the same trust domain left there, and never anybody else's.
    ///
    /// It is the fastest choice for a payload of which every byte is going to be written, as
    /// the host can give recycled pages without zeroing them.
    ///
    /// # Errors
    /// [`Errno::Limit`] when the host gives no buffer of this length.
    pub fn recycled(len: usize) -> Result<Self, Error> {
        Self::allocate(len, ALLOC_UNSPECIFIED)
    }

    /// A buffer with a copy of `bytes`.
    ///
    /// # Errors
    /// [`Errno::Limit`] when the host gives no buffer of this length.
    pub fn copy_of(bytes: &[u8]) -> Result<Self, Error> {
        let mut buffer = Self::recycled(bytes.len())?;
        buffer.copy_from_slice(bytes);
        Ok(buffer)
    }

    fn allocate(len: usize, flags: u32) -> Result<Self, Error> {
        if len == 0 {
            return Ok(Self::empty());
        }
        if isize::try_from(len).is_err() {
            return Err(Errno::Limit.into());
        }
        let start = NonNull::new(host::buffer_alloc(len, flags)).ok_or(Errno::Limit)?;
        Ok(Self { start, len })
    }

    /// Takes over a buffer that the host gave.
    ///
    /// # Safety
    /// Unless its length is 0, the slot names a buffer which nobody else owns.
    pub(crate) unsafe fn from_slot(slot: Slot) -> Self {
        if slot.len == 0 {
            return Self::empty();
        }
        match NonNull::new(slot.ptr) {
            Some(start) if isize::try_from(slot.len).is_ok() => Self { start, len: slot.len },
            _ => fail("the host gave a buffer that no slice can describe"),
        }
    }

    /// Shortens the buffer to its first `len` bytes; does nothing where it is no longer.
    pub fn truncate(&mut self, len: usize) {
        if len == 0 {
            *self = Self::empty();
        } else if len < self.len {
            self.len = len;
        }
    }

    /// Gives up ownership without freeing.
    pub(crate) fn into_slot(self) -> Slot {
        let buffer = ManuallyDrop::new(self);
        Slot { ptr: buffer.start.as_ptr(), len: buffer.len }
    }
}

/// A range as `handle` returns it.
#[allow(
    clippy::cast_possible_truncation,
    reason = "both are 32 bits wide on wasm32, the only target that returns it"
)]
pub(crate) fn pack_range(ptr: *const u8, len: usize) -> i64 {
    pack(ptr.expose_provenance() as u32, len as u32)
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: a buffer with bytes owns what starts there, and this is its end.
            unsafe { host::buffer_free(self.start.as_ptr()) };
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` initialized bytes start there (none at a dangling pointer), and nobody
        // writes them while they are borrowed.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and the buffer is borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_start_zeroed_and_hold_what_is_written() {
        let mut buffer = Buffer::zeroed(5000).unwrap();
        assert!(buffer.iter().all(|byte| *byte == 0));
        buffer.fill(7);
        buffer.truncate(9000);
        assert_eq!(buffer.len(), 5000);
        buffer.truncate(3);
        assert_eq!(&*buffer, [7, 7, 7]);
        buffer.truncate(0);
        assert_eq!(&*buffer, []);
    }

    #[test]
    fn copies_are_equal() {
        assert_eq!(&*Buffer::copy_of(b"payload").unwrap(), b"payload");
        assert!(Buffer::copy_of(b"").unwrap().is_empty());
    }

    #[test]
    fn impossible_lengths_are_errors() {
        assert_eq!(Buffer::zeroed(usize::MAX).unwrap_err().errno(), Some(Errno::Limit));
    }

    #[test]
    fn slots_round_trip() {
        let slot = Buffer::copy_of(b"abc").unwrap().into_slot();
        // SAFETY: the slot was taken from a buffer just now.
        assert_eq!(&*unsafe { Buffer::from_slot(slot) }, b"abc");
        // SAFETY: an empty slot names nothing.
        assert!(unsafe { Buffer::from_slot(Slot::EMPTY) }.is_empty());
    }
}
