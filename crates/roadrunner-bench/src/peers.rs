//! Another way to the same end beside Roadrunner's: Eclipse iceoryx2, which hands samples in shared memory from
//! process to process, and sandboxes nobody.
//!
//! ```text
//!   producer: loan a sample, write every byte, send it --there--> consumer: receive it, read every byte
//!   producer: the answer is here                       <--back--- consumer: loan, write what it read, send
//! ```
//!
//! The clock and the definitions are those of a transfer to another process: hand-over is from the producer's
//! end until its answer is here, less the time that the consumer says its reading took.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use iceoryx2::port::{
    listener::Listener, notifier::Notifier, publisher::Publisher, subscriber::Subscriber,
};
use iceoryx2::prelude::*;
use iceoryx2::sample::Sample;
use roadrunner_runtime::{Backing, Config as RuntimeConfig, Remote, Terms};
use serde::Serialize;

use crate::elsewhere::{call_one, in_turns};
use crate::transfer::Times;
use crate::{BenchError, Figures, PAYLOAD_BYTES, Progress, compare, guests_beside};

/// Rounds before the first that counts: iceoryx2 takes turns with several samples' memory, which all is touched then.
const WARM_UP: u32 = 10;

/// How long a sleeping end waits before it looks whether the other one is still there.
const PATIENCE: Duration = Duration::from_millis(100);

/// How often a spinning end looks for a sample before it does.
const SPINS: u32 = 1 << 14;

/// Longest name of the service's files in bytes.
const NAME_BYTES: u64 = 1024;

/// How an end waits for a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Until its event comes, as Roadrunner's ends do.
    Asleep,
    /// By looking again and again, which takes a processor each.
    Spinning,
}

/// What the ways cost.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Peers {
    /// Length of the payload in bytes.
    pub size_bytes: u64,
    /// Rounds that count, of each way.
    pub runs: u32,
    /// Roadrunner, from sandbox to sandbox, asleep while it waits.
    pub roadrunner: Figures,
    /// iceoryx2, from native function to native function, asleep while it waits.
    pub iceoryx2: Figures,
    /// The same, spinning.
    pub iceoryx2_spinning: Figures,
}

/// A process that runs [`iceoryx2_in`].
pub struct Other {
    /// A connection to it.
    pub control: UnixStream,
    /// Its number.
    pub pid: u32,
}

/// Where iceoryx2 keeps its files.
#[derive(Clone, Debug)]
pub struct Place {
    /// A folder of nobody else.
    pub root: std::path::PathBuf,
    /// How the names of its files in `/dev/shm` begin.
    pub prefix: String,
}

fn failed(reason: impl std::fmt::Debug) -> BenchError {
    BenchError::Iceoryx2(format!("{reason:?}"))
}

/// Bytes in whole words, which is what the samples consist of.
fn words(size: u64) -> usize {
    usize::try_from(size.div_ceil(size_of::<u64>() as u64)).unwrap_or(usize::MAX)
}

/// One of the two ends.
struct End {
    out: Publisher<ipc::Service, [u64], ()>,
    input: Subscriber<ipc::Service, [u64], ()>,
    wake: Notifier<ipc::Service>,
    woken: Listener<ipc::Service>,
    waiting: Waiting,
    control: UnixStream,
    _node: Node<ipc::Service>,
}

impl End {
    /// `names` are those of the service out and the service in.
    fn new(
        place: &Place,
        names: [&str; 2],
        words: usize,
        waiting: Waiting,
        control: UnixStream,
    ) -> Result<Self, BenchError> {
        set_log_level(LogLevel::Error);
        let mut config = Config::default();
        let root = place.root.to_string_lossy();
        config.global.set_root_path(&Path::new(root.as_bytes()).map_err(failed)?);
        config.global.prefix = FileName::new(place.prefix.as_bytes()).map_err(failed)?;
        let node = NodeBuilder::new().config(&config);
        let node = node.signal_handling_mode(SignalHandlingMode::Disabled);
        let node = node.create::<ipc::Service>().map_err(failed)?;
        let [out, input] = names.map(|name| -> Result<_, BenchError> {
            let name: ServiceName = name.try_into().map_err(failed)?;
            let service = node.service_builder(&name).publish_subscribe::<[u64]>();
            let service = service.max_publishers(1).max_subscribers(1).history_size(0);
            let service = service.subscriber_max_buffer_size(1).subscriber_max_borrowed_samples(1);
            let service = service.open_or_create().map_err(failed)?;
            let event = node.service_builder(&name).event().open_or_create().map_err(failed)?;
            Ok((service, event))
        });
        let ((out, wake), (input, woken)) = (out?, input?);
        Ok(Self {
            out: out.publisher_builder().initial_max_slice_len(words).create().map_err(failed)?,
            input: input.subscriber_builder().create().map_err(failed)?,
            wake: wake.notifier_builder().create().map_err(failed)?,
            woken: woken.listener_builder().create().map_err(failed)?,
            waiting,
            control,
            _node: node,
        })
    }

