//! The runtime and its apps.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use roadrunner_buffer::{BreakEven, Domain, Home, Pool, PoolUse};
use roadrunner_transport::{
    Call, Caller, Fault, Inbox, Mode, Payload, Reply, Terms, Trace, Trust, Undelivered,
};
use wasmtime::{Engine, Linker};

use crate::config::{CALL_STACK, Config, MORE_STACK};
use crate::deadline::Ticker;
use crate::environment::Variables;
use crate::error::LoadError;
use crate::function::{Function, FunctionSpec, Inspection, ModuleSource};
use crate::host;
use crate::idle::Idle;
use crate::inbox::{Door, Local};
use crate::instance::Instance;
use crate::route::Remote;
use crate::state::HostState;
use crate::workers::{Ticket, Workers};
use crate::{dispatch, engine, route};

/// Compiles functions and holds what they share: engine, recycled pages, worker threads.
///
/// Several can live in one process; dropping the last handle ends its threads.
#[derive(Clone)]
pub struct Runtime(pub(crate) Arc<Shared>);

/// What all apps of a runtime share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) engine: Engine,
    linker: Linker<HostState>,
    pool: Arc<Pool>,
    break_even: BreakEven,
    pub(crate) ticker: Ticker,
    pub(crate) workers: Workers,
    domains: AtomicU64,
    /// All apps, whose idle sandboxes are the first to go where there are too many.
    apps: Mutex<Vec<Weak<App>>>,
}

impl Shared {
    fn apps(&self) -> MutexGuard<'_, Vec<Weak<App>>> {
        // No code that can panic runs under the lock, so a poisoned one is still in order.
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives all idle sandboxes back; whether there were any.
    pub(crate) fn clear_idle(&self) -> bool {
        let apps: Vec<_> = self.apps().iter().filter_map(Weak::upgrade).collect();
        let mut any = false;
        for app in apps {
            any |= app.idle.clear();
        }
        any
    }
}

impl Runtime {
    /// Sets up an engine, and measures where moving begins to beat copying here.
    ///
    /// # Errors
    /// When the machine refuses address space, threads or memory.
    pub fn new(config: Config) -> Result<Self, LoadError> {
        let kernel = |what| move |source| LoadError::Kernel { what, source };
        let (engine, sandboxes) = engine::engine(&config)?;
        let config = Config { sandboxes, ..config };
        let linker =
            host::linker(&engine).map_err(|error| LoadError::Engine(format!("{error:#}")))?;
        let break_even = match config.break_even {
            Some(fixed) => fixed,
            None => BreakEven::measure().map_err(kernel("measure page moves"))?,
        };
        let shared = Shared {
            pool: Arc::new(Pool::new(config.pool)),
            ticker: Ticker::start(&engine).map_err(kernel("start a thread"))?,
            workers: Workers::start(config.workers, config.queue)
                .map_err(kernel("start a thread"))?,
            engine,
            linker,
            break_even,
            domains: AtomicU64::new(0),
            apps: Mutex::default(),
            config,
        };
        Ok(Self(Arc::new(shared)))
    }

    /// Compiles functions and makes an app of them, a trust domain of its own.
    ///
    /// # Errors
    /// With the name of the first function whose module can't be read, compiled or linked.
    pub fn load(&self, specs: Vec<FunctionSpec>) -> Result<Arc<App>, (String, LoadError)> {
        self.load_beside(specs, |_| HashMap::new())
    }

    /// As [`Runtime::load`], with functions beside them that are in other processes or hosts: `remotes`
    /// makes the ways to them, by name.
    ///
    /// # Errors
    /// As [`Runtime::load`].
    pub fn load_beside(
        &self,
        specs: Vec<FunctionSpec>,
        remotes: impl FnOnce(&Terms) -> HashMap<String, Remote>,
    ) -> Result<Arc<App>, (String, LoadError)> {
        let mut functions = HashMap::new();
        for spec in specs {
            let name = spec.name.clone();
            match Function::load(spec, &self.0.engine, &self.0.linker) {
                Ok(function) => functions.insert(name, Arc::new(function)),
                Err(error) => return Err((name, error)),
            };
        }
        let domain = Domain(self.0.domains.fetch_add(1, Ordering::Relaxed));
        let home = Home { pool: Arc::clone(&self.0.pool), domain, break_even: self.0.break_even };
        let window_bytes = Arc::new(AtomicU64::new(0));
        let shared = Arc::clone(&self.0);
        let remotes = remotes(&Terms {
            home: home.clone(),
            payload_limit: shared.config.payload_bytes,
            trust: Trust::None,
        });
        let idle = Idle::default();
        let app = Arc::new(App { shared, functions, remotes, home, window_bytes, idle });
        let mut apps = self.0.apps();
        apps.retain(|app| app.strong_count() > 0);
        apps.push(Arc::downgrade(&app));
        drop(apps);
        Ok(app)
    }

