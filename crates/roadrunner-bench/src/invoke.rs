//! An empty call: a fresh sandbox, an entry, an end.

use std::time::Instant;

use roadrunner_runtime::{Backing, Config, Payload, Sealed};
use serde::Serialize;

use crate::{BenchError, Progress, Stats, guests};

/// Calls between two looks at the progress.
const BATCH: u64 = 10_000;

/// What an empty call costs.
#[derive(Clone, Debug, Serialize)]
pub struct Invoke {
    /// Calls that count, one after the other on one thread.
    pub calls: u64,
    /// From the call until the sandbox is gone again.
    pub call_us: Stats,
    /// Calls in a second of the whole run, its book-keeping included.
    pub calls_per_second: f64,
}

/// Measures `calls` calls of a function that does nothing.
///
/// # Errors
/// When the guest fails.
pub fn invoke(config: &Config, calls: u64, progress: Progress<'_>) -> Result<Invoke, BenchError> {
    let app = guests(config.clone(), Backing::Private)?;
    let mut times = Vec::with_capacity(usize::try_from(calls).unwrap_or(0));
    for _ in 0..calls.min(1000) {
        app.call("noop", Payload::One(Sealed::empty()), Instant::now()).map_err(|it| it.fault)?;
    }
    let start = Instant::now();
    for call in 0..calls {
        let before = Instant::now();
        let reply = app.call("noop", Payload::One(Sealed::empty()), before);
        drop(reply.map_err(|undelivered| undelivered.fault)?);
        times.push(before.elapsed());
        if call % BATCH == 0 {
            progress(call, calls);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    progress(calls, calls);
    #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52 calls")]
    let calls_per_second = calls as f64 / seconds.max(1e-9);
    Ok(Invoke { calls, call_us: Stats::of(&mut times), calls_per_second })
}
