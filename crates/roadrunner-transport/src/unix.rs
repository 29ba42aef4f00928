//! Kernel space: the function is in another process of this host. Calls go over a UNIX socket, and a
//! payload goes as the descriptor of a sealed memfd, which the receiver checks and maps: no byte of
//! it is copied. Payloads below the break-even travel behind the call.

use std::fmt;
use std::fs::{self, Permissions};
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use roadrunner_sys as sys;

use crate::client::{Client, Dial};
use crate::link::Link;
use crate::server::{Listen, Server};
use crate::{Call, Inbox, Mode, Reply, Terms, Transport, Undelivered};

/// The way to the functions of another process of this host.
pub struct Unix(Client<Process>);

/// Where a process listens.
struct Process {
    address: SocketAddr,
    /// The process that made the socket listen, where that is known.
    listener: Option<u32>,
}

impl Unix {
    /// The way to whoever listens at an address, when the first call goes there. It must be a process
    /// of this user, or for segments a socket that the run itself made listen.
    #[must_use]
    pub fn new(address: SocketAddr, terms: Terms) -> Self {
        let listener = terms.trust.run();
        Self(Client::new(Process { address, listener }, terms))
    }
}

impl Transport for Unix {
    fn mode(&self) -> Mode {
        Mode::Kernel
    }

    fn send<'p>(&self, call: Call<'p>) -> Result<Reply, Undelivered<'p>> {
        self.0.call(call)
    }
}

impl fmt::Debug for Unix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unix({})", self.0.peer())
    }
}

impl Dial for Process {
    type Link = Arc<UnixStream>;

    fn dial(&self, until: Instant) -> io::Result<Self::Link> {
        let left = until.saturating_duration_since(Instant::now());
        let stream = sys::connect_unix(&self.address, left)?;
        // Whoever is first has the name of a socket whose process is gone.
        let found = sys::peer_credentials(stream.as_fd())?;
        let stranger = self.listener.is_some_and(|listener| listener != found.pid);
        if stranger || found.uid != sys::user() {
            let (pid, uid) = (found.pid, found.uid);
            let what = format!("process {pid} of user {uid} listens there, which is somebody else");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        stream.set_nonblocking(true)?;
        Ok(Arc::new(stream))
    }

    fn passes_descriptors(&self) -> bool {
        true
    }

    fn peer(&self) -> String {
        match (self.address.as_pathname(), self.address.as_abstract_name()) {
            (Some(path), _) => path.display().to_string(),
            (_, Some(name)) => format!("@{}", String::from_utf8_lossy(name)),
            _ => "a socket without a name".into(),
        }
    }
}

impl Link for Arc<UnixStream> {
    fn passes_descriptors(&self) -> bool {
        true
    }

    fn write(&mut self, parts: &[IoSlice<'_>], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        sys::send_with_descriptors(self.as_fd(), parts, fds)
    }

    fn read_first(&mut self, into: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
        sys::receive_with_descriptors(self.as_fd(), into, sys::MAX_DESCRIPTORS, fds)
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // Room for none: what comes all the same is closed where nobody waits for it.
        sys::receive_with_descriptors(self.as_fd(), into, 0, &mut Vec::new())
    }

    fn peer(&self) -> u32 {
        sys::peer_credentials(self.as_fd()).map_or(0, |peer| peer.pid)
    }

    fn process(&self) -> Option<OwnedFd> {
        // Without one the process's number has to do.
        sys::peer_pidfd(self.as_fd()).ok().flatten()
    }

    fn wait(&mut self, ready: sys::Ready, wait: Duration) -> io::Result<bool> {
        sys::wait_until_ready(self.as_fd(), ready, wait)
    }

    fn is_quiet(&mut self) -> bool {
        // A write to a socket that is closed fails at once, before anything of it is sent; and frames that nobody
        // asked for are for whoever asks next, who loses its call to a peer that breaks the rules.
        true
    }
}

/// A socket that other processes of the same user call functions over. Calls are served until it is
/// stopped or dropped, which removes the socket's file.
pub struct UnixServer {
    server: Server,
    file: Option<SocketFile>,
}

impl UnixServer {
    /// Listens at `path`, with mode 0600. A file that a process left there which is gone is replaced.
    ///
    /// # Errors
    /// `AddrInUse` when somebody listens there or something else has the name; else the kernel's.
    pub fn bind(
        path: &Path,
        inbox: Arc<dyn Inbox + Send + Sync>,
        terms: Terms,
    ) -> io::Result<Self> {
        let (listener, file) = SocketFile::bind(path)?;
        Ok(Self { server: Server::start(listener, inbox, terms)?, file: Some(file) })
    }

