//! What Roadrunner costs, measured beside the ways it replaces, in one run.
//!
//! Every scenario checks what it moved: a benchmark that reads wrong bytes is an error, not a figure.
#![forbid(unsafe_code)]

mod elsewhere;
mod fanout;
mod handover;
mod http;
mod invoke;
#[cfg(feature = "peers")]
mod peers;
mod plain;
mod stats;
mod transfer;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use roadrunner_runtime::{
    App, Backing, Config, Fault, FunctionSpec, LoadError, ModuleSource, Payload, Remote, Reply,
    Runtime, Sealed, Terms,
};

pub use elsewhere::{
    Baseline, Client, Figures, Partners, ReadWrite, bare_in, consumer, http_in, stream_in,
    transfer_elsewhere,
};
pub use fanout::{FanOut, fanout};
pub use handover::{HandOver, handover};
pub use http::{Endpoint, Http, Load, Ratio, Served, http};
pub use invoke::{Invoke, invoke};
#[cfg(feature = "peers")]
pub use peers::{Other, Peers, Place, Waiting, iceoryx2_in, peers};
pub use plain::serve_plain;
pub use stats::Stats;
pub use transfer::{Native, Side, Transfer, transfer};

/// Why a scenario has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The runtime or one of the guests can't be made ready.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A function failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A consumer read something else than the producer wrote.
    #[error(
        "the consumer read a sum of {got:#x} where the producer wrote {expected:#x}: the payload was damaged"
    )]
    Damaged {
        /// What it read.
        got: u64,
        /// What was written.
        expected: u64,
    },
    /// A payload's bytes can't be read back.
    #[error("can't read a payload back: {0}")]
    Unreadable(String),
    /// The kernel doesn't say how much memory this process has.
    #[error("can't read /proc/self/smaps_rollup: {0}")]
    Memory(std::io::Error),
    /// An HTTP server did not answer as it should.
    #[error("an HTTP request went wrong: {0}")]
    Http(std::io::Error),
    /// The kernel doesn't say how much processor time another process has used.
    #[error("can't read the processor time of another process: {0}")]
    Processor(std::io::Error),
    /// What Roadrunner is compared with failed.
    #[cfg(feature = "peers")]
    #[error("iceoryx2: {0}")]
    Iceoryx2(String),
}

/// Told how many of how many rounds are done.
pub type Progress<'p> = &'p mut dyn FnMut(u64, u64);

/// The guests, built from `guests/bench`.
const GUESTS: [(&str, &[u8]); 5] = [
    ("produce", include_bytes!("../../../guests/dist/produce.wasm")),
    ("consume", include_bytes!("../../../guests/dist/consume.wasm")),
    ("verify", include_bytes!("../../../guests/dist/verify.wasm")),
    ("noop", include_bytes!("../../../guests/dist/noop.wasm")),
    ("echo", ECHO),
];

/// Largest payload that a scenario takes, in bytes.
pub const PAYLOAD_BYTES: u64 = 1 << 30;

/// A function that gives its payload back, for servers that are to be measured.
pub const ECHO: &[u8] = include_bytes!("../../../guests/dist/echo.wasm");

/// Loads the guests into a runtime of their own; the producer's buffers are backed as said.
fn guests(config: Config, backing: Backing) -> Result<Arc<App>, BenchError> {
    let runtime = Runtime::new(Config { payload_bytes: PAYLOAD_BYTES, ..config })?;
    runtime.load(specs(backing, "")).map_err(|(_, error)| error.into())
}

/// The same, but for one that is elsewhere.
fn guests_beside(
    config: Config,
    backing: Backing,
    elsewhere: &str,
    way: &dyn Fn(&Terms) -> Remote,
) -> Result<Arc<App>, BenchError> {
    let runtime = Runtime::new(Config { payload_bytes: PAYLOAD_BYTES, ..config })?;
    let ways = |terms: &Terms| [(elsewhere.to_owned(), way(terms))].into();
    runtime.load_beside(specs(backing, elsewhere), ways).map_err(|(_, error)| error.into())
}

fn specs(backing: Backing, elsewhere: &str) -> Vec<FunctionSpec> {
    let here = GUESTS.into_iter().filter(|(name, _)| *name != elsewhere);
    here.map(|(name, bytes)| {
        let module = ModuleSource::Bytes { name: name.into(), bytes: Cow::Borrowed(bytes) };
        FunctionSpec { backing, memory_bytes: 4 << 30, ..FunctionSpec::new(name, module) }
    })
    .collect()
}

/// Has the producer write a payload of `size` bytes.
fn produce(app: &Arc<App>, size: u64) -> Result<Reply, BenchError> {
    let order = size.to_le_bytes();
    let payload = Payload::One(Sealed::borrowed(&order));
    let reply = app.call("produce", payload, Instant::now());
    reply.map_err(|undelivered| undelivered.fault.into())
}

/// Checks the sum that a consumer answered.
fn check(reply: &mut Reply, size: u64) -> Result<(), BenchError> {
    let sealed = reply.payload().map_err(unreadable)?;
    let bytes = sealed.bytes().map_err(unreadable)?;
    compare(bytes.try_into().map(u64::from_le_bytes).unwrap_or_default(), size)
}

/// Checks the payload that a consumer holds, by reading every byte of it where the consumer has it.
fn check_held(reply: &mut Reply, size: u64) -> Result<(), BenchError> {
    let sealed = reply.payload().map_err(unreadable)?;
    let bytes = sealed.bytes().map_err(unreadable)?;
    compare(pattern::sum(bytes), size)
}

fn compare(got: u64, size: u64) -> Result<(), BenchError> {
    let expected = pattern::expected_sum(usize::try_from(size).unwrap_or(usize::MAX));
    if got == expected { Ok(()) } else { Err(BenchError::Damaged { got, expected }) }
}

fn unreadable(error: roadrunner_runtime::BufferError) -> BenchError {
    BenchError::Unreadable(error.to_string())
}
