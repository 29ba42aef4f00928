//! Deadlines: a sandbox that runs too long is stopped.
//!
//! Compiled code compares the engine's epoch with its own at every loop and call; a thread moves
//! the epoch on every [`TICK`] while functions run, and sleeps while none does. This is the only
//! file that knows of epochs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use wasmtime::{Engine, EngineWeak, Store, Trap, UpdateDeadline};

/// How late a sandbox may be stopped. Shorter ticks cost wake-ups, two hundred a second now.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// Ticks without a function after which the thread sleeps until one runs: long enough that
/// a busy runtime never has to wake it.
const IDLE_TICKS: u32 = 200;

/// Moves an engine's epoch on while functions run.
#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Debug)]
struct Shared {
    running: AtomicUsize,
    asleep: AtomicBool,
}

/// A function runs while this lives.
#[derive(Debug)]
pub(crate) struct Running<'t>(&'t Shared);

/// A function that runs waits for something else than time while this lives: nobody need count for it.
#[derive(Debug)]
pub(crate) struct Waiting<'t>(&'t Ticker);

impl Ticker {
    /// Starts the thread, which ends with the engine.
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let shared =
            Arc::new(Shared { running: AtomicUsize::new(0), asleep: AtomicBool::new(false) });
        let (weak, engine) = (Arc::downgrade(&shared), engine.weak());
        let handle = roadrunner_sys::spawn("deadlines", move || tick(&weak, &engine))?;
        Ok(Self { shared, thread: handle.thread().clone() })
    }

    /// Notes that a function runs and sees that time passes for it.
    pub(crate) fn run(&self) -> Running<'_> {
        self.count_one();
        Running(&self.shared)
    }

    /// Notes that a function that runs ([`Ticker::run`]) waits from now on.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.shared.running.fetch_sub(1, Ordering::SeqCst);
        Waiting(self)
    }

    fn count_one(&self) {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.asleep.store(false, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.count_one();
    }
}

fn tick(shared: &Weak<Shared>, engine: &EngineWeak) {
    let mut idle = 0;
    let mut next = Instant::now() + TICK;
    loop {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let (Some(shared), Some(engine)) = (shared.upgrade(), engine.upgrade()) else {
            return;
        };
        // Wake-ups come late; the epoch counts the time that passed, not the wake-ups.
        while next <= Instant::now() {
            engine.increment_epoch();
            next += TICK;
        }
        idle = if shared.running.load(Ordering::SeqCst) == 0 { idle + 1 } else { 0 };
        if idle < IDLE_TICKS {
            continue;
        }
        idle = 0;
        shared.asleep.store(true, Ordering::SeqCst);
        // A function that started between the count and the flag sees the flag or is seen here.
        if shared.running.load(Ordering::SeqCst) > 0 {
            shared.asleep.store(false, Ordering::SeqCst);
            continue;
        }
        drop((shared, engine));
        thread::park();
        next = Instant::now() + TICK;
    }
}

/// Whose code is stopped at a deadline.
pub(crate) trait Bounded {
    /// When.
    fn deadline(&self) -> Instant;

    /// Whether it is to stop whenever it looks.
    fn is_stopped(&self) -> bool {
        false
    }

    /// When it looks next, where that is before the deadline.
    fn look(&self) -> Instant {
        self.deadline()
    }
}

/// Looks at a store's deadline while its code runs.
pub(crate) fn watch<T: Bounded + 'static>(store: &mut Store<T>) {
    // The epoch stands still where its thread gets no processor, and then catches up: it says when to
    // look at the clock, and the clock says whether it is time.
    store.epoch_deadline_callback(|store| {
        let bounds = store.data();
        if bounds.is_stopped() || ticks(bounds.deadline()) == 0 {
            return Err(Trap::Interrupt.into());
        }
        Ok(UpdateDeadline::Continue(ticks(bounds.look()).max(1)))
    });
}

/// Stops the store's code at its deadline: never before it, and at most one and a half ticks late where
/// the epoch's thread gets its processor.
pub(crate) fn arm<T: Bounded>(store: &mut Store<T>) {
    let ticks = ticks(store.data().look());
    store.set_epoch_deadline(ticks + 1);
}

/// Ticks until a deadline, the last one begun.
fn ticks(deadline: Instant) -> u64 {
    let left = deadline.saturating_duration_since(Instant::now());
    let ticks = left.as_nanos().div_ceil(TICK.as_nanos());
    u64::try_from(ticks).unwrap_or(u64::MAX).min(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use wasmtime::{Config, Instance, Module};

    use super::*;

    impl Bounded for Instant {
        fn deadline(&self) -> Instant {
            *self
        }
    }

    #[test]
    fn an_epoch_that_runs_ahead_stops_nothing_early() {
        let mut config = Config::new();
        config.epoch_interruption(true);
        let engine = Engine::new(&config).unwrap();
        let module = Module::new(&engine, "(module (func (export \"f\") (loop (br 0))))").unwrap();
        let deadline = Instant::now() + 10 * TICK;
        let mut store = Store::new(&engine, deadline);
        watch(&mut store);
        arm(&mut store);
        let instance = Instance::new(&mut store, &module, &[]).unwrap();
        let f = instance.get_typed_func::<(), ()>(&mut store, "f").unwrap();
        let stopped = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stopped.load(Ordering::SeqCst) {
                    engine.increment_epoch();
                    thread::yield_now();
                }
            });
            let error = f.call(&mut store, ()).unwrap_err();
            stopped.store(true, Ordering::SeqCst);
            assert_eq!(error.downcast_ref(), Some(&Trap::Interrupt));
        });
        assert!(Instant::now() >= deadline);
    }
}
