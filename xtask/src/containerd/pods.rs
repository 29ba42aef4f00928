//! Many pods: what one costs, and whether anything is left of them.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::cri::{Container, Kubelet};
use super::daemon::{Daemon, success};
use super::functions::{IMAGE, socket};
use super::shown;

/// In the suite, which has minutes: enough to see what grows with each pod or each round.
const FEW: usize = 8;
const ROUNDS: usize = 2;

/// A few pods start, are called and end, twice.
pub(super) fn a_few(daemon: &Daemon) -> Result<()> {
    many(daemon, FEW, ROUNDS)
}

/// Starts so many pods with a function each, calls each and ends them, as often as this; and looks whether anything is left
/// each time.
pub(super) fn many(daemon: &Daemon, count: usize, rounds: usize) -> Result<()> {
    // What is opened once is not what is looked for.
    round(daemon, 1)?;
    let before = state(daemon)?;
    for number in 1..=rounds {
        println!("          round {number} of {rounds}, {count} pods");
        round(daemon, count)?;
        let mut after = state(daemon)?;
        let settled = daemon.wait_until("containerd has closed what it opened", || {
            after = state(daemon)?;
            Ok(after.iter().zip(&before).all(|((_, after), (_, before))| after <= before))
        });
        settled.with_context(|| format!("before {before:?}, after round {number} {after:?}"))?;
    }
    println!("          nothing left: {before:?}");
    Ok(())
}

/// What there is of things that pods come with, by name.
fn state(daemon: &Daemon) -> Result<Vec<(&'static str, usize)>> {
    Ok(vec![
        ("processes", daemon.processes()?.len()),
        ("descriptors of containerd", daemon.descriptors()?),
        ("mounts", daemon.mounts()?),
        ("sockets, entries, groups and the like", daemon.leftovers()?.len()),
    ])
}

fn round(daemon: &Daemon, count: usize) -> Result<()> {
    let kubelet = Kubelet::new(daemon);
    let (mut pods, mut starts, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for at in 0..count {
        let (pod, function) = (format!("many-{at}"), format!("function.it=f-{at}"));
        let it = Container { name: "it", image: IMAGE, command: &["/echo.wasm"], options: &[] };
        let since = Instant::now();
        let pod = kubelet.run(&pod, &[function])?;
        let id = kubelet.start(&pod, &it)?;
        starts.push(since.elapsed());
        pods.push((pod, id));
    }
    let photo = daemon.folder().join("photo");
    let output = daemon.folder().join("echoed");
    for at in 0..count {
        let socket = socket(&kubelet.registry().join(format!("f-{at}")))?;
        let since = Instant::now();
        let mut call = daemon.inside(&daemon.folder().join("roadrunner"));
        call.args(["invoke", &format!("f-{at}"), "--socket", &socket, "--input"]).arg(&photo);
        success(call.arg("--output").arg(&output))?;
        calls.push(since.elapsed());
        ensure!(fs::read(&output)? == fs::read(&photo)?, "f-{at} gave something else");
    }
    let shims = daemon.shims()?;
    ensure!(shims.len() == count, "{count} pods are {} processes", shims.len());
    let mut memory = shims.iter().map(|pid| proportional(*pid)).collect::<Result<Vec<_>>>()?;
    let mut ends = Vec::new();
    for (pod, _) in &pods {
        let since = Instant::now();
        kubelet.end(pod)?;
        ends.push(since.elapsed());
    }
    if count > 1 {
        shown("a pod with its function started, by three requests", starts)?;
        shown("a call by a client of its own", calls)?;
        shown("a pod ended and removed, by three requests", ends)?;
        memory.sort_unstable();
        let [least, middle, most] =
            [0, count / 2, count - 1].map(|at| format!("{:.1}", f64::from(memory[at]) / 1024.0));
        println!(
            "          memory of a pod: {middle} MiB ({least} to {most}), shared pages in proportion"
        );
    }
    Ok(())
}

/// KiB of memory that a process has, those that it shares with others in proportion.
fn proportional(pid: u32) -> Result<u32> {
    let rollup = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    kib.with_context(|| format!("process {pid} has no memory in:\n{rollup}"))
}
