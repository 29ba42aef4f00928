//! One sandbox, from its making to its end: a store, an instance, a payload in, a response out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use roadrunner_abi::{export, unpack};
use roadrunner_buffer::{BufferError, Sealed, Traffic, round_to_pages};
use roadrunner_transport::{Account, Fault, Lender, Payload, Reply, Undelivered};
use wasmtime::{
    AsContextMut, Func, Instance as WasmInstance, ModuleExport, Store, TypedFunc, WasmParams,
    WasmResults,
};
use wasmtime_wasi::I32Exit;

use crate::app::{App, Bounds, WindowBytes};
use crate::deadline;
use crate::environment::Variables;
use crate::function::{AllocateShape, AllocatorShape, Entry, Function};
use crate::host::Stop;
use crate::idle::Lent;
use crate::memory::{Allocate, Allocator, Guest, GuestError, LinearMemory};
use crate::meter::Meter;
use crate::process::Process;
use crate::state::HostState;
use crate::streams::{Response, Streams};
use crate::wasi::Wasi;
use crate::words::{
    REASON_BYTES, fault_of, first, instantiation_fault, is_crowded, last, said_bytes,
};

/// Most linear memory, besides the payload, that a producer's sandbox may hold on to while the
/// consumer runs; a larger one goes before.
const DONOR_BYTES: u64 = 64 << 20;

/// A sandbox with a function in it.
pub(crate) struct Instance {
    store: Store<HostState>,
    wasm: WasmInstance,
    function: Arc<Function>,
    input: Input,
    parts: Vec<(Traffic, Duration)>,
    /// Whoever gave the payload, until this function has run: giving its sandbox back takes time
    /// that the payload need not wait for.
    donor: Option<Reply>,
    output: Output,
}

/// What the entry point is called with.
enum Input {
    None,
    One { ptr: u32, len: u32 },
    Many { list: u32, count: u32 },
    Stdin,
}

/// Where the response is.
enum Output {
    Memory { ptr: u32, len: u32 },
    Stdout(Response),
}

impl Instance {
    /// Makes a sandbox. Starting it has the function's own time.
    pub(crate) fn new(app: &Arc<App>, function: &Arc<Function>) -> Result<Self, Fault> {
        Self::with_state(app, function, HostState::new(app, function)?)
    }

    /// What a sandbox knows that is to run a process.
    pub(crate) fn state_of_process(
        app: &Arc<App>,
        function: &Arc<Function>,
        process: Process,
    ) -> Result<HostState, Fault> {
        match function.shape.entry {
            Entry::Command(_) => HostState::of_process(app, function, process),
            Entry::Handler { .. } => {
                let what = "it takes payloads and is no command: it exports no `_start`".into();
                Err(Fault::Violation { function: function.spec.name.clone(), what })
            }
        }
    }

    /// As [`Instance::new`], with what is known of it already.
    pub(crate) fn with_state(
        app: &Arc<App>,
        function: &Arc<Function>,
        state: HostState,
    ) -> Result<Self, Fault> {
        let mut store = Store::new(&app.shared.engine, state);
        store.limiter(|state| state);
        deadline::watch(&mut store);
        deadline::arm(&mut store);
        let mut made = function.pre.instantiate(&mut store);
        // Idle ones may have what it needs.
        if made.as_ref().is_err_and(is_crowded) && app.shared.clear_idle() {
            made = function.pre.instantiate(&mut store);
        }
        let wasm = made.map_err(|error| instantiation_fault(function, error))?;
        let output = Output::Memory { ptr: 0, len: 0 };
        let function = Arc::clone(function);
        let (input, parts, donor) = (Input::None, Vec::new(), None);
        let mut instance = Self { store, wasm, function, input, parts, donor, output };
        instance.bind().map_err(|error| instance.fault(error))?;
        Ok(instance)
    }

