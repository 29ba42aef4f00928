//! One container's life: created, running, stopped. What is asked of it in the wrong state is refused.

use std::fs::File;
use std::io::Write;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use containerd_shim_protos::events::task::{TaskExit, TaskOOM, TaskStart};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::topics::{
    TASK_EXIT_EVENT_TOPIC, TASK_OOM_EVENT_TOPIC, TASK_START_EVENT_TOPIC,
};
use roadrunner_runtime::{App, Exit, Meter, Process, Stop, Usage};

use crate::error::Refusal;
use crate::events::{Events, timestamp};
use crate::functions::Serving;
use crate::rootfs::Rootfs;
use crate::stats::Figures;
use crate::streams::Places;

/// Added to a signal's number for the exit code of what it ended, as shells do.
const BY_SIGNAL: u32 = 128;

/// The exit code of a guest that trapped: that of a native program which aborts.
const TRAPPED: u32 = BY_SIGNAL + 6;

/// Signals that end no process by default, or only stop it: 0, SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU,
/// SIGURG and SIGWINCH. A guest can't see them.
const HARMLESS: [u32; 9] = [0, 17, 18, 19, 20, 21, 22, 23, 28];

/// Highest number of a signal: `SIGRTMAX`.
const SIGNALS: u32 = 64;

/// The signal that nothing outlives.
const SIGKILL: u32 = 9;

/// How long a guest that is killed has to notice. One that waits in the kernel, as who opens a pipe that nobody writes,
/// counts as ended then: its thread is left alone.
const ENDING: Duration = Duration::from_secs(1);

/// What a container is to do.
pub(crate) enum Work {
    /// Nothing, for as long as its pod is there.
    Pod,
    /// Take payloads until it is ended.
    Serve(Box<dyn FnOnce() -> Result<Serving, Refusal> + Send>),
    /// Run a command to its end.
    Command { app: Arc<App>, name: String, process: Box<Process> },
}

/// What counts what a container uses, and how much memory it may have.
#[derive(Clone, Debug)]
pub(crate) struct Metered {
    pub(crate) meter: Arc<Meter>,
    pub(crate) limit: Option<u64>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: u32,
    pub(crate) at: SystemTime,
}

/// Where a container is in its life.
enum State {
    Created(Work),
    Running,
    Stopped(Ended),
}

/// The same for those who ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Created,
    Running,
    Stopped(Ended),
}

/// One container.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) places: Places,
    state: Mutex<State>,
    changed: Condvar,
    /// Nothing of it runs: others call it, or nobody.
    is_idle: bool,
    stop: Arc<Stop>,
    /// The signal that it was stopped by.
    signal: Mutex<Option<u32>>,
    /// Keeps its stdin open until somebody says that nothing more comes.
    open_end: Mutex<Option<File>>,
    /// Counts what its sandboxes use; a pod's own container has none.
    metered: Option<Metered>,
    /// Has its function served.
    serving: Mutex<Option<Serving>>,
    rootfs: Mutex<Option<Rootfs>>,
    events: Arc<Events>,
}

impl Container {
    pub(crate) fn new(
        (id, bundle, places): (String, PathBuf, Places),
        work: Work,
        metered: Option<Metered>,
        stop: Arc<Stop>,
        open_end: Option<File>,
        rootfs: Rootfs,
        events: Arc<Events>,
    ) -> Self {
        let is_idle = !matches!(work, Work::Command { .. });
        Self {
            id,
            bundle,
            places,
            is_idle,
            state: Mutex::new(State::Created(work)),
            changed: Condvar::new(),
            stop,
            signal: Mutex::default(),
            open_end: Mutex::new(open_end),
            metered,
            serving: Mutex::default(),
            rootfs: Mutex::new(Some(rootfs)),
            events,
        }
    }

    /// Lets it run.
    pub(crate) fn start(self: &Arc<Self>, pid: u32) -> Result<(), Refusal> {
        let mut state = lock(&self.state);
        let work = match mem::replace(&mut *state, State::Running) {
            State::Created(work) => work,
            other => {
                *state = other;
                return Err(self.wrong_state("was started before"));
            }
        };
        let started = TaskStart { container_id: self.id.clone(), pid, ..TaskStart::default() };
        let begun = match work {
            Work::Pod => Ok(()),
            Work::Serve(publish) => publish().map(|serving| *lock(&self.serving) = Some(serving)),
            Work::Command { app, name, process } => {
                let (container, process) = (Arc::clone(self), *process);
                let spawned = roadrunner_sys::spawn("container", move || {
                    let code = container.run(&app, &name, process);
                    drop(app);
                    container.end(code, pid);
                });
                spawned.map(drop).map_err(Refusal::failed("start a thread"))
            }
        };
        if let Err(refusal) = begun {
            let ended = Ended { code: TRAPPED, at: SystemTime::now() };
            *state = State::Stopped(ended);
            drop(state);
            self.tell(ended, pid);
            return Err(refusal);
        }
        // Before the guest can end: it takes the state's lock for that.
        self.events.send(TASK_START_EVENT_TOPIC, &started);
        Ok(())
    }

