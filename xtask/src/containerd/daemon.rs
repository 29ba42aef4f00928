//! A private containerd: in mount, process and network namespaces of its own, so that nothing of it outlives it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
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

/// containerd's namespace for everything here.
const NAMESPACE: &str = "roadrunner-e2e";

/// A containerd with its init process.
pub(super) struct Daemon {
    unshare: Child,
    _stdin: ChildStdin,
    /// The first process of the namespaces, as seen from outside.
    init: u32,
    bin: PathBuf,
    folder: PathBuf,
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
        fs::write(&config, config_of(&folder))?;
        let (unshare, stdin, init) = boot(&bin, &config, &folder)?;
        let daemon = Self { unshare, _stdin: stdin, init, bin, folder };
        daemon.wait_until("containerd answers", || {
            Ok(daemon.ctr(&["version"]).output()?.status.success())
        })?;
        Ok(daemon)
    }

    /// `ctr` with these arguments, where this containerd is.
    pub(super) fn ctr(&self, args: &[&str]) -> Command {
        let mut ctr = self.inside(&self.bin.join("ctr"));
        ctr.arg("--address").arg(self.folder.join("c.sock"));
        ctr.args(["--namespace", NAMESPACE]).args(args);
        ctr
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
        let root = PathBuf::from(format!("/proc/{}/root/run/roadrunner", self.init));
        root.join(NAMESPACE).join("of/functions")
    }

    /// Takes an image in.
    pub(super) fn import(&self, image: &Image<'_>) -> Result<()> {
        let archive = self.folder.join("image.tar");
        fs::write(&archive, image.archive())?;
        let archive = archive.display().to_string();
        success(&mut self.ctr(&["image", "import", &archive])).map(drop)
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
        let tasks = self.folder.join("state/io.containerd.runtime.v2.task").join(NAMESPACE);
        let inside = PathBuf::from(format!("/proc/{}/root", self.init));
        let run = ["run/containerd/s", "run/containerd/fifo", "run/roadrunner/pods"];
        let dirs = run.map(|dir| inside.join(dir)).into_iter().chain([tasks, self.registry()]);
        for dir in dirs {
            for entry in fs::read_dir(&dir).into_iter().flatten() {
                left.push(entry?.path().display().to_string());
            }
        }
        Ok(left)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Its child goes with it, and with that all of its namespaces.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

/// Runs a client and gives what it printed; fails with what it complained of.
pub(super) fn success(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } = command.output()?;
    ensure!(status.success(), "{command:?}: {status}: {}", String::from_utf8_lossy(&stderr).trim());
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

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
    let path = std::env::var("PATH").unwrap_or_default();
    unshare.env("PATH", format!("{}:{path}", bin.display()));
    // Not the one of this machine's own containers.
    unshare.env("ROADRUNNER_CACHE", folder.join("cache"));
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

fn config_of(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "version = 2\nroot = \"{folder}/root\"\nstate = \"{folder}/state\"\n\
        disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.btrfs\"]\n\
        [grpc]\naddress = \"{folder}/c.sock\"\n\
        [plugins.\"io.containerd.internal.v1.opt\"]\npath = \"{folder}/opt\"\n"
    )
}
