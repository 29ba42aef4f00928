//! The HTTP front of a node: the gateway, on threads of its own.

use std::borrow::Cow;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use roadrunner_gateway::{Catalog, Gateway, Limits};
use roadrunner_runtime::{Config, ModuleSource};
use roadrunner_workflow::{Clash, Executable, Found, Place, Workflow};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot::{Sender, channel};

use super::manifests::Served;
use crate::exit::{Exit, Failure};

/// A gateway that serves a node's catalog until it is stopped.
pub(super) struct Http {
    pub(super) address: SocketAddr,
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Http {
    /// Listens at an address; requests that are under way when it is stopped have `grace` to end.
    pub(super) fn open(
        address: SocketAddr,
        catalog: &Arc<Served>,
        grace: Duration,
    ) -> io::Result<Self> {
        let runtime = threads()?;
        let limits = Limits { grace, ..Limits::default() };
        let gateway = runtime.block_on(Gateway::bind(address, limits));
        let gateway = gateway.map_err(|error| error.source)?;
        let address = gateway.local_addr();
        let (stop, stopped) = channel();
        let catalog = Arc::clone(catalog);
        let serve = move || serve(runtime, gateway, catalog, async { drop(stopped.await) });
        let thread = roadrunner_sys::spawn("http", serve)?;
        Ok(Self { address, stop, thread })
    }

    /// Takes no more requests, and gives those under way their grace.
    pub(super) fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

fn serve(
    runtime: Runtime,
    gateway: Gateway,
    catalog: Arc<dyn Catalog>,
    stopped: impl Future<Output = ()>,
) {
    runtime.block_on(gateway.serve(catalog, stopped));
    // Functions that still run are beyond their grace.
    runtime.shutdown_background();
}

/// For `bench http`: a function that gives its payload back, once in fresh and once in reused sandboxes, at a socket
/// that listens, until the process ends. Set up as a node is, but that one client may have as many requests as all.
pub(in crate::commands) fn serve_echo(
    socket: TcpListener,
    ready: impl FnOnce() -> io::Result<()>,
) -> Result<Exit, Failure> {
    let module = |_: &Path| ModuleSource::Bytes {
        name: "echo.wasm".into(),
        bytes: Cow::Borrowed(roadrunner_bench::ECHO),
    };
    let runtime = roadrunner_runtime::Runtime::new(Config::default())?;
    let load = |name: &str, reuse: bool| {
        let function = format!("[functions.echo]\nmodule = \"echo.wasm\"\nreuse = {reuse}\n");
        let manifest = format!("[workflow]\nname = \"{name}\"\nentry = \"echo\"\n{function}");
        let workflow = Workflow::parse(&manifest, Path::new("echo.toml"), &|_| Found::File)?;
        Executable::load(&runtime, workflow, &module, &Place::alone()).map_err(Failure::from)
    };
    let workflows = vec![load("fresh", false)?, load("reused", true)?];
    let clash = |clash: Clash| Failure::new(Exit::Workflow, clash.to_string());
    let catalog = roadrunner_workflow::Catalog::new(workflows).map_err(clash)?;
    let refused = |error| Failure::new(Exit::Host, format!("can't serve HTTP: {error}"));
    let limits = Limits::default();
    let limits = Limits { requests_per_client: limits.requests, ..limits };
    let runtime = threads().map_err(refused)?;
    let entered = runtime.enter();
    let gateway = Gateway::on(socket, limits).map_err(refused)?;
    drop(entered);
    ready().map_err(refused)?;
    serve(runtime, gateway, Arc::new(catalog), std::future::pending());
    Ok(Exit::Success)
}

/// The threads of a gateway.
fn threads() -> io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().thread_name("http").build()
}
