//! Names, error codes and limits of the Roadrunner guest ABI, version 1.
//!
//! Host and guest build on this crate and on nothing else in common. The contract itself is
//! `docs/guest-abi.md`; a test in the runtime compares that document with the constants here.
//!
//! ```text
//! guest exports                      host imports (module "roadrunner")
//!   memory                             buffer_alloc(len, flags) -> ptr
//!   allocate_memory(len) -> ptr        buffer_free(ptr) -> errno
//!   deallocate_memory(ptr)             call(name, name_len, ptr, len, flags, out) -> errno
//!   handle(ptr, len) -> i64            submit(name, name_len, ptr, len, flags) -> ticket
//!   handle_many(list, count) -> i64    wait(ticket, out) -> errno
//!                                      fail(msg, len), log(level, msg, len), deadline_ns() -> i64
//! ```
#![no_std]
#![forbid(unsafe_code)]

/// Version of the ABI that this crate describes.
pub const ABI_VERSION: u32 = 1;

/// The import module under which the host offers its functions.
pub const IMPORT_MODULE: &str = "roadrunner";

/// Names a function module exports.
pub mod export {
    /// The linear memory.
    pub const MEMORY: &str = "memory";
    /// `allocate_memory(len: i32) -> i32`: the guest's allocator; 0 when it has no memory left.
    pub const ALLOCATE: &str = "allocate_memory";
    /// `deallocate_memory(ptr: i32)`: gives back what `allocate_memory` returned.
    pub const DEALLOCATE: &str = "deallocate_memory";
    /// `cabi_realloc(old: i32, old_len: i32, align: i32, new_len: i32) -> i32`: taken where
    /// `allocate_memory` is not exported.
    pub const REALLOC: &str = "cabi_realloc";
    /// `handle(ptr: i32, len: i32) -> i64`: one payload in, one response out.
    pub const HANDLE: &str = "handle";
    /// `handle_many(list: i32, count: i32) -> i64`: fan-in.
    pub const HANDLE_MANY: &str = "handle_many";
    /// `_initialize()`: called once before the first payload, where present.
    pub const INITIALIZE: &str = "_initialize";
    /// `_start()`: marks a WASI command; the payload is its stdin, the response its stdout.
    pub const START: &str = "_start";
}

/// Names of the host's functions in [`IMPORT_MODULE`].
pub mod import {
    /// `buffer_alloc(len: i32, flags: i32) -> i32`.
    pub const BUFFER_ALLOC: &str = "buffer_alloc";
    /// `buffer_free(ptr: i32) -> i32`.
    pub const BUFFER_FREE: &str = "buffer_free";
    /// `call(name: i32, name_len: i32, ptr: i32, len: i32, flags: i32, out: i32) -> i32`.
    pub const CALL: &str = "call";
    /// `submit(name: i32, name_len: i32, ptr: i32, len: i32, flags: i32) -> i32`.
    pub const SUBMIT: &str = "submit";
    /// `wait(ticket: i32, out: i32) -> i32`.
    pub const WAIT: &str = "wait";
    /// `fail(msg: i32, msg_len: i32)`; does not return.
    pub const FAIL: &str = "fail";
    /// `log(level: i32, msg: i32, len: i32)`.
    pub const LOG: &str = "log";
    /// `deadline_ns() -> i64`.
    pub const DEADLINE_NS: &str = "deadline_ns";
}

/// Flag of `buffer_alloc`: the contents may be anything this trust domain wrote before, which
/// lets the host hand out recycled pages without zeroing them.
pub const ALLOC_UNSPECIFIED: u32 = 1;

/// Flag of `call` and `submit`: the caller keeps a private copy-on-write view of the payload
/// instead of giving it away.
pub const CALL_SHARE: u32 = 1;

/// What a host function answers. Zero is success; `submit` answers a positive ticket or the
/// negative of one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
#[non_exhaustive]
pub enum Errno {
    /// Success.
    Ok = 0,
    /// A pointer and length do not lie inside the guest's linear memory.
    Fault = 1,
    /// An argument has no meaning: an unknown flag, a name that is not UTF-8.
    Invalid = 2,
    /// The pointer lies in a buffer's window but is not a buffer that the guest holds: it was
    /// freed, sent before, or never given.
    BadBuffer = 3,
    /// The target is not among the functions this function may call, or does not exist.
    NotPermitted = 4,
    /// The payload is larger than the limit.
    TooLarge = 5,
    /// A limit on buffers, calls in flight, or depth of calls is reached.
    Limit = 6,
    /// The deadline passed before the callee answered.
    Timeout = 7,
    /// The callee failed; `out` names a buffer with its message.
    CalleeFailed = 8,
    /// The ticket is unknown or was waited for before.
    BadTicket = 9,
    /// The guest has no memory left for what it is to receive.
    NoMemory = 10,
    /// The callee could not be reached.
    Unavailable = 11,
}

