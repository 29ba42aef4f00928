//! The HTTP front of a node: the gateway, on threads of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use roadrunner_gateway::{Catalog, Gateway, Limits, Loaded, Unfound};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot::{Sender, channel};

use super::manifests::Served;

/// A gateway that serves a node's catalog until it is stopped.
pub(super) struct Http {
    pub(super) address: SocketAddr,
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

/// The catalog as the gateway asks for it.
struct Node(Arc<Served>);

impl Catalog for Node {
    fn workflow(&self, name: &str) -> Option<Loaded> {
        Some(self.0.workflow(name)?)
    }

    fn function(&self, name: &str) -> Result<(Loaded, String), Unfound> {
        let (loaded, name) = self.0.function(name).ok_or(Unfound::Unknown)?;
        Ok((loaded, name))
    }

    fn ready(&self) -> bool {
        true
    }
}

impl Http {
    /// Listens at an address; requests that are under way when it is stopped have `grace` to end.
    pub(super) fn open(
        address: SocketAddr,
        catalog: &Arc<Served>,
        grace: Duration,
    ) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().enable_all().thread_name("http").build()?;
        let limits = Limits { grace, ..Limits::default() };
        let gateway = runtime.block_on(Gateway::bind(address, limits));
        let gateway = gateway.map_err(|error| error.source)?;
        let address = gateway.local_addr();
        let (stop, stopped) = channel();
        let node = Arc::new(Node(Arc::clone(catalog)));
        let serve = move || serve(runtime, gateway, node, async { drop(stopped.await) });
        let thread = thread::Builder::new().name("http".into()).spawn(serve)?;
        Ok(Self { address, stop, thread })
    }

    /// Takes no more requests, and gives those under way their grace.
    pub(super) fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

fn serve(runtime: Runtime, gateway: Gateway, node: Arc<Node>, stopped: impl Future<Output = ()>) {
    runtime.block_on(gateway.serve(node, stopped));
    // Functions that still run are beyond their grace.
    runtime.shutdown_background();
}
