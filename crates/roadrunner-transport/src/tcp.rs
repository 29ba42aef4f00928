//! Network: the function is on another host. Payloads go as bytes behind their call, straight out of
//! the pages where they lie, and come straight into the pages that will be their consumer's.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use roadrunner_sys as sys;

use crate::client::{Client, Dial};
use crate::hose::{Choice, Choices, Method, TcpLink};
use crate::link::{self, Link};
use crate::resolve::Name;
use crate::server::{Listen, Server};
use crate::tls::Tls;
use crate::wire::{Protection, Wire};
use crate::{Call, Inbox, Mode, Reply, Terms, Transport, Undelivered};

/// Most time for making a connection: three tries of the kernel's.
const CONNECT: Duration = Duration::from_secs(7);

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
pub struct Tcp {
    client: Client<Host>,
    choice: Arc<Choice>,
}

/// A host, and what its name stands for.
struct Host {
    node: Node,
    address: Name,
    /// How large payloads go there, which all links find out together.
    choice: Arc<Choice>,
}

impl Tcp {
    /// The way to a host, when the first call goes there.
    #[must_use]
    pub fn new(node: Node, terms: Terms) -> Self {
        Self::by(Choice::default(), node, terms)
    }

    /// The same, with large payloads sent by one method where that takes them, else plainly.
    #[must_use]
    pub fn with_method(node: Node, terms: Terms, method: Method) -> Self {
        Self::by(Choice::fixed(method), node, terms)
    }

    fn by(choice: Choice, node: Node, terms: Terms) -> Self {
        let (choice, address) = (Arc::new(choice), Name::new(node.address.clone()));
        let host = Host { node, address, choice: Arc::clone(&choice) };
        Self { client: Client::new(host, terms), choice }
    }

    /// How most large payloads were sent; `None` before the first one.
    #[must_use]
    pub fn method(&self) -> Option<Method> {
        self.choice.mostly()
    }
}

impl Transport for Tcp {
    fn mode(&self) -> Mode {
        Mode::Network
    }

    fn send<'p>(&self, call: Call<'p>) -> Result<Reply, Undelivered<'p>> {
        self.client.call(call)
    }
}

impl fmt::Debug for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tcp({})", self.client.peer())
    }
}

/// A connection, before its protection.
fn connect(address: SocketAddr, until: Instant) -> io::Result<TcpStream> {
    let left = until.saturating_duration_since(Instant::now()).min(CONNECT);
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    TcpStream::connect_timeout(&address, left)
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
            let Protection::Tls(identity) = protection else {
                return Ok(Wire::Plain(TcpLink::new(stream, Arc::clone(&self.choice))?));
            };
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

    fn is_quiet(&mut self) -> bool {
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
        let listener = Listener { listener, protection, choices: Choices::default() };
        Ok(Self(Server::start(listener, inbox, terms)?))
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

/// A socket that listens, what its connections are protected by, and how responses go to those who call.
struct Listener {
    listener: TcpListener,
    protection: Protection,
    choices: Choices,
}

impl Listen for Listener {
    type Link = Wire;

    fn accept(&self) -> io::Result<Wire> {
        let (stream, peer) = self.listener.accept()?;
        Ok(match &self.protection {
            Protection::Tls(identity) => Wire::Tls(Box::new(Tls::from(stream, identity)?)),
            _ => Wire::Plain(TcpLink::new(stream, self.choices.of(peer.ip()))?),
        })
    }

    fn hang_up(link: &Wire) -> Box<dyn Fn() + Send> {
        link.hang_up()
    }

    fn stop(&self) {
        sys::stop_listening(self.listener.as_fd());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{self, EchoInbox};
    use crate::{Payload, Trust};
    use roadrunner_buffer::Sealed;

    fn conforms(listening: Choices, way: impl FnOnce(Node, Terms) -> Tcp) -> Tcp {
        let inbox = EchoInbox::default();
        let terms =
            Terms { home: inbox.home().clone(), payload_limit: 1 << 30, trust: Trust::None };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let protection = Protection::Loopback;
        let socket = Listener { listener, protection, choices: listening };
        let _server = Server::start(socket, Arc::new(inbox), terms.clone()).unwrap();
        let home = terms.home.clone();
        let tcp = way(Node::on_loopback(address), terms);
        conformance::all(&tcp, &home);
        tcp
    }

    #[test]
    fn the_way_between_hosts_conforms() {
        let tcp = conforms(Choices::default(), Tcp::new);
        assert!(tcp.method().is_some(), "some payloads are large");
    }

    #[test]
    fn every_method_conforms() {
        for method in Method::ALL {
            if let Err(error) = method.is_available() {
                eprintln!("skipped: {method} is not available here: {error}");
                continue;
            }
            let choices = Choices::fixed(method);
            let tcp = conforms(choices, |node, terms| Tcp::with_method(node, terms, method));
            assert!(tcp.choice.went_by(method) > 0, "{method} was not used");
        }
    }

    #[test]
    fn payloads_are_received_into_pages_of_payloads_before() {
        let inbox = EchoInbox::default();
        let terms =
            Terms { home: inbox.home().clone(), payload_limit: 1 << 30, trust: Trust::None };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp =
            Tcp::new(Node::on_loopback(listener.local_addr().unwrap().to_string()), terms.clone());
        let _server =
            TcpServer::on(listener, Protection::Loopback, Arc::new(inbox), terms.clone()).unwrap();
        let bytes = vec![7; 3 << 20];
        for round in 0..6 {
            let (target, since) = (conformance::ECHO, Instant::now());
            let payload = Payload::One(Sealed::borrowed(&bytes));
            let deadline = since + Duration::from_secs(20);
            let reply = tcp
                .send(Call {
                    target,
                    payload,
                    since,
                    deadline,
                    depth: 0,
                    caller: Default::default(),
                    trace: Default::default(),
                })
                .unwrap();
            assert_eq!(reply.len(), bytes.len());
            drop(reply);
            // Those that the peer received into, and those of its answer here: no more, ever.
            let waiting = terms.home.pool.usage().bytes;
            assert!(waiting <= 2 * bytes.len(), "{waiting} bytes of pages after round {round}");
        }
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
