//! A program that runs to its end: what it prints, and how long that takes.
//!
//! What puts it into its group is not to be timed. So it can wait at a gate, in its group already, with only its own
//! `exec` before it, and the clock starts when it is let through.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use roadrunner_sys::{Ready, wait_for_any};

use crate::cgroup::Cgroup;
use crate::process::{self, LOOK};

/// Opens the file that is named first, says that it waits, and becomes what is named next once a line came, with that
/// file as its stdin.
const GATE: &str = r#"exec 3<"$1" && shift && echo gate && read -r go && exec "$@" <&3 3<&-"#;

/// What it says.
const AT_GATE: &[u8] = b"gate\n";

/// Between two looks at whether a process that has closed its files is gone; the clock has stopped by then.
const GONE: Duration = Duration::from_millis(1);

/// A command line in a group, for [`Job::reach_gate`]: the program, and what it is told.
#[must_use]
pub(crate) fn gated(group: Option<&Cgroup>, stdin: &Path, words: &[OsString]) -> Command {
    let gate = ["-c", GATE, "sh"].into_iter().map(OsStr::new);
    let words = words.iter().map(OsString::as_os_str);
    process::command(group, None, "sh", gate.chain([stdin.as_os_str()]).chain(words))
}

/// What a program said before it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    /// As text, without the ends of it that are white.
    pub(crate) stderr: String,
}

/// A program that runs. It is killed with this value.
#[derive(Debug)]
pub(crate) struct Job {
    child: Child,
    stdout: Printed,
    stderr: Printed,
    /// When it has had its time.
    until: Instant,
    within: Duration,
}

impl Job {
    /// Starts a command that gets `within` for all it does.
    ///
    /// # Errors
    /// When the kernel refuses, or there is no such program.
    pub(crate) fn start(command: &mut Command, within: Duration) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let stdout = Printed::of(child.stdout.take().map(OwnedFd::from));
        let stderr = Printed::of(child.stderr.take().map(OwnedFd::from));
        Ok(Self { child, stdout, stderr, until: Instant::now() + within, within })
    }

    /// Waits until a [`gated`] command is at its gate.
    ///
    /// # Errors
    /// When it ends before, it is time to stop, or its time is over.
    pub(crate) fn reach_gate(&mut self, stop: &AtomicBool) -> io::Result<()> {
        self.wait(stop, |job| job.stdout.bytes.ends_with(b"\n") || job.has_closed())?;
        if self.stdout.bytes != AT_GATE {
            self.wait(stop, Self::has_closed)?;
            let said = String::from_utf8_lossy(&self.stderr.bytes);
            return Err(io::Error::other(format!("it was not started: {}", said.trim())));
        }
        self.stdout.bytes.clear();
        Ok(())
    }

    /// Lets it through the gate, and says how long it ran: until it has closed its files, as the kernel does when it
    /// exits.
    ///
    /// # Errors
    /// When it is time to stop, or its time is over.
    pub(crate) fn time(&mut self, stop: &AtomicBool) -> io::Result<Duration> {
        let mut gate = self.child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let start = Instant::now();
        gate.write_all(b"\n")?;
        self.wait(stop, Self::has_closed)?;
        Ok(start.elapsed())
    }

    /// Waits for its end, and says what it printed.
    ///
    /// # Errors
    /// When it is time to stop, or its time is over.
    pub(crate) fn finish(mut self, stop: &AtomicBool) -> io::Result<Said> {
        drop(self.child.stdin.take());
        self.wait(stop, Self::has_closed)?;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            self.check(stop)?;
            std::thread::sleep(GONE);
        };
        let stdout = std::mem::take(&mut self.stdout.bytes);
        let stderr = String::from_utf8_lossy(&self.stderr.bytes).trim().to_owned();
        Ok(Said { status, stdout, stderr })
    }

    fn has_closed(&self) -> bool {
        self.stdout.pipe.is_none() && self.stderr.pipe.is_none()
    }

    fn check(&self, stop: &AtomicBool) -> io::Result<()> {
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if Instant::now() >= self.until {
            let seconds = self.within.as_secs();
            return Err(io::Error::other(format!("it took longer than {seconds} s")));
        }
        Ok(())
    }

    /// Takes what it prints, until that is enough.
    fn wait(&mut self, stop: &AtomicBool, enough: impl Fn(&Self) -> bool) -> io::Result<()> {
        while !enough(self) {
            self.check(stop)?;
            let mut open: Vec<_> = [&mut self.stdout, &mut self.stderr]
                .into_iter()
                .filter(|printed| printed.pipe.is_some())
                .collect();
            let files = open.iter().filter_map(|printed| printed.pipe.as_ref());
            let these: Vec<_> = files.map(|file| (file.as_fd(), Ready::Read)).collect();
            let ready = wait_for_any(&these, Some(LOOK))?;
            for (printed, _) in open.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
                printed.take()?;
            }
        }
        Ok(())
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // One that has been waited for is left alone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What comes out of a pipe, which is there until its end.
#[derive(Debug)]
struct Printed {
    pipe: Option<File>,
    bytes: Vec<u8>,
}

