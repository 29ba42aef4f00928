//! Network: the function is on another host. Payloads go as bytes behind their call, straight out of
//! the pages where they lie, and come straight into the pages that will be their consumer's.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use roadrunner_sys as sys;

use crate::client::{Client, Dial};
use crate::identity::Identity;
use crate::link::{self, Link};
use crate::resolve::Name;
use crate::server::{Listen, Server};
use crate::tls::Tls;
use crate::{Call, Caller, Inbox, Mode, Reply, Terms, Transport, Undelivered};

/// Most time for making a connection: three tries of the kernel's.
const CONNECT: Duration = Duration::from_secs(7);

/// How calls of other hosts are protected from those who are on the way.
#[derive(Clone, Debug)]
pub enum Protection {
    /// They are not, and so stay on this host.
    Loopback,
    /// They are not: whoever is on the way can read and change them, and whoever comes is let in.
    Insecure,
    /// TLS 1.3 with certificates on both sides.
    Tls(Identity),
}

/// A host that calls go to.
#[derive(Clone, Debug)]
pub struct Node {
    /// `HOST:PORT`.
    pub address: String,
    /// The name in its certificate; without one that is the address's host.
    pub name: Option<String>,
    /// The workflow whose functions are called, with which the names begin that a node knows them by.
    pub workflow: Option<String>,
    /// How the way there is protected.
    pub protection: Protection,
}

impl Node {
    /// Whoever listens at `HOST:PORT` on this host.
    #[must_use]
    pub fn on_loopback(address: impl Into<String>) -> Self {
        let (address, protection) = (address.into(), Protection::Loopback);
        Self { address, name: None, workflow: None, protection }
    }
}

/// The way to the functions of another host.
pub struct Tcp(Client<Host>);

/// A host, and what its name stands for.
struct Host {
    node: Node,
    address: Name,
}

impl Tcp {
    /// The way to a host, when the first call goes there.
    #[must_use]
    pub fn new(node: Node, terms: Terms) -> Self {
        let address = Name::new(node.address.clone());
        Self(Client::new(Host { node, address }, terms))
    }
}

impl Transport for Tcp {
    fn mode(&self) -> Mode {
        Mode::Network
    }

    fn send<'p>(&self, call: Call<'p>) -> Result<Reply, Undelivered<'p>> {
        self.0.call(call)
    }
}

impl fmt::Debug for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tcp({})", self.0.peer())
    }
}

/// A connection, before its protection.
fn connect(address: SocketAddr, until: Instant) -> io::Result<Arc<TcpStream>> {
    let left = until.saturating_duration_since(Instant::now()).min(CONNECT);
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let stream = TcpStream::connect_timeout(&address, left)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(Arc::new(stream))
}

impl Dial for Host {
    type Link = Wire;

    fn dial(&self, until: Instant) -> io::Result<Wire> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let Node { address: host, name, protection, .. } = &self.node;
        for address in self.address.addresses(until)? {
            protection.allow(address)?;
            let stream = match connect(address, until) {
                Ok(stream) => stream,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            let Protection::Tls(identity) = protection else { return Ok(Wire::Plain(stream)) };
            let host = host.rsplit_once(':').map_or("", |(host, _)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let name = name.as_deref().unwrap_or(host);
            let mut wire = Wire::Tls(Box::new(Tls::to(stream, identity, name)?));
            link::settle(&mut wire, until.min(Instant::now() + CONNECT))?;
            return Ok(wire);
        }
        Err(last)
    }

    fn passes_descriptors(&self) -> bool {
        false
    }

    fn peer(&self) -> String {
        self.address.text().into()
    }

    fn full_name<'t>(&self, target: &'t str) -> Cow<'t, str> {
        match &self.node.workflow {
            Some(workflow) => format!("{workflow}.{target}").into(),
            None => target.into(),
        }
    }
}

impl Protection {
    /// Whether an address may be spoken to or listened at like this.
    fn allow(&self, address: SocketAddr) -> io::Result<()> {
        if address.ip().is_loopback() || !matches!(self, Self::Loopback) {
            return Ok(());
        }
        let what = format!(
            "{address} is not on this host, so it takes --tls DIR with this node's certificate, or --insecure in a network where nobody else is"
        );
        Err(io::Error::new(io::ErrorKind::Unsupported, what))
    }
}

/// A connection with its protection.
pub(crate) enum Wire {
    Plain(Arc<TcpStream>),
    Tls(Box<Tls>),
}

