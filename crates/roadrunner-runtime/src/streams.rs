//! A command's stdin and stdout: `fd_read` and `fd_write` of WASI preview 1, which copy between the
//! guest's memory and the payload or the response once, and count what they copy. A process's go to `stdio.rs`.
//!
//! The stock functions copy through pipes, in pieces and more than once. They still do all that is
//! not about these two streams: files, the standard streams of handlers, stderr.

use std::ops::Range;
use std::sync::Arc;

use roadrunner_abi::export;
use roadrunner_buffer::{
    Backing, BufferError, Growing, Home, Sealed, Traffic, Window, round_to_pages,
};
use wasmtime::{AsContextMut, Caller, Extern, Linker, Memory};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self as stock, WasiSnapshotPreview1};
use wasmtime_wasi::runtime::in_tokio;
use wiggle::GuestMemory;

use crate::app::{App, WindowBytes};
use crate::state::HostState;
use crate::stdio::{Refused, Stdio};

/// Parts of one read or write: what POSIX systems allow (`IOV_MAX`), so that C libraries keep to it.
const PARTS: u32 = 1024;

/// Length of an `iovec` and of a `ciovec` in bytes.
const PART: usize = 8;

// Numbers that WASI preview 1 gives.
const SUCCESS: i32 = 0;
const FAULT: i32 = 21;
const TOO_BIG: i32 = 22;
const INVALID: i32 = 28;
const IO: i32 = 29;
const NO_MEMORY: i32 = 48;
const NO_SPACE: i32 = 51;
const STDIN: u32 = 0;
const STDOUT: u32 = 1;

/// A command's payload, which it reads, and its response, which it writes.
pub(crate) struct Streams {
    app: Arc<App>,
    backing: Backing,
    /// With what it counts against its app.
    payload: (Sealed<'static>, Option<WindowBytes>),
    /// Bytes of the payload that were read.
    read: usize,
    response: Response,
    copied: u64,
    // The descriptors of both, which a guest may close or renumber.
    stdin: Option<u32>,
    stdout: Option<u32>,
}

/// What a command wrote, in pages of the host's own that can move on.
#[derive(Default)]
pub(crate) struct Response {
    pages: Pages,
    len: usize,
    /// What its pages count against its app.
    charge: Option<WindowBytes>,
}

/// Where a response is.
#[derive(Default)]
enum Pages {
    #[default]
    None,
    Written(Growing),
    /// A long response, once it is asked for.
    Window(Window),
}

impl Response {
    /// Room for `len` more bytes.
    fn grow(&mut self, len: usize, app: &App, backing: Backing) -> Result<&mut [u8], i32> {
        // No memory would have room for a longer response than 4 GiB.
        let limit = usize::try_from(app.payload_limit().min(u32::MAX.into())).unwrap_or(usize::MAX);
        let end = self.len.checked_add(len).filter(|end| *end <= limit).ok_or(TOO_BIG)?;
        if len == 0 {
            return Ok(&mut []);
        }
        if let Pages::None = self.pages {
            self.pages = Pages::Written(Growing::new(backing).map_err(refused)?);
        }
        let Pages::Written(growing) = &mut self.pages else { return Err(IO) };
        let pages = |len: usize| round_to_pages(len).ok_or(NO_MEMORY);
        let more = pages(end)? - pages(self.len)?;
        let charge = app.charge(more).ok_or(NO_SPACE)?;
        let place = growing.extend(len).map_err(refused)?;
        match &mut self.charge {
            Some(all) => all.add(charge),
            none => *none = Some(charge),
        }
        self.len = end;
        Ok(place)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn lend(&mut self, home: &Home) -> Result<Sealed<'_>, BufferError> {
        if home.break_even.moves(self.len) {
            self.pages = match std::mem::take(&mut self.pages) {
                Pages::Written(growing) => match growing.into_window(home) {
                    Ok(window) => Pages::Window(window),
                    Err((error, growing)) => {
                        self.pages = Pages::Written(growing);
                        return Err(error);
                    }
                },
                others => others,
            };
        }
        match &mut self.pages {
            Pages::None => Ok(Sealed::empty()),
            Pages::Written(growing) => Ok(Sealed::borrowed(growing.bytes())),
            Pages::Window(window) => window.lend(self.len),
        }
    }
}

fn refused(error: BufferError) -> i32 {
    tracing::warn!(%error, "the kernel refused room for a command's output");
    NO_MEMORY
}

impl Streams {
    /// The streams of a function of `app`.
    pub(crate) fn new(
        app: Arc<App>,
        backing: Backing,
        payload: Sealed<'static>,
        charge: Option<WindowBytes>,
    ) -> Self {
        let (response, stdin, stdout) = (Response::default(), Some(STDIN), Some(STDOUT));
        let payload = (payload, charge);
        Self { app, backing, payload, read: 0, response, copied: 0, stdin, stdout }
    }

