//! A private containerd: in mount, process and network namespaces of its own, so that nothing of it outlives it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::image::Image;
use crate::shell::Workspace;

/// Where `scripts/containerd.sh` unpacks it, from the repository's root.
pub(super) const PREFIX: &str = "target/tools/containerd";

/// Until containerd answers, or what it was asked to end has ended: seconds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Seconds that one command of a client may take.
const COMMAND_S: &str = "120";

/// containerd's namespace of Kubernetes' containers.
pub(super) const KUBERNETES: &str = "k8s.io";

/// The image of a pod's own container, which has to be there and is not run.
pub(super) const PAUSE: &str = "docker.io/e2e/pause:1";

/// A containerd with its init process.
pub(super) struct Daemon {
    unshare: Child,
    _stdin: ChildStdin,
    /// The first process of the namespaces, as seen from outside.
    init: u32,
    bin: PathBuf,
    folder: PathBuf,
    /// containerd's namespace for the containers of `ctr`, and the control group that all are below: another run on this
    /// machine has others.
    namespace: String,
    /// What waits for a containerd that was started again.
    restarted: Mutex<Vec<Child>>,
}

impl Daemon {
    /// Starts it with its files in this folder, which is emptied.
    pub(super) fn start(workspace: &Workspace, folder: PathBuf) -> Result<Self> {
        // Of an earlier run.
        let _ = fs::remove_dir_all(&folder);
        let bin = folder.join("bin");
        fs::create_dir_all(&bin)?;
        for program in fs::read_dir(workspace.root.join(PREFIX).join("bin"))? {
            let program = program?;
            std::os::unix::fs::symlink(program.path(), bin.join(program.file_name()))?;
        }
        let shim = "containerd-shim-roadrunner-v1";
        std::os::unix::fs::symlink(workspace.target.join("debug").join(shim), bin.join(shim))?;
        let config = folder.join("config.toml");
        let namespace = format!("roadrunner-e2e-{}", std::process::id());
        fs::write(&config, config_of(&folder, &workspace.root.join(PREFIX)))?;
        fs::create_dir_all(folder.join("cni"))?;
        fs::write(folder.join("cni/10.conflist"), network_of(&folder))?;
        let (unshare, stdin, init) = boot(&bin, &config, &folder)?;
        let daemon = Self {
            unshare,
            _stdin: stdin,
            init,
            bin,
            folder,
            namespace,
            restarted: Mutex::default(),
        };
        daemon.wait_until("containerd answers", || {
            Ok(daemon.ctr(&["version"]).output()?.status.success())
        })?;
        Ok(daemon)
    }

    /// `ctr` with these arguments, where this containerd is.
    pub(super) fn ctr(&self, args: &[&str]) -> Command {
        self.ctr_of(&self.namespace, args)
    }

    /// The same in another of containerd's namespaces.
    pub(super) fn ctr_of(&self, namespace: &str, args: &[&str]) -> Command {
        let mut ctr = self.inside(&self.bin.join("ctr"));
        ctr.arg("--address").arg(self.socket()).args(["--namespace", namespace]).args(args);
        ctr
    }

