//! What a function says to its host: messages, failure, and the question how long it may take.

use crate::host;
use roadrunner_abi::{LOG_DEBUG, LOG_ERROR, LOG_INFO, LOG_TRACE, LOG_WARN, limit};
use std::time::Duration;

/// How urgent a message of [`log`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Level {
    /// Something failed.
    Error = LOG_ERROR,
    /// Something is likely to fail.
    Warn = LOG_WARN,
    /// What a user of the function wants to know.
    Info = LOG_INFO,
    /// What its author wants to know.
    Debug = LOG_DEBUG,
    /// Everything else.
    Trace = LOG_TRACE,
}

/// Writes `message` to the host's log; what exceeds [`limit::MESSAGE_BYTES`] is cut off.
pub fn log(level: Level, message: impl AsRef<str>) {
    host::log(level as u32, within_limit(message.as_ref()));
}

/// Ends the invocation as failed with `message`; what exceeds [`limit::MESSAGE_BYTES`] is cut
/// off.
///
/// Returning an `Err` from the handler does the same and runs destructors first.
pub fn fail(message: impl AsRef<str>) -> ! {
    host::fail(within_limit(message.as_ref()))
}

/// The time left until the host interrupts this invocation; `None` without a deadline.
#[must_use]
pub fn time_left() -> Option<Duration> {
    match host::deadline_ns() {
        i64::MAX => None,
        left_ns => Some(Duration::from_nanos(u64::try_from(left_ns).unwrap_or(0))),
    }
}

/// The longest prefix of `message` that the host takes.
fn within_limit(message: &str) -> &str {
    &message[..message.floor_char_boundary(limit::MESSAGE_BYTES as usize)]
}

/// What wasm modules run before their first payload: constructors of linked C code.
///
/// Defining `_initialize` here makes the module a WASI reactor. Without it the linker would wrap
/// every export so that each call runs constructors and destructors. Nothing is set up here: every
/// page that this writes is a page fault of every invocation.
#[cfg(target_family = "wasm")]
mod reactor {
    unsafe extern "C" {
        fn __wasm_call_ctors();
    }

    #[unsafe(no_mangle)]
    extern "C" fn _initialize() {
        // SAFETY: the linker makes this function, and the host calls `_initialize` once.
        unsafe { __wasm_call_ctors() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_between_characters() {
        let limit = limit::MESSAGE_BYTES as usize;
        assert_eq!(within_limit("short"), "short");
        assert_eq!(within_limit(&"a".repeat(limit + 1)).len(), limit);
        assert_eq!(within_limit(&format!("a{}", "ö".repeat(limit))).len(), limit - 1);
    }

    #[test]
    fn there_is_no_deadline_without_a_host() {
        assert_eq!(time_left(), None);
    }
}
