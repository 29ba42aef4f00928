//! Calls to other functions: one at a time, or several at once by tickets.
//!
//! The workflow's manifest says whom a function may call (`calls = ["name"]`); nobody by default.

use crate::buffer::Buffer;
use crate::error::{Error, Undelivered};
use crate::host::{self, Slot};
use roadrunner_abi::{CALL_SHARE, Errno};

/// Calls the function `target` with `payload`, which moves to it, and waits for its response.
///
/// # Errors
/// The host's error, or the callee's message as [`Error::Callee`]; with the payload where it was
/// not delivered.
///
/// ```no_run
/// use roadrunner_guest::{Buffer, Error, call};
///
/// fn label(picture: Buffer) -> Result<Buffer, Error> {
///     Ok(call("classify", picture)?)
/// }
/// ```
pub fn call(target: &str, payload: Buffer) -> Result<Buffer, Undelivered> {
    let mut out = Slot::EMPTY;
    let slot = payload.into_slot();
    // SAFETY: the slot is a buffer that this function was given and has not used up.
    let errno = unsafe { host::call(target, slot.ptr, slot.len, 0, &mut out) };
    // SAFETY: the host wrote `out` for this call, and it is taken once.
    unsafe { response(errno, out) }.map_err(|error| {
        // SAFETY: with these errors the host left the buffer with the guest.
        let payload = errno.keeps_payload().then(|| unsafe { Buffer::from_slot(slot) });
        Undelivered { error, payload }
    })
}

/// Calls the function `target` with bytes that stay here: of a whole [`Buffer`] both sides get a
/// private copy-on-write view and nothing is copied, any other bytes are copied once.
///
/// # Errors
/// The host's error, or the callee's message as [`Error::Callee`].
pub fn share(target: &str, payload: &[u8]) -> Result<Buffer, Error> {
    let mut out = Slot::EMPTY;
    // SAFETY: the payload is shared, so it need not be owned.
    let errno =
        unsafe { host::call(target, payload.as_ptr(), payload.len(), CALL_SHARE, &mut out) };
    // SAFETY: the host wrote `out` for this call, and it is taken once.
    unsafe { response(errno, out) }
}

/// Starts a call to `target` with `payload`, which moves to it, and returns at once.
///
/// # Errors
/// The host's error, with the payload.
///
/// ```no_run
/// use roadrunner_guest::{Buffer, Error, submit, submit_shared};
///
/// fn both(picture: Buffer) -> Result<Buffer, Error> {
///     let edges = submit_shared("edges", &picture)?;
///     let blur = submit("blur", picture)?;
///     let (edges, _blur) = (edges.wait()?, blur.wait()?);
///     Ok(edges)
/// }
/// ```
pub fn submit(target: &str, payload: Buffer) -> Result<Ticket, Undelivered> {
    let slot = payload.into_slot();
    // SAFETY: the slot is a buffer that this function was given and has not used up.
    unsafe { host::submit(target, slot.ptr, slot.len, 0) }.map(Ticket).map_err(|errno| {
        // SAFETY: a submission that fails leaves the buffer with the guest.
        let payload = unsafe { Buffer::from_slot(slot) };
        Undelivered { error: errno.into(), payload: Some(payload) }
    })
}

/// Starts a call to `target` with bytes that stay here, as [`share`] does, and returns at once.
///
/// # Errors
/// The host's error.
pub fn submit_shared(target: &str, payload: &[u8]) -> Result<Ticket, Error> {
    // SAFETY: the payload is shared, so it need not be owned.
    let ticket = unsafe { host::submit(target, payload.as_ptr(), payload.len(), CALL_SHARE) };
    Ok(Ticket(ticket?))
}

/// A call that is under way. Where nobody waits for it, its response is dropped at the end of
/// the invocation.
#[derive(Debug)]
#[must_use = "the response comes by `wait`"]
pub struct Ticket(i32);

impl Ticket {
    /// Waits for the response.
    ///
    /// # Errors
    /// The host's error, or the callee's message as [`Error::Callee`].
    pub fn wait(self) -> Result<Buffer, Error> {
        let mut out = Slot::EMPTY;
        let errno = host::wait(self.0, &mut out);
        // SAFETY: the host wrote `out` for this ticket, and it is taken once.
        unsafe { response(errno, out) }
    }
}

/// What a call that ended with `errno` answered.
///
/// # Safety
/// The host wrote `out` for this call, and it is taken once.
unsafe fn response(errno: Errno, out: Slot) -> Result<Buffer, Error> {
    match errno {
        // SAFETY: passed on from the caller.
        Errno::Ok => Ok(unsafe { Buffer::from_slot(out) }),
        Errno::CalleeFailed => {
            // SAFETY: passed on from the caller.
            let message = unsafe { Buffer::from_slot(out) };
            Err(Error::Callee(String::from_utf8_lossy(&message).into_owned()))
        }
        other => Err(Error::Host(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_is_not_delivered_comes_back() {
        let undelivered = call("nobody", Buffer::copy_of(b"abc").unwrap()).unwrap_err();
        assert_eq!(undelivered.error, Error::Host(Errno::Unavailable));
        assert_eq!(undelivered.payload.as_deref(), Some(&b"abc"[..]));

        let undelivered = submit("nobody", Buffer::copy_of(b"abc").unwrap()).unwrap_err();
        assert_eq!(undelivered.payload.as_deref(), Some(&b"abc"[..]));
    }

    #[test]
    fn a_failed_callee_says_why() {
        let message = Buffer::copy_of(b"no face found").unwrap().into_slot();
        // SAFETY: the slot was taken from a buffer just now.
        let error = unsafe { response(Errno::CalleeFailed, message) }.unwrap_err();
        assert_eq!(error, Error::Callee("no face found".into()));
        assert_eq!(error.to_string(), "the called function failed: no face found");
    }
}
