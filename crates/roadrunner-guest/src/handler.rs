//! What may be a handler, and how the exports run it.

use crate::buffer::{Buffer, pack_range};
use crate::host::Slot;
use crate::memory;
use crate::report::fail;
use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

/// A function that [`handler!`](crate::handler!) accepts: `Fn(Buffer) -> R`, `Fn(&[u8]) -> R` or
/// `Fn(&str) -> R` (a payload that is not UTF-8 fails), where `R` implements [`IntoResponse`].
///
/// `Input` only tells the three apart.
pub trait Handler<Input: ?Sized>: Sized {
    /// Handles one payload.
    ///
    /// # Errors
    /// The message with which the invocation fails.
    fn invoke(self, payload: Buffer) -> Result<Response, String>;
}

impl<F, R> Handler<Buffer> for F
where
    F: FnOnce(Buffer) -> R,
    R: IntoResponse,
{
    fn invoke(self, payload: Buffer) -> Result<Response, String> {
        self(payload).into_response()
    }
}

impl<F, R> Handler<[u8]> for F
where
    F: FnOnce(&[u8]) -> R,
    R: IntoResponse,
{
    fn invoke(self, payload: Buffer) -> Result<Response, String> {
        self(&payload).into_response()
    }
}

impl<F, R> Handler<str> for F
where
    F: FnOnce(&str) -> R,
    R: IntoResponse,
{
    fn invoke(self, payload: Buffer) -> Result<Response, String> {
        let text = str::from_utf8(&payload)
            .map_err(|error| format!("the payload is not UTF-8: {error}"))?;
        self(text).into_response()
    }
}

/// The bytes that a handler answers.
#[derive(Debug)]
#[non_exhaustive]
pub enum Response {
    /// Moves to the receiver.
    Buffer(Buffer),
    /// Copied to the receiver once.
    Bytes(Cow<'static, [u8]>),
}

/// What a handler may return: [`Buffer`], `Vec<u8>`, `String`, static bytes and text, `()`, and a
/// `Result` of any of these with an error that can be displayed.
pub trait IntoResponse {
    /// The response.
    ///
    /// # Errors
    /// The message with which the invocation fails.
    fn into_response(self) -> Result<Response, String>;
}

impl IntoResponse for Response {
    fn into_response(self) -> Result<Response, String> {
        Ok(self)
    }
}

impl IntoResponse for Buffer {
    fn into_response(self) -> Result<Response, String> {
        Ok(Response::Buffer(self))
    }
}

impl IntoResponse for () {
    fn into_response(self) -> Result<Response, String> {
        Ok(Response::Buffer(Buffer::empty()))
    }
}

impl IntoResponse for Vec<u8> {
    fn into_response(self) -> Result<Response, String> {
        Ok(Response::Bytes(Cow::Owned(self)))
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Result<Response, String> {
        self.into_bytes().into_response()
    }
}

impl IntoResponse for &'static [u8] {
    fn into_response(self) -> Result<Response, String> {
        Ok(Response::Bytes(Cow::Borrowed(self)))
    }
}

impl IntoResponse for &'static str {
    fn into_response(self) -> Result<Response, String> {
        self.as_bytes().into_response()
    }
}

impl<T: IntoResponse, E: fmt::Display> IntoResponse for Result<T, E> {
    fn into_response(self) -> Result<Response, String> {
        match self {
            Ok(response) => response.into_response(),
            // The alternate form, as error chains of `anyhow` are displayed whole by it.
            Err(error) => Err(format!("{error:#}")),
        }
    }
}

/// Runs a handler: what the export `handle` does.
///
/// # Safety
/// The host gave the payload to this guest.
pub unsafe fn handle<Input: ?Sized>(
    handler: impl Handler<Input>,
    payload: *mut u8,
    len: usize,
) -> i64 {
    // SAFETY: passed on from the caller.
    let payload = unsafe { Buffer::from_slot(Slot { ptr: payload, len }) };
    respond(handler.invoke(payload))
}

