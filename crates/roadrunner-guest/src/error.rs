//! What can go wrong in a function, and with a call that could not be delivered.

use crate::buffer::Buffer;
use roadrunner_abi::Errno;
use std::fmt;

/// Why a function, or a function that it called, failed.
///
/// A handler may return any error that implements [`fmt::Display`]; this one has room for both
/// the host's errors and a handler's own message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The host refused.
    Host(Errno),
    /// The called function failed and said this.
    Callee(String),
    /// The handler's own message.
    Message(String),
}

impl Error {
    /// An error with a message of the handler.
    ///
    /// ```
    /// use roadrunner_guest::Error;
    ///
    /// let error = Error::new(format_args!("width {} is odd", 7));
    /// assert_eq!(error.to_string(), "width 7 is odd");
    /// ```
    pub fn new(message: impl fmt::Display) -> Self {
        Self::Message(message.to_string())
    }

    /// The host's error number, where the host or a callee failed.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Host(errno) => Some(*errno),
            Self::Callee(_) => Some(Errno::CalleeFailed),
            Self::Message(_) => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(errno) => f.write_str(errno.message()),
            Self::Callee(message) => write!(f, "{}: {message}", Errno::CalleeFailed.message()),
            Self::Message(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::Host(errno)
    }
}

impl From<Undelivered> for Error {
    fn from(undelivered: Undelivered) -> Self {
        undelivered.error
    }
}

/// A call or submission that failed, with its payload where that was not delivered.
///
/// `?` turns it into an [`Error`] and frees the payload.
#[derive(Debug)]
pub struct Undelivered {
    /// What went wrong.
    pub error: Error,
    /// The payload, unchanged, where the host did not take it: the caller may try elsewhere.
    pub payload: Option<Buffer>,
}

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Undelivered {}
