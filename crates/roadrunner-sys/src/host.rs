//! Facts about the kernel and the machine.

use std::os::fd::BorrowedFd;
use std::sync::OnceLock;
use std::time::Duration;
use std::{fs, io};

use crate::{Ready, wait_until_ready};

/// Size of a page in bytes, as the kernel says it.
#[must_use]
pub fn page_size() -> usize {
    static PAGE: OnceLock<usize> = OnceLock::new();
    *PAGE.get_or_init(|| {
        // SAFETY: R2.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        // Linux answers this on every architecture; 4096 is right on nearly all of them.
        usize::try_from(size).unwrap_or(4096)
    })
}

/// Memory in bytes that the kernel could give without swapping (`MemAvailable`).
///
/// # Errors
/// When `/proc/meminfo` can't be read or lacks the line.
pub fn available_memory() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::other("/proc/meminfo has no MemAvailable line"))
}

/// Number of memory mappings of this process now.
///
/// # Errors
/// When `/proc/self/maps` can't be read.
pub fn map_count() -> io::Result<usize> {
    Ok(fs::read("/proc/self/maps")?.iter().filter(|byte| **byte == b'\n').count())
}

/// Number of memory mappings that the kernel grants a process (`vm.max_map_count`).
///
/// # Errors
/// When the setting can't be read.
pub fn max_map_count() -> io::Result<usize> {
    let text = fs::read_to_string("/proc/sys/vm/max_map_count")?;
    text.trim().parse().map_err(io::Error::other)
}

/// Processor time that this process has used, all its threads together.
#[must_use]
pub fn cpu_time() -> Duration {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Processor time that this thread has used, in the kernel too.
#[must_use]
pub fn thread_cpu_time() -> Duration {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Processor time that a process has used, user's and system's, all its threads together, also those
/// that have ended.
///
/// # Errors
/// When there is no such process.
pub fn cpu_time_of(pid: u32) -> io::Result<Duration> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    let mut clock = 0;
    // SAFETY: R3, the C library writes to a local.
    match unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) } {
        0 => read(clock),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// The processor time of one thread, for the other threads of its process.
#[derive(Clone, Copy, Debug)]
pub struct ThreadClock(libc::clockid_t);

impl ThreadClock {
    /// That of the calling thread.
    #[must_use]
    pub fn own() -> Self {
        /// Of a thread, not of a process, and what the scheduler counted (`CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED`
        /// of the kernel's `posix-timers.h`, which is part of its interface).
        const OF_A_THREAD: libc::clockid_t = 4 | 2;
        // SAFETY: R2.
        let thread = unsafe { libc::gettid() };
        Self((!thread << 3) | OF_A_THREAD)
    }

    /// What the thread has used so far, in the kernel too.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn now(self) -> io::Result<Duration> {
        read(self.0)
    }
}

/// A clock of this process, which is always there.
fn clock(clock: libc::clockid_t) -> Duration {
    let time = read(clock);
    debug_assert!(time.is_ok(), "Linux always has these clocks");
    time.unwrap_or_default()
}

fn read(clock: libc::clockid_t) -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: R3, the kernel writes to a local.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = Duration::from_secs(time.tv_sec.try_into().unwrap_or(0));
    Ok(seconds + Duration::from_nanos(time.tv_nsec.try_into().unwrap_or(0)))
}

/// Has the kernel end this process when its parent ends. `false` when that has happened already.
#[must_use]
pub fn end_with_parent(parent: u32) -> bool {
    let signal = libc::SIGKILL as libc::c_ulong;
    // SAFETY: R2.
    let set = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
    debug_assert_eq!(set, 0, "Linux always has this");
    std::os::unix::process::parent_id() == parent
}

/// The parent of a process; `None` where there is no such process.
#[must_use]
pub fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, the fields behind it not.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

/// Whether a process has ended, of which this is a descriptor ([`crate::peer_pidfd`]), or ends within
/// `wait`. One that nobody has waited for yet has ended too.
#[must_use]
pub fn has_ended(process: BorrowedFd<'_>, wait: Duration) -> bool {
    // pidfd_open(2): it becomes readable then. Without memory to ask the process counts as alive. A signal ends
    // the wait as an event would, so the answer is that of a look without one.
    let look = |wait| wait_until_ready(process, Ready::Read, wait).unwrap_or(false);
    look(wait) && look(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
    use std::process::{Command, Stdio};

    #[test]
    fn the_end_of_a_process_is_noticed() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        // SAFETY: R2.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
        // SAFETY: R4.
        let process = unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).unwrap()) };
        assert!(!has_ended(process.as_fd(), Duration::from_millis(20)));
        child.kill().unwrap();
        assert!(has_ended(process.as_fd(), Duration::from_secs(20)), "nobody waited for it yet");
        child.wait().unwrap();
        assert!(has_ended(process.as_fd(), Duration::ZERO));
    }

    #[test]
    fn the_time_of_a_thread_is_read_by_others_until_it_ends() {
        let (told, clock) = std::sync::mpsc::channel();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let clock = std::thread::scope(|scope| {
            scope.spawn(|| {
                told.send(ThreadClock::own()).unwrap();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let clock = clock.recv().unwrap();
            let before = clock.now().unwrap();
            while clock.now().unwrap() < before + Duration::from_millis(5) {
                std::thread::yield_now();
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            clock
        });
        // The kernel takes its number back a little after it was waited for.
        let since = std::time::Instant::now();
        while clock.now().is_ok() {
            assert!(since.elapsed() < Duration::from_secs(30), "it outlives its thread");
            std::thread::yield_now();
        }
        let own = ThreadClock::own().now().unwrap();
        assert!(own <= thread_cpu_time(), "it is the same clock");
    }

    #[test]
    fn the_time_of_processes_is_read_by_their_numbers() {
        let own = cpu_time();
        let again = cpu_time_of(std::process::id()).unwrap();
        assert!(again >= own, "{again:?} < {own:?}: it is the same clock");
        // Works until it is ended.
        let mut sh = Command::new("sh");
        let mut busy = sh.args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap();
        let before = cpu_time_of(busy.id()).unwrap();
        while cpu_time_of(busy.id()).unwrap() < before + Duration::from_millis(5) {
            std::thread::yield_now();
        }
        busy.kill().unwrap();
        busy.wait().unwrap();
        assert!(cpu_time_of(busy.id()).is_err(), "nobody has this number any more");
    }
}