    /// Writes every word of a sample, sends it and says when it was written.
    fn send(&self, words: usize, write: impl FnMut(usize) -> u64) -> Result<Instant, BenchError> {
        let sample = self.out.loan_slice_uninit(words).map_err(failed)?.write_from_fn(write);
        let written = Instant::now();
        sample.send().map_err(failed)?;
        if self.waiting == Waiting::Asleep {
            self.wake.notify().map_err(failed)?;
        }
        Ok(written)
    }

    /// The next sample; `None` when the other end has gone or it is time to stop.
    fn receive(
        &self,
        stop: &AtomicBool,
    ) -> Result<Option<Sample<ipc::Service, [u64], ()>>, BenchError> {
        let mut spins = 0;
        loop {
            if let Some(sample) = self.input.receive().map_err(failed)? {
                return Ok(Some(sample));
            }
            let patient = match self.waiting {
                Waiting::Asleep => self.woken.timed_wait(|_| {}, PATIENCE).map_err(failed)? > 0,
                Waiting::Spinning => {
                    std::hint::spin_loop();
                    spins += 1;
                    spins % SPINS != 0
                }
            };
            if !patient && (stop.load(Ordering::Relaxed) || self.is_alone()) {
                return Ok(None);
            }
        }
    }

    /// Whether the other process has closed its end, or has ended.
    fn is_alone(&self) -> bool {
        // In a block of rounds nothing else comes here.
        let quiet = self.control.set_nonblocking(true).and_then(|()| {
            let read = (&self.control).read(&mut [0]);
            self.control.set_nonblocking(false)?;
            Ok(read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock))
        });
        !quiet.unwrap_or(false)
    }

    /// Has the consumer wait for so many samples. Before that it does nothing: one that spins would take a
    /// processor from the other ways.
    fn begin_block(&self, rounds: u32) -> Result<(), BenchError> {
        (&self.control).write_all(&rounds.to_le_bytes()).map_err(failed)
    }

    /// For how many samples to wait; `None` when there will be no more.
    fn next_block(&self) -> Option<u32> {
        let mut rounds = [0; size_of::<u32>()];
        (&self.control).read_exact(&mut rounds).ok()?;
        Some(u32::from_le_bytes(rounds))
    }
}

/// The consumer's end: reads samples until the other end of `control` closes.
///
/// # Errors
/// When iceoryx2 fails or what is asked for makes no sense.
pub fn iceoryx2_in(mut control: UnixStream) -> Result<(), BenchError> {
    let mut number = || -> io::Result<u64> {
        let mut bytes = [0; size_of::<u64>()];
        control.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    };
    let [spins, root, prefix] = [number(), number(), number()];
    let waiting = if spins.map_err(failed)? == 1 { Waiting::Spinning } else { Waiting::Asleep };
    let text = |len: io::Result<u64>| -> io::Result<String> {
        let mut text = String::new();
        (&control).take(len?.min(NAME_BYTES)).read_to_string(&mut text)?;
        Ok(text)
    };
    let (root, prefix) = (text(root).map_err(failed)?.into(), text(prefix).map_err(failed)?);
    let [there, back] = names(waiting);
    let end = End::new(&Place { root, prefix }, [back, there], 2, waiting, control)?;
    (&end.control).write_all(&[1]).map_err(failed)?;
    let never = AtomicBool::new(false);
    while let Some(rounds) = end.next_block() {
        for _ in 0..rounds {
            let Some(sample) = end.receive(&never)? else { return Ok(()) };
            let entered = Instant::now();
            let sum = sample.payload().iter().fold(0, |sum: u64, word| sum.wrapping_add(*word));
            let busy_ns = u64::try_from(entered.elapsed().as_nanos()).unwrap_or(u64::MAX);
            drop(sample);
            end.send(2, |at| if at == 0 { busy_ns } else { sum })?;
        }
    }
    Ok(())
}

