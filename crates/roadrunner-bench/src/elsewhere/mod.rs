//! One payload from a function here to a function in another process: by Roadrunner's transports, the way
//! that they replace, and over a bare socket. Each way has a partner process of its own.

mod bare;
mod copying;
mod http;
mod meter;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use roadrunner_runtime::{App, Backing, Config, Mode, Payload, Remote, Terms};
use serde::Serialize;

use self::bare::Bare;
use self::meter::Meter;
use crate::transfer::{Times, WARM_UP};
use crate::{
    BenchError, Progress, Side, Stats, Transfer, check, compare, guests, guests_beside, produce,
    unreadable,
};

pub use bare::bare_in;
pub use copying::stream_in;
pub use http::{Client, http_in};

/// Rounds of one way before it is the next one's turn: few enough that what else the machine does meets
/// all ways alike. Alternating after each round would let a way's partner fall asleep for as long as the
/// others take, and waking a processor up costs more than a small payload does.
const BLOCK: u32 = 10;

/// The other processes.
pub struct Partners<'p> {
    /// The way to the consumer of the first.
    pub way: &'p dyn Fn(&Terms) -> Remote,
    /// What pages the producer writes to.
    pub backing: Backing,
    /// What `way` does with payloads that move, for the report, and with smaller ones.
    pub methods: [&'static str; 2],
    /// To the second one.
    pub baseline: Baseline,
    /// A connection to [`bare_in`] in the third.
    pub bare: &'p mut dyn ReadWrite,
    /// Their numbers, in this order.
    pub pids: [u32; 3],
}

/// The way that is replaced.
pub enum Baseline {
    /// A connection to [`stream_in`].
    Stream(Box<dyn ReadWrite>),
    /// A connection to [`http_in`].
    Http(Client),
}

impl Baseline {
    fn method(&self) -> &'static str {
        match self {
            Self::Stream(_) => "stream through a UNIX socket",
            Self::Http(_) => "HTTP POST with a Vec as its body",
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<Answer, BenchError> {
        match self {
            Self::Stream(stream) => copying::stream_out(stream, bytes),
            Self::Http(client) => client.post(bytes),
        }
    }
}

/// A connected stream.
pub trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// What another process says of a payload.
struct Answer {
    /// Time in the function.
    busy: Duration,
    sum: u64,
    copied: u64,
}

/// What one way to another process costs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figures {
    /// From the producer's end until the consumer's answer is here.
    pub round_trip_us: Stats,
    /// The same without the consumer.
    pub handover_us: Stats,
    /// The producer writes every byte, hand-over, the consumer reads every byte.
    pub end_to_end_us: Stats,
    /// Bytes of the payload by the median of `handover_us`.
    pub throughput_bytes_per_s: f64,
    /// Processor time of both processes, as for [`Side`].
    pub cpu_ns_per_byte: f64,
}

/// The consumer's end of [`transfer_elsewhere`]: an app to take calls in for.
///
/// # Errors
/// When the runtime can't be set up.
pub fn consumer(config: &Config) -> Result<Arc<App>, BenchError> {
    guests(config.clone(), Backing::Private)
}

fn broken(reason: impl ToString) -> BenchError {
    BenchError::Unreadable(format!("a connection to compare with broke: {}", reason.to_string()))
}

/// Measures `runs` transfers of `size` bytes to another process, a block of each way in turn.
///
/// # Errors
/// When a guest fails or reads other bytes than were written, or another process goes away.
pub fn transfer_elsewhere(
    config: &Config,
    size: u64,
    runs: u32,
    mode: Mode,
    partners: Partners<'_>,
    progress: Progress<'_>,
) -> Result<Transfer, BenchError> {
    let Partners { way, backing, methods, mut baseline, bare, pids } = partners;
    let app = guests_beside(config.clone(), backing, "consume", way)?;
    let producer = guests(config.clone(), Backing::Private)?;
    let mut bare = Bare::new(bare, size)?;
    let counted = in_turns(pids, (WARM_UP, runs), progress, |[ours, replaced, least], most| {
        ours.rounds(most, |times| call_one(&app, size, times))?;
        replaced
            .rounds(most, |times| send_one(&producer, size, |bytes| baseline.send(bytes), times))?;
        least.rounds(most, |times| send_one(&producer, size, |bytes| bare.send(bytes), times))
    });
    let [ours, replaced, least] = counted?;
    let bytes = size * u64::from(runs);
    let method = methods[usize::from(ours.times.copied > 0)];
    Ok(Transfer {
        mode: mode.name(),
        size_bytes: size,
        runs,
        ours: ours.side(method, size, bytes)?,
        baseline: replaced.side(baseline.method(), size, bytes)?,
        bare: Some(least.figures(size, bytes)?),
        native: None,
    })
}