    /// Ends everything of its call but what the guest left in its memory. None where it can't have another call; else
    /// with the app that it belonged to.
    pub(crate) fn rest(mut self) -> Option<(Arc<App>, Self)> {
        (self.input, self.output) = (Input::None, Output::Memory { ptr: 0, len: 0 });
        let state = self.store.data_mut();
        let clean = state.memory.as_mut().is_some_and(LinearMemory::rest);
        let clean = clean && state.has_tickets_left();
        let app = state.rest()?;
        clean.then_some((app, self))
    }

    /// Is to have another call, of this app.
    pub(crate) fn resume(&mut self, app: &Arc<App>) -> Result<(), Fault> {
        self.store.data_mut().resume(app)?;
        deadline::arm(&mut self.store);
        Ok(())
    }

    /// Makes room for a payload that is to come.
    pub(crate) fn reserve(&mut self) -> Result<(), Fault> {
        self.guest().reserve().map_err(|error| self.landing_fault(error, 0))
    }

    /// Whether it is a sandbox of this function.
    pub(crate) fn is_of(&self, function: &Arc<Function>) -> bool {
        Arc::ptr_eq(&self.function, function)
    }

    /// Its call begins, with this span: it is stopped at the deadline or when the function's own time is over. What
    /// its payload has been charged is for the payload's window.
    pub(crate) fn begin(
        &mut self,
        bounds: Bounds,
        charge: Option<WindowBytes>,
        variables: Variables,
    ) {
        let state = self.store.data_mut();
        state.deadline = bounds.deadline.min(Instant::now() + self.function.spec.timeout);
        state.depth = bounds.depth;
        state.trace = bounds.trace;
        state.variables = variables;
        state.arriving = charge;
        deadline::arm(&mut self.store);
    }

    /// Finds the memory and the allocator, and runs `_initialize`.
    fn bind(&mut self) -> wasmtime::Result<()> {
        let shape = &self.function.shape;
        let memory = self.wasm.get_module_export(&mut self.store, &shape.memory);
        let memory = memory.and_then(wasmtime::Extern::into_memory);
        let memory = memory.ok_or_else(|| wasmtime::Error::msg("the memory is gone"))?;
        let initial = shape.initial_bytes;
        let allocator = match shape.allocator.clone() {
            Some(AllocatorShape { allocate, deallocate }) => Some(Allocator {
                allocate: match allocate {
                    AllocateShape::Plain(allocate) => Allocate::Plain(self.typed(&allocate)?),
                    AllocateShape::Realloc(realloc) => Allocate::Realloc(self.typed(&realloc)?),
                },
                deallocate: deallocate.map(|it| self.typed(&it)).transpose()?,
            }),
            None => None,
        };
        if let Some(meter) = &self.function.spec.meter {
            let (addr, len) =
                (memory.data_ptr(&self.store) as usize, memory.data_size(&self.store));
            self.store.data_mut().holding = Some(Meter::hold(meter, addr, len));
        }
        self.store.data_mut().memory = Some(LinearMemory::new(memory, initial, allocator));
        if let Some(initialize) = self.function.shape.initialize {
            self.typed::<(), ()>(&initialize)?.call(&mut self.store, ())?;
        }
        Ok(())
    }

    fn typed<P: WasmParams, R: WasmResults>(
        &mut self,
        export: &ModuleExport,
    ) -> wasmtime::Result<TypedFunc<P, R>> {
        let found = self.wasm.get_module_export(&mut self.store, export);
        let func: Option<Func> = found.and_then(wasmtime::Extern::into_func);
        func.ok_or_else(|| wasmtime::Error::msg("an export is gone"))?.typed(&self.store)
    }

