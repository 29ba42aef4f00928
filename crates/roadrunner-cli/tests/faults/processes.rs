//! The end of processes: brought about, and waited for.

use std::fs;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::world::{MARGIN, PLENTY};

pub(crate) fn pid(process: u32) -> Pid {
    Pid::from_raw(process.cast_signed()).unwrap()
}

pub(crate) fn kill(process: u32) {
    // Who has ended needs no killing.
    let _ = kill_process(pid(process), Signal::KILL);
}

/// Waits for a process's end, not for ever.
pub(crate) fn ends(child: &mut Child) -> Result<ExitStatus, String> {
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Ok(status);
        }
        if since.elapsed() > PLENTY + MARGIN {
            child.kill().unwrap();
            child.wait().unwrap();
            return Err("it never ended".into());
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until processes have ended. Those that nobody has waited for have: whoever did not is killed.
pub(crate) fn are_gone(processes: &[u32]) -> Result<(), String> {
    let runs = |process: &&u32| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with(['Z', 'X']))
    };
    let since = Instant::now();
    while let Some(process) = processes.iter().find(runs) {
        if since.elapsed() > MARGIN {
            return Err(format!("worker {process} goes on without its run"));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