impl Wire {
    fn stream(&self) -> &Arc<TcpStream> {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(tls) => tls.stream(),
        }
    }

    fn link(&mut self) -> &mut dyn Link {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(tls) => &mut **tls,
        }
    }
}

impl Link for Wire {
    fn passes_descriptors(&self) -> bool {
        false
    }

    fn settle(&mut self) -> io::Result<()> {
        self.link().settle()
    }

    fn write(&mut self, parts: &[IoSlice<'_>], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.link().write(parts, fds)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.link().flush()
    }

    fn read_first(&mut self, into: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
        self.link().read_first(into, fds)
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.link().read(into)
    }

    fn peer(&self) -> u32 {
        0
    }

    fn caller(&self) -> Caller {
        match self {
            Self::Plain(_) => Caller::Unnamed,
            Self::Tls(tls) => tls.caller(),
        }
    }

    fn wait(&mut self, ready: sys::Ready, wait: Duration) -> io::Result<bool> {
        self.link().wait(ready, wait)
    }

    fn is_quiet(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_quiet(),
            Self::Tls(tls) => tls.is_quiet(),
        }
    }
}

impl Link for Arc<TcpStream> {
    fn passes_descriptors(&self) -> bool {
        false
    }

    fn write(&mut self, parts: &[IoSlice<'_>], _fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        (&**self).write_vectored(parts)
    }

    fn read_first(&mut self, into: &mut [u8], _fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
        (&**self).read(into)
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        (&**self).read(into)
    }

    fn peer(&self) -> u32 {
        0
    }

    fn wait(&mut self, ready: sys::Ready, wait: Duration) -> io::Result<bool> {
        sys::wait_until_ready(self.as_fd(), ready, wait)
    }

    fn is_quiet(&self) -> bool {
        sys::is_quiet(self.as_fd())
    }
}

/// An address of this host that functions are called over. Calls are served until it is stopped or
/// dropped.
pub struct TcpServer(Server);

impl TcpServer {
    /// Serves a socket that listens already.
    ///
    /// # Errors
    /// `Unsupported` for an address that has to be protected and is not; else when no thread can be
    /// started.
    pub fn on(
        listener: TcpListener,
        protection: Protection,
        inbox: Arc<dyn Inbox + Send + Sync>,
        terms: Terms,
    ) -> io::Result<Self> {
        protection.allow(listener.local_addr()?)?;
        Ok(Self(Server::start(Listener { listener, protection }, inbox, terms)?))
    }

    /// Takes no more calls, and gives those under way as long as `grace` to end.
    pub fn stop(&mut self, grace: Duration) {
        self.0.stop(grace);
    }
}

impl fmt::Debug for TcpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TcpServer")
    }
}

/// A socket that listens, and what its connections are protected by.
struct Listener {
    listener: TcpListener,
    protection: Protection,
}

impl Listen for Listener {
    type Link = Wire;

    fn accept(&self) -> io::Result<Wire> {
        let (stream, _) = self.listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let stream = Arc::new(stream);
        Ok(match &self.protection {
            Protection::Tls(identity) => Wire::Tls(Box::new(Tls::from(stream, identity)?)),
            _ => Wire::Plain(stream),
        })
    }

    fn hang_up(link: &Wire) -> Box<dyn Fn() + Send> {
        let stream = Arc::downgrade(link.stream());
        Box::new(move || {
            if let Some(stream) = stream.upgrade() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        })
    }

    fn stop(&self) {
        sys::stop_listening(self.listener.as_fd());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Trust;
    use crate::conformance::{self, EchoInbox};

    #[test]
    fn the_way_between_hosts_conforms() {
        let inbox = EchoInbox::default();
        let terms =
            Terms { home: inbox.home().clone(), payload_limit: 1 << 30, trust: Trust::None };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let _server =
            TcpServer::on(listener, Protection::Loopback, Arc::new(inbox), terms.clone()).unwrap();
        let home = terms.home.clone();
        conformance::all(&Tcp::new(Node::on_loopback(address), terms), &home);
    }

    #[test]
    fn plain_connections_stay_on_this_host() {
        let inbox = EchoInbox::default();
        let terms =
            Terms { home: inbox.home().clone(), payload_limit: 1 << 30, trust: Trust::None };
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let refused =
            TcpServer::on(listener, Protection::Loopback, Arc::new(inbox), terms).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
    }
}
