//! What containerd starts this program for, besides being a pod's process: to find or start that process, and to clean up
//! where one was killed.

use std::env;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use sha2::{Digest, Sha256};

use crate::cgroup::Cgroup;
use crate::events::timestamp;
use crate::flags::Flags;
use crate::registry;
use crate::spec::Spec;

/// Where shims listen: below the directory that containerd itself keeps for them.
const SOCKETS: &str = "/run/containerd/s";

/// The name of this runtime.
const NAME: &str = "io.containerd.roadrunner.v1";

/// The exit code of a container whose process is gone: it can only have been killed.
const KILLED: u32 = 128 + 9;

/// Times that two first containers of a pod may get into each other's way. One of them wins each time.
const ATTEMPTS: usize = 10;

/// How long a process that was killed may take to give its memory back: a GiB takes some hundred milliseconds.
const DYING: Duration = Duration::from_secs(2);

/// A request of ttrpc: length, stream 1, kind 1, no flags, and the method `y` of a service `x`, which nobody has and says so.
const QUESTION: &[u8] = b"\0\0\0\x06\0\0\0\x01\x01\0\x0a\x01x\x12\x01y";

/// Says where the container's pod listens, and starts the pod's process where there is none.
pub(crate) fn start(flags: &Flags) -> Result<()> {
    let bundle = env::current_dir().context("can't tell the container's directory")?;
    let spec = Spec::of_bundle(&bundle)?;
    let path = socket(flags, spec.pod(&flags.id));
    if !is_served(&path) {
        let _alone = alone(&path)?;
        let cgroup = spec.cgroup().map(Cgroup::named).transpose()?;
        launch(flags, &path, cgroup.as_ref())?;
    }
    let address = format!("unix://{}", path.display());
    // By this containerd finds the process when it was started again itself.
    fs::write(bundle.join("address"), &address).context("can't write the file address")?;
    print(address.as_bytes())
}

/// Whether somebody listens there.
fn is_served(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}

/// Whether a process lives that listens there. One that was killed can still be connected to until its memory is given back,
/// and whoever waits there for it is cut off then; a living one answers at once.
fn is_alive(path: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(path) else { return false };
    let asked = stream.set_read_timeout(Some(DYING)).and_then(|()| stream.write_all(QUESTION));
    match asked.and_then(|()| stream.read(&mut [0])) {
        Ok(told) => told > 0,
        // Busy, but there.
        Err(error) => [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()),
    }
}

