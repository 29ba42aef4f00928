//! What is killed: a pod while it has a payload, and containerd itself.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::cri::{Container, Kubelet};
use super::daemon::{Daemon, success};
use super::functions::{CHAIN, IMAGE, invoke_at};
use super::{PROGRAM, outcome};

/// Bytes of the payload that a pod has when it is killed.
const PAYLOAD: u64 = 128 << 20;

/// Most time until a caller hears that the pod is gone: a fraction of the function's own, which would end the call too.
const SOON: Duration = Duration::from_secs(20);

fn kill(pid: u32) -> Result<()> {
    success(Command::new("kill").args(["-9", &pid.to_string()])).map(drop)
}

/// A pod is killed that has a large payload and works on it: its caller gets an error, and the next call another one.
pub(super) fn pod(daemon: &Daemon) -> Result<()> {
    let kubelet = Kubelet::new(daemon);
    let annotations = |name: &str, more: &[&str]| -> Vec<String> {
        let function = format!("function.it={name}");
        std::iter::once(function).chain(more.iter().map(ToString::to_string)).collect()
    };
    let it =
        |task| Container { name: "it", image: PROGRAM, command: &["/program.wasm"], options: task };
    let first = kubelet.run("first", &annotations("first", &["next.it=keeps"]))?;
    kubelet.start(&first, &it(&["--env", "TASK=cat"]))?;
    let before = daemon.shims()?;
    let keeps =
        kubelet.run("keeps", &annotations("keeps", &["timeout.it=10m", "memory.it=1 GiB"]))?;
    let id = kubelet.start(&keeps, &it(&["--env", "TASK=keep"]))?;
    let shims = daemon.shims()?;
    let shim = *shims.iter().find(|pid| !before.contains(pid)).context("it has no process")?;

    let payload = daemon.folder().join("payload");
    File::create(&payload)?.set_len(PAYLOAD)?;
    let socket = super::functions::socket(&kubelet.registry().join("first"))?;
    let mut call = daemon.inside(&daemon.folder().join("roadrunner"));
    call.args(["invoke", "first+", "--socket", &socket, "--input"]).arg(&payload);
    let mut call = call.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    daemon.wait_until("the payload is there", || {
        if let Some(ended) = call.try_wait()? {
            let said = std::io::read_to_string(call.stderr.take().context("it was asked for")?)?;
            anyhow::bail!("the call ended before anything was killed: {ended}: {said}");
        }
        Ok(kubelet.usage("stats", &id)?.1 > PAYLOAD)
    })?;
    kill(shim)?;
    let since = Instant::now();
    let ended = call.wait_with_output()?;
    let (took, said) = (since.elapsed(), String::from_utf8_lossy(&ended.stderr).into_owned());
    ensure!(!ended.status.success() && said.contains("keeps"), "{}: {said}", ended.status);
    ensure!(took < SOON, "the caller waited for {took:?}");
    let status = kubelet.ended(&id)?;
    // containerd has 137 from the shim's clean-up and 255 where it gave up waiting before.
    let codes = ["exited 137 Error", "exited 255 Error"];
    ensure!(codes.iter().any(|code| status.starts_with(code)), "{status}");
    daemon.wait_until("its entry is removed", || Ok(!kubelet.registry().join("keeps").exists()))?;
    let mut again = daemon.inside(&daemon.folder().join("roadrunner"));
    again.args(["invoke", "first+", "--socket", &socket, "--input"]).arg(&payload);
    let (_, said, code) = outcome(&mut again)?;
    ensure!(code != 0 && said.contains("nobody serves the function keeps"), "{code}: {said}");
    kubelet.end(&keeps)?;
    kubelet.end(&first)
}

/// containerd is killed and started again: pods run on, their functions are called meanwhile, and all is found again.
pub(super) fn containerd(daemon: &Daemon) -> Result<()> {
    let kubelet = Kubelet::new(daemon);
    let functions = CHAIN.iter().map(|(name, _)| format!("function.{name}={name}"));
    let nexts = CHAIN.iter().filter(|(_, next)| !next.is_empty());
    let nexts = nexts.map(|(name, next)| format!("next.{name}={next}"));
    let pod = kubelet.run("survives", &functions.chain(nexts).collect::<Vec<_>>())?;
    for (name, _) in CHAIN {
        let command = format!("/{name}.wasm");
        let options = &[];
        kubelet.start(&pod, &Container { name, image: IMAGE, command: &[&command], options })?;
    }
    let program = |name, command| Container { name, image: PROGRAM, command, options: &[] };
    let sleep = kubelet.start(&pod, &program("sleep", &["/program.wasm", "sleep"]))?;
    let nap = kubelet.start(&pod, &program("nap", &["/program.wasm", "nap", "3000", "7"]))?;
    let shims = daemon.shims()?;
    let status = kubelet.ask(&["status", &nap])?;
    ensure!(status.starts_with("running"), "it is over too early to show anything: {status}");

    kill(daemon.containerd()?)?;
    let (said, code) = invoke_at(daemon, &kubelet.registry())?;
    ensure!(code == 0, "without containerd: {said}");
    // It ends while nobody is there to be told.
    thread::sleep(Duration::from_millis(3500));
    ensure!(daemon.shims()? == shims, "pods went with containerd");
    daemon.start_containerd()?;

    // Its CRI plugin begins after itself.
    daemon.wait_until("the pod is found again", || {
        let status = kubelet.ask(&["pod-status", &pod.id]);
        Ok(status.is_ok_and(|status| status.starts_with("ready 10.66.")))
    })?;
    let status = kubelet.ask(&["status", &sleep])?;
    ensure!(status.starts_with("running"), "{status}");
    let status = kubelet.ended(&nap)?;
    ensure!(status.starts_with("exited 7 "), "{status}");
    let (said, code) = invoke_at(daemon, &kubelet.registry())?;
    ensure!(code == 0, "after containerd was started again: {said}");
    ensure!(kubelet.usage("stats", &sleep)?.1 > 0, "it has no memory");
    kubelet.ask(&["stop", &sleep])?;
    let status = kubelet.ended(&sleep)?;
    ensure!(status.starts_with("exited 143"), "{status}");
    // Its logs go on too.
    daemon.wait_until("a call is in the log", || {
        let log = kubelet.log(&pod, "decode")?;
        Ok(log.matches("hop decode -> resize: user, ").count() >= 2)
    })?;
    kubelet.end(&pod)?;
    let _ = fs::remove_file(daemon.folder().join("payload"));
    Ok(())
}