    /// What its reads and writes copied.
    pub(crate) fn traffic(&self) -> Traffic {
        Traffic { copied: self.copied, moved: 0 }
    }

    /// What was written, once nothing more will be, nor read: the payload goes.
    pub(crate) fn take_response(&mut self) -> Response {
        self.payload = (Sealed::empty(), None);
        std::mem::take(&mut self.response)
    }

    /// Copies what comes next of the payload into these parts of linear memory.
    fn read(&mut self, memory: &mut [u8], parts: &[Range<usize>]) -> Result<usize, i32> {
        let mut left = self.payload.0.bytes().map_err(|_| IO)?.get(self.read..).unwrap_or_default();
        let before = left.len();
        for part in parts {
            let place = memory.get_mut(part.clone()).ok_or(FAULT)?;
            let (next, rest) = left.split_at(left.len().min(place.len()));
            place[..next.len()].copy_from_slice(next);
            left = rest;
        }
        let read = before - left.len();
        self.read += read;
        self.copied += read as u64;
        Ok(read)
    }

    /// Copies these parts of linear memory behind what was written before.
    fn write(&mut self, memory: &mut [u8], parts: &[Range<usize>]) -> Result<usize, i32> {
        let written = parts.iter().map(Range::len).sum();
        let mut place = self.response.grow(written, &self.app, self.backing)?;
        for part in parts {
            let bytes = memory.get(part.clone()).ok_or(FAULT)?;
            let (next, rest) = place.split_at_mut(bytes.len());
            next.copy_from_slice(bytes);
            place = rest;
        }
        self.copied += written as u64;
        Ok(written)
    }

    /// A descriptor went away, or another took its number.
    fn closed(&mut self, fd: u32) {
        self.stdout.take_if(|it| *it == fd);
        if self.stdin.take_if(|it| *it == fd).is_some() {
            // Nobody can read it any more.
            self.payload = (Sealed::empty(), None);
        }
    }

