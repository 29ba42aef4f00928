//! Processes of a system under test: in its control group, in a network namespace where there is one, and gone when
//! their value is.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::cgroup::Cgroup;
use crate::hosts::Host;

/// How often somebody who waits looks whether to stop.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// Time that a process has to end after its stdin did.
const PARTING: Duration = Duration::from_secs(3);

/// Enters the groups whose doors come before `--`, and becomes what comes after it.
const ENTER: &str =
    r#"while [ "$1" != -- ]; do echo $$ > "$1" || exit 1; shift; done; shift; exec "$@""#;

/// A command line in a group and on a host. It ends with the process that starts it.
#[must_use]
pub(crate) fn command<S: AsRef<OsStr>>(
    group: Option<&Cgroup>,
    host: Option<&Host>,
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = S>,
) -> Command {
    let mut words: Vec<OsString> = Vec::new();
    words.extend(group.into_iter().flat_map(Cgroup::doors).map(OsString::from));
    words.push("--".into());
    if let Some(host) = host {
        words.extend([
            "nsenter".into(),
            "--net".into(),
            "--target".into(),
            host.pid().to_string().into(),
            "--".into(),
        ]);
    }
    words.extend(["setpriv".into(), "--pdeathsig".into(), "KILL".into(), program.as_ref().into()]);
    let mut command = Command::new("sh");
    command.args(["-c", ENTER, "sh"]).args(words).args(args);
    // A terminal's Ctrl-C is for the harness, which ends them in order.
    command.process_group(0);
    command
}

/// A process that speaks in lines.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    /// Starts it. `name` is for messages.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn start(name: &str, mut command: Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (to, lines) = channel();
        std::thread::spawn(move || {
            let lines = stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines());
            for line in lines.map_while(Result::ok) {
                // Nobody listens any more when it is being ended.
                let _ = to.send(line);
            }
        });
        Ok(Self { name: name.to_owned(), child, stdin, lines })
    }

    /// What it says next.
    ///
    /// # Errors
    /// When it ends, says nothing for so long, or it is time to stop.
    pub(crate) fn line(&mut self, within: Duration, stop: &AtomicBool) -> io::Result<String> {
        let until = Instant::now() + within;
        loop {
            match self.lines.recv_timeout(LOOK) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait()?;
                    return Err(io::Error::other(format!("{} ended ({status})", self.name)));
                }
                Err(RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() >= until => {
                    let seconds = within.as_secs();
                    return Err(io::Error::other(format!(
                        "{} took longer than {seconds} s",
                        self.name
                    )));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Says something to it.
    ///
    /// # Errors
    /// When it does not listen any more.
    pub(crate) fn say(&mut self, line: &str) -> io::Result<()> {
        match &mut self.stdin {
            Some(stdin) => writeln!(stdin, "{line}"),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let until = Instant::now() + PARTING;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_and_an_end_is_said() {
        let never = AtomicBool::new(false);
        let mut cat = Process::start("cat", command(None, None, "head", ["-n1"])).unwrap();
        cat.say("hello there").unwrap();
        assert_eq!(cat.line(Duration::from_secs(60), &never).unwrap(), "hello there");
        let error = cat.line(Duration::from_secs(60), &never).unwrap_err().to_string();
        assert!(error.starts_with("cat ended"), "{error}");
    }

    #[test]
    fn nobody_waits_for_ever() {
        let mut cat = Process::start("cat", command(None, None, "cat", [""; 0])).unwrap();
        let error = cat.line(Duration::ZERO, &AtomicBool::new(false)).unwrap_err().to_string();
        assert_eq!(error, "cat took longer than 0 s");
        let error = cat.line(Duration::from_secs(60), &AtomicBool::new(true)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    }
}
