//! One payload from a function that writes every byte to a function that reads every byte: by moving
//! pages, by the paper's copying way, and between two native functions that pass a pointer.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use roadrunner_runtime::{App, Backing, BreakEven, Config, Payload, Ready, Reply, Sealed};
use serde::Serialize;

use crate::{BenchError, Figures, Progress, Stats, check, guests, produce, unreadable};

/// Rounds before the first that counts: they fault pages in and warm caches for all three.
pub(crate) const WARM_UP: u32 = 3;

/// What a transfer cost, three ways.
#[derive(Clone, Debug, Serialize)]
pub struct Transfer {
    /// Where the peer is.
    pub mode: &'static str,
    /// Length of the payload in bytes.
    pub size_bytes: u64,
    /// Rounds that count, of each way, in turn.
    pub runs: u32,
    /// By moving pages, or by one copy below the break-even.
    #[serde(flatten)]
    pub ours: Side,
    /// The paper's way: out of the producer's linear memory into a host buffer, which is kept warm,
    /// and from there into the consumer's; with a socket before the buffer for a peer in another
    /// process. For a peer on another host an HTTP POST from one such buffer into another.
    pub baseline: Side,
    /// Two native functions on one warm buffer, where the peer is in the same process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub native: Option<Native>,
    /// There also: the same bytes over a bare socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bare: Option<Figures>,
}

/// What one way cost.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// How the payload travelled.
    pub method: &'static str,
    /// From the producer's end to the consumer's entry, the payload readable. The consumer's sandbox
    /// was made before the producer ran, as in a workflow's chain.
    pub handover_us: Stats,
    /// The producer writes every byte, hand-over, the consumer reads every byte: both sandboxes included.
    pub end_to_end_us: Stats,
    /// From the consumer's end until both sandboxes are gone and the pages are ready for the next.
    pub teardown_us: Stats,
    /// Most payload bytes that a hand-over copied.
    pub copied_bytes: u64,
    /// Most payload bytes that a hand-over moved.
    pub moved_bytes: u64,
    /// For a peer elsewhere: from the producer's end until the consumer's answer is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_us: Option<Stats>,
    /// For a peer elsewhere: bytes of the payload by the median of `handover_us`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throughput_bytes_per_s: Option<f64>,
    /// For a peer elsewhere: processor time of both processes, user's and system's, for a byte of payload.
    /// Producer, consumer, sandboxes and the kernel's work on the sockets are part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ns_per_byte: Option<f64>,
}

/// What two native functions cost.
#[derive(Clone, Debug, Serialize)]
pub struct Native {
    /// One writes every byte, the other reads every byte.
    pub end_to_end_us: Stats,
}

#[derive(Default)]
pub(crate) struct Times {
    /// From the producer's end until the consumer's answer is here; for peers elsewhere only.
    pub(crate) round_trip: Vec<Duration>,
    pub(crate) handover: Vec<Duration>,
    pub(crate) end_to_end: Vec<Duration>,
    pub(crate) teardown: Vec<Duration>,
    pub(crate) copied: u64,
    pub(crate) moved: u64,
}

impl Times {
    pub(crate) fn side(mut self, method: &'static str) -> Side {
        Side {
            method,
            handover_us: Stats::of(&mut self.handover),
            end_to_end_us: Stats::of(&mut self.end_to_end),
            teardown_us: Stats::of(&mut self.teardown),
            copied_bytes: self.copied,
            moved_bytes: self.moved,
            round_trip_us: None,
            throughput_bytes_per_s: None,
            cpu_ns_per_byte: None,
        }
    }
}

/// Measures `runs` transfers of `size` bytes, each way in turn.
///
/// # Errors
/// When a guest fails or reads other bytes than were written.
pub fn transfer(
    config: &Config,
    size: u64,
    runs: u32,
    progress: Progress<'_>,
) -> Result<Transfer, BenchError> {
    let app = guests(config.clone(), Backing::Private)?;
    let copies = Config { break_even: Some(BreakEven::fixed(usize::MAX)), ..config.clone() };
    let copying = guests(copies, Backing::Private)?;
    let len = usize::try_from(size).unwrap_or(usize::MAX);
    let mut buffer = Vec::new();
    let mut native = vec![0_u8; len];
    let (mut ours, mut baseline, mut natives) = (Times::default(), Times::default(), Vec::new());
    for round in 0..WARM_UP + runs {
        let counts = round >= WARM_UP;
        move_one(&app, size, counts.then_some(&mut ours))?;
        copy_one(&copying, size, &mut buffer, counts.then_some(&mut baseline))?;
        let time = pass_pointer(&mut native);
        if counts {
            natives.push(time);
        }
        progress(u64::from(round + 1), u64::from(WARM_UP + runs));
    }
    let method = if app.home().break_even.moves(len) { "mremap" } else { "memcpy" };
    Ok(Transfer {
        mode: "user",
        size_bytes: size,
        runs,
        ours: ours.side(method),
        baseline: baseline.side("copy through a host buffer"),
        native: Some(Native { end_to_end_us: Stats::of(&mut natives) }),
        bare: None,
    })
}

fn move_one(app: &Arc<App>, size: u64, times: Option<&mut Times>) -> Result<(), BenchError> {
    let start = Instant::now();
    let ready = app.prepare("consume")?;
    let produced = produce(app, size)?;
    let since = produced.finished;
    consume(app, ready, Payload::Held(produced), None, Round { start, since, size }, times)
}

fn copy_one(
    app: &Arc<App>,
    size: u64,
    buffer: &mut Vec<u8>,
    times: Option<&mut Times>,
) -> Result<(), BenchError> {
    let start = Instant::now();
    let ready = app.prepare("consume")?;
    let mut produced = produce(app, size)?;
    let since = produced.finished;
    let sealed = produced.payload().map_err(unreadable)?;
    buffer.clear();
    // The first of the two copies; landing makes the second.
    buffer.extend_from_slice(sealed.bytes().map_err(unreadable)?);
    drop(sealed);
    let payload = Payload::One(Sealed::borrowed(buffer));
    consume(app, ready, payload, Some(produced), Round { start, since, size }, times)
}

/// One transfer under way.
#[derive(Clone, Copy)]
struct Round {
    start: Instant,
    /// When the producer was done.
    since: Instant,
    size: u64,
}

fn consume(
    app: &Arc<App>,
    ready: Ready,
    payload: Payload<'_>,
    producer: Option<Reply>,
    round: Round,
    times: Option<&mut Times>,
) -> Result<(), BenchError> {
    let Round { start, since, size } = round;
    let consumed = app.call_ready(Some(ready), "consume", payload, since);
    let mut consumed = consumed.map_err(|undelivered| undelivered.fault)?;
    let (account, finished) = (consumed.account, consumed.finished);
    check(&mut consumed, size)?;
    drop(consumed);
    drop(producer);
    let teardown = finished.elapsed();
    if let Some(times) = times {
        times.handover.push(account.handover);
        times.end_to_end.push(finished.saturating_duration_since(start));
        times.teardown.push(teardown);
        times.copied = times.copied.max(account.traffic.copied);
        times.moved = times.moved.max(account.traffic.moved);
    }
    Ok(())
}

fn pass_pointer(buffer: &mut [u8]) -> Duration {
    let start = Instant::now();
    pattern::fill(black_box(&mut *buffer));
    black_box(pattern::sum(black_box(buffer)));
    start.elapsed()
}
