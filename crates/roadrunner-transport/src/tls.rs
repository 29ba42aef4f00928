//! A connection to another host that nobody else can read or change, and whose ends know who the
//! other one is.
//!
//! The node that took it in says [`WELCOME`] when it has verified the caller's certificate, and the
//! caller sends nothing before. So a certificate that is refused is told from a call that was lost.

use std::io::{self, BufReader, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

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

/// A connection over TCP with TLS.
pub(crate) struct Tls {
    tls: Connection,
    /// Bytes of the socket, as many as it has at a time.
    incoming: BufReader<Socket>,
    welcomed: bool,
    caller: Caller,
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
        tls.set_buffer_limit(Some(STEP));
        let incoming = BufReader::with_capacity(STEP, Socket(Arc::new(stream)));
        Ok(Self { tls, incoming, welcomed: false, caller: Caller::Unnamed })
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
        sys::wait_until_ready(self.stream().as_fd(), ready, wait)
    }

    fn is_quiet(&self) -> bool {
        self.incoming.buffer().is_empty() && sys::is_quiet(self.stream().as_fd())
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        // So that the peer can tell an end from a cut; it does without where the socket is full.
        self.tls.send_close_notify();
        let _ = self.push();
    }
}
