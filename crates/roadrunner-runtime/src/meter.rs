//! What the sandboxes of one function use, for whoever has to account for it. Nothing is counted of a function that has no
//! meter: reading a thread's clock is a system call.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use roadrunner_sys::{ThreadClock, resident_bytes};

thread_local! {
    /// For the run that is under way on this thread: what runs inside it have taken, which are calls of other functions.
    static INSIDE: RefCell<Option<Arc<AtomicU64>>> = const { RefCell::new(None) };
}

/// Counts for one function, across all apps that it is part of.
#[derive(Debug, Default)]
pub struct Meter {
    /// Of runs that have ended.
    spent_ns: AtomicU64,
    /// The most that was ever told: the time of processors only grows.
    told_ns: AtomicU64,
    refused_memory: AtomicBool,
    live: Mutex<Live>,
    /// Apart from what runs: looking through memory takes time, for which no run should wait.
    memories: Mutex<Memories>,
}

/// What is there now.
#[derive(Debug, Default)]
struct Live {
    next: u64,
    runs: HashMap<u64, Run>,
}

/// Linear memories: address and length.
#[derive(Debug, Default)]
struct Memories {
    next: u64,
    live: HashMap<u64, (usize, usize)>,
}

/// A thread in a run, what it had used before, and nanoseconds that runs inside this one took.
#[derive(Clone, Debug)]
struct Run {
    clock: ThreadClock,
    before: Duration,
    inside_ns: Arc<AtomicU64>,
}

impl Run {
    /// Nanoseconds from its beginning on, with those of runs inside it.
    fn whole_ns(&self) -> u64 {
        // A thread that has ended was counted by its run.
        self.clock.now().map_or(0, |now| nanos(now.saturating_sub(self.before)))
    }

    fn own_ns(&self) -> u64 {
        self.whole_ns().saturating_sub(self.inside_ns.load(Ordering::Relaxed))
    }
}

/// What a function has used and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time of its guests and of the host's work for them, since it was loaded. What functions took that it
    /// called on the same thread is theirs; while such a call is under way it may show here for a moment too early.
    pub cpu: Duration,
    /// Bytes of its sandboxes' linear memories that are in memory now, with payloads that lie in them.
    pub memory_bytes: u64,
}

impl Meter {
    /// What it is now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let live = self.live();
        let running: u64 = live.runs.values().map(Run::own_ns).sum();
        let cpu = self.spent_ns.load(Ordering::Relaxed).saturating_add(running);
        drop(live);
        let told = self.told_ns.fetch_max(cpu, Ordering::Relaxed).max(cpu);
        // Under the lock: a sandbox that goes takes its memory out of the list first.
        let resident = |&(addr, len): &(usize, usize)| resident_bytes(addr, len).unwrap_or(0);
        let memory_bytes = self.memories().live.values().map(resident).sum();
        Usage { cpu: Duration::from_nanos(told), memory_bytes }
    }

    /// Whether it was ever refused memory because it had reached its limit.
    #[must_use]
    pub fn has_refused_memory(&self) -> bool {
        self.refused_memory.load(Ordering::Relaxed)
    }

    pub(crate) fn refuse_memory(&self) {
        self.refused_memory.store(true, Ordering::Relaxed);
    }

    /// A run begins on this thread, and ends when this is dropped, on the same one.
    pub(crate) fn run(meter: &Arc<Self>) -> Running {
        let clock = ThreadClock::own();
        let run = Run { clock, before: clock.now().unwrap_or_default(), inside_ns: Arc::default() };
        let outside = INSIDE.replace(Some(Arc::clone(&run.inside_ns)));
        let meter = Arc::clone(meter);
        let mut live = meter.live();
        let id = live.next;
        live.next += 1;
        live.runs.insert(id, run.clone());
        drop(live);
        Running { meter, id, run, outside }
    }

    /// A linear memory is there until this is dropped.
    pub(crate) fn hold(meter: &Arc<Self>, addr: usize, len: usize) -> Holding {
        let meter = Arc::clone(meter);
        let mut memories = meter.memories();
        let id = memories.next;
        memories.next += 1;
        memories.live.insert(id, (addr, len));
        drop(memories);
        Holding { meter, id }
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        // No code that can panic runs under the lock, so a poisoned one is still in order.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn memories(&self) -> MutexGuard<'_, Memories> {
        // As above.
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run that is under way.
#[derive(Debug)]
pub(crate) struct Running {
    meter: Arc<Meter>,
    id: u64,
    run: Run,
    /// What [`INSIDE`] is for the run around this one.
    outside: Option<Arc<AtomicU64>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let (whole, own) = (self.run.whole_ns(), self.run.own_ns());
        if let Some(outside) = &self.outside {
            outside.fetch_add(whole, Ordering::Relaxed);
        }
        INSIDE.set(self.outside.take());
        let mut live = self.meter.live();
        live.runs.remove(&self.id);
        self.meter.spent_ns.fetch_add(own, Ordering::Relaxed);
    }
}

/// A linear memory that is there.
#[derive(Debug)]
pub(crate) struct Holding {
    meter: Arc<Meter>,
    id: u64,
}

impl Holding {
    /// It has grown to so many bytes.
    pub(crate) fn grow(&self, len: usize) {
        if let Some(memory) = self.meter.memories().live.get_mut(&self.id) {
            memory.1 = len;
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.meter.memories().live.remove(&self.id);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use roadrunner_sys::thread_cpu_time;

    fn work(least: Duration) {
        let until = thread_cpu_time() + least;
        while thread_cpu_time() < until {}
    }

    #[test]
    fn each_run_is_charged_with_its_own_time() {
        let (outer, inner) = (Arc::new(Meter::default()), Arc::new(Meter::default()));
        let start = thread_cpu_time();
        let run = Meter::run(&outer);
        work(Duration::from_millis(2));
        let inside = Meter::run(&inner);
        work(Duration::from_millis(30));
        assert!(inner.usage().cpu >= Duration::from_millis(30), "while it runs");
        drop(inside);
        work(Duration::from_millis(2));
        drop(run);
        let (whole, inner) = (thread_cpu_time() - start, inner.usage().cpu);
        // It was asked while the inner one did not run, so nothing of that was told for it.
        let outer = outer.usage().cpu;
        assert!(inner >= Duration::from_millis(30) && outer >= Duration::from_millis(4));
        assert!(outer + inner <= whole, "{outer:?} and {inner:?} are more than {whole:?}");
    }

    #[test]
    fn time_never_runs_backwards() {
        let (outer, inner) = (Arc::new(Meter::default()), Arc::new(Meter::default()));
        let run = Meter::run(&outer);
        let inside = Meter::run(&inner);
        work(Duration::from_millis(10));
        // Too much, since a call inside is not over.
        let early = outer.usage().cpu;
        drop(inside);
        assert!(outer.usage().cpu >= early);
        drop(run);
        assert_eq!(outer.usage().cpu, early);
    }
}
