//! A WASI command that runs as a process does: with arguments, files and real standard streams, for as long as it likes,
//! until it ends or is stopped. What containers are made of.
//!
//! It has an app's sandbox, limits and compiled code like any function, and no payload.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use roadrunner_sys::{Ready, Waker, see_files_as, wait_for_any};
use roadrunner_transport::Fault;

use crate::app::App;
use crate::config::{CALL_STACK, MORE_STACK};
use crate::instance::Instance;

/// What a process has besides its function's module, environment and directories.
#[derive(Debug)]
pub struct Process {
    /// Its arguments, of which the first is its name.
    pub args: Vec<String>,
    /// What it reads; nothing without. Where it is a pipe or a socket it must not block ([`std::os::fd`]'s
    /// `O_NONBLOCK`), or a process that waits for it can't be stopped.
    pub stdin: Option<File>,
    /// Where it writes, as for `stdin`; without, what it writes is lost.
    pub stdout: Option<File>,
    /// Where it writes errors, as for `stdin`; without, what it writes is lost.
    pub stderr: Option<File>,
    /// The user and group whose files it sees and makes; this process's own without.
    pub owner: Option<(u32, u32)>,
    /// By which others end it.
    pub stop: Arc<Stop>,
}

/// How a process ended by itself, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// It was stopped.
    Stopped,
}

/// Ends a process, whatever it does: computes, waits for its streams, or sleeps.
#[derive(Debug)]
pub struct Stop {
    asked: AtomicBool,
    waker: Waker,
}

impl Stop {
    /// One that has not been asked for.
    ///
    /// # Errors
    /// When this process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { asked: AtomicBool::new(false), waker: Waker::new()? })
    }

    /// Ends its process, which may not have begun yet.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Whether the process is to end.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Waits until one of these is ready, as long as `wait` or for ever, and says which are; `None` where the process is
    /// to end.
    pub(crate) fn wait_for(
        &self,
        these: &[(&File, Ready)],
        wait: Option<Duration>,
    ) -> io::Result<Option<Vec<bool>>> {
        use std::os::fd::AsFd;
        let mut all = vec![(self.waker.as_fd(), Ready::Read)];
        all.extend(these.iter().map(|(file, ready)| (file.as_fd(), *ready)));
        let mut ready = wait_for_any(&all, wait)?;
        let rest = ready.split_off(1);
        Ok((!self.is_asked()).then_some(rest))
    }
}

impl App {
    /// Runs a command to its end as a process. This thread is its own from then on, and should end with it: it keeps
    /// acting for the process's owner.
    ///
    /// # Errors
    /// When the function is unknown or no command, can't be started, or traps.
    pub fn execute(self: &Arc<Self>, target: &str, process: Process) -> Result<Exit, Fault> {
        let function = self.function(target);
        let function = function.ok_or_else(|| Fault::Unknown { function: target.into() })?;
        let (stop, owner) = (Arc::clone(&process.stop), process.owner);
        stacker::maybe_grow(CALL_STACK, MORE_STACK, || {
            // Directories are opened with this process's rights, everything below them with the owner's.
            let state = Instance::state_of_process(self, function, process)?;
            if let Some((user, group)) = owner {
                see_files_as(user, group).map_err(|error| Fault::Exhausted {
                    function: target.into(),
                    reason: format!("can't act for user {user} and group {group}: {error}"),
                })?;
            }
            if stop.is_asked() {
                return Ok(Exit::Stopped);
            }
            let _running = (self.shared.ticker.run(), function.metered());
            let ended = Instance::with_state(self, function, state)
                .and_then(|mut instance| instance.run_process());
            match ended {
                Err(_) if stop.is_asked() => Ok(Exit::Stopped),
                ended => ended.map(Exit::Code),
            }
        })
    }

    /// How long a process may run: no app outlives it.
    pub(crate) fn forever() -> Instant {
        /// A hundred years, which every clock can still count to.
        const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        Instant::now() + CENTURY
    }
}
