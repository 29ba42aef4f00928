//! Linear memory: windows laid over what the guest's own allocator gave.
//!
//! ```text
//!   raw                ptr                          raw + raw_len
//!    |  slack          | window: whole pages         |  slack   |
//!    +-----------------+-----------------------------+----------+
//!    the guest's allocator gave all of this; the host rearranges only the window
//! ```
//!
//! A range whose payload left stays with the host as a *spent* range: the next buffer goes there,
//! and a pointer into it is recognised as a buffer that the guest no longer holds.
//!
//! Rules that the SAFETY lines below refer to:
//!
//! * **M1** Everything here runs with the store exclusively borrowed, between guest instructions,
//!   so no guest code of this instance runs and no slice into its memory lives.
//! * **M2** A window lies inside `[initial, size)` of linear memory. That is plain anonymous memory,
//!   readable and writable, which Wasmtime neither moves (`memory_may_move(false)`) nor maps files
//!   into (data segments lie below `initial`), and which never shrinks.
//! * **M3** Windows of an instance don't overlap, because the ranges that the allocator gave are
//!   checked against each other; windows of different instances lie in different memories.
//! * **M4** [`Held`] ranges are dropped before the instance gives its memory back, see `instance.rs`.

#![allow(unsafe_code, reason = "this module is one of the three rooms for unsafe code")]

mod allocator;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use roadrunner_buffer::{
    Backing, BufferError, Contents, Extent, PageRange, Sealed, Traffic, Window, round_to_pages,
};
use wasmtime::{AsContextMut, Engine, Memory, Module, StoreContextMut};

use crate::app::{App, WindowBytes};
use crate::state::HostState;

pub(crate) use allocator::{Allocate, Allocator};
use allocator::{Raw, overlap};

/// Spent ranges that are kept for the next buffers; more go back to the guest's allocator.
const SPENT: usize = 32;

/// Most bytes that are asked for in addition because a function's allocator begins below the
/// module's initial memory: more would be a module whose memory is nearly all initial.
const LOW_BYTES: usize = 16 << 20;

/// What the host knows of an instance's linear memory.
pub(crate) struct LinearMemory {
    memory: Memory,
    allocator: Option<Allocator>,
    /// First byte that a window may cover.
    initial: u64,
    held: Vec<Held>,
    spent: Vec<Raw>,
    /// The guest's allocator is running; it must not ask for buffers itself.
    allocating: bool,
}

/// A buffer that the guest holds.
struct Held {
    ptr: u32,
    len: u32,
    raw: Raw,
    /// None for a buffer that is too small to move, which lies in plain guest memory.
    window: Option<(Window, WindowBytes)>,
}

/// Why something could not be done in a guest's memory.
#[derive(Debug)]
pub(crate) enum GuestError {
    /// The guest trapped or ended while its allocator ran.
    Stopped(wasmtime::Error),
    /// The guest broke the ABI; it is stopped for it.
    Violation(String),
    /// The guest's allocator has nothing left.
    NoMemory(String),
    /// A named limit is reached.
    Limit(&'static str),
    /// A pointer and length are not inside linear memory.
    Fault,
    /// Not a buffer that the guest holds.
    BadBuffer,
    /// The kernel refused.
    Host(BufferError),
}

impl From<BufferError> for GuestError {
    fn from(error: BufferError) -> Self {
        Self::Host(error)
    }
}

impl LinearMemory {
    pub(crate) fn new(memory: Memory, initial: u64, allocator: Option<Allocator>) -> Self {
        let (held, spent) = (Vec::new(), Vec::new());
        Self { memory, allocator, initial, held, spent, allocating: false }
    }

    /// Puts plain memory back in every window. The instance must not run again.
    pub(crate) fn release(&mut self) {
        self.held.clear();
    }

    /// Takes what the guest still holds after a call, so that the next call finds all of its ranges spent. False where
    /// that would be more of them than are kept; the instance must not run again then.
    pub(crate) fn rest(&mut self) -> bool {
        let few = self.held.len() + self.spent.len() <= SPENT;
        self.spent.extend(self.held.drain(..).map(|held| held.raw));
        few
    }

    fn find(&self, ptr: u32) -> Option<usize> {
        self.held.iter().position(|held| held.ptr == ptr)
    }

    fn raw_ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.held
            .iter()
            .map(|held| held.raw.range())
            .chain(self.spent.iter().map(|raw| raw.range()))
    }
}

