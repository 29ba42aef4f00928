//! Network: the function is on another host. Payloads go as bytes behind their call, straight out of
//! the pages where they lie, and come straight into the pages that will be their consumer's.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use roadrunner_sys as sys;

use crate::client::{Client, Dial};
use crate::hose::{Choice, Choices, Method, TcpLink};
use crate::link::Link;
use crate::server::{Listen, Server};
use crate::{Call, Inbox, Mode, Reply, Terms, Transport, Undelivered};

/// Most time for making a connection: three tries of the kernel's.
const CONNECT: Duration = Duration::from_secs(7);

/// The way to the functions of another host.
pub struct Tcp {
    client: Client<Node>,
    choice: Arc<Choice>,
}

/// Where a host listens.
struct Node {
    address: String,
    /// How large payloads go there, which all links find out together.
    choice: Arc<Choice>,
}

impl Tcp {
    /// The way to whoever listens at `HOST:PORT`, when the first call goes there.
    #[must_use]
    pub fn new(address: impl Into<String>, terms: Terms) -> Self {
        Self::by(Choice::default(), address, terms)
    }

    /// The same, with large payloads sent by one method where that takes them, else plainly.
    #[must_use]
    pub fn with_method(address: impl Into<String>, terms: Terms, method: Method) -> Self {
        Self::by(Choice::fixed(method), address, terms)
    }

    fn by(choice: Choice, address: impl Into<String>, terms: Terms) -> Self {
        let choice = Arc::new(choice);
        let node = Node { address: address.into(), choice: Arc::clone(&choice) };
        Self { client: Client::new(node, terms), choice }
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

impl Dial for Node {
    type Link = TcpLink;

    fn dial(&self, until: Instant) -> io::Result<Self::Link> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.address.to_socket_addrs()? {
            if !address.ip().is_loopback() {
                return Err(needs_tls(address));
            }
            let left = until.saturating_duration_since(Instant::now()).min(CONNECT);
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match TcpStream::connect_timeout(&address, left) {
                Ok(stream) => return TcpLink::new(stream, Arc::clone(&self.choice)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn passes_descriptors(&self) -> bool {
        false
    }

    fn peer(&self) -> String {
        self.address.clone()
    }
}

fn needs_tls(address: SocketAddr) -> io::Error {
    let what = format!("{address} is not on this host, and this version has no TLS to reach it by");
    io::Error::new(io::ErrorKind::Unsupported, what)
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
    /// Serves a socket that listens already, on a loopback address.
    ///
    /// # Errors
    /// `Unsupported` for any other address; else when no thread can be started.
    pub fn on(
        listener: TcpListener,
        inbox: Arc<dyn Inbox + Send + Sync>,
        terms: Terms,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            return Err(needs_tls(address));
        }
        Ok(Self(Server::start(Socket { listener, choices: Choices::default() }, inbox, terms)?))
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

/// A listening socket, and how responses go to those who call.
struct Socket {
    listener: TcpListener,
    choices: Choices,
}

impl Listen for Socket {
    type Link = TcpLink;

    fn accept(&self) -> io::Result<Self::Link> {
        let (stream, peer) = self.listener.accept()?;
        TcpLink::new(stream, self.choices.of(peer.ip()))
    }

    fn hang_up(link: &Self::Link) -> Box<dyn Fn() + Send> {
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

    fn conforms(listening: Choices, way: impl FnOnce(String, Terms) -> Tcp) -> Tcp {
        let inbox = EchoInbox::default();
        let terms =
            Terms { home: inbox.home().clone(), payload_limit: 1 << 30, trust: Trust::None };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let socket = Socket { listener, choices: listening };
        let _server = Server::start(socket, Arc::new(inbox), terms.clone()).unwrap();
        let home = terms.home.clone();
        let tcp = way(address, terms);
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
            let tcp = conforms(choices, |address, terms| Tcp::with_method(address, terms, method));
            assert!(tcp.choice.went_by(method) > 0, "{method} was not used");
        }
    }

    #[test]
    fn payloads_are_received_into_pages_of_payloads_before() {
        let inbox = EchoInbox::default();
        let terms =
            Terms { home: inbox.home().clone(), payload_limit: 1 << 30, trust: Trust::None };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = Tcp::new(listener.local_addr().unwrap().to_string(), terms.clone());
        let _server = TcpServer::on(listener, Arc::new(inbox), terms.clone()).unwrap();
        let bytes = vec![7; 3 << 20];
        for round in 0..6 {
            let (target, since) = (conformance::ECHO, Instant::now());
            let payload = Payload::One(Sealed::borrowed(&bytes));
            let deadline = since + Duration::from_secs(20);
            let reply = tcp.send(Call { target, payload, since, deadline, depth: 0 }).unwrap();
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
        let refused = TcpServer::on(listener, Arc::new(inbox), terms).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
    }
}
