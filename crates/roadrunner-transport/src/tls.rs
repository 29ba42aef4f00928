//! A connection to another host that nobody else can read or change, and whose ends know who the
//! other one is.
//!
//! The node that took it in says [`WELCOME`] when it has verified the caller's certificate, and the
//! caller sends nothing before. So a certificate that is refused is told from a call that was lost.

use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use roadrunner_sys as sys;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection, ServerConnection};

use crate::identity::{Identity, names_of};
use crate::link::Link;
use crate::{Caller, frame};

/// First byte of a node: the version of the wire format.
const WELCOME: u8 = frame::VERSION;

/// Payload bytes that are encrypted at a time: fewer cost calls, more leave the processor's cache.
const STEP: usize = 128 << 10;

/// How long a certificate that was verified is believed without another look: until a connection is this old, after
/// which it takes no more calls.
const LIFE: Duration = Duration::from_secs(3600);

/// A connection over TCP with TLS.
pub(crate) struct Tls {
    tls: Connection,
    /// Bytes of the socket, as many as it has at a time.
    incoming: BufReader<Socket>,
    welcomed: bool,
    caller: Caller,
    since: Instant,
}

/// The socket, for reading.
struct Socket(Arc<TcpStream>);

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(into)
    }
}

impl Tls {
    /// The calling end of a connection to the node of a name, before its handshake.
    pub(crate) fn to(stream: TcpStream, identity: &Identity, name: &str) -> io::Result<Self> {
        let expected = ServerName::try_from(name.to_owned()).map_err(|_| {
            let what = format!("{name:?} can't be the name in a certificate");
            io::Error::new(io::ErrorKind::InvalidInput, what)
        })?;
        let tls = ClientConnection::new(Arc::clone(&identity.client), expected);
        Self::over(stream, tls.map_err(broken)?.into())
    }

    /// The receiving end of a connection, before its handshake.
    pub(crate) fn from(stream: TcpStream, identity: &Identity) -> io::Result<Self> {
        let tls = ServerConnection::new(Arc::clone(&identity.server)).map_err(broken)?;
        Self::over(stream, tls.into())
    }

    fn over(stream: TcpStream, mut tls: Connection) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        sys::end_with_peer(stream.as_fd())?;
        tls.set_buffer_limit(Some(STEP));
        let incoming = BufReader::with_capacity(STEP, Socket(Arc::new(stream)));
        // Nobody, before it has shown who it is.
        let caller = Caller::Named(Arc::default());
        Ok(Self { tls, incoming, welcomed: false, caller, since: Instant::now() })
    }

    fn stream(&self) -> &Arc<TcpStream> {
        &self.incoming.get_ref().0
    }

    /// What ends the connection, from another thread.
    pub(crate) fn hang_up(&self) -> Box<dyn Fn() + Send> {
        let stream = Arc::downgrade(self.stream());
        Box::new(move || {
            if let Some(stream) = stream.upgrade() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        })
    }

    /// Whether bytes have come that nobody has read, so that the socket does not show them. None have where a read
    /// has just found none.
    fn holds_some(&mut self) -> bool {
        !self.incoming.buffer().is_empty() || self.tls.reader().fill_buf().is_ok()
    }

    /// Sends what is encrypted already.
    fn push(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            let mut stream = &*self.incoming.get_ref().0;
            if self.tls.write_tls(&mut stream)? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    /// Takes in what has come, at least a byte.
    fn pull(&mut self) -> io::Result<()> {
        let got = self.tls.read_tls(&mut self.incoming)?;
        if let Err(error) = self.tls.process_new_packets() {
            // The peer hears why, as far as it listens.
            let _ = self.push();
            return Err(broken(error));
        }
        if got == 0 && self.tls.is_handshaking() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Reads what the peer sent, which is nothing where it has closed.
    fn take(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.pull()?,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(io::Error::new(error.kind(), "the connection was cut"));
                }
                read => return read,
            }
        }
    }

    fn handshake(&mut self) -> io::Result<()> {
        while self.tls.is_handshaking() {
            self.push()?;
            if self.tls.is_handshaking() {
                self.pull()?;
            }
        }
        self.push()
    }

    /// Names the peer of a finished handshake.
    fn name_caller(&mut self) -> io::Result<()> {
        let certificates = self.tls.peer_certificates().unwrap_or_default();
        let names = certificates.first().map(names_of).transpose();
        let names = names.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.caller = Caller::Named(names.unwrap_or_default().into());
        Ok(())
    }
}