    /// Compiles a module ahead of time into the bytes of a `.cwasm` file.
    ///
    /// # Errors
    /// When the module can't be read or compiled or is not a function.
    pub fn precompile(&self, source: &ModuleSource) -> Result<Vec<u8>, LoadError> {
        source.precompile(&self.0.engine)
    }

    /// What a module offers and asks.
    ///
    /// # Errors
    /// When the module can't be read or compiled or is not a function.
    pub fn inspect(&self, source: &ModuleSource) -> Result<Inspection, LoadError> {
        source.inspect(&self.0.engine)
    }

    /// Sandboxes that can exist at once: as many as were asked for, or fewer where address space is
    /// scarce.
    #[must_use]
    pub fn sandboxes(&self) -> u32 {
        self.0.config.sandboxes
    }

    /// Where moving begins to beat copying on this machine.
    #[must_use]
    pub fn break_even(&self) -> BreakEven {
        self.0.break_even
    }

    /// What the pool of recycled pages holds now.
    #[must_use]
    pub fn pool_usage(&self) -> PoolUse {
        self.0.pool.usage()
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("config", &self.0.config).finish_non_exhaustive()
    }
}

/// A set of functions that may know of each other and whose recycled pages are shared: one workflow
/// of one tenant.
pub struct App {
    pub(crate) shared: Arc<Shared>,
    functions: HashMap<String, Arc<Function>>,
    remotes: HashMap<String, Remote>,
    home: Home,
    window_bytes: Arc<AtomicU64>,
    pub(crate) idle: Idle,
}

