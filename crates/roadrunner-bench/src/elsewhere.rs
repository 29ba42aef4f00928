//! One payload from a function here to a function in another process: by Roadrunner's transports, and
//! streamed through a socket and copied.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use roadrunner_runtime::{App, Backing, BreakEven, Config, Mode, Payload, Remote, Sealed, Terms};

use crate::transfer::{Times, WARM_UP};
use crate::unreadable;
use crate::{
    BenchError, Progress, Stats, Transfer, check, compare, guests, guests_beside, produce,
};

/// The other process.
pub struct Peer<'p> {
    /// The way to the consumer there.
    pub way: &'p dyn Fn(&Terms) -> Remote,
    /// A connection to [`stream_in`] there.
    pub stream: &'p mut dyn ReadWrite,
    /// What pages the producer writes to.
    pub backing: Backing,
    /// What `way` does with payloads that move, for the report, and with smaller ones.
    pub methods: [&'static str; 2],
    /// The same of `stream`.
    pub baseline: &'static str,
}

/// A connected stream.
pub trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// The consumer's end of [`transfer_elsewhere`]: an app to take calls in for.
///
/// # Errors
/// When the runtime can't be set up.
pub fn consumer(config: &Config) -> Result<Arc<App>, BenchError> {
    guests(config.clone(), Backing::Private)
}

/// What is asked of [`stream_in`]: what to do, and how many bytes follow.
const REQUEST: usize = 9;
const CONSUME: u8 = 1;
const DISCARD: u8 = 2;

/// Takes payloads in from a stream until it ends: into a warm buffer, and from there into the linear
/// memory of a consumer.
///
/// # Errors
/// When the stream breaks or a guest fails.
pub fn stream_in(mut stream: impl Read + Write, config: &Config) -> Result<(), BenchError> {
    let copies = Config { break_even: Some(BreakEven::fixed(usize::MAX)), ..config.clone() };
    let app = guests(copies, Backing::Private)?;
    let (mut buffer, mut ready) = (Vec::new(), None);
    loop {
        let mut request = [0; REQUEST];
        match stream.read_exact(&mut request) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read.map_err(broken)?,
        }
        let [what, len @ ..] = request;
        let len = usize::try_from(u64::from_le_bytes(len)).unwrap_or(usize::MAX);
        if len as u64 > crate::PAYLOAD_BYTES {
            return Err(broken("a payload over the limit"));
        }
        buffer.resize(len, 0);
        stream.read_exact(&mut buffer).map_err(broken)?;
        if what != CONSUME {
            answer(&mut stream, Duration::ZERO, 0, 0)?;
            continue;
        }
        let payload = Payload::One(Sealed::borrowed(&buffer));
        let consumed = app.call_ready(ready.take(), "consume", payload, Instant::now());
        let mut reply = consumed.map_err(|undelivered| undelivered.fault)?;
        let account = reply.account;
        let sealed = reply.payload().map_err(unreadable)?;
        let sum = sealed.bytes().map_err(unreadable)?;
        let sum = sum.try_into().map(u64::from_le_bytes).unwrap_or_default();
        answer(&mut stream, account.run, sum, account.traffic.copied)?;
        // As for ours: the sandboxes go and come while nobody waits.
        drop(sealed);
        drop(reply);
        ready = app.prepare("consume").ok();
    }
}

fn answer(
    stream: &mut impl Write,
    busy: Duration,
    sum: u64,
    copied: u64,
) -> Result<(), BenchError> {
    let busy_ns = u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX);
    let answer = [busy_ns.to_le_bytes(), sum.to_le_bytes(), copied.to_le_bytes()].concat();
    stream.write_all(&answer).map_err(broken)
}

fn broken(reason: impl ToString) -> BenchError {
    BenchError::Unreadable(format!("the socket of the copying way broke: {}", reason.to_string()))
}

