//! What the harness and the processes of a system under test say to each other.
//!
//! ```text
//!   harness                          source, which runs the producer           sink, which runs the consumers
//!      <---------------------------------- "ready" ----------------------------- "ready ADDRESS"
//!      -- {"size":1000000,"consumers":1} -->  makes a payload
//!                                             and hands it over  ------------->  looks at each page of it
//!                                                                <-------------  says what it saw
//!      <-- {"Ok":{"total_ns":...}} ---------
//! ```
//!
//! A line each way, over stdin and stdout. A process ends when its stdin does, so that none outlives the harness,
//! however that ends.

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One run that a source is to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Length of the payload in bytes.
    pub size: u64,
    /// Functions that get it, all at once.
    pub consumers: u32,
}

/// What a run took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// From the producer having written its payload until the source has heard that every consumer has looked at
    /// it, in nanoseconds.
    pub total_ns: u64,
    /// In serializing and deserializing, of all functions together, in nanoseconds.
    pub serialization_ns: u64,
    /// In carrying bytes into and out of linear memories through WASI, of all functions together, in nanoseconds.
    /// Zero where no function is WebAssembly, or payloads reach its memory some other way.
    pub wasm_io_ns: u64,
    /// Of that until the consumer's function began, and, from another process or host, the way of its answer, in
    /// nanoseconds; `None` where nobody looks.
    pub hand_over_ns: Option<u64>,
    /// Of that in the consumer's function, in nanoseconds; `None` where nobody looks.
    pub consumer_ns: Option<u64>,
    /// Payload bytes that the runtime copied; `None` where it doesn't count.
    pub copied_bytes: Option<u64>,
}

/// Nanoseconds of a time.
#[must_use]
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Takes orders until there are no more.
///
/// # Errors
/// When stdin or stdout breaks; what goes wrong with an order is the answer to it.
pub fn take_orders(mut run: impl FnMut(Order) -> io::Result<Measured>) -> io::Result<()> {
    say("ready")?;
    for line in io::stdin().lock().lines() {
        let order = serde_json::from_str(&line?);
        let answer: Result<Measured, String> = match order {
            Ok(order) => run(order).map_err(|error| error.to_string()),
            Err(error) => Err(format!("this is no order: {error}")),
        };
        say(&serde_json::to_string(&answer)?)?;
    }
    Ok(())
}

/// Says that a sink listens.
///
/// # Errors
/// When nobody reads stdout.
pub fn say_ready(address: &str) -> io::Result<()> {
    say(&format!("ready {address}"))
}

/// Waits until stdin ends.
///
/// # Errors
/// When it can't be read.
pub fn wait_for_end() -> io::Result<()> {
    io::stdin().lock().read_to_end(&mut Vec::new()).map(drop)
}

/// A text of this length, which payloads are, outside a sandbox.
///
/// # Errors
/// When it is longer than memory can be.
pub fn text(size: u64) -> io::Result<String> {
    let mut payload = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    pattern::fill_text(&mut payload);
    String::from_utf8(payload).map_err(io::Error::other)
}

/// Fails unless a consumer saw what a producer made.
///
/// # Errors
/// When it did not.
pub fn check(seen: u64, size: u64) -> io::Result<()> {
    let expected = pattern::expected_glance(usize::try_from(size).map_err(io::Error::other)?);
    if seen == expected {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "a consumer saw {seen:#x} instead of {expected:#x}: the payload was damaged"
    )))
}

fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