    fn guest(&mut self) -> Guest<'_> {
        Guest(self.store.as_context_mut())
    }

    /// Lands a call's payload. Where it does not land it comes back.
    pub(crate) fn receive<'p>(&mut self, payload: Payload<'p>) -> Result<Traffic, Undelivered<'p>> {
        match payload {
            Payload::One(sealed) => self.receive_one(sealed).map_err(|(fault, sealed)| {
                Undelivered { fault, payload: sealed.map(Payload::One), copy: None }
            }),
            Payload::Held(mut reply) => {
                let landed = match reply.payload() {
                    Ok(sealed) => {
                        self.receive_one(sealed).map_err(|(fault, left)| (fault, left.is_some()))
                    }
                    Err(source) => Err((self.hand_over_fault(source), true)),
                };
                match landed {
                    Ok(traffic) => {
                        self.donor = (reply.besides() <= DONOR_BYTES).then_some(reply);
                        Ok(traffic)
                    }
                    Err((fault, true)) => Err(Undelivered::before(fault, Payload::Held(reply))),
                    // It left the memory that it lay in: a second time would give zeros.
                    Err((fault, false)) => Err(Undelivered::after(fault)),
                }
            }
            Payload::Many(parts) => self.receive_many(parts).map_err(Undelivered::after),
        }
    }

    fn receive_one<'p>(
        &mut self,
        sealed: Sealed<'p>,
    ) -> Result<Traffic, (Fault, Option<Sealed<'p>>)> {
        match &self.function.shape.entry {
            Entry::Command(_) => self.receive_stdin(sealed),
            Entry::Handler { one: Some(_), .. } => match self.guest().land(sealed) {
                Ok((ptr, len, traffic)) => {
                    self.input = Input::One { ptr, len };
                    let moved = usize::try_from(traffic.moved).unwrap_or(0);
                    let pages = round_to_pages(moved).unwrap_or(0);
                    self.function.input_bytes.store(pages, Ordering::Relaxed);
                    Ok(traffic)
                }
                Err((error, sealed)) => {
                    let fault = self.landing_fault(error, sealed.len());
                    Err((fault, Some(sealed)))
                }
            },
            Entry::Handler { .. } => {
                let home = self.store.data().app().home().clone();
                let (sealed, copied) =
                    sealed.detach(&home).map_err(|source| (self.hand_over_fault(source), None))?;
                let landed = self.receive_many(vec![sealed]).map_err(|fault| (fault, None))?;
                Ok(copied + landed)
            }
        }
    }

    fn receive_many(&mut self, mut parts: Vec<Sealed<'static>>) -> Result<Traffic, Fault> {
        let many = matches!(self.function.shape.entry, Entry::Handler { many: Some(_), .. });
        if !many && parts.len() == 1 {
            let only = parts.pop().unwrap_or(Sealed::empty());
            return self.receive_one(only).map_err(|(fault, _)| fault);
        }
        if !many {
            let what = format!(
                "it has {} inputs but does not export `{}`",
                parts.len(),
                export::HANDLE_MANY
            );
            return Err(self.violation(what));
        }
        let mut words = Vec::with_capacity(parts.len() * 2);
        let mut traffic = Traffic::default();
        for part in parts {
            let (size, start) = (part.len(), Instant::now());
            let landed = self.guest().land(part).map_err(|(error, _)| error);
            let (ptr, len, cost) = landed.map_err(|error| self.landing_fault(error, size))?;
            words.extend([ptr, len]);
            traffic += cost;
            self.parts.push((cost, start.elapsed()));
        }
        let list = self.guest().land_list(&words);
        let list = list.map_err(|error| self.landing_fault(error, words.len() * 4))?;
        let count = u32::try_from(words.len() / 2).unwrap_or(u32::MAX);
        self.input = Input::Many { list, count };
        Ok(traffic)
    }

    fn receive_stdin<'p>(
        &mut self,
        sealed: Sealed<'p>,
    ) -> Result<Traffic, (Fault, Option<Sealed<'p>>)> {
        let state = self.store.data_mut();
        let app = Arc::clone(state.app());
        let mut charge = state.arriving.take();
        if charge.is_none() && app.home().break_even.moves(sealed.len()) {
            // What would be a handler's window counts as one.
            charge = round_to_pages(sealed.len()).and_then(|pages| app.charge(pages));
            if charge.is_none() {
                let error = GuestError::Limit("the window bytes of an app");
                return Err((self.landing_fault(error, sealed.len()), Some(sealed)));
            }
        }
        let refused = |source| (self.hand_over_fault(source), None);
        let (sealed, copied) = sealed.detach(app.home()).map_err(refused)?;
        // Maps shared pages now, where a refusal has a name.
        sealed.bytes().map_err(refused)?;
        let state = self.store.data_mut();
        let spec = &state.function.spec;
        let streams = Streams::new(app, spec.backing, sealed, charge);
        let wasi = Wasi::command(spec, state.epoch, streams).map_err(|fault| (fault, None))?;
        state.wasi = Some(wasi);
        self.input = Input::Stdin;
        Ok(copied)
    }

    /// Calls the entry point and notes where the response is.
    pub(crate) fn run(&mut self) -> Result<(), Fault> {
        let ended = match (&self.input, self.function.shape.entry.clone()) {
            (&Input::One { ptr, len }, Entry::Handler { one: Some(handle), .. }) => {
                self.handle(&handle, ptr, len)
            }
            (&Input::Many { list, count }, Entry::Handler { many: Some(handle), .. }) => {
                self.handle(&handle, list, count)
            }
            (Input::Stdin, Entry::Command(start)) => self.start(&start),
            _ => Err(wasmtime::Error::msg("the function was run without a payload")),
        };
        let ended = ended.and_then(|()| self.check_output());
        self.store.data_mut().log_output();
        ended.map_err(|error| self.fault(error))
    }

    fn handle(&mut self, handle: &ModuleExport, first: u32, second: u32) -> wasmtime::Result<()> {
        let handle = self.typed::<(u32, u32), i64>(handle)?;
        let (ptr, len) = unpack(handle.call(&mut self.store, (first, second))?);
        self.output = Output::Memory { ptr, len };
        Ok(())
    }

    /// Runs a process to its end and gives its exit code.
    pub(crate) fn run_process(&mut self) -> Result<i32, Fault> {
        let Entry::Command(start) = self.function.shape.entry else {
            return Err(self.violation("it is no command".into()));
        };
        deadline::arm(&mut self.store);
        let ended = self.typed::<(), ()>(&start).and_then(|it| it.call(&mut self.store, ()));
        let Err(error) = ended else { return Ok(0) };
        match error.downcast_ref::<I32Exit>() {
            Some(I32Exit(code)) => Ok(*code),
            None => Err(self.fault(error)),
        }
    }

    fn start(&mut self, start: &ModuleExport) -> wasmtime::Result<()> {
        let ended = self.typed::<(), ()>(start)?.call(&mut self.store, ());
        if let Err(error) = ended {
            match error.downcast_ref::<I32Exit>() {
                Some(I32Exit(0)) => {}
                Some(I32Exit(code)) => {
                    let said = self.store.data().stderr();
                    let said = last(said.trim_end(), said_bytes());
                    let colon = if said.is_empty() { "" } else { ": " };
                    let message = format!("it exited with code {code}{colon}{said}");
                    return Err(Stop::Failed(message).into());
                }
                None => return Err(error),
            }
        }
        let response = self.store.data_mut().streams().map(Streams::take_response);
        self.output = Output::Stdout(response.unwrap_or_default());
        Ok(())
    }

    /// Checks that the response is where the guest says.
    fn check_output(&mut self) -> wasmtime::Result<()> {
        let limit = self.store.data().app().payload_limit();
        let len = self.len() as u64;
        if len > limit {
            let what = format!("its response of {len} bytes is over the limit of {limit} bytes");
            return Err(Stop::Violation(what).into());
        }
        let Output::Memory { ptr, len } = self.output else {
            return Ok(());
        };
        let what = match self.guest().check(ptr, len) {
            Ok(()) => return Ok(()),
            Err(GuestError::BadBuffer) => "which lies in a buffer that it no longer holds",
            Err(_) => "which lies outside its linear memory",
        };
        Err(Stop::Violation(format!("it returned pointer {ptr} and length {len}, {what}")).into())
    }

    /// Its response, with what it used and whom it called, once it has run.
    pub(crate) fn into_reply(mut self, mut account: Account, finished: Instant) -> Reply {
        self.donor = None;
        let state = self.store.data_mut();
        // Calls that nobody waited for end with the invocation, not with its response.
        state.tickets.clear();
        account.memory_peak = state.memory_peak;
        account.traffic += state.streams().map(|it| it.traffic()).unwrap_or_default();
        let hops = std::mem::take(&mut state.hops);
        let parts = std::mem::take(&mut self.parts);
        let lender: Box<dyn Lender> =
            if self.function.spec.reuse { Box::new(Lent::new(self)) } else { Box::new(self) };
        let mut reply = Reply::new(lender, account, hops);
        reply.parts = parts;
        reply.finished = finished;
        reply
    }

    fn name(&self) -> String {
        self.function.spec.name.clone()
    }

    fn violation(&self, what: String) -> Fault {
        Fault::Violation { function: self.name(), what }
    }

    fn hand_over_fault(&self, source: BufferError) -> Fault {
        Fault::HandOver { function: self.name(), source }
    }

    fn landing_fault(&self, error: GuestError, len: usize) -> Fault {
        match error {
            GuestError::Stopped(error) => self.fault(error),
            GuestError::Violation(what) => self.violation(what),
            GuestError::NoMemory(reason) => {
                Fault::NoMemory { function: self.name(), len: len as u64, reason }
            }
            GuestError::Limit(which) => Fault::Exhausted {
                function: self.name(),
                reason: format!("{which} has reached its limit"),
            },
            GuestError::Host(source) => self.hand_over_fault(source),
            GuestError::Fault | GuestError::BadBuffer => {
                self.violation("its allocator gave memory that is not there".into())
            }
        }
    }

    fn fault(&self, error: wasmtime::Error) -> Fault {
        match fault_of(&self.function, error) {
            // Runtimes of most languages say on standard error why they give up.
            Fault::Trapped { function, reason } => {
                let said = self.store.data().stderr();
                let reason = first(&reason, REASON_BYTES);
                let said = last(said.trim(), said_bytes() - reason.len());
                let reason =
                    if said.is_empty() { reason.into() } else { format!("{said}\n({reason})") };
                Fault::Trapped { function, reason }
            }
            fault => fault,
        }
    }
}

impl Lender for Instance {
    fn len(&self) -> usize {
        match &self.output {
            Output::Memory { len, .. } => *len as usize,
            Output::Stdout(response) => response.len(),
        }
    }

    fn besides(&self) -> u64 {
        let all = self.store.data().memory_peak;
        match &self.output {
            Output::Memory { len, .. } => all.saturating_sub((*len).into()),
            // The response never lay in linear memory.
            Output::Stdout(_) => all,
        }
    }

    fn lend(&mut self) -> Result<Sealed<'_>, BufferError> {
        let (ptr, len) = match &mut self.output {
            Output::Stdout(response) => return response.lend(self.store.data().app().home()),
            Output::Memory { ptr, len } => (*ptr, *len),
        };
        // `run` found the response in linear memory; only the kernel can refuse now.
        match Guest(self.store.as_context_mut()).lend(ptr, len) {
            Ok(sealed) => Ok(sealed),
            Err(GuestError::Host(error)) => Err(error),
            Err(_) => Ok(Sealed::empty()),
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Before the store gives the linear memory back: the next guest must not find our pages, nor we count its.
        let state = self.store.data_mut();
        state.holding = None;
        if let Some(memory) = &mut state.memory {
            memory.release();
        }
    }
}
