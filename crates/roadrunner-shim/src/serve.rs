//! A pod's process: it enters the pod's namespaces, takes requests until its last container is deleted, and goes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, IntoRawFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use std::{env, fs, panic};

use anyhow::{Context, Result};
use containerd_shim_protos::create_task;
use containerd_shim_protos::ttrpc::{MethodHandler, Server};
use roadrunner_runtime::{Cache, Config, Runtime};
use roadrunner_sys::{enter_network, leave_groups, open_stream, own_mounts};
use tracing_subscriber::fmt::MakeWriter;

use crate::cgroup::Cgroup;
use crate::containerd::Store;
use crate::error::Refusal;
use crate::events::Events;
use crate::flags::Flags;
use crate::launch;
use crate::service::Pod;
use crate::spec::Spec;

/// Sandboxes that one pod can have at once: a pod has a handful of containers, whose functions may be called in
/// parallel.
const SANDBOXES: u32 = 64;

/// Where compiled modules are kept for all pods of the host, unless [`CACHE_VARIABLE`] says where.
const CACHE: &str = "/var/cache/roadrunner";
const CACHE_VARIABLE: &str = "ROADRUNNER_CACHE";

/// The version of the task API that all of containerd's versions from 1.2 on speak, and the one that the types are
/// generated for. They have different names only.
const API: [&str; 2] = ["/containerd.task.v2.Task/", "/containerd.task.v3.Task/"];

/// How long those have whose requests are under way when the process is to go: who waits for a container that never
/// ends waits for ever.
const FAREWELL: Duration = Duration::from_secs(2);

/// When the process is to go.
#[derive(Debug, Default)]
pub(crate) struct Exit {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Exit {
    pub(crate) fn ask(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_while(asked, |asked| !*asked);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// The runtime, which is made while containerd is on its way to the first request.
#[derive(Clone, Default)]
pub(crate) struct Lazy(Arc<OnceLock<Result<Runtime, String>>>);

impl Lazy {
    /// The runtime, or why there is none.
    pub(crate) fn get(&self) -> Result<&Runtime, Refusal> {
        let made = self.0.get_or_init(|| {
            let cache = env::var_os(CACHE_VARIABLE).map_or_else(|| CACHE.into(), PathBuf::from);
            let cache = Cache::Directory(cache);
            let config = Config { sandboxes: SANDBOXES, cache, ..Config::default() };
            Runtime::new(config).map_err(|error| error.to_string())
        });
        made.as_ref().map_err(|error| Refusal::Failed(error.clone()))
    }
}

/// Serves one pod, whose first container's directory this is. Its socket is standard input.
pub(crate) fn serve(flags: &Flags) -> Result<()> {
    let bundle = env::current_dir().context("can't tell the container's directory")?;
    log_to_containerd(&bundle, flags.debug);
    panic::set_hook(Box::new(|info| tracing::error!("the host panicked: {info}")));
    // Its standard error leads nowhere.
    serve_pod(flags, &bundle).inspect_err(|error| tracing::error!("can't serve a pod: {error:#}"))
}

fn serve_pod(flags: &Flags, bundle: &Path) -> Result<()> {
    let spec = Spec::of_bundle(bundle)?;
    // All of this is for every thread to come, so before the first one.
    if let Some(network) = spec.network() {
        enter(network)?;
    }
    own_mounts().context("can't have mounts of its own")?;
    leave_groups().context("can't leave the groups of containerd")?;

    let listener = io::stdin().as_fd().try_clone_to_owned().context("has no socket")?;
    let events = env::var("TTRPC_ADDRESS").context("containerd said no TTRPC_ADDRESS")?;
    let events = Events::start(&events, flags.namespace.clone()).context("can't start a thread")?;
    let (events, exit, runtime) = (Arc::new(events), Arc::new(Exit::default()), Lazy::default());
    let names = (flags.namespace.clone(), spec.pod(&flags.id).to_owned());
    let images = Store::new(flags.address.clone(), flags.namespace.clone());
    let pod = Pod::new(names, (runtime.clone(), images), Arc::clone(&events), Arc::clone(&exit));
    let pod = Arc::new(pod);
    let server = Server::new()
        .add_listener(listener.into_raw_fd())
        .and_then(|server| {
            let mut server = server.register_service(methods(&pod));
            server.start().map(|()| server)
        })
        .context("can't serve containerd")?;
    // Without a thread to spare, the first container waits for it.
    let _ = roadrunner_sys::spawn("runtime", move || drop(runtime.get().map(drop)));

    exit.wait();
    // Nobody new finds it from here on.
    launch::forget(flags, spec.pod(&flags.id));
    pod.close();
    let (done, is_done) = channel();
    let farewell = roadrunner_sys::spawn("farewell", move || {
        server.shutdown();
        let _ = done.send(());
    });
    if let Err(error) = farewell {
        tracing::warn!(%error, "no thread can be started to end connections");
    }
    let _ = is_done.recv_timeout(FAREWELL);
    events.finish();
    if let Some(cgroup) = spec.cgroup() {
        Cgroup::named(cgroup)?.leave();
    }
    Ok(())
}

fn enter(network: &Path) -> Result<()> {
    let shown = network.display();
    let namespace = File::open(network)
        .with_context(|| format!("can't open the pod's network namespace {shown}"))?;
    enter_network(namespace.as_fd())
        .with_context(|| format!("can't enter the pod's network namespace {shown}"))
}

/// The task API by both of its names.
fn methods(pod: &Arc<Pod>) -> HashMap<String, Box<dyn MethodHandler + Send + Sync>> {
    let mut all = HashMap::new();
    for name in API {
        for (path, handler) in create_task(pod.clone()) {
            let method = path.rsplit('/').next().unwrap_or_default();
            all.insert(format!("{name}{method}"), handler);
        }
    }
    all
}

/// The pipe by which containerd collects its shims' logs. What it doesn't read is lost, so that nobody waits for it.
struct Log(Option<File>);

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self.0.as_ref())
    }
}

struct Line<'a>(Option<&'a File>);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(mut log) = self.0 {
            let _ = log.write(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log_to_containerd(bundle: &Path, debug: bool) {
    let pipe = bundle.join("log");
    // Without one there is nobody to tell.
    let log = fs::metadata(&pipe).and_then(|_| open_stream(&pipe, true, true)).ok();
    let level = if debug { tracing::Level::DEBUG } else { tracing::Level::INFO };
    tracing_subscriber::fmt().with_ansi(false).with_max_level(level).with_writer(Log(log)).init();
}
