//! Threads, where there is room for all that they take.

use std::io;
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use crate::mapping::{reserve, unmap};
use crate::page_size;

/// Stack of a thread in bytes, as Rust's library has it.
const STACK: usize = 2 << 20;

/// Address space in bytes that a thread takes besides: its signal stack (some pages), and what C's
/// library adds to its heap for what the thread begins with (at least 132 KiB, and where there is room
/// an arena of 64 MiB).
const BESIDES: usize = 1 << 20;

/// One thread starts at a time, or two would count on the same room.
static STARTING: Mutex<()> = Mutex::new(());

/// Starts a thread with Rust's usual stack, and returns when it runs.
///
/// Rust's library ends the whole process where a thread has its stack and the kernel has no address
/// space left for its signal stack. So room for both is looked for first, and neither the calling thread nor another
/// that starts takes any before this one has it. What else runs still may.
///
/// # Errors
/// When the kernel has no address space or no thread left.
pub fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    spawn_with_stack(name, STACK, run)
}

/// As [`spawn`], with a stack of so many bytes.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_with_stack<T: Send + 'static>(
    name: &str,
    stack: usize,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let len = stack.saturating_add(BESIDES).next_multiple_of(page_size());
    let starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let room = reserve(len, page_size())?;
    // SAFETY: R1; it was mapped right above and nobody else knows of it.
    unsafe { unmap(room, len) }?;
    let runs = Arc::new(Barrier::new(2));
    let theirs = Arc::clone(&runs);
    let thread = Builder::new().name(name.into()).stack_size(stack).spawn(move || {
        theirs.wait();
        drop(theirs);
        run()
    })?;
    runs.wait();
    drop(starting);
    Ok(thread)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Limits this process's address space to so many bytes more than it has.
    fn limit(more: Option<usize>) {
        let size = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = size.split_once(' ').unwrap().0.parse().unwrap();
        let bytes = more.map_or(libc::RLIM_INFINITY, |more| (pages * page_size() + more) as u64);
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: R3.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
    }

    #[test]
    fn a_thread_without_room_is_an_error_and_not_the_end() {
        // Less than a stack, and a stack with nothing for a signal stack.
        for more in [1 << 20, STACK + 3 * page_size()] {
            limit(Some(more));
            let thread = spawn("poor", || 1);
            limit(None);
            assert_eq!(thread.unwrap_err().kind(), io::ErrorKind::OutOfMemory);
        }
        limit(Some(STACK + 3 * BESIDES));
        let thread = spawn("rich", || std::thread::current().name().map(String::from));
        limit(None);
        assert_eq!(thread.unwrap().join().unwrap().as_deref(), Some("rich"));
    }
}
