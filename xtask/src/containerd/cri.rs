//! Pods as Kubernetes has them: through containerd's CRI plugin, with the requests that a kubelet makes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::daemon::{Daemon, KUBERNETES, success};
use super::functions::{CHAIN, IMAGE};
use super::{PROGRAM, functions, outcome};

/// What asks, in place of a kubelet.
pub(super) struct Kubelet<'d> {
    pub(super) daemon: &'d Daemon,
    /// The namespace of its pods.
    pub(super) namespace: &'static str,
}

/// A pod that was started.
pub(super) struct Pod {
    pub(super) id: String,
    name: String,
    annotations: Vec<String>,
}

/// A container that is to be made.
#[derive(Default)]
pub(super) struct Container<'c> {
    pub(super) name: &'c str,
    pub(super) image: &'c str,
    pub(super) command: &'c [&'c str],
    /// Further options of the client.
    pub(super) options: &'c [&'c str],
}

impl<'d> Kubelet<'d> {
    pub(super) fn new(daemon: &'d Daemon) -> Self {
        Self { daemon, namespace: "default" }
    }

    fn client(&self, words: &[&str]) -> Command {
        let mut client = self.daemon.inside(&self.daemon.folder().join("cri-client"));
        client.arg("--socket").arg(self.daemon.socket()).args(words);
        client
    }

    /// One request; gives the answer's line.
    pub(super) fn ask(&self, words: &[&str]) -> Result<String> {
        Ok(success(&mut self.client(words))?.trim_end().to_owned())
    }

    /// One that is to be refused; gives why.
    pub(super) fn refused(&self, words: &[&str]) -> Result<String> {
        let (said, why, code) = outcome(&mut self.client(words))?;
        ensure!(code != 0, "{words:?} was not refused: {said}");
        Ok(why)
    }

    fn logs(&self, pod: &str) -> PathBuf {
        self.daemon.folder().join("logs").join(pod)
    }

    /// What a pod is called and has, as each request about it says it again.
    fn described(&self, name: &str, annotations: &[String]) -> Vec<String> {
        let logs = self.logs(name).display().to_string();
        let cgroup = format!("/{}", self.daemon.namespace());
        let mut words =
            ["--name", name, "--logs", &logs, "--cgroup", &cgroup, "--namespace", self.namespace]
                .map(String::from)
                .to_vec();
        for annotation in annotations {
            words.extend(["--annotation".into(), format!("dev.roadrunner/{annotation}")]);
        }
        words
    }

    /// Starts a pod with these annotations of ours.
    pub(super) fn run(&self, name: &str, annotations: &[String]) -> Result<Pod> {
        fs::create_dir_all(self.logs(name))?;
        let described = self.described(name, annotations);
        let mut words = vec!["run-pod", "--handler", "roadrunner"];
        words.extend(described.iter().map(String::as_str));
        let id = self.ask(&words)?;
        Ok(Pod { id, name: name.to_owned(), annotations: annotations.to_vec() })
    }

    /// Makes a container of a pod, and gives its identifier.
    pub(super) fn create(&self, pod: &Pod, container: &Container<'_>) -> Result<String> {
        let described = self.described(&pod.name, &pod.annotations);
        let Container { name, image, command, options } = *container;
        let mut words = vec!["create", &pod.id, "--container", name, "--image", image];
        words.extend(described.iter().map(String::as_str));
        words.extend(options.iter().chain(&["--"]).chain(command));
        self.ask(&words)
    }

    /// Makes and starts one.
    pub(super) fn start(&self, pod: &Pod, container: &Container<'_>) -> Result<String> {
        let id = self.create(pod, container)?;
        self.ask(&["start", &id])?;
        Ok(id)
    }

    /// Waits until a container has ended, and gives its status.
    pub(super) fn ended(&self, id: &str) -> Result<String> {
        let mut status = String::new();
        self.daemon.wait_until("the container ends", || {
            status = self.ask(&["status", id])?;
            Ok(status.starts_with("exited"))
        })?;
        Ok(status)
    }

    /// Processor time in nanoseconds and memory in bytes that a pod or container uses.
    pub(super) fn usage(&self, request: &str, id: &str) -> Result<(u64, u64)> {
        let said = self.ask(&[request, id])?;
        let numbers = said
            .split_once(' ')
            .and_then(|(cpu, memory)| Some((cpu.parse().ok()?, memory.parse().ok()?)));
        numbers.with_context(|| format!("{request} said {said:?}"))
    }

    /// What stands in the log of a container.
    pub(super) fn log(&self, pod: &Pod, container: &str) -> Result<String> {
        Ok(fs::read_to_string(self.logs(&pod.name).join(format!("{container}.log")))?)
    }

    /// Ends a pod and removes it.
    pub(super) fn end(&self, pod: &Pod) -> Result<()> {
        self.ask(&["stop-pod", &pod.id])?;
        ensure!(self.ask(&["pod-status", &pod.id])?.starts_with("notready"), "it runs on");
        self.ask(&["remove-pod", &pod.id]).map(drop)
    }