/// Measures `runs` transfers of `size` bytes to another process, both ways in turn.
///
/// # Errors
/// When a guest fails or reads other bytes than were written, or the other process goes away.
pub fn transfer_elsewhere(
    config: &Config,
    size: u64,
    runs: u32,
    mode: Mode,
    peer: &mut Peer<'_>,
    progress: Progress<'_>,
) -> Result<Transfer, BenchError> {
    let app = guests_beside(config.clone(), peer.backing, "consume", peer.way)?;
    let streaming = guests(config.clone(), Backing::Private)?;
    let (mut ours, mut baseline) = (Times::default(), Times::default());
    let (mut round_trips, mut bare) = (Vec::new(), Vec::new());
    let ping = vec![1; usize::try_from(size).unwrap_or(usize::MAX)];
    for round in 0..WARM_UP + runs {
        let counts = round >= WARM_UP;
        let trip = call_one(&app, size, counts.then_some(&mut ours))?;
        stream_one(&streaming, size, peer.stream, counts.then_some(&mut baseline))?;
        let start = Instant::now();
        exchange(peer.stream, DISCARD, &ping)?;
        if counts {
            round_trips.push(trip);
            bare.push(start.elapsed());
        }
        progress(u64::from(round + 1), u64::from(WARM_UP + runs));
    }
    let ours_copied = ours.copied > 0;
    Ok(Transfer {
        mode: mode.name(),
        size_bytes: size,
        runs,
        ours: ours.side(peer.methods[usize::from(ours_copied)]),
        baseline: baseline.side(peer.baseline),
        native: None,
        round_trip_us: Some(Stats::of(&mut round_trips)),
        bare_round_trip_us: Some(Stats::of(&mut bare)),
    })
}

/// One call of the consumer there. The answer is how long it took, there and back.
fn call_one(app: &Arc<App>, size: u64, times: Option<&mut Times>) -> Result<Duration, BenchError> {
    let start = Instant::now();
    let produced = produce(app, size)?;
    let since = produced.finished;
    let consumed = app.call("consume", Payload::Held(produced), since);
    let mut consumed = consumed.map_err(|undelivered| undelivered.fault)?;
    let arrived = Instant::now();
    let (account, finished) = (consumed.account, consumed.finished);
    check(&mut consumed, size)?;
    drop(consumed);
    if let Some(times) = times {
        times.handover.push(account.handover);
        times.end_to_end.push(finished.saturating_duration_since(start));
        times.teardown.push(finished.elapsed());
        times.copied = times.copied.max(account.traffic.copied);
        times.moved = times.moved.max(account.traffic.moved);
    }
    Ok(arrived.saturating_duration_since(since))
}

/// The same payload out of the producer's linear memory into the socket.
fn stream_one(
    app: &Arc<App>,
    size: u64,
    stream: &mut dyn ReadWrite,
    times: Option<&mut Times>,
) -> Result<(), BenchError> {
    let start = Instant::now();
    let mut produced = produce(app, size)?;
    let since = produced.finished;
    let sealed = produced.payload().map_err(unreadable)?;
    let (busy, sum, copied) = exchange(stream, CONSUME, sealed.bytes().map_err(unreadable)?)?;
    let finished = Instant::now();
    compare(sum, size)?;
    drop(sealed);
    drop(produced);
    if let Some(times) = times {
        let whole = finished.saturating_duration_since(since);
        times.handover.push(whole.saturating_sub(busy));
        times.end_to_end.push(finished.saturating_duration_since(start));
        times.teardown.push(finished.elapsed());
        // The socket's own copies are not counted, here or for ours.
        times.copied = times.copied.max(copied);
    }
    Ok(())
}

fn exchange(
    stream: &mut dyn ReadWrite,
    what: u8,
    bytes: &[u8],
) -> Result<(Duration, u64, u64), BenchError> {
    let mut request = [what; REQUEST];
    request[1..].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    stream.write_all(&request).map_err(broken)?;
    stream.write_all(bytes).map_err(broken)?;
    let mut numbers = [0; 3];
    for number in &mut numbers {
        let mut bytes = [0; 8];
        stream.read_exact(&mut bytes).map_err(broken)?;
        *number = u64::from_le_bytes(bytes);
    }
    let [busy_ns, sum, copied] = numbers;
    Ok((Duration::from_nanos(busy_ns), sum, copied))
}
