//! `poll_oneoff` of WASI preview 1, which must not sleep beyond the function's deadline.
//!
//! Epochs stop a guest's own code, and not a host function that sleeps for it. The streams and files
//! of a guest are always ready, so waiting for one of them is over at once, and a clock is all that
//! is left to wait for. Only the standard streams of a process have to be waited for as well.

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use roadrunner_abi::export;
use roadrunner_sys::Ready;
use wasmtime::{Caller, Extern, Linker, Trap};

use crate::state::HostState;
use crate::stdio::{Refused, Stdio, Stream};

/// Subscriptions of one poll: a guest has a handful of descriptors and clocks.
const SUBSCRIPTIONS: usize = 1024;

// Lengths of `subscription` and `event` in bytes.
const SUBSCRIPTION: usize = 48;
const EVENT: usize = 32;

// Numbers that WASI preview 1 gives.
const SUCCESS: i32 = 0;
const FAULT: i32 = 21;
const INVALID: i32 = 28;
const CLOCK: u8 = 0;
const READ: u8 = 1;
const WRITE: u8 = 2;
const REALTIME: u32 = 0;
const MONOTONIC: u32 = 1;

/// Something that is waited for.
struct Subscription {
    user: [u8; 8],
    kind: u8,
    wakes: Instant,
    /// What is read or written.
    fd: Option<(u32, Ready)>,
}

/// Puts this module's `poll_oneoff` in the place of the stock one.
pub(crate) fn replace_poll(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.func_wrap("wasi_snapshot_preview1", "poll_oneoff", poll)?;
    linker.allow_shadowing(false);
    Ok(())
}

fn poll(
    mut host: Caller<'_, HostState>,
    subscriptions: u32,
    events: u32,
    count: u32,
    ready: u32,
) -> wasmtime::Result<i32> {
    let count = count as usize;
    if count == 0 || count > SUBSCRIPTIONS {
        return Ok(INVALID);
    }
    let Some(memory) = host.get_export(export::MEMORY).and_then(Extern::into_memory) else {
        return Ok(FAULT);
    };
    let range = |at: u32, len: usize| at as usize..at as usize + len;
    let (now, deadline, epoch) = (Instant::now(), host.data().deadline, host.data().epoch);
    let bytes = memory.data_mut(&mut host);
    let asked = bytes.get(range(subscriptions, count * SUBSCRIPTION));
    let read = |bytes: &[u8]| Subscription::read(bytes, now, epoch);
    let asked = asked.map(|asked| asked.chunks_exact(SUBSCRIPTION).map(read).collect());
    let asked: Vec<_> = match asked {
        None => return Ok(FAULT),
        Some(None) => return Ok(INVALID),
        Some(Some(asked)) => asked,
    };
    let over = if host.data_mut().stdio().is_some() {
        match host.data_mut().waiting(|stdio| wait_in_process(stdio, asked)) {
            Ok(over) => over,
            Err(refused) => return refused.answer(),
        }
    } else {
        let first = asked.iter().map(|it| it.wakes).min().unwrap_or(now);
        thread::sleep(first.min(deadline).saturating_duration_since(now));
        if first > deadline {
            return Err(Trap::Interrupt.into());
        }
        asked.into_iter().filter(|it| it.wakes <= first).collect()
    };
    let over: Vec<u8> = over.iter().flat_map(Subscription::event).collect();
    let bytes = memory.data_mut(&mut host);
    let number = u32::try_from(over.len() / EVENT).unwrap_or(0).to_le_bytes();
    for (at, answer) in [(events, &over[..]), (ready, &number)] {
        let Some(place) = bytes.get_mut(range(at, answer.len())) else { return Ok(FAULT) };
        place.copy_from_slice(answer);
    }
    Ok(SUCCESS)
}

/// Waits for the first of these to come, which may be a stream's, and gives those that have.
fn wait_in_process(stdio: &Stdio, asked: Vec<Subscription>) -> Result<Vec<Subscription>, Refused> {
    let stream = |it: &Subscription| it.fd.and_then(|(fd, ready)| Some((stdio.find(fd)?, ready)));
    let streams: Vec<(Stream, Ready)> = asked.iter().filter_map(stream).collect();
    let first = asked.iter().filter(|it| stream(it).is_none()).map(|it| it.wakes).min();
    loop {
        let mut ready = stdio.wait(&streams, first)?.into_iter();
        let now = Instant::now();
        let is_over = |it: &Subscription| match stream(it) {
            Some(_) => ready.next().unwrap_or(false),
            None => it.wakes <= now,
        };
        let over: Vec<bool> = asked.iter().map(is_over).collect();
        if over.contains(&true) {
            let both = asked.into_iter().zip(over);
            return Ok(both.filter_map(|(it, over)| over.then_some(it)).collect());
        }
    }
}

impl Subscription {
    /// `None` for a kind or a clock that does not exist.
    fn read(bytes: &[u8], now: Instant, epoch: Instant) -> Option<Self> {
        let user = *bytes.first_chunk()?;
        let (kind, payload) = (bytes[8], &bytes[16..]);
        let word = u32::from_le_bytes(*payload.first_chunk()?);
        let fd = match kind {
            READ => Some((word, Ready::Read)),
            WRITE => Some((word, Ready::Write)),
            _ => None,
        };
        let wakes = if kind == CLOCK {
            let timeout = Duration::from_nanos(u64::from_le_bytes(*payload[8..].first_chunk()?));
            let absolute = payload[24] & 1 != 0;
            match (word, absolute) {
                (REALTIME | MONOTONIC, false) => now + timeout,
                (MONOTONIC, true) => epoch + timeout,
                (REALTIME, true) => {
                    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                    now + timeout.saturating_sub(since.unwrap_or_default())
                }
                _ => return None,
            }
        } else if fd.is_some() {
            now
        } else {
            return None;
        };
        Some(Self { user, kind, wakes, fd })
    }

    /// What the guest is told: no error, and of a stream that a byte at least is there.
    fn event(&self) -> [u8; EVENT] {
        let mut event = [0; EVENT];
        event[..8].copy_from_slice(&self.user);
        event[10] = self.kind;
        event[16] = 1;
        event
    }
}
