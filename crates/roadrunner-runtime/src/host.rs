//! The host's side of the guest ABI: what a guest's imports do.
//!
//! Every integer here comes from a guest. A bad one ends in an [`Errno`] for the guest or in a trap
//! of it, never in a panic of the host.

use std::sync::Arc;
use std::time::{Duration, Instant};

use roadrunner_abi::{ALLOC_UNSPECIFIED, CALL_SHARE, Errno, IMPORT_MODULE, export, import, limit};
use roadrunner_buffer::{Contents, Sealed, Traffic, round_to_pages};
use roadrunner_transport::{Account, Fault, Payload, Reply, Undelivered};
use wasmtime::{AsContextMut, Caller, Engine, Linker};

use crate::dispatch;
use crate::environment;
use crate::inbox::Local;
use crate::memory::{Guest, GuestError};
use crate::route;
use crate::sleep;
use crate::state::{Asked, HostState, Submitted};
use crate::streams;
use crate::words::first;

/// Why the host stops a guest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    /// It asked for it.
    #[error("{0}")]
    Failed(String),
    /// It broke the ABI.
    #[error("{0}")]
    Violation(String),
}

/// How a host function ends early.
enum Halt {
    /// The guest is told.
    Errno(Errno),
    /// The guest is stopped.
    Stop(wasmtime::Error),
}

impl From<Errno> for Halt {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<GuestError> for Halt {
    fn from(error: GuestError) -> Self {
        Self::Errno(match error {
            GuestError::Stopped(error) => return Self::Stop(error),
            GuestError::Violation(what) => return Self::Stop(Stop::Violation(what).into()),
            GuestError::NoMemory(_) => Errno::NoMemory,
            GuestError::Limit(_) => Errno::Limit,
            GuestError::Fault => Errno::Fault,
            GuestError::BadBuffer => Errno::BadBuffer,
            GuestError::Host(error) => {
                tracing::warn!(%error, "the kernel refused a step of a hand-over");
                Errno::Limit
            }
        })
    }
}

/// Everything a guest can import.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<HostState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_sync(&mut linker, HostState::wasi)?;
    sleep::replace_poll(&mut linker)?;
    streams::replace_streams(&mut linker)?;
    environment::replace_environment(&mut linker)?;
    let host = IMPORT_MODULE;
    linker.func_wrap(host, import::BUFFER_ALLOC, buffer_alloc)?;
    linker.func_wrap(host, import::BUFFER_FREE, buffer_free)?;
    linker.func_wrap(host, import::CALL, call)?;
    linker.func_wrap(host, import::SUBMIT, submit)?;
    linker.func_wrap(host, import::WAIT, wait)?;
    linker.func_wrap(host, import::FAIL, fail)?;
    linker.func_wrap(host, import::LOG, log)?;
    linker.func_wrap(host, import::DEADLINE_NS, deadline_ns)?;
    Ok(linker)
}

type Host<'a> = Caller<'a, HostState>;

/// The number that a host function answers.
fn answer(ended: Result<i32, Halt>) -> wasmtime::Result<i32> {
    match ended {
        Ok(value) => Ok(value),
        Err(Halt::Errno(errno)) => Ok(errno.code()),
        Err(Halt::Stop(error)) => Err(error),
    }
}

fn buffer_alloc(mut host: Host<'_>, len: u32, flags: u32) -> wasmtime::Result<u32> {
    let mut guest = Guest(host.as_context_mut());
    if flags & !ALLOC_UNSPECIFIED != 0 || guest.allocating() {
        return Ok(0);
    }
    let unspecified = flags & ALLOC_UNSPECIFIED != 0;
    let contents = if unspecified { Contents::Unspecified } else { Contents::Zeroed };
    match guest.buffer_alloc(len, contents).map_err(Halt::from) {
        Ok(ptr) => Ok(ptr),
        Err(Halt::Errno(_)) => Ok(0),
        Err(Halt::Stop(error)) => Err(error),
    }
}

fn buffer_free(mut host: Host<'_>, ptr: u32) -> wasmtime::Result<i32> {
    let mut guest = Guest(host.as_context_mut());
    if guest.allocating() {
        return Ok(Errno::Limit.code());
    }
    answer(guest.spend(ptr).map(|()| Errno::Ok.code()).map_err(Halt::from))
}

/// The arguments that `call` and `submit` have in common.
#[derive(Clone, Copy)]
struct Request {
    name: u32,
    name_len: u32,
    ptr: u32,
    len: u32,
    flags: u32,
}

fn call(
    mut host: Host<'_>,
    name: u32,
    name_len: u32,
    ptr: u32,
    len: u32,
    flags: u32,
    out: u32,
) -> wasmtime::Result<i32> {
    let mut guest = Guest(host.as_context_mut());
    let request = Request { name, name_len, ptr, len, flags };
    answer(call_and_wait(&mut guest, request, out))
}

