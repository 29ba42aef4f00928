//! Network: the function is on another host. Payloads go as bytes behind their call, straight out of
//! the pages where they lie, and come straight into the pages that will be their consumer's.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use roadrunner_sys as sys;

use crate::client::{Client, Dial};
use crate::link::Link;
use crate::resolve::Name;
use crate::server::{Listen, Server};
use crate::{Call, Inbox, Mode, Reply, Terms, Transport, Undelivered};

/// Most time for making a connection: three tries of the kernel's.
const CONNECT: Duration = Duration::from_secs(7);

/// The way to the functions of another host.
pub struct Tcp(Client<Node>);

/// Where a host listens.
struct Node {
    address: Name,
}

impl Tcp {
    /// The way to whoever listens at `HOST:PORT`, when the first call goes there.
    #[must_use]
    pub fn new(address: impl Into<String>, terms: Terms) -> Self {
        Self(Client::new(Node { address: Name::new(address.into()) }, terms))
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

impl Dial for Node {
    type Link = Arc<TcpStream>;

    fn dial(&self, until: Instant) -> io::Result<Self::Link> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.address.addresses(until)? {
            if !address.ip().is_loopback() {
                return Err(needs_tls(address));
            }
            let left = until.saturating_duration_since(Instant::now()).min(CONNECT);
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match TcpStream::connect_timeout(&address, left) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_nonblocking(true)?;
                    return Ok(Arc::new(stream));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn passes_descriptors(&self) -> bool {
        false
    }

    fn peer(&self) -> String {
        self.address.text().into()
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

    fn process(&self) -> Option<OwnedFd> {
        None
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

impl Listen for TcpListener {
    type Link = Arc<TcpStream>;

    fn accept(&self) -> io::Result<Self::Link> {
        let (stream, _) = Self::accept(self)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Arc::new(stream))
    }

    fn hang_up(link: &Self::Link) -> Box<dyn Fn() + Send> {
        let link = Arc::downgrade(link);
        Box::new(move || {
            if let Some(link) = link.upgrade() {
                let _ = link.shutdown(Shutdown::Both);
            }
        })
    }

    fn stop(&self) {
        sys::stop_listening(self.as_fd());
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
        let _server = TcpServer::on(listener, Arc::new(inbox), terms.clone()).unwrap();
        let home = terms.home.clone();
        conformance::all(&Tcp::new(address, terms), &home);
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
