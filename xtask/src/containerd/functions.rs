//! Served functions: containers that wait for payloads and hand them on, within a pod and between pods.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::daemon::{Daemon, success};
use super::image::Image;
use super::{OURS, outcome};
use crate::shell::Workspace;

pub(super) const IMAGE: &str = "docker.io/e2e/functions:1";

/// The chain of the demo: what each function is followed by.
pub(super) const CHAIN: [(&str, &str); 3] =
    [("decode", "resize"), ("resize", "encode"), ("encode", "")];

/// Makes the image of the functions, and what `roadrunner run` makes of the photograph with them.
pub(super) fn prepare(workspace: &Workspace, daemon: &Daemon) -> Result<()> {
    let dist = workspace.root.join("guests/dist");
    let modules: Vec<String> = CHAIN
        .iter()
        .map(|(name, _)| *name)
        .chain(["echo"])
        .map(|it| format!("{it}.wasm"))
        .collect();
    let mut files = Vec::new();
    for module in &modules {
        files.push((module.as_str(), fs::read(dist.join(module))?));
    }
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, it)| (*name, it.as_slice())).collect();
    daemon.import(&Image { name: IMAGE, entry: &["/decode.wasm"], files: &files })?;
    let mut manifest = "[workflow]\nname = \"chain\"\nentry = \"decode\"\n".to_owned();
    for (name, next) in CHAIN {
        let next = if next.is_empty() { "[]".into() } else { format!("[{next:?}]") };
        let module = dist.join(format!("{name}.wasm"));
        manifest += &format!("[functions.{name}]\nmodule = {module:?}\nnext = {next}\n");
    }
    let folder = daemon.folder();
    fs::write(folder.join("chain.toml"), manifest)?;
    fs::copy(workspace.root.join("assets/astronaut.png"), folder.join("photo"))?;
    let run = workspace.command(workspace.target.join("debug/roadrunner"));
    let run = run.args(["run"]).args([folder.join("chain.toml")]).args(["--input"]);
    run.args([folder.join("photo")]).args(["--output"]).args([folder.join("expected")]).run()
}

/// Starts one function of the chain as a container.
fn serve(daemon: &Daemon, pod: &str, (name, next): (&str, &str)) -> Result<()> {
    let log = format!("file://{}", log_of(daemon, name));
    let sandbox = format!("io.kubernetes.cri.sandbox-id={pod}");
    let (function, next) =
        (format!("dev.roadrunner/function={name}"), format!("dev.roadrunner/next={next}"));
    let mut args = vec!["run", "--detach", "--runtime", OURS, "--log-uri", &log];
    args.extend(["--annotation", &sandbox, "--annotation", &function, "--annotation", &next]);
    let entry = format!("/{name}.wasm");
    args.extend([IMAGE, name, &entry]);
    success(&mut daemon.ctr(&args)).map(drop)
}

fn log_of(daemon: &Daemon, name: &str) -> String {
    daemon.folder().join(format!("{name}.log")).display().to_string()
}

fn end(daemon: &Daemon, name: &str) -> Result<()> {
    end_in(daemon, daemon.namespace(), name)
}

/// Ends a container of one of containerd's namespaces.
pub(super) fn end_in(daemon: &Daemon, namespace: &str, name: &str) -> Result<()> {
    success(&mut daemon.ctr_of(namespace, &["task", "delete", "--force", name]))?;
    success(&mut daemon.ctr_of(namespace, &["container", "rm", name])).map(drop)
}

/// Sends the photograph through the chain, and gives what the client said and its exit code.
fn invoke(daemon: &Daemon) -> Result<(String, i32)> {
    invoke_at(daemon, &daemon.registry())
}

/// Where a function takes calls, as its entry says.
pub(super) fn socket(entry: &Path) -> Result<String> {
    let text = fs::read_to_string(entry);
    let text = text.with_context(|| format!("nobody has entered {}", entry.display()))?;
    let socket = text.split("\"socket\":\"").nth(1).and_then(|rest| rest.split('"').next());
    socket.map(String::from).with_context(|| format!("an entry says no socket: {text}"))
}

/// The same by the function that stands in this registry.
pub(super) fn invoke_at(daemon: &Daemon, registry: &Path) -> Result<(String, i32)> {
    let socket = socket(&registry.join("decode"))?;
    let output = daemon.folder().join("output");
    let _ = fs::remove_file(&output);
    let roadrunner = daemon.folder().join("roadrunner");
    let mut invoke = daemon.inside(&roadrunner);
    invoke.args(["invoke", "decode+", "--socket", &socket, "--input"]);
    invoke.arg(daemon.folder().join("photo")).arg("--output").arg(&output);
    let (_, said, code) = outcome(&mut invoke)?;
    if code == 0 {
        let same = fs::read(&output)? == fs::read(daemon.folder().join("expected"))?;
        ensure!(same, "the pods make another picture than `roadrunner run`");
    }
    Ok((said, code))
}