    /// The directory of the functions of its namespace.
    pub(super) fn registry(&self) -> PathBuf {
        let of = format!("of-{}", self.namespace);
        self.daemon.registries().join(KUBERNETES).join(of).join("functions")
    }
}

/// The annotations of a pod whose containers are the chain's functions.
fn chain() -> Vec<String> {
    let functions = CHAIN.iter().map(|(name, _)| format!("function.{name}={name}"));
    let nexts = CHAIN.iter().filter(|(_, next)| !next.is_empty());
    functions.chain(nexts.map(|(name, next)| format!("next.{name}={next}"))).collect()
}

/// The demo's three functions and a command in one pod: states, log files, statistics, network and control group.
pub(super) fn a_pod(daemon: &Daemon) -> Result<()> {
    let kubelet = Kubelet::new(daemon);
    let pod = kubelet.run("chain", &chain())?;
    let status = kubelet.ask(&["pod-status", &pod.id])?;
    ensure!(status.starts_with("ready 10.66."), "{status}");
    let mut ids = Vec::new();
    for (name, _) in CHAIN {
        let command = format!("/{name}.wasm");
        let container =
            Container { name, image: IMAGE, command: &[&command], ..Container::default() };
        let id = kubelet.create(&pod, &container)?;
        ensure!(kubelet.ask(&["status", &id])?.starts_with("created"), "{name} is not made");
        kubelet.ask(&["start", &id])?;
        ensure!(kubelet.ask(&["status", &id])?.starts_with("running"), "{name} does not run");
        ids.push(id);
    }
    let shims = daemon.shims()?;
    let [shim] = shims[..] else { anyhow::bail!("one pod is the processes {shims:?}") };
    is_where_its_pod_is(daemon, shim, &pod)?;

    let before = kubelet.usage("stats", &ids[0])?;
    for _ in 0..3 {
        let (said, code) = functions::invoke_at(daemon, &kubelet.registry())?;
        ensure!(code == 0, "{said}");
    }
    let after = kubelet.usage("stats", &ids[0])?;
    ensure!(
        after.0 > before.0 + 1_000_000,
        "decoding took no processor time: {before:?}, {after:?}"
    );
    let log = kubelet.log(&pod, "decode")?;
    let hop = "stderr F hop decode -> resize: user, ";
    ensure!(log.matches(hop).count() == 3, "not 3 times {hop:?} in:\n{log}");
    // The pod's own container has what the process needs besides its guests, and the group has all of it.
    let (cpu, memory) = kubelet.usage("pod-stats", &pod.id)?;
    ensure!(cpu > 0 && memory > 1 << 20, "the pod uses {cpu} ns and {memory} bytes");

    kubelet.ask(&["stop", &ids[2], "--timeout", "1"])?;
    let status = kubelet.ended(&ids[2])?;
    ensure!(status.starts_with("exited 143 Error"), "{status}");
    ensure!(!kubelet.registry().join("encode").exists(), "who ended is found");
    let (said, code) = functions::invoke_at(daemon, &kubelet.registry())?;
    ensure!(code != 0 && said.contains("encode"), "{code}: {said}");
    let log = kubelet.log(&pod, "decode")?;
    ensure!(log.contains("a call of decode failed: ") && log.contains("encode"), "{log}");
    kubelet.ask(&["remove", &ids[2]])?;
    kubelet.end(&pod)
}

/// Whether a pod's process is in its network namespace and control group.
fn is_where_its_pod_is(daemon: &Daemon, shim: u32, pod: &Pod) -> Result<()> {
    let network = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net"));
    let containerd = daemon.processes()?.first().context("nothing runs")?.0;
    ensure!(network(shim)? != network(containerd)?, "the pod is in the host's network");
    let groups = fs::read_to_string(format!("/proc/{shim}/cgroup"))?;
    let own = format!("/{}/{}", daemon.namespace(), pod.id);
    let counted = |line: &&str| line.contains(":memory:") || line.starts_with("0::");
    let mut counted = groups.lines().filter(counted);
    ensure!(counted.any(|line| line.ends_with(&own)), "the pod is in the groups\n{groups}");
    Ok(())
}

/// A command's name, arguments and options, and how its status begins and what its log has in it when it has ended.
type Case<'c> = (&'c str, &'c [&'c str], &'c [&'c str], &'c str, &'c str);