/// Runs three ways in turns, a few rounds of each at a time, and gives what the rounds after the warm-up cost. `block` is
/// told how many rounds of each it is to run.
pub(crate) fn in_turns(
    pids: [u32; 3],
    (warm_up, runs): (u32, u32),
    progress: Progress<'_>,
    mut block: impl FnMut(&mut [Counted; 3], u32) -> Result<(), BenchError>,
) -> Result<[Counted; 3], BenchError> {
    let start = || -> Result<_, BenchError> {
        let [first, second, third] = pids.map(Counted::start);
        Ok([first?, second?, third?])
    };
    let mut counted = start()?;
    let (mut done, all) = (0, warm_up + runs);
    while done < all {
        // The warm-up is a block of its own, which does not count.
        let most = if done < warm_up { warm_up - done } else { BLOCK.min(all - done) };
        if done == warm_up {
            counted = start()?;
        }
        block(&mut counted, most)?;
        done += most;
        progress(done.into(), all.into());
    }
    Ok(counted)
}

/// What the rounds of one way cost.
pub(crate) struct Counted {
    times: Times,
    meter: Meter,
}

impl Counted {
    pub(crate) fn start(partner: u32) -> Result<Self, BenchError> {
        Ok(Self { times: Times::default(), meter: Meter::start(partner)? })
    }

    pub(crate) fn rounds(
        &mut self,
        count: u32,
        mut go: impl FnMut(&mut Times) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        let Self { times, meter } = self;
        meter.count(|| (0..count).try_for_each(|_| go(times)))
    }

    fn side(mut self, method: &'static str, size: u64, bytes: u64) -> Result<Side, BenchError> {
        let round_trip_us = Some(Stats::of(&mut self.times.round_trip));
        let cpu_ns_per_byte = Some(self.meter.ns_per_byte(bytes)?);
        let side = self.times.side(method);
        let throughput_bytes_per_s = Some(per_second(size, &side.handover_us));
        Ok(Side { round_trip_us, throughput_bytes_per_s, cpu_ns_per_byte, ..side })
    }

    pub(crate) fn figures(mut self, size: u64, bytes: u64) -> Result<Figures, BenchError> {
        let handover_us = Stats::of(&mut self.times.handover);
        Ok(Figures {
            round_trip_us: Stats::of(&mut self.times.round_trip),
            handover_us,
            end_to_end_us: Stats::of(&mut self.times.end_to_end),
            throughput_bytes_per_s: per_second(size, &handover_us),
            cpu_ns_per_byte: self.meter.ns_per_byte(bytes)?,
        })
    }
}

fn per_second(size: u64, handover_us: &Stats) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    let rate = size as f64 / (handover_us.p50 / 1e6).max(1e-9);
    rate.round()
}

/// One call of the consumer there.
pub(crate) fn call_one(app: &Arc<App>, size: u64, times: &mut Times) -> Result<(), BenchError> {
    let start = Instant::now();
    let mut produced = produce(app, size)?;
    let since = produced.finished;
    // Lent, not handed in: the producer's sandbox goes when the answer is here, as with the other ways.
    let sealed = produced.payload().map_err(unreadable)?;
    let consumed = app.call("consume", Payload::One(sealed), since);
    let mut consumed = consumed.map_err(|undelivered| undelivered.fault)?;
    let round_trip = since.elapsed();
    let (account, finished) = (consumed.account, consumed.finished);
    check(&mut consumed, size)?;
    drop(consumed);
    drop(produced);
    times.round_trip.push(round_trip);
    times.handover.push(account.handover);
    times.end_to_end.push(finished.saturating_duration_since(start));
    times.teardown.push(finished.elapsed());
    times.copied = times.copied.max(account.traffic.copied);
    times.moved = times.moved.max(account.traffic.moved);
    Ok(())
}

/// The same payload out of the producer's linear memory by another way.
fn send_one(
    app: &Arc<App>,
    size: u64,
    send: impl FnOnce(&[u8]) -> Result<Answer, BenchError>,
    times: &mut Times,
) -> Result<(), BenchError> {
    let start = Instant::now();
    let mut produced = produce(app, size)?;
    let since = produced.finished;
    let sealed = produced.payload().map_err(unreadable)?;
    let answer = send(sealed.bytes().map_err(unreadable)?)?;
    let finished = Instant::now();
    compare(answer.sum, size)?;
    drop(sealed);
    drop(produced);
    let round_trip = finished.saturating_duration_since(since);
    times.round_trip.push(round_trip);
    times.handover.push(round_trip.saturating_sub(answer.busy));
    times.end_to_end.push(finished.saturating_duration_since(start));
    times.teardown.push(finished.elapsed());
    // The sockets' own copies are not counted, here or for ours.
    times.copied = times.copied.max(answer.copied);
    Ok(())
}