fn call_and_wait(guest: &mut Guest<'_>, request: Request, out: u32) -> Result<i32, Halt> {
    guest.bytes(out, 8)?;
    let (target, route) = target(guest, request)?;
    let Request { ptr, len, .. } = request;
    let state = guest.0.data();
    let (app, bounds) = (Arc::clone(state.app()), state.bounds());
    let since = Instant::now();
    let (mode, bytes) = (route.mode(), u64::from(len));
    let send = |payload| {
        let call = bounds.call(&target, payload, since);
        dispatch::send(&app, route, Local::default(), call).map_err(refusal)
    };
    if request.flags & CALL_SHARE != 0 {
        let (sealed, copied) = guest.share(ptr, len)?;
        let ended = send(Payload::One(sealed));
        return settle(guest, Asked { target, mode, bytes, copied }, ended, out);
    }
    let buffer = guest.is_buffer(ptr, len);
    let ended = send(Payload::One(guest.reborrow().lend(ptr, len)?));
    let kept = matches!(&ended, Err((errno, _)) if errno.keeps_payload());
    if buffer && !kept {
        guest.spend(ptr)?;
    }
    settle(guest, Asked { target, mode, bytes, copied: Traffic::default() }, ended, out)
}

/// What a caller is told of a call that failed: whether the payload is still its own follows from
/// the errno, so a payload that was delivered or lost must not end in one that keeps it.
fn refusal(undelivered: Undelivered<'_>) -> (Errno, String) {
    let errno = match &undelivered.fault {
        Fault::TimedOut { .. } => Errno::Timeout,
        Fault::Unknown { .. } => Errno::NotPermitted,
        Fault::TooLarge { .. } => Errno::TooLarge,
        Fault::TooDeep { .. } | Fault::Exhausted { .. } => Errno::Limit,
        Fault::HandOver { .. } | Fault::Unreachable { .. } => Errno::Unavailable,
        _ => Errno::CalleeFailed,
    };
    let lost = undelivered.payload.is_none() && errno.keeps_payload();
    (if lost { Errno::CalleeFailed } else { errno }, undelivered.fault.to_string())
}

/// Reads the target's name and finds the way there.
fn target(guest: &mut Guest<'_>, request: Request) -> Result<(String, route::Route), Halt> {
    if request.flags & !CALL_SHARE != 0 || request.name_len > limit::NAME_BYTES {
        return Err(Errno::Invalid.into());
    }
    if guest.allocating() {
        return Err(Errno::Limit.into());
    }
    let name = guest.bytes(request.name, request.name_len)?.to_vec();
    let name = String::from_utf8(name).map_err(|_| Errno::Invalid)?;
    let state = guest.0.data();
    if u64::from(request.len) > state.app().payload_limit() {
        return Err(Errno::TooLarge.into());
    }
    let route = route::of_call(state.app(), &state.function, &name).ok_or(Errno::NotPermitted)?;
    Ok((name, route))
}

fn submit(
    mut host: Host<'_>,
    name: u32,
    name_len: u32,
    ptr: u32,
    len: u32,
    flags: u32,
) -> wasmtime::Result<i32> {
    let mut guest = Guest(host.as_context_mut());
    let request = Request { name, name_len, ptr, len, flags };
    match start(&mut guest, request) {
        Ok(id) => Ok(id),
        Err(Halt::Errno(errno)) => Ok(-errno.code()),
        Err(Halt::Stop(error)) => Err(error),
    }
}

fn start(guest: &mut Guest<'_>, request: Request) -> Result<i32, Halt> {
    let (target, route) = target(guest, request)?;
    let Request { ptr, len, .. } = request;
    let state = guest.0.data();
    if state.tickets.len() >= limit::TICKETS || state.next_ticket == i32::MAX {
        return Err(Errno::Limit.into());
    }
    let (app, bounds) = (Arc::clone(state.app()), state.bounds());
    let since = Instant::now();
    // On its way a payload is no window's, and still one that the app makes the host hold.
    let pages = round_to_pages(len as usize).ok_or(Errno::TooLarge)?;
    let charge = app.charge(pages).ok_or(Errno::Limit)?;
    let (sealed, copied) = if request.flags & CALL_SHARE != 0 {
        guest.share(ptr, len)?
    } else {
        let buffer = guest.is_buffer(ptr, len);
        let detached =
            guest.reborrow().lend(ptr, len)?.detach(app.home()).map_err(GuestError::from)?;
        if buffer {
            guest.spend(ptr)?;
        }
        detached
    };
    let asked = Asked { target: target.clone(), mode: route.mode(), bytes: u64::from(len), copied };
    let worker = Arc::clone(&app);
    let ticket = app.shared.workers.spawn(move || {
        let call = bounds.call(&target, Payload::One(sealed), since);
        let local = Local { charge: Some(charge), ..Local::default() };
        dispatch::send(&worker, route, local, call).map_err(refusal)
    });
    let state = guest.0.data_mut();
    let id = state.next_ticket;
    state.next_ticket += 1;
    state.tickets.push(Submitted { id, asked, ticket });
    Ok(id)
}