impl Printed {
    fn of(pipe: Option<OwnedFd>) -> Self {
        Self { pipe: pipe.map(File::from), bytes: Vec::new() }
    }

    /// Takes what is there, of which there is something, or the end.
    fn take(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        // As much as a pipe holds, unless told otherwise.
        let mut bytes = [0; 1 << 16];
        let count = pipe.read(&mut bytes)?;
        self.bytes.extend(bytes.iter().take(count));
        if count == 0 {
            self.pipe = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn waiting(words: &[&str], stdin: &Path, within: Duration) -> Job {
        let words: Vec<_> = words.iter().map(OsString::from).collect();
        Job::start(&mut gated(None, stdin, &words), within).unwrap()
    }

    #[test]
    fn nobody_gets_through_a_gate_that_stays_shut() {
        let (folder, never) = (tempfile::tempdir().unwrap(), AtomicBool::new(false));
        let trace = folder.path().join("trace");
        let mut job = waiting(&["touch", trace.to_str().unwrap()], Path::new("/dev/null"), LONG);
        job.reach_gate(&never).unwrap();
        assert!(!job.finish(&never).unwrap().status.success());
        assert!(!trace.exists());
    }

    #[test]
    fn a_program_gets_its_input_and_is_the_process_that_waited() {
        let (folder, never) = (tempfile::tempdir().unwrap(), AtomicBool::new(false));
        let [input, trace] = ["input", "trace"].map(|name| folder.path().join(name));
        std::fs::write(&input, "first\nsecond\n").unwrap();
        // Ends with a status and something on both outputs.
        let script = r#"cat; echo oh >&2; echo "$$" > "$1"; exit 7"#;
        let words = ["sh", "-c", script, "sh", trace.to_str().unwrap()];
        let mut job = waiting(&words, &input, LONG);
        job.reach_gate(&never).unwrap();
        let started = job.child.id();
        assert!(job.time(&never).unwrap() > Duration::ZERO);
        let said = job.finish(&never).unwrap();
        assert_eq!((said.status.code(), said.stderr.as_str()), (Some(7), "oh"));
        assert_eq!(
            said.stdout, b"first\nsecond\n",
            "the line that opens the gate is not its input"
        );
        let ran = std::fs::read_to_string(&trace).unwrap();
        assert_eq!(ran.trim(), started.to_string(), "no process is between it and the harness");
    }

    #[test]
    fn what_cannot_start_says_why() {
        let never = AtomicBool::new(false);
        let mut job = waiting(&["true"], Path::new("/nowhere/input"), LONG);
        let error = job.reach_gate(&never).unwrap_err().to_string();
        assert!(error.contains("not started") && error.contains("/nowhere/input"), "{error}");
    }

    #[test]
    fn much_is_taken_from_both_outputs() {
        let never = AtomicBool::new(false);
        let script = "head -c 300000 /dev/zero >&2; head -c 500000 /dev/zero";
        let job = Job::start(Command::new("sh").args(["-c", script]), LONG).unwrap();
        let said = job.finish(&never).unwrap();
        assert_eq!((said.stdout.len(), said.stderr.len()), (500_000, 300_000));
    }

    #[test]
    fn one_that_goes_on_is_ended() {
        let (never, now) = (AtomicBool::new(false), AtomicBool::new(true));
        let null = Path::new("/dev/null");
        let mut job = waiting(&["sleep", "1000"], null, LONG);
        job.reach_gate(&never).unwrap();
        assert_eq!(job.time(&now).unwrap_err().kind(), io::ErrorKind::Interrupted);
        let proc = Path::new("/proc").join(job.child.id().to_string());
        assert!(proc.exists());
        drop(job);
        assert!(!proc.exists());
        let sleep = Job::start(Command::new("sleep").arg("1000"), Duration::ZERO).unwrap();
        let error = sleep.finish(&never).unwrap_err().to_string();
        assert_eq!(error, "it took longer than 0 s");
    }
}