impl Errno {
    /// The number that crosses the border.
    #[must_use]
    pub const fn code(self) -> i32 {
        self as i32
    }

    /// The error with this number.
    ///
    /// # Errors
    /// Gives the number back where no error has it.
    pub const fn from_code(code: i32) -> Result<Self, i32> {
        Ok(match code {
            0 => Self::Ok,
            1 => Self::Fault,
            2 => Self::Invalid,
            3 => Self::BadBuffer,
            4 => Self::NotPermitted,
            5 => Self::TooLarge,
            6 => Self::Limit,
            7 => Self::Timeout,
            8 => Self::CalleeFailed,
            9 => Self::BadTicket,
            10 => Self::NoMemory,
            11 => Self::Unavailable,
            other => return Err(other),
        })
    }

    /// Whether a `call` or `submit` that ended so left its payload with the caller. Where it
    /// did not, the payload was delivered, or lost with the callee.
    #[must_use]
    pub const fn keeps_payload(self) -> bool {
        !matches!(self, Self::Ok | Self::CalleeFailed | Self::Timeout | Self::NoMemory)
    }

    /// A sentence for people.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Ok => "success",
            Self::Fault => "a pointer or length lies outside linear memory",
            Self::Invalid => "an argument has no meaning",
            Self::BadBuffer => "this is not a buffer that the function holds",
            Self::NotPermitted => "the target is unknown or this function may not call it",
            Self::TooLarge => "the payload is larger than the limit",
            Self::Limit => "a limit on buffers, calls or call depth is reached",
            Self::Timeout => "the deadline passed",
            Self::CalleeFailed => "the called function failed",
            Self::BadTicket => "the ticket is unknown or was waited for before",
            Self::NoMemory => "linear memory is exhausted",
            Self::Unavailable => "the called function could not be reached",
        }
    }
}

/// Levels of `log`, from the most to the least urgent; others are taken as [`LOG_TRACE`].
pub const LOG_ERROR: u32 = 1;
/// See [`LOG_ERROR`].
pub const LOG_WARN: u32 = 2;
/// See [`LOG_ERROR`].
pub const LOG_INFO: u32 = 3;
/// See [`LOG_ERROR`].
pub const LOG_DEBUG: u32 = 4;
/// See [`LOG_ERROR`].
pub const LOG_TRACE: u32 = 5;

/// Limits that a guest can meet. Each is a bound on what one guest may make the host hold.
pub mod limit {
    /// Longest function name in bytes: names are path and label components elsewhere.
    pub const NAME_BYTES: u32 = 128;
    /// Longest message of `fail` and `log` in bytes: it is copied into the host's heap and logs.
    pub const MESSAGE_BYTES: u32 = 4096;
    /// Buffers one instance may hold at once: each can be up to three memory mappings, and
    /// the kernel grants a process 65,530 by default (`vm.max_map_count`).
    pub const BUFFERS: usize = 512;
    /// Calls that one instance may have in flight by `submit`: each holds a payload and a place
    /// in the worker queue.
    pub const TICKETS: usize = 64;
    /// Nested calls on one thread: each takes its wasm and host frames from the same stack.
    pub const CALL_DEPTH: u32 = 32;
    /// Inputs of one fan-in: `handle_many` gets a list of 8 bytes each, and each input is a window.
    pub const INPUTS: usize = 256;
    /// Largest payload in bytes unless the host sets another: a quarter of what wasm32 can address.
    pub const PAYLOAD_BYTES: u64 = 1 << 30;
}

/// Packs a response the way `handle` returns it: `(ptr << 32) | len`.
#[must_use]
pub const fn pack(ptr: u32, len: u32) -> i64 {
    (((ptr as u64) << 32) | len as u64).cast_signed()
}

/// Unpacks what `handle` returned into `(ptr, len)`.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "each half is 32 bits wide")]
pub const fn unpack(response: i64) -> (u32, u32) {
    let bits = response.cast_unsigned();
    ((bits >> 32) as u32, bits as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_survive_packing() {
        for (ptr, len) in [(0, 0), (1, 2), (u32::MAX, u32::MAX), (0x8000_0000, 7), (3, 0xffff_fff0)]
        {
            assert_eq!(unpack(pack(ptr, len)), (ptr, len));
        }
    }

    #[test]
    fn every_errno_survives_its_number() {
        for code in 0..12 {
            assert_eq!(Errno::from_code(code).unwrap().code(), code);
        }
        assert_eq!(Errno::from_code(12), Err(12));
        assert_eq!(Errno::from_code(-1), Err(-1));
    }
}