/// Starts the pod's process. containerd can connect at once: who listens is there before who answers.
fn launch(flags: &Flags, path: &Path, cgroup: Option<&Cgroup>) -> Result<()> {
    let Some(listener) = listen(path)? else { return Ok(()) };
    let program = env::current_exe().context("can't tell where this program is")?;
    let mut command = Command::new(program);
    command.args(["-namespace", &flags.namespace, "-id", &flags.id, "-address", &flags.address]);
    if flags.debug {
        command.arg("-debug");
    }
    let spawned = command
        .arg("serve")
        .stdin(OwnedFd::from(listener))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Signals to containerd's group are not for it.
        .process_group(0)
        .spawn();
    let joined = spawned.context("can't start the pod's process").and_then(|mut process| {
        // A pod that nothing limits is none: it does not run.
        let joined = cgroup.map_or(Ok(()), |cgroup| cgroup.join(process.id()));
        joined.inspect_err(|_| {
            let _ = process.kill();
            let _ = process.wait();
            // Nobody is asked to take away what never started.
            cgroup.inspect(|cgroup| cgroup.remove());
        })?;
        Ok(())
    });
    joined.inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

/// The directory of a socket, locked while one in it is looked at and replaced or removed: who looked before somebody else bound would remove the
/// wrong one. The kernel releases it when the process ends.
fn alone(socket: &Path) -> Result<File> {
    let dir = socket.parent().unwrap_or(Path::new("/"));
    let made = fs::DirBuilder::new().recursive(true).mode(0o711).create(dir);
    made.with_context(|| format!("can't make {}", dir.display()))?;
    let locked = File::open(dir).and_then(|dir| dir.lock().map(|()| dir));
    locked.with_context(|| format!("can't lock {}", dir.display()))
}

/// Listens at a path, in place of a process that is gone. `None` where another one came first.
fn listen(path: &Path) -> Result<Option<UnixListener>> {
    for _ in 0..ATTEMPTS {
        match UnixListener::bind(path) {
            Ok(listener) => return Ok(Some(listener)),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                if is_served(path) {
                    return Ok(None);
                }
                remove(path).with_context(|| format!("can't remove {}", path.display()))?;
            }
            Err(error) => {
                return Err(error).with_context(|| format!("can't listen at {}", path.display()));
            }
        }
    }
    bail!("can't listen at {}: others come and go there", path.display())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Takes the pod's address away, for those that come later.
pub(crate) fn forget(flags: &Flags, pod: &str) {
    if let Err(error) = remove(&socket(flags, pod)) {
        tracing::warn!(%error, "can't remove the pod's socket");
    }
}

/// Where a pod listens: at a path that is its own and as short as sockets need it.
fn socket(flags: &Flags, pod: &str) -> PathBuf {
    let name = format!("{}/{}/{pod}", flags.address, flags.namespace);
    let digest: String = Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect();
    Path::new(SOCKETS).join(digest)
}

/// Cleans up after a container whose process did not: it was killed. The kernel has unmounted what it had mounted, so
/// only its socket is left.
pub(crate) fn delete(flags: &Flags) -> Result<()> {
    let bundle = if flags.bundle.as_os_str().is_empty() {
        env::current_dir().context("can't tell the container's directory")?
    } else {
        flags.bundle.clone()
    };
    // Without a configuration the container never came to be, and neither did a socket for it.
    if let Ok(spec) = Spec::of_bundle(&bundle) {
        let path = socket(flags, spec.pod(&flags.id));
        // Asked first: it may take a while, and other pods come and go.
        let lived = is_alive(&path);
        let _alone = alone(&path)?;
        if !lived && !is_served(&path) {
            remove(&path).with_context(|| format!("can't remove {}", path.display()))?;
            let dir = registry::dir(&flags.namespace, &spec);
            registry::sweep(&dir).context("can't remove the functions of a dead process")?;
            let calls = registry::socket(&dir, spec.pod(&flags.id));
            remove(&calls).with_context(|| format!("can't remove {}", calls.display()))?;
            if let Some(cgroup) = spec.cgroup() {
                Cgroup::named(cgroup)?.remove();
            }
        }
    }
    let response = DeleteResponse {
        exit_status: KILLED,
        exited_at: MessageField::some(timestamp(SystemTime::now())),
        ..DeleteResponse::default()
    };
    print(&response.write_to_bytes().context("can't encode the answer")?)
}

pub(crate) fn show_version() -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    print(format!("containerd-shim-roadrunner-v1 {version} ({NAME})\n").as_bytes())
}

pub(crate) fn show_info() -> Result<()> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let version = RuntimeVersion { version, ..RuntimeVersion::default() };
    let info = RuntimeInfo {
        name: NAME.into(),
        version: MessageField::some(version),
        ..RuntimeInfo::default()
    };
    print(&info.write_to_bytes().context("can't encode the answer")?)
}

fn print(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).context("can't answer containerd")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(namespace: &str) -> Flags {
        let (namespace, address) = (namespace.to_owned(), "/run/c.sock".to_owned());
        Flags { namespace, address, id: "id".into(), ..Flags::default() }
    }

    #[test]
    fn every_pod_has_a_socket_of_its_own() {
        let all = [("a", "pod"), ("a", "other"), ("b", "pod")]
            .map(|(namespace, pod)| socket(&flags(namespace), pod));
        assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2]);
        assert_eq!(all[0], socket(&flags("a"), "pod"));
        let longest = all[0].as_os_str().len();
        assert!(longest < 108, "{longest} bytes are more than a socket's address has room for");
    }

    #[test]
    fn one_that_is_being_killed_is_not_alive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert!(!is_alive(&path));
        let listener = UnixListener::bind(&path).unwrap();
        assert!(is_alive(&path), "it has not got round to it yet");
        let dying = std::thread::spawn(move || {
            std::thread::sleep(DYING / 4);
            drop(listener);
        });
        assert!(is_served(&path) && !is_alive(&path));
        dying.join().unwrap();
    }

    #[test]
    fn a_dead_process_gives_up_its_place_and_a_living_one_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/socket");
        drop(alone(&path).unwrap());
        let first = listen(&path).unwrap().expect("nobody was there");
        assert!(is_served(&path));
        assert!(listen(&path).unwrap().is_none(), "two listen in one place");
        drop(first);
        assert!(!is_served(&path) && path.exists());
        assert!(listen(&path).unwrap().is_some(), "the dead one keeps its place");
    }
}
