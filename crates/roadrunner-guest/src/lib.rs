//! Write Roadrunner functions in Rust.
//!
//! A function is a plain Rust function over its payload, and one macro makes it the module's
//! entry:
//!
//! ```
//! use roadrunner_guest::{Buffer, Error};
//!
//! // Works in place: the pages that came in are the pages that go out, nothing is copied.
//! fn invert(mut input: Buffer) -> Result<Buffer, Error> {
//!     if input.is_empty() {
//!         return Err(Error::new("invert: the payload is empty"));
//!     }
//!     for byte in &mut *input {
//!         *byte = !*byte;
//!     }
//!     Ok(input)
//! }
//!
//! roadrunner_guest::handler!(invert);
//! # fn main() {}
//! ```
//!
//! Build it as a `cdylib` for `wasm32-wasip1`. What a handler may take and answer is listed at
//! [`Handler`] and [`IntoResponse`]; a function that joins several inputs uses [`fan_in!`].
//!
//! A [`Buffer`] is a payload: bytes in pages of their own, which the host moves from function to
//! function. Write a response into one and return it, and no byte of it is copied. `Vec<u8>` and
//! `String` work too and are copied once.
//!
//! | to | use |
//! |---|---|
//! | ask another function | [`call`] gives a buffer away, [`share`] keeps it |
//! | ask several at once | [`submit`], [`submit_shared`], then [`Ticket::wait`] |
//! | report | [`log`], [`fail`] (an `Err` of the handler does the same; a panic traps, with its message) |
//! | see how much time is left | [`time_left`] |
//!
//! The contract underneath is `docs/guest-abi.md`. On other targets than WebAssembly the crate
//! compiles as well, so that handlers can be tested as the plain functions they are: buffers are
//! then heap memory, calls answer [`Errno::Unavailable`], and [`fail`] panics.
#![allow(unsafe_code, reason = "the border to the host is pointers and lengths")]

mod buffer;
mod calls;
mod error;
mod handler;
mod host;
mod memory;
mod report;

pub use buffer::Buffer;
pub use calls::{Ticket, call, share, submit, submit_shared};
pub use error::{Error, Undelivered};
pub use handler::{Handler, IntoResponse, Response};
pub use report::{Level, fail, log, time_left};
pub use roadrunner_abi::{Errno, limit};

/// What the macros expand to; not for use by hand.
#[doc(hidden)]
pub mod macros {
    pub use crate::handler::{handle, handle_many};
    pub use crate::host::Slot;
}

/// Makes a function the entry of this module: it gets the payload and returns the response.
///
/// ```
/// fn count_lines(input: &[u8]) -> String {
///     input.split(|byte| *byte == b'\n').count().to_string()
/// }
/// roadrunner_guest::handler!(count_lines);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! handler {
    ($function:path) => {
        const _: () = {
            #[cfg_attr(target_family = "wasm", unsafe(no_mangle))]
            #[allow(dead_code, reason = "only a wasm module exports it")]
            extern "C" fn handle(payload: *mut u8, len: usize) -> i64 {
                // SAFETY: the host calls this export, with a payload that it gave to the guest.
                unsafe { $crate::macros::handle($function, payload, len) }
            }
        };
    };
}

/// Makes a function the fan-in entry of this module: it gets the payloads of all its
/// predecessors, in the order of the workflow's edges.
///
/// ```
/// use roadrunner_guest::Buffer;
///
/// fn concatenate(inputs: Vec<Buffer>) -> Vec<u8> {
///     inputs.iter().flat_map(|input| input.iter().copied()).collect()
/// }
/// roadrunner_guest::fan_in!(concatenate);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! fan_in {
    ($function:path) => {
        const _: () = {
            #[cfg_attr(target_family = "wasm", unsafe(no_mangle))]
            #[allow(dead_code, reason = "only a wasm module exports it")]
            extern "C" fn handle_many(list: *mut $crate::macros::Slot, count: usize) -> i64 {
                // SAFETY: the host calls this export, with payloads and a list that it gave to
                // the guest.
                unsafe { $crate::macros::handle_many($function, list, count) }
            }
        };
    };
}