/// Runs a fan-in handler: what the export `handle_many` does.
///
/// # Safety
/// The host gave `count` payloads, and the list from `allocate_memory`, to this guest.
pub unsafe fn handle_many<R: IntoResponse>(
    handler: impl FnOnce(Vec<Buffer>) -> R,
    list: *mut Slot,
    count: usize,
) -> i64 {
    let payloads = (0..count)
        .map(|index| {
            // SAFETY: the list has `count` entries.
            let entry = unsafe { list.add(index) };
            // SAFETY: as above; the host wrote each entry.
            let slot = unsafe { entry.read_unaligned() };
            // SAFETY: passed on from the caller, and each entry is taken once.
            unsafe { Buffer::from_slot(slot) }
        })
        .collect();
    // SAFETY: the list came from `allocate_memory` and is not used again.
    unsafe { memory::deallocate(list.cast()) };
    respond(handler(payloads).into_response())
}

thread_local! {
    /// The last response that was not a buffer: the host copies it after `handle` returned, so
    /// it lives until the next one.
    static LAST_RESPONSE: Cell<Cow<'static, [u8]>> = const { Cell::new(Cow::Borrowed(&[])) };
}

fn respond(outcome: Result<Response, String>) -> i64 {
    match outcome {
        Ok(Response::Buffer(buffer)) => {
            let slot = buffer.into_slot();
            pack_range(slot.ptr, slot.len)
        }
        Ok(Response::Bytes(bytes)) => {
            let packed = pack_range(bytes.as_ptr(), bytes.len());
            LAST_RESPONSE.set(bytes);
            packed
        }
        Err(message) => fail(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn run<Input: ?Sized>(handler: impl Handler<Input>, payload: &[u8]) -> Result<Vec<u8>, String> {
        Ok(match handler.invoke(Buffer::copy_of(payload).unwrap())? {
            Response::Buffer(buffer) => buffer.to_vec(),
            Response::Bytes(bytes) => bytes.into_owned(),
        })
    }

    fn in_place(mut payload: Buffer) -> Result<Buffer, Error> {
        payload.reverse();
        Ok(payload)
    }

    fn borrowed(payload: &[u8]) -> Vec<u8> {
        payload.to_ascii_uppercase()
    }

    fn text(payload: &str) -> Result<String, std::num::ParseIntError> {
        payload.parse::<i32>().map(|number| (number + 1).to_string())
    }

    fn nothing(_: &[u8]) {}

    fn fixed(_: Buffer) -> &'static str {
        "fixed"
    }

    #[test]
    fn handlers_of_every_shape_run() {
        assert_eq!(run(in_place, b"abc").unwrap(), b"cba");
        assert_eq!(run(borrowed, b"abc").unwrap(), b"ABC");
        assert_eq!(run(text, b"41").unwrap(), b"42");
        assert_eq!(run(nothing, b"abc").unwrap(), b"");
        assert_eq!(run(fixed, b"").unwrap(), b"fixed");
    }

    #[test]
    fn errors_are_messages() {
        assert_eq!(run(text, b"x").unwrap_err(), "invalid digit found in string");
        assert!(run(text, b"\xff").unwrap_err().starts_with("the payload is not UTF-8"));
        let failing = |_: Buffer| -> Result<(), Error> { Err(Error::new("no")) };
        assert_eq!(run(failing, b"").unwrap_err(), "no");
    }

    #[test]
    fn fan_in_gets_every_payload_in_order() {
        let list = memory::allocate(2 * size_of::<Slot>()).cast::<Slot>();
        for (index, bytes) in [&b"one"[..], b"two"].into_iter().enumerate() {
            let slot = Buffer::copy_of(bytes).unwrap().into_slot();
            // SAFETY: the list has room for two entries.
            let entry = unsafe { list.add(index) };
            // SAFETY: as above.
            unsafe { entry.write(slot) };
        }
        let joined = Cell::new(Vec::new());
        // SAFETY: payloads and list were made above, as the host would.
        unsafe {
            handle_many(|inputs| joined.set(inputs.iter().map(|b| b.to_vec()).collect()), list, 2)
        };
        assert_eq!(joined.into_inner(), [b"one".to_vec(), b"two".to_vec()]);
    }
}
