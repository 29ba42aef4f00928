//! What the host knows of one instance while it lives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use roadrunner_abi::Errno;
use roadrunner_buffer::Traffic;
use roadrunner_transport::{Account, Fault, Hop, Mode, Reply, Trace};
use wasmtime::ResourceLimiter;
use wasmtime_wasi::p1::WasiP1Ctx;

use crate::app::{App, Bounds, WindowBytes};
use crate::deadline::{Bounded, TICK};
use crate::environment::Variables;
use crate::function::Function;
use crate::memory::LinearMemory;
use crate::meter::Holding;
use crate::process::{Process, Stop as StopProcess};
use crate::stdio::{Refused, Stdio};
use crate::streams::Streams;
use crate::wasi::Wasi;
use crate::workers::Ticket;

/// Records of its own calls that one invocation can collect for the report; a guest may make
/// millions of calls, which must not fill the host's memory.
const MAX_HOPS: usize = 4096;

/// How often a process looks whether it is to stop: below what anybody notices, far above what looking costs.
const LOOK: Duration = TICK.saturating_mul(2);

/// What the host knows of one instance.
pub(crate) struct HostState {
    /// None only while it is idle.
    app: Option<Arc<App>>,
    pub(crate) function: Arc<Function>,
    /// There as soon as the module is instantiated.
    pub(crate) memory: Option<LinearMemory>,
    /// There as soon as the guest needs it.
    pub(crate) wasi: Option<Box<Wasi>>,
    pub(crate) memory_limit: u64,
    pub(crate) memory_peak: u64,
    pub(crate) hops: Vec<Hop>,
    pub(crate) deadline: Instant,
    /// What the guest's monotonic clock counts from.
    pub(crate) epoch: Instant,
    pub(crate) depth: u32,
    /// The invocation's own span.
    pub(crate) trace: Trace,
    /// What its call brought for the environment.
    pub(crate) variables: Variables,
    /// What the payload that is about to land was charged on its way; its window takes it over.
    pub(crate) arriving: Option<WindowBytes>,
    pub(crate) tickets: Vec<Submitted>,
    pub(crate) next_ticket: i32,
    /// Counts its memory, where that is counted.
    pub(crate) holding: Option<Holding>,
    /// By which others end it, where it is a process.
    stop: Option<Arc<StopProcess>>,
}

/// A call in flight beside its caller.
pub(crate) struct Submitted {
    pub(crate) id: i32,
    pub(crate) asked: Asked,
    pub(crate) ticket: Ticket<Result<Reply, (Errno, String)>>,
}

/// What a guest asked of another function.
pub(crate) struct Asked {
    pub(crate) target: String,
    pub(crate) mode: Mode,
    /// Length of the payload.
    pub(crate) bytes: u64,
    /// What it cost to let the guest keep its payload, or run on.
    pub(crate) copied: Traffic,
}

impl Bounded for HostState {
    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.is_asked())
    }

    fn look(&self) -> Instant {
        match self.stop {
            // Whoever stops a process can't reach into it: it looks.
            Some(_) => self.deadline.min(Instant::now() + LOOK),
            None => self.deadline,
        }
    }
}

impl HostState {
    pub(crate) fn new(app: &Arc<App>, function: &Arc<Function>) -> Result<Self, Fault> {
        let epoch = Instant::now();
        let wasi = Self::wasi_of(function, epoch)?;
        Ok(Self::with_wasi(app, function, epoch, wasi))
    }

    /// Directories can be gone by now; whatever else WASI needs can't fail and is made on demand.
    fn wasi_of(function: &Function, epoch: Instant) -> Result<Option<Box<Wasi>>, Fault> {
        let needed = !function.spec.wasi.dirs.is_empty();
        needed.then(|| Wasi::handler(&function.spec, epoch)).transpose()
    }

    /// Its app.
    ///
    /// # Panics
    /// When it is idle, where nothing of it is called.
    pub(crate) fn app(&self) -> &Arc<App> {
        self.app.as_ref().expect("an idle sandbox does nothing")
    }

    /// Whether it has numbers for all tickets of another call: they are never used twice.
    pub(crate) fn has_tickets_left(&self) -> bool {
        self.next_ticket < i32::MAX / 2
    }