    /// Where it answers.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("c.sock")
    }

    /// The control group that Kubernetes' pods are in, and containerd's namespace for the others.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// containerd's namespace for what stands for a node of this name.
    pub(super) fn node(&self, name: &str) -> String {
        format!("{}-{name}", self.namespace)
    }

    /// containerd's namespaces.
    fn namespaces(&self) -> [String; 4] {
        let nodes = ["here", "there"].map(|node| self.node(node));
        let [here, there] = nodes;
        [self.namespace.clone(), KUBERNETES.into(), here, there]
    }

    /// A program that sees the files that containers' processes see, and ends in time.
    pub(super) fn inside(&self, program: &Path) -> Command {
        let mut command = Command::new("timeout");
        // Their process namespace too, as /proc is of that.
        let [mounts, processes] = [("mount", "mnt"), ("pid", "pid")]
            .map(|(name, file)| format!("--{name}=/proc/{}/ns/{file}", self.init));
        command.args(["--signal=KILL", COMMAND_S, "nsenter", &mounts, &processes]);
        command.arg(program).stdin(Stdio::null());
        command
    }

    /// The directory of the functions that pods serve, as seen from outside.
    pub(super) fn registry(&self) -> PathBuf {
        self.registry_of(&self.namespace)
    }

    /// The same of another of containerd's namespaces.
    pub(super) fn registry_of(&self, namespace: &str) -> PathBuf {
        self.registries().join(namespace).join("of/functions")
    }

    /// The directory of all such directories.
    pub(super) fn registries(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/run/roadrunner", self.init))
    }

    /// Takes an image in.
    pub(super) fn import(&self, image: &Image<'_>) -> Result<()> {
        let archive = self.folder.join("image.tar");
        fs::write(&archive, image.archive())?;
        let archive = archive.display().to_string();
        for namespace in self.namespaces() {
            success(&mut self.ctr_of(&namespace, &["image", "import", &archive]))?;
        }
        Ok(())
    }

    /// Waits until something is so.
    pub(super) fn wait_until(
        &self,
        what: &str,
        mut is_so: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let since = Instant::now();
        while !is_so()? {
            let late = since.elapsed() > PATIENCE;
            ensure!(!late, "{what}: not within {PATIENCE:?}; see {}", self.log().display());
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn log(&self) -> PathBuf {
        self.folder.join("containerd.log")
    }

    /// The command lines of the processes in its namespace, by their numbers outside.
    pub(super) fn processes(&self) -> Result<Vec<(u32, String)>> {
        let namespace =
            |pid: u32| fs::metadata(format!("/proc/{pid}/ns/pid")).ok().map(|it| it.ino());
        let own = namespace(self.init);
        let mut all = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Ok(pid) = entry?.file_name().to_string_lossy().parse() else { continue };
            // One that is gone meanwhile has no namespace.
            if namespace(pid) == own && own.is_some() {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                all.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
            }
        }
        Ok(all)
    }

    /// The shims among them.
    pub(super) fn shims(&self) -> Result<Vec<u32>> {
        let all = self.processes()?.into_iter();
        Ok(all.filter(|(_, line)| line.contains("containerd-shim-")).map(|(pid, _)| pid).collect())
    }

    /// What of containers is left: processes, mounts, sockets and directories.
    pub(super) fn leftovers(&self) -> Result<Vec<String>> {
        let mut left: Vec<String> =
            self.shims()?.iter().map(|pid| format!("the shim {pid}")).collect();
        let mounts = fs::read_to_string(format!("/proc/{}/mounts", self.init))?;
        let ours = mounts.lines().filter(|line| line.contains("/rootfs"));
        left.extend(ours.map(|line| format!("the mount {line}")));
        let state = self.folder.join("state");
        let tasks = state.join("io.containerd.runtime.v2.task");
        let tasks = self.namespaces().map(|namespace| tasks.join(namespace));
        let cri = state.join("io.containerd.grpc.v1.cri");
        let cri = ["sandboxes", "containers"].map(|dir| cri.join(dir));
        let inside = PathBuf::from(format!("/proc/{}/root", self.init));
        let run = ["run/containerd/s", "run/containerd/fifo", "run/roadrunner/pods", "run/netns"];
        let run = run.map(|dir| inside.join(dir));
        let dirs = run.into_iter().chain(tasks).chain(cri).chain(self.functions());
        for dir in dirs.chain(self.cgroups()) {
            for entry in fs::read_dir(&dir).into_iter().flatten() {
                let entry = entry?;
                // The files of a control group are its own.
                let is_file_of_group = dir.starts_with(CGROUPS) && !entry.file_type()?.is_dir();
                if !is_file_of_group {
                    left.push(entry.path().display().to_string());
                }
            }
        }
        left.extend(self.zombies()?);
        Ok(left)
    }

    /// The directories of the functions of all namespaces.
    fn functions(&self) -> impl Iterator<Item = PathBuf> {
        let entries = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().flatten();
        let of = entries(self.registries()).flat_map(move |namespace| entries(namespace.path()));
        of.map(|of| of.path().join("functions"))
    }

    /// The control groups of all pods, in each hierarchy.
    fn cgroups(&self) -> Vec<PathBuf> {
        let roots = fs::read_dir(CGROUPS).into_iter().flatten().flatten().map(|it| it.path());
        let roots: Vec<PathBuf> = roots.chain([CGROUPS.into()]).collect();
        let names = self.namespaces().into_iter().filter(|name| name != KUBERNETES);
        names.flat_map(|name| roots.iter().map(move |root| root.join(&name))).collect()
    }

    /// Processes that have ended and that nobody has waited for.
    fn zombies(&self) -> Result<Vec<String>> {
        let is_dead = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
        };
        let all = self.processes()?.into_iter().map(|(pid, _)| pid);
        Ok(all.filter(is_dead).map(|pid| format!("the dead process {pid}")).collect())
    }

    /// The number of its mounts.
    pub(super) fn mounts(&self) -> Result<usize> {
        Ok(fs::read_to_string(format!("/proc/{}/mounts", self.init))?.lines().count())
    }

    /// containerd's process.
    pub(super) fn containerd(&self) -> Result<u32> {
        let all = self.processes()?;
        let found = all.iter().find(|(_, line)| line.starts_with("containerd --config"));
        found.map(|(pid, _)| *pid).context("containerd does not run")
    }

    /// The number of descriptors that it has.
    pub(super) fn descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.containerd()?))?.count())
    }

    /// Starts it again after it was killed, and waits until it answers.
    pub(super) fn start_containerd(&self) -> Result<()> {
        let [mount, net, pid] = [("mount", "mnt"), ("net", "net"), ("pid", "pid")]
            .map(|(name, file)| format!("--{name}=/proc/{}/ns/{file}", self.init));
        let mut again = Command::new("nsenter");
        again.args([mount, net, pid]).args(["containerd", "--config"]);
        again.arg(self.folder.join("config.toml"));
        environment(&mut again, &self.bin, &self.folder);
        let log = fs::File::options().append(true).open(self.log())?;
        let again = again.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        self.restarted.lock().unwrap_or_else(PoisonError::into_inner).push(again);
        self.wait_until("containerd answers", || {
            Ok(self.ctr(&["version"]).output()?.status.success())
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Its child goes with it, and with that all of its namespaces.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        // The first process ends a little after it, and with all of its namespace.
        let (init, since) = (PathBuf::from(format!("/proc/{}", self.init)), Instant::now());
        while init.exists() && since.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(20));
        }
        for mut again in self.restarted.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..)
        {
            let _ = again.wait();
        }
        // Those are nobody's any more, and of no namespace. Where something failed pods' own are in them.
        for dir in self.cgroups() {
            let groups = fs::read_dir(&dir).into_iter().flatten().flatten();
            groups.for_each(|group| drop(fs::remove_dir(group.path())));
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Runs a client and gives what it printed; fails with what it complained of.
pub(super) fn success(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } = command.output()?;
    ensure!(status.success(), "{command:?}: {status}: {}", String::from_utf8_lossy(&stderr).trim());
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// What containerd and its shims have in their environment.
fn environment(command: &mut Command, bin: &Path, folder: &Path) {
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", bin.display()));
    // Not the one of this machine's own containers.
    command.env("ROADRUNNER_CACHE", folder.join("cache"));
}

/// Where the kernel shows control groups.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Starts containerd under a shell that collects the orphans of its namespace.
fn boot(bin: &Path, config: &Path, folder: &Path) -> Result<(Child, ChildStdin, u32)> {
    let start = "mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir /run/containerd && \
        ip link set lo up && { containerd --config \"$0\" >\"$1\" 2>&1 & } && echo up && cat";
    let mut unshare = Command::new("unshare");
    unshare.args([
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-c",
    ]);
    unshare.arg(start).arg(config).arg(folder.join("containerd.log"));
    environment(&mut unshare, bin, folder);
    let mut unshare = unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = unshare.stdin.take().context("it was asked for")?;
    let mut line = String::new();
    let mut stdout = BufReader::new(unshare.stdout.take().context("it was asked for")?);
    stdout.read_line(&mut line)?;
    ensure!(line == "up\n", "the namespaces of a containerd can't be made");
    stdin.flush()?;
    let pid = unshare.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let init = children.trim().parse().context("the namespaces have no first process")?;
    Ok((unshare, stdin, init))
}

/// Its configuration. That of CRI is what `docs/containerd.md` tells people to write.
fn config_of(folder: &Path, prefix: &Path) -> String {
    let (folder, prefix) = (folder.display(), prefix.display());
    format!(
        r#"version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs"]
[grpc]
address = "{folder}/c.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{prefix}/usr/lib/cni"
conf_dir = "{folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "roadrunner"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.roadrunner]
runtime_type = "io.containerd.roadrunner.v1"
pod_annotations = ["dev.roadrunner/*"]
container_annotations = ["dev.roadrunner/*"]
"#
    )
}

/// The network of its pods: a bridge in containerd's own network namespace.
fn network_of(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"{{"cniVersion": "0.4.0", "name": "pods", "plugins": [{{"type": "bridge", "bridge": "pods0", "isGateway": true,
"ipam": {{"type": "host-local", "dataDir": "{folder}/cni-data", "ranges": [[{{"subnet": "10.66.0.0/23"}}]]}}}}]}}"#
    )
}
