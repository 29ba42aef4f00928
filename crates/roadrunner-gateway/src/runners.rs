//! The threads that functions run on.
//!
//! ```text
//!   run(job) --> queue --> runners: as many as processors, which take one job after the other
//!                  |  no runner has taken any for a while: long functions keep them all
//!                  +-----> Tokio's blocking threads, a job each
//! ```
//!
//! A thread for each request would be woken for each and compete with all the others for the processors: with
//! 16 connections that took twice as long as a queue whose runners find the next job when they have done one.
//! A runner that has nothing to do looks again for a moment before it sleeps, since waking it costs more than a short function.
//! But a runner that waits, for its guest or for a function elsewhere, must keep nobody waiting for long.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, io, thread};

use tokio::sync::{Notify, oneshot};

/// How long jobs wait for a runner while none takes any: many short functions, and little beside a long one.
const PATIENCE: Duration = Duration::from_millis(2);

/// How long a runner that has nothing to do looks for a job before it sleeps, giving its processor to whoever has something
/// to do: about what waking it takes.
const LOOK: Duration = Duration::from_micros(50);

type Job = Box<dyn FnOnce() + Send>;

/// A queue and its runners, which end with it.
#[derive(Debug)]
pub(crate) struct Runners(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Told when a job has to wait and nobody watches the queue.
    waits: Notify,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Runners that wait for a job, or were woken for one and have not taken it.
    idle: usize,
    /// Runners that look for a job again and again.
    looking: usize,
    /// Jobs that runners have taken.
    taken: u64,
    /// Whether [`Runners::relieve`] looks at it.
    watched: bool,
    /// Whether long functions keep all runners, and jobs go elsewhere at once.
    stalled: bool,
    closed: bool,
}

impl Runners {
    /// Starts a runner for each processor.
    ///
    /// # Errors
    /// When the kernel refuses threads.
    pub(crate) fn start() -> io::Result<Self> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let shared = Shared { queue: Mutex::default(), wake: Condvar::new(), waits: Notify::new() };
        // Made first, so that the threads end if one can't be started.
        let runners = Self(Arc::new(shared));
        for _ in 0..processors {
            let shared = Arc::clone(&runners.0);
            thread::Builder::new().name("runner".into()).spawn(move || shared.serve())?;
        }
        Ok(runners)
    }

    /// Runs a job to its end on a thread that may block, also if nobody waits for it any more. `None` when it
    /// panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Whoever waited may have gone.
            let _ = done.send(job());
        });
        self.put(job);
        result.await.ok()
    }

    fn put(&self, job: Job) {
        let mut queue = self.0.queue();
        if queue.stalled {
            drop(queue);
            tokio::task::spawn_blocking(job);
            return;
        }
        queue.jobs.push_back(job);
        let wakes = queue.idle > 0 && queue.jobs.len() > queue.looking;
        // One that looks may have given its processor to somebody who keeps it.
        let waits = (queue.jobs.len() > queue.idle || !wakes) && !queue.watched;
        queue.watched |= waits;
        drop(queue);
        if wakes {
            self.0.wake.notify_one();
        }
        if waits {
            self.0.waits.notify_one();
        }
    }

    /// Hands jobs that no runner takes to other threads, for ever. One does so at a time.
    pub(crate) async fn relieve(&self) {
        loop {
            self.0.waits.notified().await;
            loop {
                let before = self.0.queue().taken;
                tokio::time::sleep(PATIENCE).await;
                let mut queue = self.0.queue();
                if queue.jobs.is_empty() {
                    queue.watched = false;
                    break;
                }
                if queue.taken == before {
                    queue.stalled = true;
                    let waiting = std::mem::take(&mut queue.jobs);
                    drop(queue);
                    waiting.into_iter().for_each(|job| drop(tokio::task::spawn_blocking(job)));
                }
            }
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runners").finish_non_exhaustive()
    }
}

impl Drop for Runners {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closed = true;
        // Nobody waits for their results.
        let waiting = std::mem::take(&mut queue.jobs);
        drop(queue);
        drop(waiting);
        self.0.wake.notify_all();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // No code that can panic runs under the lock, so a poisoned one is still in order.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A runner's life.
    fn serve(&self) {
        let mut queue = self.queue();
        let mut done = Instant::now();
        while !queue.closed {
            queue.stalled = false;
            let Some(job) = queue.jobs.pop_front() else {
                if done.elapsed() < LOOK {
                    queue.looking += 1;
                    drop(queue);
                    thread::yield_now();
                    queue = self.queue();
                    queue.looking -= 1;
                    continue;
                }
                queue.idle += 1;
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.idle -= 1;
                continue;
            };
            queue.taken += 1;
            drop(queue);
            // Whoever waits hears of a panic by the end of the channel.
            let _ = catch_unwind(AssertUnwindSafe(job));
            done = Instant::now();
            queue = self.queue();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn tokio() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn jobs_run_and_panics_end_only_themselves() {
        let runners = Runners::start().unwrap();
        tokio().block_on(async {
            for round in 0..100 {
                assert_eq!(runners.run(|| panic!("on purpose")).await, None::<()>);
                assert_eq!(runners.run(move || round).await, Some(round));
            }
        });
    }

    /// However many jobs wait for something, the next one runs.
    #[test]
    fn jobs_that_wait_keep_no_other_waiting_for_long() {
        let runners = Arc::new(Runners::start().unwrap());
        let runtime = tokio();
        runtime.block_on(async {
            let relieving = Arc::clone(&runners);
            let relief = tokio::spawn(async move { relieving.relieve().await });
            for _ in 0..3 {
                let (end, ends): (Vec<_>, Vec<_>) = (0..20).map(|_| mpsc::channel::<()>()).unzip();
                let waiting = ends.into_iter().map(|end| {
                    let runners = Arc::clone(&runners);
                    tokio::spawn(async move { runners.run(move || end.recv()).await })
                });
                let waiting: Vec<_> = waiting.collect();
                // All of them are put before the one that must not wait.
                tokio::task::yield_now().await;
                assert_eq!(runners.run(|| 7).await, Some(7));
                drop(end);
                for job in waiting {
                    assert!(job.await.unwrap().unwrap().is_err());
                }
            }
            relief.abort();
        });
    }

    #[test]
    fn runners_end_with_their_queue() {
        let runners = Runners::start().unwrap();
        let shared = Arc::downgrade(&runners.0);
        drop(runners);
        while shared.strong_count() > 0 {
            thread::yield_now();
        }
    }
}
