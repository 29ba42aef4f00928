//! Hand-overs in a row, by one thread and by several: what threads of one process take from each other.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use roadrunner_runtime::{App, Backing, Config, Payload};
use serde::Serialize;

use crate::{BenchError, Progress, guests, produce};

/// Hand-overs a second.
#[derive(Clone, Debug, Serialize)]
pub struct HandOver {
    /// Length of the payload in bytes.
    pub size_bytes: u64,
    /// Hand-overs of each thread in each round.
    pub count: u64,
    /// Threads of the second figure.
    pub threads: u32,
    /// Hand-overs a second of one thread, the median of the rounds.
    pub one_thread_per_second: f64,
    /// Hand-overs a second of all threads together, the median of the rounds.
    pub all_threads_per_second: f64,
    /// The second figure by the first.
    pub speed_up: f64,
}

/// Rounds of which the median counts, one thread and all threads in turn.
const ROUNDS: u64 = 5;

/// Measures rounds of `count` hand-overs of `size` bytes for each thread: a payload goes from one
/// fresh sandbox of `echo` to the next.
///
/// # Errors
/// When a guest fails.
pub fn handover(
    config: &Config,
    size: u64,
    count: u64,
    threads: u32,
    progress: Progress<'_>,
) -> Result<HandOver, BenchError> {
    let app = guests(config.clone(), Backing::Private)?;
    pass_on(&app, size, count.min(100))?;
    let (mut one, mut all) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        one.push(pass_on(&app, size, count)?);
        all.push(together(&app, size, count, threads)?);
        progress(round + 1, ROUNDS);
    }
    let rate = |times: &mut Vec<Duration>, hand_overs: u64| {
        times.sort_unstable();
        #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52 hand-overs")]
        let hand_overs = hand_overs as f64;
        times.get(times.len() / 2).map_or(0.0, |time| hand_overs / time.as_secs_f64())
    };
    let one_thread_per_second = rate(&mut one, count);
    let all_threads_per_second = rate(&mut all, count * u64::from(threads));
    let speed_up = all_threads_per_second / one_thread_per_second;
    Ok(HandOver {
        size_bytes: size,
        count,
        threads,
        one_thread_per_second,
        all_threads_per_second,
        speed_up,
    })
}

fn together(app: &Arc<App>, size: u64, count: u64, threads: u32) -> Result<Duration, BenchError> {
    thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| pass_on(app, size, count))).collect();
        workers.into_iter().try_fold(Duration::ZERO, |longest, worker| {
            let time =
                worker.join().map_err(|_| BenchError::Unreadable("a thread panicked".into()))?;
            Ok(longest.max(time?))
        })
    })
}

fn pass_on(app: &Arc<App>, size: u64, count: u64) -> Result<Duration, BenchError> {
    let mut reply = produce(app, size)?;
    let start = Instant::now();
    for _ in 0..count {
        let since = reply.finished;
        let next = app.call("echo", Payload::Held(reply), since);
        reply = next.map_err(|undelivered| undelivered.fault)?;
    }
    Ok(start.elapsed())
}