impl App {
    /// Runs a function and waits for its response. Nested calls run on this thread too.
    ///
    /// # Errors
    /// When the function is unknown, fails, traps or runs out of time; the payload comes back
    /// where the function did not get it.
    pub fn call<'p>(
        self: &Arc<Self>,
        target: &'p str,
        payload: Payload<'p>,
        since: Instant,
    ) -> Result<Reply, Undelivered<'p>> {
        self.call_ready(None, target, payload, since)
    }

    /// Makes a sandbox for a call that is to come, so that its payload need not wait for it, with
    /// room for a payload as long as the last.
    ///
    /// # Errors
    /// When the function is unknown or can't be started.
    pub fn prepare(self: &Arc<Self>, target: &str) -> Result<Ready, Fault> {
        match self.function(target) {
            Some(function) => stacker::maybe_grow(CALL_STACK, MORE_STACK, || {
                // Starting runs the guest's code, for which time must pass.
                let _running = (self.shared.ticker.run(), function.metered());
                let mut instance = self.sandbox(function)?;
                instance.reserve()?;
                Ok(Ready(instance))
            }),
            None => Err(Fault::Unknown { function: target.into() }),
        }
    }

    /// As [`App::prepare`], beside the caller. A sandbox that can't be made is none: the call that
    /// is to come makes its own, or says why it can't.
    pub fn prepare_ahead(self: &Arc<Self>, target: &str) -> Ticket<Option<Ready>> {
        let (app, target) = (Arc::clone(self), target.to_owned());
        self.shared.workers.spawn(move || app.prepare(&target).ok())
    }

    /// As [`App::call`], in a sandbox that was made before where there is one of this function.
    ///
    /// # Errors
    /// As [`App::call`].
    pub fn call_ready<'p>(
        self: &Arc<Self>,
        ready: Option<Ready>,
        target: &'p str,
        payload: Payload<'p>,
        since: Instant,
    ) -> Result<Reply, Undelivered<'p>> {
        self.deliver(ready, self.bounds(since).call(target, payload, since))
    }

    /// As [`App::call_ready`], within the caller's own deadline and depth.
    ///
    /// # Errors
    /// As [`App::call`].
    pub fn deliver<'p>(
        self: &Arc<Self>,
        ready: Option<Ready>,
        call: Call<'p>,
    ) -> Result<Reply, Undelivered<'p>> {
        self.deliver_with(ready, Variables::new(), call)
    }

    /// As [`App::deliver`], with environment variables for the function. They reach functions of this process
    /// only.
    ///
    /// # Errors
    /// As [`App::call`].
    pub fn deliver_with<'p>(
        self: &Arc<Self>,
        ready: Option<Ready>,
        variables: Variables,
        mut call: Call<'p>,
    ) -> Result<Reply, Undelivered<'p>> {
        call.deadline = call.deadline.min(self.bounds(call.since).deadline);
        match route::of_request(self, call.target) {
            Ok(route) => {
                let ready = ready.map(|ready| ready.0);
                dispatch::send(self, route, Local { ready, variables, charge: None }, call)
            }
            Err(fault) => Err(Undelivered::before(fault, call.payload)),
        }
    }

    /// What a call may take that begins then and that nobody else bounds or traces.
    #[must_use]
    pub fn bounds(&self, since: Instant) -> Bounds {
        let deadline = since + self.shared.config.longest_call;
        Bounds { deadline, depth: 0, trace: Trace::default() }
    }

    /// Runs a function beside the caller, on a worker thread or on the thread that waits for it, and
    /// passes its end to `done` there. Its payload is ready now: the wait for a thread is part of
    /// the hand-over.
    pub fn spawn(
        self: &Arc<Self>,
        target: String,
        payload: Payload<'static>,
        done: impl FnOnce(Result<Reply, Fault>) + Send + 'static,
    ) -> Ticket<()> {
        self.spawn_within(self.bounds(Instant::now()), target, payload, done)
    }

    /// As [`App::spawn`], within the caller's own bounds.
    pub fn spawn_within(
        self: &Arc<Self>,
        bounds: Bounds,
        target: String,
        payload: Payload<'static>,
        done: impl FnOnce(Result<Reply, Fault>) + Send + 'static,
    ) -> Ticket<()> {
        let (app, since) = (Arc::clone(self), Instant::now());
        self.shared.workers.spawn(move || {
            let target = target.as_str();
            let call = bounds.call(target, payload, since);
            let ended = catch_unwind(AssertUnwindSafe(|| app.deliver(None, call)))
                .map(|ended| ended.map_err(|undelivered| undelivered.fault));
            // Whoever waits must hear of it, or would wait for ever.
            let panicked = |_| {
                let reason = "the host panicked; its log says where".into();
                Err(Fault::Exhausted { function: target.into(), reason })
            };
            done(ended.unwrap_or_else(panicked));
        })
    }

    /// Where its pages belong: for making payloads that can move.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// How payloads travel to a function; `None` for one that is unknown.
    #[must_use]
    pub fn mode_of(&self, target: &str) -> Option<Mode> {
        route::of_request(self, target).ok().map(|route| route.mode())
    }

    /// What comes in for its functions from other processes and hosts, and where it goes.
    #[must_use]
    pub fn terms(&self) -> Terms {
        Terms { home: self.home.clone(), payload_limit: self.payload_limit(), trust: Trust::None }
    }

    /// Takes calls of its own functions in, from other processes and hosts.
    #[must_use]
    pub fn door(self: &Arc<Self>) -> Arc<dyn Inbox + Send + Sync> {
        Arc::new(Door::new(Arc::clone(self)))
    }

    /// A sandbox for a call: one that has had a call before, where the function allows that, or else a fresh one.
    pub(crate) fn sandbox(self: &Arc<Self>, function: &Arc<Function>) -> Result<Instance, Fault> {
        if let Some(mut instance) = self.idle.take(function) {
            instance.resume(self)?;
            return Ok(instance);
        }
        Instance::new(self, function)
    }

    pub(crate) fn remote(&self, name: &str) -> Option<&Remote> {
        self.remotes.get(name)
    }

    pub(crate) fn function(&self, name: &str) -> Option<&Arc<Function>> {
        self.functions.get(name)
    }

    pub(crate) fn payload_limit(&self) -> u64 {
        self.shared.config.payload_bytes
    }

    /// Counts the bytes of a window, of a payload that was submitted and is on its way to one, or of
    /// a command's payload or response against the app's limit; `None` where that is reached.
    pub(crate) fn charge(&self, bytes: usize) -> Option<WindowBytes> {
        let bytes = bytes as u64;
        let limit = self.shared.config.app_window_bytes;
        let before = self.window_bytes.fetch_add(bytes, Ordering::Relaxed);
        let charge = WindowBytes { total: Arc::clone(&self.window_bytes), bytes };
        (before.saturating_add(bytes) <= limit).then_some(charge)
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("functions", &self.functions.keys()).finish_non_exhaustive()
    }
}

/// What a call has from whoever asks for it: what it may take, and whose work it is part of.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// When the caller gives up.
    pub deadline: Instant,
    /// How many calls wait for it already.
    pub depth: u32,
    /// The span that its own is a child of.
    pub trace: Trace,
}

impl Bounds {
    /// A call of this process's own within these bounds, of a payload that is ready since then.
    #[must_use]
    pub fn call<'p>(self, target: &'p str, payload: Payload<'p>, since: Instant) -> Call<'p> {
        let Self { deadline, depth, trace } = self;
        Call { target, payload, since, deadline, depth, caller: Caller::Unnamed, trace }
    }
}

/// A fresh sandbox that waits for its one call.
pub struct Ready(pub(crate) Instance);

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ready")
    }
}

/// Bytes that [`App::charge`] counts against the app while this lives.
#[derive(Debug)]
pub(crate) struct WindowBytes {
    total: Arc<AtomicU64>,
    bytes: u64,
}

impl WindowBytes {
    /// Whether it is for so many bytes.
    pub(crate) fn is_for(&self, bytes: usize) -> bool {
        self.bytes == bytes as u64
    }

    /// Counts from now on what another of the same app counted.
    pub(crate) fn add(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for WindowBytes {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
