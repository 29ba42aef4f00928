//! What all processes of a system use: a control group counts their processor time and their memory, pages that several
//! of them map once.
//!
//! Version 1 has a hierarchy for each, version 2 one for both. Taking them takes root; without, a run has a latency and
//! no more.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::leftovers::GROUP;
use crate::results::Outcome;

/// Until a group's last process is gone.
const EMPTY: Duration = Duration::from_secs(5);

/// Where control groups are mounted, by the Filesystem Hierarchy Standard's successors and every distribution.
pub(crate) const ROOT: &str = "/sys/fs/cgroup";

/// A group, removed with this value.
#[derive(Debug)]
pub(crate) struct Cgroup {
    cpu: PathBuf,
    memory: PathBuf,
    unified: bool,
}

/// Processor time since a group began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cpu {
    /// To the nanosecond (version 1) or microsecond.
    total: Duration,
    /// How the kernel's samples divide it: by what was running whenever the clock ticked.
    user: u64,
    kernel: u64,
}

impl Cpu {
    /// User's and kernel's part of what was used since then, in seconds. Ticks are too far apart to divide a single
    /// short run, so that is divided as all since `begin` were.
    #[must_use]
    pub(crate) fn since(self, then: Self, begin: Self) -> (f64, f64) {
        let total = self.total.saturating_sub(then.total).as_secs_f64();
        let [user, kernel] =
            [self.user - begin.user.min(self.user), self.kernel - begin.kernel.min(self.kernel)];
        #[allow(clippy::cast_precision_loss, reason = "a ratio")]
        let share = if user + kernel == 0 { 1.0 } else { user as f64 / (user + kernel) as f64 };
        (total * share, total * (1.0 - share))
    }
}

impl Cgroup {
    /// A group of this process's own.
    ///
    /// # Errors
    /// When the kernel or its permissions have none.
    pub(crate) fn new() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{GROUP}{}-{number}", std::process::id());
        let root = Path::new(ROOT);
        let unified = root.join("cgroup.controllers").exists();
        if unified {
            // Where somebody else has said so already this fails, and the files below are there.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+cpu +memory");
            let group = root.join(name);
            fs::create_dir(&group)?;
            let this = Self { cpu: group.clone(), memory: group, unified };
            fs::metadata(this.memory.join("memory.current"))?;
            return Ok(this);
        }
        let this = Self {
            cpu: root.join("cpuacct").join(&name),
            memory: root.join("memory").join(&name),
            unified,
        };
        fs::create_dir(&this.cpu)?;
        fs::create_dir(&this.memory)?;
        Ok(this)
    }

    /// Whether it counts what is started in it. With version 2 runc puts a container beside the group that runc is in,
    /// and below it with version 1.
    #[must_use]
    pub(crate) fn counts(&self, in_container: bool) -> bool {
        !(self.unified && in_container)
    }

    /// The files that a process writes its number to, to be in it.
    #[must_use]
    pub(crate) fn doors(&self) -> Vec<PathBuf> {
        let mut groups = vec![&self.cpu, &self.memory];
        groups.dedup();
        groups.into_iter().map(|group| group.join("cgroup.procs")).collect()
    }

    /// What it has used.
    ///
    /// # Errors
    /// When its files are not what they should be.
    pub(crate) fn cpu(&self) -> io::Result<Cpu> {
        if self.unified {
            let text = fs::read_to_string(self.cpu.join("cpu.stat"))?;
            let field = |name| field(&text, name);
            let (user, kernel) = (field("user_usec")?, field("system_usec")?);
            return Ok(Cpu { total: Duration::from_micros(field("usage_usec")?), user, kernel });
        }
        let read = |name| number(&self.cpu.join(name));
        let (user, kernel) = (read("cpuacct.usage_user")?, read("cpuacct.usage_sys")?);
        Ok(Cpu { total: Duration::from_nanos(read("cpuacct.usage")?), user, kernel })
    }

    /// What it has used before a run; its most memory counts from here on, where the kernel can do that.
    ///
    /// # Errors
    /// When its files are not what they should be.
    pub(crate) fn look(&self) -> io::Result<Before<'_>> {
        let (cpu, faults) = (self.cpu()?, self.faults().ok());
        Ok(Before { group: self, cpu, faults, forgot: self.forget_peak().is_ok() })
    }

    /// Page faults so far. The kernel adds them up in batches, of 64 for each processor.
    ///
    /// # Errors
    /// When its file is not what it should be.
    fn faults(&self) -> io::Result<u64> {
        let name = if self.unified { "pgfault" } else { "total_pgfault" };
        field(&fs::read_to_string(self.memory.join("memory.stat"))?, name)
    }

    /// Counts the most memory from now on.
    ///
    /// # Errors
    /// When the kernel can't, which is so before Linux 6.12 with version 2.
    fn forget_peak(&self) -> io::Result<()> {
        fs::write(self.peak_file(), "0")
    }

    /// Most memory since then, in bytes.
    ///
    /// # Errors
    /// When its file is not what it should be.
    fn peak(&self) -> io::Result<u64> {
        number(&self.peak_file())
    }

    fn peak_file(&self) -> PathBuf {
        self.memory.join(if self.unified { "memory.peak" } else { "memory.max_usage_in_bytes" })
    }
}

