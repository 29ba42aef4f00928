//! What a process holds: descriptors, mappings, memory, threads and children, as the kernel says.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// How long what a fault left behind may take to go: threads end, connections close, memory is freed.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holdings {
    /// But for those of segments that are kept for their next payload, which are counted where they are.
    descriptors: usize,
    mappings: usize,
    threads: usize,
    children: usize,
    pub(crate) resident_kib: usize,
}

/// The limit on descriptors (`ulimit -n`) that leaves a process just so many: lower numbers that nobody has
/// count too.
pub(crate) fn limit_with_left(process: u32, left: u64) -> u64 {
    let folder = format!("/proc/{process}/fd");
    let look = || -> Vec<u64> {
        let open = fs::read_dir(&folder).unwrap().flatten();
        open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    };
    // What earlier faults left to close is closed first, or it would be free in a moment.
    let mut taken = look();
    for _ in 0..100 {
        thread::sleep(Duration::from_millis(5));
        let again = look();
        if again == taken {
            break;
        }
        taken = again;
    }
    // The one of the folder itself, where that is this process's.
    taken.retain(|number| fs::read_link(format!("{folder}/{number}")).is_ok());
    let free = (0..).filter(|number| !taken.contains(number));
    free.take(usize::try_from(left).unwrap() + 1).last().unwrap_or(0)
}

/// How much more of each may be there than before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Margins {
    pub(crate) mappings: usize,
    pub(crate) resident_kib: usize,
}

impl Holdings {
    /// What a process holds besides so many segments.
    pub(crate) fn of(process: u32, segments: usize) -> Self {
        let folder = format!("/proc/{process}");
        let lines = |name: &str| fs::read_to_string(format!("{folder}/{name}")).unwrap_or_default();
        let status = lines("status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let descriptors = fs::read_dir(format!("{folder}/fd")).map_or(0, Iterator::count);
        Self {
            // The one of the folder itself, where that is this process's.
            descriptors: descriptors - usize::from(process == std::process::id()) - segments,
            // One where a segment rests and one for the host's own look at it.
            mappings: lines("maps").lines().count().saturating_sub(2 * segments),
            threads: field("Threads:"),
            children: children(process).len(),
            resident_kib: field("VmRSS:"),
        }
    }

    fn within(self, before: Self, margins: Margins) -> bool {
        self.descriptors <= before.descriptors
            && self.threads <= before.threads
            && self.children <= before.children
            && self.mappings <= before.mappings + margins.mappings
            && self.resident_kib <= before.resident_kib + margins.resident_kib
    }
}

/// The processes that a process has started, and that nobody has waited for.
pub(crate) fn children(process: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|number| roadrunner_sys::parent_of(*number) == Some(process)).collect()
}

/// Waits until a process holds no more than before.
pub(crate) fn settles(
    process: u32,
    segments: impl Fn() -> usize,
    before: Holdings,
    margins: Margins,
) -> Result<Holdings, String> {
    let since = Instant::now();
    loop {
        let now = Holdings::of(process, segments());
        if now.within(before, margins) {
            return Ok(now);
        }
        if since.elapsed() > PATIENCE {
            return Err(format!(
                "left behind: {now:?}\nbefore:      {before:?}\nmargins: {margins:?}"
            ));
        }
        thread::sleep(Duration::from_millis(20));
    }
}