fn chain(daemon: &Daemon, mode: &str, pod_of: impl Fn(&str) -> String) -> Result<()> {
    for function in CHAIN {
        serve(daemon, &pod_of(function.0), function)?;
    }
    // The first makes the sandboxes and maps what is mapped once.
    for _ in 0..3 {
        let (said, code) = invoke(daemon)?;
        ensure!(code == 0, "{said}");
    }
    let log = fs::read_to_string(log_of(daemon, "decode"))?;
    for (from, to) in CHAIN.iter().filter(|(_, next)| !next.is_empty()) {
        let start = format!("hop {from} -> {to}: {mode}, ");
        let hops: Vec<&str> = log.lines().filter(|line| line.starts_with(&start)).collect();
        ensure!(hops.len() == 3, "not 3 hops {start:?} in:\n{log}");
        ensure!(hops.iter().all(|hop| hop.contains("copied 0,")), "it was copied:\n{log}");
    }
    fs::remove_file(log_of(daemon, "decode"))?;
    Ok(())
}

/// Three containers of one pod: pages move.
pub(super) fn in_one_pod(daemon: &Daemon) -> Result<()> {
    chain(daemon, "user", |_| "decode".into())?;
    ensure!(daemon.shims()?.len() == 1, "one pod is several processes");
    // Backwards: the pod's own container goes last.
    CHAIN.iter().rev().try_for_each(|(name, _)| end(daemon, name))
}

/// Three pods: sealed memfds travel. One is killed, which the others survive.
pub(super) fn in_three_pods(daemon: &Daemon) -> Result<()> {
    chain(daemon, "kernel", str::to_owned)?;
    ensure!(daemon.shims()?.len() == 3, "three pods are not three processes");
    let shim = shim_of(daemon, "resize")?;
    success(std::process::Command::new("kill").args(["-9", &shim.to_string()]))?;
    daemon.wait_until("containerd knows that resize was killed", || {
        let tasks = success(&mut daemon.ctr(&["task", "ls"]))?;
        let mut lines = tasks.lines().filter(|line| line.starts_with("resize"));
        Ok(lines.next().is_none_or(|line| line.contains("STOPPED")))
    })?;
    let (said, code) = invoke(daemon)?;
    ensure!(code != 0 && said.contains("resize"), "{code}: {said}");
    let gone = || Ok(!daemon.registry().join("resize").exists());
    daemon.wait_until("the entry of a dead pod is removed", gone)?;
    let _ = daemon.ctr(&["task", "delete", "--force", "resize"]).output()?;
    success(&mut daemon.ctr(&["container", "rm", "resize"]))?;
    serve(daemon, "resize", CHAIN[1])?;
    let (said, code) = invoke(daemon)?;
    ensure!(code == 0, "after it was started again: {said}");
    CHAIN.iter().try_for_each(|(name, _)| end(daemon, name))
}

/// The process of a pod that has one container.
fn shim_of(daemon: &Daemon, id: &str) -> Result<u32> {
    let all = daemon.processes()?;
    let shim = all.iter().find(|(_, line)| {
        line.contains("containerd-shim-") && line.contains(&format!("-id {id} "))
    });
    shim.map(|(pid, _)| *pid).with_context(|| format!("container {id} has no shim: {all:?}"))
}

/// What is wrong with a function is said when its container is made or started, or to its caller.
pub(super) fn refusals(daemon: &Daemon) -> Result<()> {
    let run = |annotations: &[&str], entry: &str| {
        let mut args = vec!["run", "--detach", "--null-io", "--runtime", OURS];
        annotations.iter().for_each(|it| args.extend(["--annotation", it]));
        args.extend([IMAGE, "refused", entry]);
        let ended = outcome(&mut daemon.ctr(&args))?;
        let _ = daemon.ctr(&["task", "delete", "--force", "refused"]).output()?;
        success(&mut daemon.ctr(&["container", "rm", "refused"]))?;
        Ok::<_, anyhow::Error>(ended)
    };
    let cases: [(&[&str], &str, &str); 4] = [
        (&["dev.roadrunner/function=Decode"], "/decode.wasm", "has the name"),
        (&["dev.roadrunner/nxet=a"], "/decode.wasm", "there is no annotation"),
        (&["dev.roadrunner/function=decode"], "/none.wasm", "no entry point"),
        (&["dev.roadrunner/function=a", "dev.roadrunner/memory=many"], "/decode.wasm", "size"),
    ];
    for (annotations, entry, expected) in cases {
        let (_, said, code) = run(annotations, entry)?;
        ensure!(code != 0 && said.contains(expected), "{annotations:?}: {code}: {said}");
    }
    // One name, two pods.
    serve(daemon, "decode", CHAIN[0])?;
    let (_, said, code) = run(&["dev.roadrunner/function=decode"], "/decode.wasm")?;
    ensure!(code != 0 && said.contains("by pod decode already"), "{code}: {said}");
    // Nobody serves what comes next.
    let (said, code) = invoke(daemon)?;
    ensure!(code != 0 && said.contains("nobody serves the function resize"), "{code}: {said}");
    end(daemon, "decode")
}

/// Where the clients are: the one that calls functions, and the one in a kubelet's place.
pub(super) fn link_clients(workspace: &Workspace, folder: &Path) -> Result<()> {
    for client in ["roadrunner", "cri-client"] {
        let program = workspace.target.join("debug").join(client);
        std::os::unix::fs::symlink(program, folder.join(client))?;
    }
    Ok(())
}