    /// Ends what belongs to a call, and gives up the app.
    pub(crate) fn rest(&mut self) -> Option<Arc<App>> {
        // Files are closed, and what was logged is forgotten.
        self.wasi = None;
        self.tickets.clear();
        self.hops.clear();
        self.variables.clear();
        self.arriving = None;
        self.app.take()
    }

    /// Belongs to a call of this app again.
    pub(crate) fn resume(&mut self, app: &Arc<App>) -> Result<(), Fault> {
        self.app = Some(Arc::clone(app));
        // What it runs before its call begins has the function's own time, as a start has.
        self.deadline = Instant::now() + self.function.spec.timeout;
        self.wasi = Self::wasi_of(&self.function, self.epoch)?;
        Ok(())
    }

    fn with_wasi(
        app: &Arc<App>,
        function: &Arc<Function>,
        epoch: Instant,
        wasi: Option<Box<Wasi>>,
    ) -> Self {
        Self {
            app: Some(Arc::clone(app)),
            function: Arc::clone(function),
            memory: None,
            wasi,
            memory_limit: function.spec.memory_bytes,
            memory_peak: 0,
            hops: Vec::new(),
            deadline: epoch + function.spec.timeout,
            epoch,
            depth: 0,
            trace: Trace::default(),
            variables: Variables::new(),
            arriving: None,
            tickets: Vec::new(),
            next_ticket: 1,
            holding: None,
            stop: None,
        }
    }

    /// For a process, which has all the time that it takes.
    pub(crate) fn of_process(
        app: &Arc<App>,
        function: &Arc<Function>,
        process: Process,
    ) -> Result<Self, Fault> {
        let (epoch, stop) = (Instant::now(), Arc::clone(&process.stop));
        let wasi = Wasi::process(&function.spec, epoch, process)?;
        let mut state = Self::with_wasi(app, function, epoch, Some(wasi));
        state.stop = Some(stop);
        state.deadline = App::forever();
        Ok(state)
    }

    pub(crate) fn wasi(&mut self) -> &mut WasiP1Ctx {
        let epoch = self.epoch;
        &mut self.wasi.get_or_insert_with(|| Wasi::without_dirs(epoch)).ctx
    }

    /// What its own calls have from it.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { deadline: self.deadline, depth: self.depth + 1, trace: self.trace }
    }

    /// The payload and response of a command, as soon as it has got its payload.
    pub(crate) fn streams(&mut self) -> Option<&mut Streams> {
        self.wasi.as_mut()?.streams.as_mut()
    }

    /// The standard streams of a process.
    pub(crate) fn stdio(&mut self) -> Option<&mut Stdio> {
        self.wasi.as_mut()?.stdio.as_mut()
    }

    /// Does something with a process's streams that may wait for others.
    pub(crate) fn waiting<T>(
        &mut self,
        action: impl FnOnce(&Stdio) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let stdio = self.wasi.as_ref().and_then(|wasi| wasi.stdio.as_ref());
        let _waiting = self.app().shared.ticker.wait();
        action(stdio.ok_or(Refused::Stopped)?)
    }

    /// Passes on what the guest wrote to its standard streams.
    pub(crate) fn log_output(&mut self) {
        if let Some(wasi) = &mut self.wasi {
            wasi.log(&self.function.spec.name);
        }
    }

    /// What the guest wrote to its standard error.
    pub(crate) fn stderr(&self) -> String {
        self.wasi.as_ref().map(|wasi| wasi.stderr()).unwrap_or_default()
    }

    pub(crate) fn record(
        &mut self,
        from: &str,
        to: &str,
        mode: Mode,
        bytes: u64,
        account: Account,
    ) {
        if self.hops.len() < MAX_HOPS {
            let (from, to) = (from.to_owned(), to.to_owned());
            self.hops.push(Hop { from, to, mode, bytes, account });
        }
    }
}

impl ResourceLimiter for HostState {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = desired as u64 <= self.memory_limit;
        if allowed {
            self.memory_peak = self.memory_peak.max(desired as u64);
            self.holding.iter().for_each(|holding| holding.grow(desired));
        } else if let Some(meter) = &self.function.spec.meter {
            meter.refuse_memory();
        }
        Ok(allowed)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        _desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // The engine's own bound on table entries holds.
        Ok(true)
    }
}
