//! How an invocation can end badly.

use std::time::Duration;

use roadrunner_buffer::BufferError;

/// Why an invocation has no response. The same at the end of every transport.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The function said so itself.
    #[error("function `{function}` failed: {message}")]
    Failed {
        /// Its name.
        function: String,
        /// Its own words.
        message: String,
    },
    /// The sandbox stopped it.
    #[error("function `{function}` trapped: {reason}")]
    Trapped {
        /// Its name.
        function: String,
        /// The trap and where it happened.
        reason: String,
    },
    /// It broke the guest ABI.
    #[error("function `{function}` broke the guest ABI: {what}")]
    Violation {
        /// Its name.
        function: String,
        /// What it did and what the ABI asks.
        what: String,
    },
    /// It did not finish in time.
    #[error(
        "function `{function}` did not finish within {timeout:?}; raise its `timeout` or give it less to do"
    )]
    TimedOut {
        /// Its name.
        function: String,
        /// The time it had.
        timeout: Duration,
    },
    /// Nobody serves it.
    #[error("there is no function `{function}` here")]
    Unknown {
        /// The name asked for.
        function: String,
    },
    /// The payload is over the limit.
    #[error("a payload of {len} bytes for `{function}` is over the limit of {limit} bytes")]
    TooLarge {
        /// The receiver.
        function: String,
        /// Length in bytes.
        len: u64,
        /// Limit in bytes.
        limit: u64,
    },
    /// Functions call each other too deeply.
    #[error("call of `{function}` is nested deeper than {limit} calls")]
    TooDeep {
        /// The receiver.
        function: String,
        /// The limit.
        limit: u32,
    },
    /// The function has no room for what it is to receive.
    #[error("function `{function}` has no memory for {len} bytes: {reason}; raise its `memory`")]
    NoMemory {
        /// Its name.
        function: String,
        /// Bytes that it was to receive.
        len: u64,
        /// What its allocator did.
        reason: String,
    },
    /// The host has no sandbox, no memory or no mapping left.
    #[error("no room for a call of `{function}`: {reason}")]
    Exhausted {
        /// The receiver.
        function: String,
        /// What ran out.
        reason: String,
    },
    /// The kernel refused a step of the hand-over.
    #[error("hand-over to `{function}` failed: could not {source}")]
    HandOver {
        /// The receiver.
        function: String,
        /// The step and the kernel's reason.
        source: BufferError,
    },
    /// Its manifest does not let this caller in.
    #[error(
        "`{caller}` may not call `{function}`; add it to `callers` in [workflow] of the manifest there"
    )]
    Forbidden {
        /// Its name.
        function: String,
        /// Who called, by the names in its certificate.
        caller: String,
    },
    /// The process or host where it is could not be reached, or did not take the call.
    #[error("function `{function}` could not be reached at {peer}: {reason}")]
    Unreachable {
        /// Its name.
        function: String,
        /// Where it should be.
        peer: String,
        /// What went wrong.
        reason: String,
    },
    /// The process or host where it is went away with the call: it may have run, or not.
    #[error("function `{function}` was called at {peer}, which did not answer: {reason}")]
    Lost {
        /// Its name.
        function: String,
        /// Where it was.
        peer: String,
        /// What went wrong.
        reason: String,
    },
}
