//! Worker threads for calls that run beside their caller.
//!
//! A call that no worker has begun when somebody waits for it runs on the waiting thread. So a
//! bounded number of threads can't starve calls that wait for calls, and a full queue refuses
//! nobody.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

type Work<T> = Box<dyn FnOnce() -> T + Send>;

/// Stack of a worker in bytes: a few nested calls; deeper ones add their own.
const STACK: usize = 8 << 20;

pub(crate) struct Workers(Arc<Queue>);

struct Queue {
    jobs: Mutex<Jobs>,
    wake: Condvar,
    limit: usize,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Weak<dyn Run + Send + Sync>>,
    closed: bool,
}

/// Work that runs at most once, whoever comes first.
trait Run {
    fn run(&self);
}

struct Job<T> {
    state: Mutex<State<T>>,
    done: Condvar,
}

enum State<T> {
    Waiting(Work<T>),
    Running,
    Done(T),
    /// The work panicked, or its result was taken.
    Gone,
}

/// Work that runs beside its owner. Dropping it forgets the result; work that has not begun then
/// never begins.
#[must_use = "work that nobody waits for may never run"]
pub struct Ticket<T>(Arc<Job<T>>);

impl<T> fmt::Debug for Ticket<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks, so a poisoned one is still in order.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Workers {
    pub(crate) fn start(threads: usize, limit: usize) -> std::io::Result<Self> {
        let queue = Queue { jobs: Mutex::default(), wake: Condvar::new(), limit };
        // Made first, so that the threads end if one can't be started.
        let workers = Self(Arc::new(queue));
        for number in 0..threads {
            let queue = Arc::clone(&workers.0);
            let name = format!("worker-{number}");
            roadrunner_sys::spawn_with_stack(&name, STACK, move || queue.serve())?;
        }
        Ok(workers)
    }

    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Ticket<T> {
        let state = Mutex::new(State::Waiting(Box::new(work) as Work<T>));
        let job = Arc::new(Job { state, done: Condvar::new() });
        let weak: Weak<Job<T>> = Arc::downgrade(&job);
        let mut jobs = lock(&self.0.jobs);
        if jobs.waiting.len() < self.0.limit {
            jobs.waiting.push_back(weak);
            self.0.wake.notify_one();
        }
        drop(jobs);
        Ticket(job)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        lock(&self.0.jobs).closed = true;
        self.0.wake.notify_all();
    }
}

impl Queue {
    /// A worker's life.
    fn serve(&self) {
        loop {
            let mut jobs = lock(&self.jobs);
            while jobs.waiting.is_empty() && !jobs.closed {
                jobs = self.wake.wait(jobs).unwrap_or_else(PoisonError::into_inner);
            }
            let Some(job) = jobs.waiting.pop_front() else { return };
            drop(jobs);
            if let Some(job) = job.upgrade() {
                job.run();
            }
        }
    }
}

impl<T> Run for Job<T> {
    fn run(&self) {
        let mut state = lock(&self.state);
        if !matches!(*state, State::Waiting(_)) {
            return;
        }
        let State::Waiting(work) = std::mem::replace(&mut *state, State::Running) else { return };
        drop(state);
        let result = catch_unwind(AssertUnwindSafe(work));
        *lock(&self.state) = result.map_or(State::Gone, State::Done);
        self.done.notify_all();
    }
}

impl<T> Ticket<T> {
    /// Runs the work here unless somebody has begun it.
    pub fn help(&self) {
        self.0.run();
    }

    /// Waits for the result, running the work here if no worker has begun it. `None` where the
    /// deadline passes first, or the work panicked.
    #[must_use]
    pub fn join(self, deadline: Instant) -> Option<T> {
        self.help();
        let mut state = lock(&self.0.state);
        while matches!(*state, State::Running) {
            let left = deadline.checked_duration_since(Instant::now())?;
            let woken = self.0.done.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        match std::mem::replace(&mut *state, State::Gone) {
            State::Done(result) => Some(result),
            _ => None,
        }
    }
}