/// Commands: their ends, logs and statistics.
pub(super) fn commands(daemon: &Daemon) -> Result<()> {
    let kubelet = Kubelet::new(daemon);
    let pod = kubelet.run("commands", &[])?;
    let host = daemon.folder().join("seen");
    fs::create_dir_all(&host)?;
    fs::write(host.join("input"), "of the host\n")?;
    let mount = format!("{}=/data", host.display());
    let cases: [Case<'_>; 5] = [
        (
            "say",
            &["say", "a b"],
            &["--env", "QUALITY=85"],
            "exited 0 Completed",
            "stdout F QUALITY: Some(\"85\")",
        ),
        (
            "read",
            &["read", "/data/input"],
            &["--mount", &mount],
            "exited 0 Completed",
            "stdout F of the host",
        ),
        ("exit", &["exit", "3"], &[], "exited 3 Error", "stderr F leaving with 3"),
        ("trap", &["trap"], &[], "exited 134 Error", "unreachable"),
        (
            "fill",
            &["fill"],
            &["--memory", "67108864"],
            "exited 134 OOMKilled",
            "its limit is 67108864 bytes",
        ),
    ];
    for (name, args, options, ended, logged) in cases {
        let command = [&["/program.wasm"], args].concat();
        let container = Container { name, image: PROGRAM, command: &command, options };
        let id = kubelet.start(&pod, &container)?;
        let status = kubelet.ended(&id)?;
        ensure!(status.starts_with(ended), "{name}: {status}");
        let log = kubelet.log(&pod, name)?;
        ensure!(log.contains(logged), "{name} logged {log:?}");
    }
    let spin = Container {
        name: "spin",
        image: PROGRAM,
        command: &["/program.wasm", "spin"],
        ..Container::default()
    };
    let id = kubelet.start(&pod, &spin)?;
    daemon.wait_until("a busy container uses 20 ms and a page", || {
        let (cpu, memory) = kubelet.usage("stats", &id)?;
        Ok(cpu > 20_000_000 && memory >= 4096)
    })?;
    // Asked to end, which it can't refuse.
    kubelet.ask(&["stop", &id])?;
    let status = kubelet.ended(&id)?;
    ensure!(status.starts_with("exited 143"), "{status}");
    kubelet.end(&pod)
}

/// What can't run or be served: the container's status says what and why.
pub(super) fn refusals(daemon: &Daemon) -> Result<()> {
    let kubelet = Kubelet::new(daemon);
    let cases: [(&[&str], &str, &str); 5] = [
        (&["function.it=Decode"], "/decode.wasm", "has the name"),
        (&["nxet.it=a"], "/decode.wasm", "there is no annotation"),
        (&["function.it=decode", "memory.it=many"], "/decode.wasm", "size"),
        (&["function.it=decode"], "/none.wasm", "has no entry point /none.wasm"),
        (&[], "/decode.wasm", "takes payloads and is no command"),
    ];
    for (at, (annotations, entry, expected)) in cases.into_iter().enumerate() {
        let annotations: Vec<String> = annotations.iter().map(ToString::to_string).collect();
        let pod = kubelet.run(&format!("refused-{at}"), &annotations)?;
        let it = Container { name: "it", image: IMAGE, command: &[entry], ..Container::default() };
        let id = kubelet.create(&pod, &it)?;
        let said = kubelet.refused(&["start", &id]);
        if let Ok(said) = &said {
            ensure!(said.contains(expected), "{entry}: {said}");
            let status = kubelet.ask(&["status", &id])?;
            let why = status.starts_with("exited 128 StartError") && status.contains(expected);
            ensure!(why, "{entry}: {status}");
        } else {
            // A module that can't be run is found out when it runs.
            let status = kubelet.ended(&id)?;
            ensure!(status.starts_with("exited 134"), "{entry}: {status}");
            let log = kubelet.log(&pod, "it")?;
            ensure!(log.contains(expected), "{entry}: {log}");
        }
        kubelet.end(&pod)?;
    }
    Ok(())
}

/// Functions of another namespace are not found, and one that may not have the memory that it takes fails its call.
pub(super) fn limits(daemon: &Daemon) -> Result<()> {
    let (ours, theirs) = (Kubelet::new(daemon), Kubelet { daemon, namespace: "other" });
    let it = |entry| Container { name: "it", image: IMAGE, command: entry, options: &[] };
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let decode = ours.run("decode", &words(&["function.it=decode", "next.it=resize"]))?;
    ours.start(&decode, &it(&["/decode.wasm"]))?;
    let resize = theirs.run("resize", &words(&["function.it=resize"]))?;
    theirs.start(&resize, &it(&["/resize.wasm"]))?;
    ensure!(theirs.registry().join("resize").exists(), "nobody serves it");
    let (said, code) = functions::invoke_at(daemon, &ours.registry())?;
    ensure!(code != 0 && said.contains("nobody serves the function resize"), "{code}: {said}");
    // Both may have functions of one name.
    let own = ours.run("own", &words(&["function.it=resize", "next.it=keeps"]))?;
    ours.start(&own, &it(&["/resize.wasm"]))?;
    let keeps = ours.run("keeps", &words(&["function.it=keeps", "memory.it=2 MiB"]))?;
    let program = Container {
        name: "it",
        image: PROGRAM,
        command: &["/program.wasm"],
        options: &["--env", "TASK=fill"],
    };
    ours.start(&keeps, &program)?;
    let (said, code) = functions::invoke_at(daemon, &ours.registry())?;
    ensure!(
        code != 0 && said.contains("keeps") && said.contains("memory allocation"),
        "{code}: {said}"
    );
    let log = ours.log(&keeps, "it")?;
    let logged = log.contains("a call of keeps failed: ") && log.contains("memory allocation");
    ensure!(logged, "it logged {log}");
    for pod in [&keeps, &own, &decode] {
        ours.end(pod)?;
    }
    theirs.end(&resize)
}
