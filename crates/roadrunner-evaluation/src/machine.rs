//! `machine.json`: what the figures were measured on, and with what.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;
use serde_json::{Value, json};

use crate::Run;

/// The peers' programs and how they say their version.
const PEERS: [(&str, &[&str]); 6] = [
    ("runc", &["runc", "--version"]),
    ("redis-server", &["redis-server", "--version"]),
    ("gcc", &["gcc", "--version"]),
    ("clang", &["clang", "--version"]),
    ("node", &["node", "--version"]),
    ("rustc", &["rustc", "--version"]),
];

/// The file's name.
const FILE: &str = "machine.json";

/// Writes it; fails where the folder has results of the other mode or build.
pub(crate) fn describe(options: &Run) -> Result<()> {
    let path = options.results.join(FILE);
    let mode = options
        .mode
        .to_possible_value()
        .map_or_else(String::new, |mode| mode.get_name().to_owned());
    if let Ok(text) = fs::read_to_string(&path) {
        let earlier: Value = serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged", path.display()))?;
        for (name, now) in [("mode", &mode), ("profile", &options.profile)] {
            if earlier[name] != **now {
                bail!(
                    "{} has results of {name} {}, and this is {now}; name another folder with --results",
                    options.results.display(),
                    earlier[name]
                );
            }
        }
    }
    let text = serde_json::to_string_pretty(&description(options, &mode))? + "\n";
    fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))
}

fn description(options: &Run, mode: &str) -> Value {
    let read = |path: &str| {
        fs::read_to_string(path).map_or_else(|_| String::new(), |text| text.trim().to_owned())
    };
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or_else(String::new, |rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
    };
    let (cpus, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let kib = field(&memory, "MemTotal").trim_end_matches(" kB").parse::<u64>();
    let thp = |file| read(&format!("/sys/kernel/mm/transparent_hugepage/{file}"));
    let peers: BTreeMap<_, _> =
        PEERS.iter().filter_map(|(name, command)| Some((*name, said(command, options)?))).collect();
    json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpu": field(&cpus, "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory_bytes": kib.unwrap_or(0) * 1024,
        "thp_enabled": thp("enabled"),
        "thp_shmem_enabled": thp("shmem_enabled"),
        "mode": mode,
        "profile": options.profile,
        "date": said(&["date", "-u", "+%Y-%m-%dT%H:%M:%SZ"], options),
        "commit": said(&["git", "rev-parse", "HEAD"], options),
        "peers": peers,
    })
}

/// The first line that a program prints; nothing where there is no such program.
fn said(command: &[&str], options: &Run) -> Option<String> {
    let (program, args) = command.split_first()?;
    let own = options.target.join("tools/containerd/bin").join(program);
    let program = if own.exists() { own.as_path() } else { Path::new(program) };
    let output = Command::new(program).args(args).current_dir(&options.repository).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(str::to_owned).filter(|_| output.status.success())
}