/// A TLS error as what became of the connection.
fn broken(error: rustls::Error) -> io::Error {
    use rustls::AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateRequired, CertificateRevoked,
        CertificateUnknown, UnknownCA, UnsupportedCertificate,
    };
    let refused = match &error {
        rustls::Error::AlertReceived(
            AccessDenied
            | BadCertificate
            | CertificateExpired
            | CertificateRequired
            | CertificateRevoked
            | CertificateUnknown
            | UnknownCA
            | UnsupportedCertificate,
        ) => Some("it refused this side's certificate"),
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
            Some("its certificate is not accepted here")
        }
        rustls::Error::InvalidMessage(_) => Some("it does not speak TLS"),
        _ => None,
    };
    match refused {
        Some(what) => io::Error::new(io::ErrorKind::PermissionDenied, format!("{what}: {error}")),
        None => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

impl Link for Tls {
    fn passes_descriptors(&self) -> bool {
        false
    }

    fn settle(&mut self) -> io::Result<()> {
        self.handshake()?;
        if self.welcomed {
            return Ok(());
        }
        if let Connection::Server(server) = &mut self.tls {
            server.writer().write_all(&[WELCOME])?;
            self.welcomed = true;
            self.name_caller()?;
            return self.push();
        }
        let mut said = [0];
        match self.take(&mut said)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if said[0] == WELCOME => {}
            _ => {
                let (theirs, ours) = (said[0], WELCOME);
                let what = format!(
                    "it speaks version {theirs} of the wire format, and this side version {ours}"
                );
                return Err(io::Error::new(io::ErrorKind::Unsupported, what));
            }
        }
        self.welcomed = true;
        Ok(())
    }

    fn write(&mut self, parts: &[IoSlice<'_>], _fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.push()?;
        let taken = self.tls.writer().write_vectored(parts)?;
        match self.push() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }

    fn read_first(&mut self, into: &mut [u8], _fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
        self.take(into)
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.take(into)
    }

    fn peer(&self) -> u32 {
        0
    }

    fn caller(&self) -> Caller {
        self.caller.clone()
    }

    fn wait(&mut self, ready: sys::Ready, wait: Duration) -> io::Result<bool> {
        if ready == sys::Ready::Read && self.holds_some() {
            return Ok(true);
        }
        sys::wait_until_ready(self.stream().as_fd(), ready, wait)
    }

    fn is_quiet(&mut self) -> bool {
        !self.holds_some() && sys::is_quiet(self.stream().as_fd())
    }

    fn is_old(&self, early: Duration) -> bool {
        self.since.elapsed() + early >= LIFE
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        // What is left of a frame was given up: the peer must not get it now.
        if self.tls.wants_write() {
            return;
        }
        // So that the peer can tell an end from a cut; it does without where the socket is full.
        self.tls.send_close_notify();
        let _ = self.push();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::net::TcpListener;
    use std::thread;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use crate::link;

    fn identity() -> Identity {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["edge-1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
        write("ca.pem", authority.pem());
        write("cert.pem", certificate.pem());
        write("key.pem", key.serialize_pem());
        Identity::load(folder.path()).unwrap()
    }

    /// Both ends of a connection whose handshake is done.
    fn connected() -> (Tls, Tls) {
        let (identity, until) = (identity(), Instant::now() + Duration::from_secs(20));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut here = Tls::to(stream, &identity, "edge-1").unwrap();
        let mut there = Tls::from(listener.accept().unwrap().0, &identity).unwrap();
        assert_eq!(there.caller(), Caller::Named([].into()), "nobody yet");
        let there = thread::spawn(move || link::settle(&mut there, until).map(|()| there));
        link::settle(&mut here, until).unwrap();
        (here, there.join().unwrap().unwrap())
    }

    #[test]
    fn what_came_with_something_else_is_there() {
        let (mut here, mut there) = connected();
        assert_eq!(here.write(&[IoSlice::new(b"ab")], &[]).unwrap(), 2);
        for rest in [true, false] {
            assert!(there.wait(sys::Ready::Read, Duration::from_secs(20)).unwrap());
            assert_eq!(there.read_first(&mut [0], &mut Vec::new()).unwrap(), 1);
            assert_eq!(there.wait(sys::Ready::Read, Duration::ZERO).unwrap(), rest);
            assert_eq!(there.is_quiet(), !rest);
        }
    }

    #[test]
    fn what_was_given_up_is_not_sent_afterwards() {
        let (mut here, there) = connected();
        let bytes = vec![7; STEP];
        while here.flush().is_ok() {
            let _ = here.write(&[IoSlice::new(&bytes)], &[]);
        }
        // Room for the rest, which nobody sends any more.
        let mut into = vec![0; STEP];
        let until = Instant::now() + Duration::from_secs(20);
        while sys::unsent(here.stream().as_fd()).unwrap() > 0 {
            let _ = (&**there.stream()).read(&mut into);
            assert!(Instant::now() < until, "it never came");
        }
        while sys::wait_until_ready(there.stream().as_fd(), sys::Ready::Read, Duration::ZERO)
            .unwrap()
        {
            assert!((&**there.stream()).read(&mut into).unwrap() > 0);
        }
        drop(here);
        there.stream().set_nonblocking(false).unwrap();
        assert_eq!((&**there.stream()).read(&mut into).unwrap(), 0, "the rest of a record");
    }

    #[test]
    fn connections_grow_old() {
        let (mut here, there) = connected();
        assert!(!here.is_old(Duration::from_secs(60)) && here.is_old(LIFE));
        here.since = here.since.checked_sub(LIFE).unwrap_or(here.since);
        assert_eq!((here.is_old(Duration::ZERO), there.is_old(Duration::ZERO)), (true, false));
    }
}