fn wait(mut host: Host<'_>, ticket: i32, out: u32) -> wasmtime::Result<i32> {
    let mut guest = Guest(host.as_context_mut());
    answer(finish(&mut guest, ticket, out))
}

fn finish(guest: &mut Guest<'_>, id: i32, out: u32) -> Result<i32, Halt> {
    guest.bytes(out, 8)?;
    if guest.allocating() {
        return Err(Errno::Limit.into());
    }
    let state = guest.0.data_mut();
    let at = state.tickets.iter().position(|ticket| ticket.id == id).ok_or(Errno::BadTicket)?;
    let deadline = state.deadline;
    let Submitted { asked, ticket, .. } = state.tickets.swap_remove(at);
    let ended = ticket.join(deadline).ok_or(Errno::Timeout)?;
    settle(guest, asked, ended, out)
}

/// Lands the response of a call, or the message of what it ended in, and names it at `out`.
fn settle(
    guest: &mut Guest<'_>,
    asked: Asked,
    ended: Result<Reply, (Errno, String)>,
    out: u32,
) -> Result<i32, Halt> {
    match ended {
        Ok(reply) => receive(guest, asked, reply, out).map(|()| Errno::Ok.code()),
        Err((Errno::CalleeFailed, message)) => {
            let message = first(&message, limit::MESSAGE_BYTES as usize);
            land(guest, Sealed::borrowed(message.as_bytes()), out)?;
            Ok(Errno::CalleeFailed.code())
        }
        Err((errno, message)) => {
            tracing::debug!(target = asked.target, message, "a guest's call ended in a fault");
            Ok(errno.code())
        }
    }
}

fn receive(guest: &mut Guest<'_>, asked: Asked, mut reply: Reply, out: u32) -> Result<(), Halt> {
    let Asked { target, mode, bytes, copied } = asked;
    let since = Instant::now();
    let len = reply.len() as u64;
    // The caller's payload is gone by now, so the errno must be one that says so.
    let sealed = reply.payload().map_err(|_| Errno::NoMemory)?;
    let mut traffic = land(guest, sealed, out)?;
    traffic += Traffic { copied: reply.copied, moved: 0 };
    let back = Account { traffic, handover: since.elapsed(), ..Account::default() };
    let state = guest.0.data_mut();
    let me = Arc::clone(&state.function);
    for hop in reply.hops.drain(..) {
        state.record(&hop.from, &hop.to, hop.mode, hop.bytes, hop.account);
    }
    let mut account = reply.account;
    account.traffic += copied;
    state.record(&me.spec.name, &target, mode, bytes, account);
    state.record(&target, &me.spec.name, mode, len, back);
    Ok(())
}

/// Lands bytes in the caller and names them at `out`. The caller's payload is gone by now, so every
/// refusal is one that says so.
fn land(guest: &mut Guest<'_>, sealed: Sealed<'_>, out: u32) -> Result<Traffic, Halt> {
    let (at, len, traffic) = guest.land(sealed).map_err(|(error, _)| match error.into() {
        Halt::Errno(_) => Halt::Errno(Errno::NoMemory),
        stop @ Halt::Stop(_) => stop,
    })?;
    guest.write_words(out, &[at, len])?;
    Ok(traffic)
}

/// Text from a guest, cut to the limit; `None` where it lies outside linear memory. A module's start
/// function may send some too, so this looks for the memory itself.
fn text(host: &mut Host<'_>, ptr: u32, len: u32) -> Option<String> {
    let memory = host.get_export(export::MEMORY)?.into_memory()?;
    let range = ptr as usize..ptr as usize + len as usize;
    let bytes = memory.data(&*host).get(range)?;
    let bytes = &bytes[..bytes.len().min(limit::MESSAGE_BYTES as usize)];
    Some(String::from_utf8_lossy(bytes).into_owned())
}

fn fail(mut host: Host<'_>, msg: u32, len: u32) -> wasmtime::Result<()> {
    let message = text(&mut host, msg, len);
    let message = message.unwrap_or_else(|| "its message lies outside linear memory".into());
    Err(Stop::Failed(message).into())
}

fn log(mut host: Host<'_>, level: u32, msg: u32, len: u32) -> wasmtime::Result<()> {
    let Some(message) = text(&mut host, msg, len) else {
        let what = format!("it logged pointer {msg} and length {len}, outside its linear memory");
        return Err(Stop::Violation(what).into());
    };
    let function = host.data().function.spec.name.as_str();
    match level {
        roadrunner_abi::LOG_ERROR => tracing::error!(function, "{message}"),
        roadrunner_abi::LOG_WARN => tracing::warn!(function, "{message}"),
        roadrunner_abi::LOG_INFO => tracing::info!(function, "{message}"),
        roadrunner_abi::LOG_DEBUG => tracing::debug!(function, "{message}"),
        _ => tracing::trace!(function, "{message}"),
    }
    Ok(())
}

fn deadline_ns(host: Host<'_>) -> i64 {
    let left: Duration = host.data().deadline.saturating_duration_since(Instant::now());
    i64::try_from(left.as_nanos()).unwrap_or(i64::MAX)
}