/// What a group had used before a run.
#[derive(Debug)]
pub(crate) struct Before<'g> {
    group: &'g Cgroup,
    cpu: Cpu,
    faults: Option<u64>,
    /// Whether the most memory counts from here on.
    forgot: bool,
}

impl Before<'_> {
    /// Notes what the run has used. User's and kernel's part are those of all since `begin`, or of the run.
    ///
    /// # Errors
    /// When the group's files are not what they should be.
    pub(crate) fn note(self, begin: Option<Cpu>, outcome: &mut Outcome) -> io::Result<()> {
        let Self { group, cpu, faults, forgot } = self;
        let (user, kernel) = group.cpu()?.since(cpu, begin.unwrap_or(cpu));
        (outcome.cpu_user_s, outcome.cpu_kernel_s) = (Some(user), Some(kernel));
        outcome.memory_peak_bytes = forgot.then(|| group.peak()).transpose()?;
        let now = group.faults().ok();
        outcome.page_faults = now.zip(faults).map(|(now, then)| now.saturating_sub(then));
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let until = Instant::now() + EMPTY;
        for group in [&self.cpu, &self.memory] {
            while fs::remove_dir(group).is_err() && group.exists() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

fn number(path: &Path) -> io::Result<u64> {
    fs::read_to_string(path)?.trim().parse().map_err(io::Error::other)
}

fn field(text: &str, name: &str) -> io::Result<u64> {
    let value =
        text.lines().filter_map(|line| line.split_once(' ')).find(|(field, _)| *field == name);
    let value = value.ok_or_else(|| io::Error::other(format!("the group has no {name}")))?;
    value.1.parse().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_divided_as_the_samples_are() {
        let at = |ms, user, kernel| Cpu { total: Duration::from_millis(ms), user, kernel };
        let (begin, then, now) = (at(0, 10, 0), at(100, 20, 0), at(200, 25, 5));
        let (user, kernel) = now.since(then, begin);
        assert!((user - 0.075).abs() < 1e-9 && (kernel - 0.025).abs() < 1e-9, "{user} {kernel}");
        assert_eq!(then.since(begin, then), (0.1, 0.0));
    }

    #[test]
    fn containers_are_counted_with_version_1_alone() {
        let group = |unified| {
            let nowhere = PathBuf::from("/nowhere");
            Cgroup { cpu: nowhere.clone(), memory: nowhere, unified }
        };
        let counts =
            |unified| [false, true].map(|in_container| group(unified).counts(in_container));
        assert_eq!([counts(false), counts(true)], [[true, true], [true, false]]);
    }

    #[test]
    fn a_group_counts_what_is_in_it_and_goes() {
        let group = match Cgroup::new() {
            Ok(group) => group,
            Err(error) => return println!("skipped: no control groups here: {error}"),
        };
        let doors = group.doors();
        let before = group.cpu().unwrap();
        let script =
            "for door; do echo $$ > $door; done; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done";
        let run = std::process::Command::new("sh").args(["-c", script, "sh"]).args(&doors).status();
        assert!(run.unwrap().success());
        let (user, kernel) = group.cpu().unwrap().since(before, before);
        assert!(user + kernel > 0.0 && group.peak().unwrap() > 0);
        group.faults().unwrap();
        drop(group);
        assert!(!doors[0].exists());
    }
}