    /// Serves a socket that listens already.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn on(
        listener: UnixListener,
        inbox: Arc<dyn Inbox + Send + Sync>,
        terms: Terms,
    ) -> io::Result<Self> {
        Ok(Self { server: Server::start(listener, inbox, terms)?, file: None })
    }

    /// Removes the socket's file, so that nobody new comes and another process can have the name.
    pub fn hide(&mut self) {
        self.file = None;
    }

    /// Takes no more calls, and gives those under way as long as `grace` to end.
    pub fn stop(&mut self, grace: Duration) {
        self.server.stop(grace);
    }
}

impl fmt::Debug for UnixServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnixServer")
    }
}

impl Listen for UnixListener {
    type Link = Arc<UnixStream>;

    fn accept(&self) -> io::Result<Self::Link> {
        loop {
            let (stream, _) = Self::accept(self)?;
            let peer = sys::peer_credentials(stream.as_fd())?;
            if peer.uid == sys::user() || peer.uid == 0 {
                stream.set_nonblocking(true)?;
                return Ok(Arc::new(stream));
            }
            tracing::warn!(pid = peer.pid, uid = peer.uid, "a process of another user was refused");
        }
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

/// A socket's file, which is removed in the end unless somebody else has the name by then.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

impl SocketFile {
    fn bind(path: &Path) -> io::Result<(UnixListener, Self)> {
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                let what = "a file that is no socket has this name";
                return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
            }
            Ok(_) if UnixStream::connect(path).is_ok() => {
                let what = "another process listens there";
                return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
            }
            _ => {}
        }
        // Made under another name, so that nobody connects before it has its mode, and renamed, which
        // replaces what a process that is gone left there.
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}", std::process::id()));
        let beside = path.with_file_name(name);
        let _ = fs::remove_file(&beside);
        let listener = UnixListener::bind(&beside)?;
        let placed = fs::set_permissions(&beside, Permissions::from_mode(0o600))
            .and_then(|()| fs::rename(&beside, path))
            .and_then(|()| fs::symlink_metadata(path));
        match placed {
            Ok(found) => Ok((listener, Self { path: path.into(), id: (found.dev(), found.ino()) })),
            Err(error) => {
                let _ = fs::remove_file(&beside);
                Err(error)
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |found: fs::Metadata| (found.dev(), found.ino()) == self.id;
        if fs::symlink_metadata(&self.path).is_ok_and(ours) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Trust;
    use crate::conformance::{self, EchoInbox};

    fn listening(inbox: EchoInbox) -> (tempfile::TempDir, PathBuf, Terms, UnixServer) {
        let terms =
            Terms { home: inbox.home().clone(), payload_limit: 1 << 30, trust: Trust::None };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("echo.sock");
        let server = UnixServer::bind(&path, Arc::new(inbox), terms.clone()).unwrap();
        (folder, path, terms, server)
    }

    #[test]
    fn the_way_between_processes_conforms() {
        let (_folder, path, terms, _server) = listening(EchoInbox::default());
        let home = terms.home.clone();
        let address = SocketAddr::from_pathname(path).unwrap();
        conformance::all(&Unix::new(address, terms), &home);
    }

    #[test]
    fn a_socket_is_private_and_one_process_has_it() {
        let (_folder, path, terms, server) = listening(EchoInbox::default());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let inbox = Arc::new(EchoInbox::default());
        let again = UnixServer::bind(&path, inbox.clone(), terms.clone()).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
        drop(server);
        assert!(!path.exists(), "its file goes with it");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "as a process leaves it that was killed");
        let server = UnixServer::bind(&path, inbox.clone(), terms.clone()).unwrap();
        drop(server);
        fs::write(&path, "precious").unwrap();
        assert!(UnixServer::bind(&path, inbox, terms).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