const fn names(waiting: Waiting) -> [&'static str; 2] {
    match waiting {
        Waiting::Asleep => ["asleep there", "asleep back"],
        Waiting::Spinning => ["spinning there", "spinning back"],
    }
}

/// The producer's end.
fn begin(
    place: &Place,
    size: u64,
    waiting: Waiting,
    mut control: UnixStream,
) -> Result<End, BenchError> {
    let (root, prefix) = (place.root.to_string_lossy(), &place.prefix);
    let numbers = [u64::from(waiting == Waiting::Spinning), root.len() as u64, prefix.len() as u64];
    let numbers = numbers.map(u64::to_le_bytes);
    let order = [numbers.as_flattened(), root.as_bytes(), prefix.as_bytes()].concat();
    let end = control.try_clone().map_err(failed)?;
    control.write_all(&order).map_err(failed)?;
    // Answered when it listens: what is sent before that is lost.
    control.read_exact(&mut [0]).map_err(failed)?;
    End::new(place, names(waiting), words(size), waiting, end)
}

/// Measures `runs` transfers of `size` bytes by each way, a block of each in turn. Ends early when told to
/// `stop`, with `None`.
///
/// # Errors
/// When iceoryx2 or a guest fails, a consumer reads other bytes than were written, or a process goes away.
#[allow(clippy::too_many_arguments, reason = "each is a thing of its own")]
pub fn peers(
    config: &RuntimeConfig,
    size: u64,
    runs: u32,
    (way, pid): (&dyn Fn(&Terms) -> Remote, u32),
    [asleep, spinning]: [Other; 2],
    place: &Place,
    stop: &Arc<AtomicBool>,
    progress: Progress<'_>,
) -> Result<Option<Peers>, BenchError> {
    let size = size.min(PAYLOAD_BYTES);
    let app = guests_beside(config.clone(), Backing::Segment, "consume", way)?;
    let pids = [pid, asleep.pid, spinning.pid];
    let asleep = begin(place, size, Waiting::Asleep, asleep.control)?;
    let spinning = begin(place, size, Waiting::Spinning, spinning.control)?;
    let counted = in_turns(pids, (WARM_UP, runs), progress, |[ours, first, second], most| {
        ours.rounds(most, |times| call_one(&app, size, times))?;
        asleep.begin_block(most)?;
        first.rounds(most, |times| exchange(&asleep, size, stop, times))?;
        spinning.begin_block(most)?;
        second.rounds(most, |times| exchange(&spinning, size, stop, times))?;
        if stop.load(Ordering::Relaxed) {
            return Err(BenchError::Iceoryx2("it was interrupted".into()));
        }
        Ok(())
    });
    if stop.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let [ours, asleep, spinning] = counted?;
    let bytes = size * u64::from(runs);
    Ok(Some(Peers {
        size_bytes: size,
        runs,
        roadrunner: ours.figures(size, bytes)?,
        iceoryx2: asleep.figures(size, bytes)?,
        iceoryx2_spinning: spinning.figures(size, bytes)?,
    }))
}

fn exchange(end: &End, size: u64, stop: &AtomicBool, times: &mut Times) -> Result<(), BenchError> {
    let start = Instant::now();
    let words = words(size);
    let since = end.send(words, |at| (at as u64).wrapping_mul(pattern::STEP))?;
    let Some(answer) = end.receive(stop)? else {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        return Err(BenchError::Iceoryx2("the other process went away".into()));
    };
    let finished = Instant::now();
    let [busy_ns, sum] = answer.payload()[..] else {
        return Err(BenchError::Iceoryx2("an answer of another length".into()));
    };
    let round_trip = finished.saturating_duration_since(since);
    times.round_trip.push(round_trip);
    times.handover.push(round_trip.saturating_sub(Duration::from_nanos(busy_ns)));
    times.end_to_end.push(finished.saturating_duration_since(start));
    compare(sum, (words * size_of::<u64>()) as u64)
}