/// A guest's linear memory with the store it lives in.
pub(crate) struct Guest<'s>(pub(crate) StoreContextMut<'s, HostState>);

impl<'s> Guest<'s> {
    /// The payload at `ptr`: the pages of a buffer, where that is one that the guest holds, else
    /// the bytes that lie there.
    pub(crate) fn lend(mut self, ptr: u32, len: u32) -> Result<Sealed<'s>, GuestError> {
        if len == 0 {
            return Ok(Sealed::empty());
        }
        let at = self.buffer_at(ptr, len)?;
        let (bytes, state) = self.handle()?.data_and_store_mut(self.0);
        if let Some(at) = at
            && let Some(memory) = &mut state.memory
            && let Some((window, _)) = &mut memory.held[at].window
        {
            return Ok(window.lend(len as usize)?);
        }
        let range = ptr as usize..ptr as usize + len as usize;
        bytes.get(range).map(Sealed::borrowed).ok_or(GuestError::Fault)
    }
}

impl Guest<'_> {
    /// The same guest, for a call that takes it.
    pub(crate) fn reborrow(&mut self) -> Guest<'_> {
        Guest(self.0.as_context_mut())
    }

    fn mem(&mut self) -> Result<&mut LinearMemory, GuestError> {
        // Missing only while `_initialize` or a start function of the module itself runs.
        self.0.data_mut().memory.as_mut().ok_or(GuestError::Limit("the instance is still starting"))
    }

    fn app(&self) -> Arc<App> {
        Arc::clone(self.0.data().app())
    }

    fn handle(&mut self) -> Result<Memory, GuestError> {
        Ok(self.mem()?.memory)
    }

    /// Whether the guest's allocator is running, so that host functions must refuse.
    pub(crate) fn allocating(&mut self) -> bool {
        self.mem().map_or(true, |mem| mem.allocating)
    }

    /// Bytes of linear memory.
    pub(crate) fn bytes(&mut self, ptr: u32, len: u32) -> Result<&[u8], GuestError> {
        let memory = self.handle()?;
        let range = ptr as usize..ptr as usize + len as usize;
        memory.data(&self.0).get(range).ok_or(GuestError::Fault)
    }

    fn bytes_mut(&mut self, ptr: u32, len: u32) -> Result<&mut [u8], GuestError> {
        let memory = self.handle()?;
        let range = ptr as usize..ptr as usize + len as usize;
        memory.data_mut(&mut self.0).get_mut(range).ok_or(GuestError::Fault)
    }

    /// Writes little-endian words to linear memory.
    pub(crate) fn write_words(&mut self, ptr: u32, words: &[u32]) -> Result<(), GuestError> {
        let len = u32::try_from(size_of_val(words)).map_err(|_| GuestError::Fault)?;
        let place = self.bytes_mut(ptr, len)?;
        for (place, word) in place.chunks_exact_mut(size_of::<u32>()).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        Ok(())
    }

    /// Finds a place for a window of `len` bytes (whole pages): an extent inside memory that the
    /// allocator gave, or none where that lies too low for windows.
    fn place(&mut self, len: usize) -> Result<(Raw, Option<(u32, Extent)>), GuestError> {
        let low = |guest: &Self| guest.0.data().function.low_bytes.load(Ordering::Relaxed);
        let known = low(self);
        let (raw, place) = self.place_once(len)?;
        if place.is_some() || low(self) == known {
            return Ok((raw, place));
        }
        // Now it is known how much more to ask for.
        self.deallocate(raw)?;
        self.place_once(len)
    }

    fn place_once(&mut self, len: usize) -> Result<(Raw, Option<(u32, Extent)>), GuestError> {
        let low = &self.0.data().function.low_bytes;
        let asked = (len + PageRange::slack(len)).saturating_add(low.load(Ordering::Relaxed));
        let asked = u32::try_from(asked);
        let asked = asked.map_err(|_| GuestError::NoMemory("wasm32 has 4 GiB".into()))?;
        let raw = self.allocate(asked)?;
        let mem = self.mem()?;
        let (memory, initial) = (mem.memory, mem.initial);
        let base = memory.data_ptr(&self.0).addr();
        let bounds = raw.range();
        let at =
            |offset: u64| usize::try_from(offset).map_or(usize::MAX, |it| base.saturating_add(it));
        let (from, to) = (at(bounds.start.max(initial)), at(bounds.end));
        let Some(range) = PageRange::fit(from, to, len) else {
            // The allocator began below `initial`. It will do so in the next sandbox too.
            let low = initial.saturating_sub(bounds.start);
            let low = usize::try_from(low).unwrap_or(0).min(LOW_BYTES);
            self.0.data().function.low_bytes.fetch_max(low, Ordering::Relaxed);
            return Ok((raw, None));
        };
        let Ok(ptr) = u32::try_from(range.start() - base) else { return Ok((raw, None)) };
        // SAFETY: M1, M2 (`fit` keeps to what lies between `initial` and the end of the given range,
        // which `check_given` found inside linear memory), M3, M4.
        let extent = unsafe { Extent::claim(range) };
        Ok((raw, Some((ptr, extent))))
    }

    /// Asks the guest's allocator, ahead of the payload, for the place that its window will take. It
    /// waits among the spent ranges.
    pub(crate) fn reserve(&mut self) -> Result<(), GuestError> {
        let pages = self.0.data().function.input_bytes.load(Ordering::Relaxed);
        if pages > 0 {
            let (raw, _) = self.place(pages)?;
            self.mem()?.spent.push(raw);
        }
        Ok(())
    }

    fn hold(&mut self, ptr: u32, len: u32, raw: Raw, window: Option<(Window, WindowBytes)>) {
        if let Ok(mem) = self.mem() {
            mem.held.push(Held { ptr, len, raw, window });
        }
    }

    /// `buffer_alloc`: a buffer for the guest to write.
    pub(crate) fn buffer_alloc(&mut self, len: u32, contents: Contents) -> Result<u32, GuestError> {
        let app = self.app();
        if len == 0 || u64::from(len) > app.payload_limit() {
            return Err(GuestError::Limit("the size of a payload"));
        }
        if app.home().break_even.moves(len as usize) {
            let pages = round_to_pages(len as usize).ok_or(GuestError::Fault)?;
            let charge =
                app.charge(pages).ok_or(GuestError::Limit("the window bytes of an app"))?;
            let (raw, place) = self.place(pages)?;
            let Some((ptr, extent)) = place else {
                return self.plain_buffer(len, raw, contents);
            };
            let backing = self.0.data().backing();
            let window = Window::fresh(extent, backing, contents, app.home())?;
            self.hold(ptr, len, raw, Some((window, charge)));
            return Ok(ptr);
        }
        let raw = self.allocate(len.max(1))?;
        self.plain_buffer(len, raw, contents)
    }

    /// A buffer in plain guest memory, which shows nothing but what this guest wrote before.
    fn plain_buffer(&mut self, len: u32, raw: Raw, contents: Contents) -> Result<u32, GuestError> {
        if contents == Contents::Zeroed {
            self.bytes_mut(raw.start, len)?.fill(0);
        }
        self.hold(raw.start, len, raw, None);
        Ok(raw.start)
    }

    /// `buffer_free`, and the end of a buffer whose payload left.
    pub(crate) fn spend(&mut self, ptr: u32) -> Result<(), GuestError> {
        let mem = self.mem()?;
        let at = mem.find(ptr).ok_or(GuestError::BadBuffer)?;
        let held = mem.held.swap_remove(at);
        let surplus = (mem.spent.len() >= SPENT).then(|| mem.spent.remove(0));
        mem.spent.push(held.raw);
        drop(held);
        surplus.map_or(Ok(()), |raw| self.deallocate(raw))
    }

    /// Lays a payload into the guest's memory: where it is now, and what that cost.
    pub(crate) fn land<'p>(
        &mut self,
        sealed: Sealed<'p>,
    ) -> Result<(u32, u32, Traffic), (GuestError, Sealed<'p>)> {
        let len = sealed.len();
        let Ok(len32) = u32::try_from(len) else {
            return Err((GuestError::NoMemory("wasm32 has 4 GiB".into()), sealed));
        };
        if len == 0 {
            return Ok((0, 0, Traffic::default()));
        }
        let app = self.app();
        let arriving = self.0.data_mut().arriving.take();
        if app.home().break_even.moves(len) {
            return self.land_window(sealed, len32, &app, arriving);
        }
        let raw = match self.allocate(len32) {
            Ok(raw) => raw,
            Err(error) => return Err((error, sealed)),
        };
        self.land_copy(sealed, len32, raw)
    }

    fn land_window<'p>(
        &mut self,
        sealed: Sealed<'p>,
        len: u32,
        app: &App,
        arriving: Option<WindowBytes>,
    ) -> Result<(u32, u32, Traffic), (GuestError, Sealed<'p>)> {
        let Some(pages) = round_to_pages(sealed.len()) else {
            return Err((GuestError::Fault, sealed));
        };
        let arriving = arriving.filter(|charge| charge.is_for(pages));
        let Some(charge) = arriving.or_else(|| app.charge(pages)) else {
            return Err((GuestError::Limit("the window bytes of an app"), sealed));
        };
        let (raw, place) = match self.place(pages) {
            Ok(place) => place,
            Err(error) => return Err((error, sealed)),
        };
        let Some((ptr, extent)) = place else {
            return self.land_copy(sealed, len, raw);
        };
        let (window, traffic) =
            sealed.land(extent, app.home()).map_err(|(error, sealed)| (error.into(), sealed))?;
        self.hold(ptr, len, raw, Some((window, charge)));
        Ok((ptr, len, traffic))
    }

    fn land_copy<'p>(
        &mut self,
        sealed: Sealed<'p>,
        len: u32,
        raw: Raw,
    ) -> Result<(u32, u32, Traffic), (GuestError, Sealed<'p>)> {
        let copied = match self.bytes_mut(raw.start, len) {
            Ok(place) => sealed.copy_to(place).map_err(GuestError::from),
            Err(error) => Err(error),
        };
        match copied {
            Ok(traffic) => {
                self.hold(raw.start, len, raw, None);
                Ok((raw.start, len, traffic))
            }
            Err(error) => Err((error, sealed)),
        }
    }

    /// Lays the list of a fan-in into the guest's memory, a pair of words for each payload.
    pub(crate) fn land_list(&mut self, words: &[u32]) -> Result<u32, GuestError> {
        let len = u32::try_from(size_of_val(words)).map_err(|_| GuestError::Fault)?;
        // It is the guest's from now on, to free or not.
        let raw = self.allocate(len.max(1))?;
        self.write_words(raw.start, words)?;
        Ok(raw.start)
    }

    /// The payload at `ptr` for somebody else to see, while the guest keeps it.
    pub(crate) fn share(
        &mut self,
        ptr: u32,
        len: u32,
    ) -> Result<(Sealed<'static>, Traffic), GuestError> {
        if len == 0 {
            return Ok((Sealed::empty(), Traffic::default()));
        }
        let app = self.app();
        let at = self.buffer_at(ptr, len)?;
        if app.home().break_even.moves(len as usize)
            && let Some(at) = at
            && let Some((window, _)) = &mut self.mem()?.held[at].window
        {
            return Ok(window.share(len as usize)?);
        }
        let bytes = self.bytes(ptr, len)?;
        Ok(Sealed::borrowed(bytes).detach(app.home())?)
    }

    /// Checks that [`Guest::lend`] will find a payload there, without taking it.
    pub(crate) fn check(&mut self, ptr: u32, len: u32) -> Result<(), GuestError> {
        if len == 0 { Ok(()) } else { self.buffer_at(ptr, len).map(drop) }
    }

    /// Whether a pointer and length name a buffer that the guest holds.
    pub(crate) fn is_buffer(&mut self, ptr: u32, len: u32) -> bool {
        matches!(self.buffer_at(ptr, len), Ok(Some(_)))
    }

    /// The buffer that starts at `ptr` and holds `len` bytes; an error for bytes that lie outside
    /// linear memory or in a buffer that the guest no longer holds.
    fn buffer_at(&mut self, ptr: u32, len: u32) -> Result<Option<usize>, GuestError> {
        self.bytes(ptr, len)?;
        let mem = self.mem()?;
        if let Some(at) = mem.find(ptr) {
            return Ok((mem.held[at].len >= len).then_some(at));
        }
        let range = Raw { start: ptr, len }.range();
        if mem.spent.iter().any(|raw| overlap(&range, &raw.range())) {
            return Err(GuestError::BadBuffer);
        }
        Ok(None)
    }
}

impl HostState {
    fn backing(&self) -> Backing {
        self.function.spec.backing
    }
}

/// Loads machine code that [`crate::Runtime::precompile`] made.
pub(crate) fn load_precompiled(engine: &Engine, code: &[u8]) -> Result<Module, String> {
    // SAFETY: precompiled code is machine code: whoever names the file trusts it as they trust any
    // program they start. Its checksum was verified by the caller, and Wasmtime checks that it was
    // made by the same version with the same settings.
    unsafe { Module::deserialize(engine, code) }.map_err(|error| format!("{error:#}"))
}