    /// Runs a command to its end and gives its exit code.
    fn run(&self, app: &Arc<App>, name: &str, process: Process) -> u32 {
        let mut stderr = process.stderr.as_ref().and_then(|stderr| stderr.try_clone().ok());
        let mut say = |why: &str| {
            tracing::info!(id = self.id, "{why}");
            // Who reads may be gone; the log has it too.
            let _ = stderr.as_mut().map(|stderr| writeln!(stderr, "{why}"));
        };
        let code = match catch_unwind(AssertUnwindSafe(|| app.execute(name, process))) {
            Ok(Ok(Exit::Code(code))) => code.cast_unsigned() & 0xff,
            Ok(Ok(Exit::Stopped)) => return BY_SIGNAL + lock(&self.signal).unwrap_or(9),
            Ok(Err(fault)) => {
                say(&fault.to_string());
                TRAPPED
            }
            Err(_) => {
                say("the host panicked");
                TRAPPED
            }
        };
        let refused = self.metered.as_ref().filter(|it| it.meter.has_refused_memory());
        if let (1.., Some(Metered { limit, .. })) = (code, refused) {
            let limit = limit.map_or("all that it can address".into(), |it| format!("{it} bytes"));
            say(&format!("it was refused memory: its limit is {limit}"));
            // For the state's reason; before the end is told.
            let oom = TaskOOM { container_id: self.id.clone(), ..TaskOOM::default() };
            self.events.send(TASK_OOM_EVENT_TOPIC, &oom);
        }
        code
    }

    /// What its sandboxes use; `None` for a pod's own container, which has none.
    pub(crate) fn figures(&self) -> Option<Figures> {
        let Metered { meter, limit } = self.metered.as_ref()?;
        let Usage { cpu, memory_bytes: memory } = meter.usage();
        Some(Figures { cpu, memory, limit: *limit })
    }

    /// Notes that its work has ended.
    fn end(&self, code: u32, pid: u32) {
        let ended = Ended { code, at: SystemTime::now() };
        let mut state = lock(&self.state);
        // It was given up meanwhile.
        if matches!(*state, State::Stopped(_)) {
            return;
        }
        *state = State::Stopped(ended);
        drop(state);
        self.tell(ended, pid);
    }

    /// Counts a guest as ended that does not notice that it was killed.
    fn give_up(self: &Arc<Self>, pid: u32) {
        let container = Arc::clone(self);
        let waiter = roadrunner_sys::spawn("kill", move || {
            let is_running = |state: &mut State| !matches!(state, State::Stopped(_));
            let state = lock(&container.state);
            let waited = container.changed.wait_timeout_while(state, ENDING, is_running);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            container.end(BY_SIGNAL + SIGKILL, pid);
        });
        if let Err(error) = waiter {
            tracing::error!(id = self.id, %error, "can't wait for the end of a container");
        }
    }

    fn tell(&self, ended: Ended, pid: u32) {
        lock(&self.serving).take();
        lock(&self.open_end).take();
        self.changed.notify_all();
        let exit = TaskExit {
            container_id: self.id.clone(),
            id: self.id.clone(),
            pid,
            exit_status: ended.code,
            exited_at: MessageField::some(timestamp(ended.at)),
            ..TaskExit::default()
        };
        self.events.send(TASK_EXIT_EVENT_TOPIC, &exit);
    }

    /// Sends it a signal. Those that would end a process end it; it can't see any.
    pub(crate) fn kill(self: &Arc<Self>, signal: u32, pid: u32) -> Result<(), Refusal> {
        if signal > SIGNALS {
            return Err(Refusal::Invalid(format!("there is no signal {signal}")));
        }
        if HARMLESS.contains(&signal) {
            return self.running().map(drop);
        }
        let mut state = lock(&self.state);
        // Nobody else will say that these ended.
        let idle = match *state {
            State::Stopped(_) => return Err(self.no_process()),
            State::Created(_) => true,
            State::Running => self.is_idle,
        };
        lock(&self.signal).get_or_insert(signal);
        self.stop.ask();
        if idle {
            let ended = Ended { code: BY_SIGNAL + signal, at: SystemTime::now() };
            *state = State::Stopped(ended);
            drop(state);
            self.tell(ended, pid);
        } else if signal == SIGKILL {
            drop(state);
            self.give_up(pid);
        }
        Ok(())
    }

    fn running(&self) -> Result<(), Refusal> {
        match *lock(&self.state) {
            State::Stopped(_) => Err(self.no_process()),
            _ => Ok(()),
        }
    }

    /// Waits for its end.
    pub(crate) fn wait(&self) -> Ended {
        let mut state = lock(&self.state);
        loop {
            if let State::Stopped(ended) = *state {
                return ended;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Where it is in its life.
    pub(crate) fn stage(&self) -> Stage {
        match *lock(&self.state) {
            State::Created(_) => Stage::Created,
            State::Running => Stage::Running,
            State::Stopped(ended) => Stage::Stopped(ended),
        }
    }

    /// Nothing more comes on its stdin.
    pub(crate) fn close_stdin(&self) {
        lock(&self.open_end).take();
    }

    /// Gives up all that it has. Nobody finds it after that.
    pub(crate) fn delete(&self) -> Result<Option<Ended>, Refusal> {
        let ended = match self.stage() {
            Stage::Running => return Err(self.wrong_state("is running")),
            Stage::Stopped(ended) => Some(ended),
            Stage::Created => None,
        };
        lock(&self.rootfs).take();
        Ok(ended)
    }

    fn wrong_state(&self, why: &str) -> Refusal {
        Refusal::WrongState(format!("container {} {why}", self.id))
    }

    fn no_process(&self) -> Refusal {
        Refusal::NotFound(format!("container {} has ended: process already finished", self.id))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks, so a poisoned one is still in order.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