    fn renumbered(&mut self, from: u32, to: u32) {
        if from == to {
            return;
        }
        self.closed(to);
        for stream in [&mut self.stdin, &mut self.stdout].into_iter().flatten() {
            if *stream == from {
                *stream = to;
            }
        }
    }
}

type Host<'a> = Caller<'a, HostState>;

/// Puts this module's functions in the place of the stock ones.
pub(crate) fn replace_streams(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    let module = "wasi_snapshot_preview1";
    linker.allow_shadowing(true);
    linker.func_wrap(module, "fd_read", fd_read)?;
    linker.func_wrap(module, "fd_write", fd_write)?;
    linker.func_wrap(module, "fd_close", fd_close)?;
    linker.func_wrap(module, "fd_renumber", fd_renumber)?;
    linker.func_wrap(module, "proc_exit", proc_exit)?;
    linker.allow_shadowing(false);
    Ok(())
}

fn fd_read(
    mut host: Host<'_>,
    fd: i32,
    parts: i32,
    count: i32,
    done: i32,
) -> wasmtime::Result<i32> {
    let (number, list) = (fd.cast_unsigned(), [parts, count, done]);
    if streams(&mut host).is_some_and(|it| it.stdin == Some(number)) {
        return transfer(&mut host, list, |host, bytes, parts| {
            Ok(host.streams().ok_or(IO)?.read(bytes, parts)?)
        });
    }
    if let Some(stream) = stdio(&mut host).and_then(|it| it.find(number)) {
        return transfer(&mut host, list, |host, bytes, parts| {
            host.waiting(|stdio| stdio.read(stream, bytes, parts))
        });
    }
    run_stock(&mut host, async |ctx, memory| {
        stock::fd_read(ctx, memory, fd, parts, count, done).await
    })
}

fn fd_write(
    mut host: Host<'_>,
    fd: i32,
    parts: i32,
    count: i32,
    done: i32,
) -> wasmtime::Result<i32> {
    let (number, list) = (fd.cast_unsigned(), [parts, count, done]);
    if streams(&mut host).is_some_and(|it| it.stdout == Some(number)) {
        return transfer(&mut host, list, |host, bytes, parts| {
            Ok(host.streams().ok_or(IO)?.write(bytes, parts)?)
        });
    }
    if let Some(stream) = stdio(&mut host).and_then(|it| it.find(number)) {
        return transfer(&mut host, list, |host, bytes, parts| {
            host.waiting(|stdio| stdio.write(stream, bytes, parts))
        });
    }
    run_stock(&mut host, async |ctx, memory| {
        stock::fd_write(ctx, memory, fd, parts, count, done).await
    })
}

fn fd_close(mut host: Host<'_>, fd: i32) -> wasmtime::Result<i32> {
    let errno = run_stock(&mut host, async |ctx, memory| stock::fd_close(ctx, memory, fd).await)?;
    if errno == SUCCESS {
        streams(&mut host).into_iter().for_each(|it| it.closed(fd.cast_unsigned()));
        stdio(&mut host).into_iter().for_each(|it| it.closed(fd.cast_unsigned()));
    }
    Ok(errno)
}

fn fd_renumber(mut host: Host<'_>, from: i32, to: i32) -> wasmtime::Result<i32> {
    let errno =
        run_stock(&mut host, async |ctx, memory| stock::fd_renumber(ctx, memory, from, to).await)?;
    if errno == SUCCESS {
        let [from, to] = [from, to].map(i32::cast_unsigned);
        streams(&mut host).into_iter().for_each(|it| it.renumbered(from, to));
        stdio(&mut host).into_iter().for_each(|it| it.renumbered(from, to));
    }
    Ok(errno)
}

/// Ends with a code: that of a process may be any, the stock implementation leaves the last ones to shells.
fn proc_exit(mut host: Host<'_>, code: i32) -> wasmtime::Result<()> {
    if stdio(&mut host).is_some() || (0..126).contains(&code) {
        return Err(I32Exit(code).into());
    }
    Err(wasmtime::Error::msg(format!("exit code {code} is not between 0 and 125")))
}

fn memory(host: &mut Host<'_>) -> Option<Memory> {
    host.get_export(export::MEMORY).and_then(Extern::into_memory)
}

fn streams<'a>(host: &'a mut Host<'_>) -> Option<&'a mut Streams> {
    host.data_mut().streams()
}

fn stdio<'a>(host: &'a mut Host<'_>) -> Option<&'a mut Stdio> {
    host.data_mut().stdio()
}

/// Runs a function of the stock implementation, as its own entry in the linker would.
fn run_stock(
    host: &mut Host<'_>,
    function: impl AsyncFnOnce(&mut WasiP1Ctx, &mut GuestMemory<'_>) -> wasmtime::Result<i32>,
) -> wasmtime::Result<i32> {
    let memory = memory(host).ok_or_else(|| wasmtime::Error::msg("the memory is gone"))?;
    let fuel = host.as_context_mut().hostcall_fuel();
    let (bytes, state) = memory.data_and_store_mut(host);
    let ctx = state.wasi();
    ctx.set_hostcall_fuel(fuel);
    in_tokio(function(ctx, &mut GuestMemory::Unshared(bytes)))
}

/// Does a read or a write of what a list in linear memory names, by `action`, and says behind it how many bytes that
/// copied. Before it copies any, all that the guest names is found in linear memory.
fn transfer(
    host: &mut Host<'_>,
    list: [i32; 3],
    action: impl FnOnce(&mut HostState, &mut [u8], &[Range<usize>]) -> Result<usize, Refused>,
) -> wasmtime::Result<i32> {
    let [parts, count, done] = list.map(i32::cast_unsigned);
    let Some(memory) = memory(host) else { return Ok(FAULT) };
    let (bytes, state) = memory.data_and_store_mut(host);
    let transfer = || {
        let parts = parts_at(bytes, parts, count)?;
        let done = range(done, size_of::<u32>());
        bytes.get(done.clone()).ok_or(FAULT)?;
        let copied = u32::try_from(action(state, bytes, &parts)?).map_err(|_| INVALID)?;
        bytes.get_mut(done).ok_or(FAULT)?.copy_from_slice(&copied.to_le_bytes());
        Ok(SUCCESS)
    };
    transfer().or_else(Refused::answer)
}

fn range(at: u32, len: usize) -> Range<usize> {
    at as usize..at as usize + len
}

/// The parts of linear memory that a list names. They may overlap, as they may in POSIX.
fn parts_at(memory: &[u8], list: u32, count: u32) -> Result<Vec<Range<usize>>, i32> {
    if count > PARTS {
        return Err(INVALID);
    }
    let list = memory.get(range(list, count as usize * PART)).ok_or(FAULT)?;
    let (mut parts, mut all) = (Vec::with_capacity(count as usize), 0_u32);
    for part in list.chunks_exact(PART) {
        let word = |at: usize| part[at..].first_chunk().map(|it| u32::from_le_bytes(*it));
        let (start, len) = (word(0).ok_or(FAULT)?, word(4).ok_or(FAULT)?);
        // Of an empty part the place does not matter.
        if len > 0 {
            let part = range(start, len as usize);
            memory.get(part.clone()).ok_or(FAULT)?;
            // The sum is told as a word.
            all = all.checked_add(len).ok_or(INVALID)?;
            parts.push(part);
        }
    }
    Ok(parts)
}
