//! The listening socket and its connections.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::admission::{Admission, Client, Place};
use crate::catalog::Catalog;
use crate::gate::Gate;
use crate::limits::Limits;
use crate::link::{Cause, Link, Links, Order};
use crate::metrics::Metrics;
use crate::runners::Runners;
use crate::serve::{Shared, serve};

/// Pause before the next attempt when a connection can't be accepted: most often descriptors have run
/// out, and only time brings them back.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// The shortest buffer in bytes that the HTTP/1 machinery takes.
const LEAST_BUFFER: usize = 8 << 10;

/// HTTP/2: bytes of a response that a stream takes over before they can be sent. They are views of its
/// pages, so this is about order, not memory.
const SEND_BUFFER: usize = 128 << 10;

/// What is read of a refused body, and for how long, so that the client sees the answer rather than a
/// reset connection.
const LINGER_BYTES: usize = 1 << 20;
const LINGER: Duration = Duration::from_secs(2);

/// HTTP/2: bytes that a client may send ahead of what is read, on a stream and on a connection. They
/// lie in the host's memory beside the bodies.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// What a connection over the limit hears.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Why a gateway can't start.
#[derive(Debug, thiserror::Error)]
#[error("can't listen at {address}: {source}")]
pub struct BindError {
    /// Where it should listen.
    pub address: SocketAddr,
    /// The kernel's reason.
    pub source: io::Error,
}

/// A listening gateway.
#[derive(Debug)]
pub struct Gateway {
    listener: TcpListener,
    address: SocketAddr,
    limits: Arc<Limits>,
    runners: Runners,
}

impl Gateway {
    /// Listens at an address; connections wait there until [`Gateway::serve`].
    ///
    /// # Errors
    /// When the kernel refuses the address, or threads.
    pub async fn bind(address: SocketAddr, limits: Limits) -> Result<Self, BindError> {
        let refused = |source| BindError { address, source };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        Self::new(listener, limits).map_err(refused)
    }

    /// Takes a socket over that listens already.
    ///
    /// # Errors
    /// When it is none, or the kernel refuses threads.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn on(listener: std::net::TcpListener, limits: Limits) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Self::new(TcpListener::from_std(listener)?, limits)
    }

    fn new(listener: TcpListener, limits: Limits) -> io::Result<Self> {
        let (address, runners) = (listener.local_addr()?, Runners::start()?);
        Ok(Self { listener, address, limits: Arc::new(limits), runners })
    }

    /// Where it listens: with the port that the kernel chose where 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves requests until `shutdown` is done. Then the socket is closed, requests in flight have
    /// [`Limits::grace`] to end, and what is left is cut off.
    ///
    /// Functions can't be cut off: those that still run then do so to their end or deadline, on threads
    /// of the gateway's own and blocking threads of the runtime. Who wants to end the process before that uses
    /// [`tokio::runtime::Runtime::shutdown_background`].
    pub async fn serve(self, catalog: Arc<dyn Catalog>, shutdown: impl Future<Output = ()>) {
        let Self { listener, limits, runners, .. } = self;
        let shared = Arc::new(Shared {
            admission: Admission::new(&limits),
            metrics: Arc::new(Metrics::default()),
            runners: Arc::new(runners),
            draining: AtomicBool::new(false),
            limits: Arc::clone(&limits),
            catalog,
        });
        // Ends with this function.
        let mut relief = JoinSet::new();
        let runners = Arc::clone(&shared.runners);
        relief.spawn(async move { runners.relieve().await });
        let links = Links::default();
        let mut connections = JoinSet::new();
        {
            let accept = accept(&listener, &shared, &links, &mut connections);
            tokio::select! {
                () = shutdown => {}
                () = accept => {}
                () = links.watch(&limits) => {}
            }
        }
        drop(listener);
        shared.draining.store(true, Ordering::Relaxed);
        links.order(Order::Retire);
        let ended = async { while connections.join_next().await.is_some() {} };
        let ended = tokio::time::timeout(limits.grace, ended);
        tokio::select! {
            _ = ended => {}
            () = links.watch(&limits) => {}
        }
        links.order(Order::Cut(Cause::Shutdown));
        while connections.join_next().await.is_some() {}
    }
}

/// Accepts connections for ever.
async fn accept(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    links: &Links,
    connections: &mut JoinSet<()>,
) {
    let server = Arc::new(builder(&shared.limits));
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "can't accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let client = Client::of(peer.ip());
        let Some(place) = shared.admission.connection(client) else {
            shared.metrics.refused_connection();
            // What doesn't fit into the socket's buffer at once is not worth a wait.
            let _ = stream.try_write(FULL);
            continue;
        };
        let link = Link::new();
        links.add(&link);
        connections.spawn(connection(
            Arc::clone(shared),
            server.clone(),
            stream,
            client,
            link,
            place,
        ));
    }
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // Heads are timed by the watch, which knows when one began.
    builder
        .http1()
        .header_read_timeout(None)
        .max_headers(limits.headers)
        .max_buf_size(limits.header_bytes.max(LEAST_BUFFER));
    builder
        .http2()
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER);
    builder
}

/// Serves one connection to its end.
async fn connection(
    shared: Arc<Shared>,
    server: Arc<Builder<TokioExecutor>>,
    stream: TcpStream,
    client: Client,
    link: Arc<Link>,
    place: Place,
) {
    // Responses go out as they are; a failure costs latency only.
    let _ = stream.set_nodelay(true);
    let cut = {
        let mut orders = link.orders();
        let io = TokioIo::new(Gate::new(stream, Arc::clone(&link)));
        let service =
            service_fn(|request| serve(Arc::clone(&shared), Arc::clone(&link), client, request));
        let mut conn = pin!(server.serve_connection(io, service));
        loop {
            tokio::select! {
                ended = conn.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(client = %client.address(), error, "a connection failed");
                    }
                    break false;
                }
                Ok(()) = orders.changed() => match *orders.borrow_and_update() {
                    Order::Serve => {}
                    Order::Retire => conn.as_mut().graceful_shutdown(),
                    Order::Cut(cause) => {
                        shared.metrics.cut(cause);
                        break true;
                    }
                },
            }
        }
    };
    if let Some(stream) = link.left()
        && !cut
        && link.unread.load(Ordering::Relaxed)
    {
        let _ = tokio::time::timeout(LINGER, linger(stream)).await;
    }
    drop(place);
}

/// Reads what a client still sends of a body that nobody wants, until it has seen the answer.
async fn linger(mut stream: TcpStream) {
    let mut buffer = vec![0; 16 << 10];
    let mut left = LINGER_BYTES;
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        left = left.saturating_sub(read);
        if left == 0 {
            return;
        }
    }
}
