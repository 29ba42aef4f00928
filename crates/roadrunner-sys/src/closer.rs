//! Closes descriptors that other processes made, beside those who have calls to answer.
//!
//! `close` of a file asks the file system, which may be the sender's own (FUSE) and never answer; of
//! a TCP socket that lingers it waits for the sender's peer. So a descriptor that nobody here made is
//! closed by a thread that nobody waits for, unless the kernel has said that it is a memfd.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Descriptors that may wait to be closed before no more are taken from anybody: as many as one
/// message brings, and a quarter of what a process may usually open (`ulimit -n` is 1024).
const WAITING: usize = 256;

static CLOSER: Closer = Closer::new();

/// Closes descriptors of unknown make aside; whoever calls this doesn't wait for it.
///
/// A thread is there only while descriptors are. Where one is never done, those behind it wait for
/// ever, and [`crate::receive_with_descriptors`] takes no more once there are too many.
pub fn close_aside(fds: impl IntoIterator<Item = OwnedFd>) {
    CLOSER.close(fds.into_iter().collect());
}

/// Whether descriptors that come can be closed again.
pub(crate) fn keeps_up() -> bool {
    CLOSER.keeps_up()
}

/// A queue and the thread that empties it.
struct Closer(Mutex<State>);

struct State {
    waiting: Vec<OwnedFd>,
    /// A thread closes what waits.
    running: bool,
}

impl Closer {
    const fn new() -> Self {
        Self(Mutex::new(State { waiting: Vec::new(), running: false }))
    }

    fn close(&'static self, fds: Vec<OwnedFd>) {
        if fds.is_empty() {
            return;
        }
        let mut state = self.lock();
        state.waiting.extend(fds);
        if std::mem::replace(&mut state.running, true) {
            return;
        }
        drop(state);
        if crate::spawn("roadrunner-closer", || while self.close_next() {}).is_err() {
            // They wait until a thread can be started for those that come next.
            self.lock().running = false;
        }
    }

    /// Closes one, and says whether there may be another.
    fn close_next(&self) -> bool {
        let mut state = self.lock();
        let next = state.waiting.pop();
        state.running = next.is_some();
        // Not while the lock is held: this is what may take for ever.
        drop(state);
        next.is_some()
    }

    fn keeps_up(&self) -> bool {
        self.lock().waiting.len() < WAITING
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock, so a poisoned one is still in order.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptors::{eventually, lingering, of_same_file};
    use std::io;
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    #[test]
    fn nobody_waits_for_a_descriptor_that_lingers() {
        static CLOSER: Closer = Closer::new();
        let (end, start) = io::pipe().unwrap();
        drop(start);
        let copy = || end.as_fd().try_clone_to_owned().unwrap();
        let (slow, peer) = lingering();
        let since = Instant::now();
        CLOSER.close(vec![slow]);
        eventually(|| CLOSER.lock().waiting.is_empty());
        for _ in 0..WAITING - 1 {
            CLOSER.close(vec![copy()]);
        }
        assert!(CLOSER.keeps_up());
        CLOSER.close(vec![copy()]);
        assert!(!CLOSER.keeps_up(), "those behind it wait");
        assert!(since.elapsed() < Duration::from_secs(10));
        drop(peer);
        eventually(|| CLOSER.keeps_up());
        eventually(|| of_same_file(end.as_fd()) == 1);
        eventually(|| !CLOSER.lock().running);
        CLOSER.close(vec![copy()]);
        eventually(|| of_same_file(end.as_fd()) == 1);
    }
}
