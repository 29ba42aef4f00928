//! What every way must do, whatever the peer does.

use std::io::{self, ErrorKind, Read as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use roadrunner_buffer::{BreakEven, Domain, Home, Pool, PoolLimits, Sealed};

use super::{Choice, Hose, Method, Source, Way};

fn home() -> Home {
    let pool = Arc::new(Pool::new(PoolLimits::default()));
    Home { pool, domain: Domain(1), break_even: BreakEven::fixed(0) }
}

/// A hose for one method, and its peer.
fn connect(method: Method) -> (Hose, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_nonblocking(true).unwrap();
    let (peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (Hose::new(Arc::new(stream), Arc::new(Choice::fixed(method))), peer)
}

/// The methods that this kernel offers.
fn available() -> impl Iterator<Item = Method> {
    Method::ALL.into_iter().filter(|method| match method.is_available() {
        Ok(()) => true,
        Err(error) => {
            eprintln!("skipped: {method} is not available here: {error}");
            false
        }
    })
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..251).cycle().take(len).collect()
}

/// Reads `len` bytes, a few at a time, once the sender says it is done or has waited long enough to need
/// the room.
fn read_slowly(mut peer: TcpStream, len: usize, sent: &Receiver<()>) -> Vec<u8> {
    let _ = sent.recv_timeout(Duration::from_millis(500));
    let mut bytes = vec![0; len];
    for part in bytes.chunks_mut(16 << 10) {
        peer.read_exact(part).unwrap();
    }
    bytes
}

/// Sends a payload to somebody who reads late; as soon as it is sent, `reuse` may do what it likes with
/// its pages.
fn what_arrives(
    method: Method,
    mut payload: Sealed<'static>,
    reuse: impl FnOnce(Sealed<'static>) -> Option<Sealed<'static>>,
) -> Vec<u8> {
    let (mut hose, peer) = connect(method);
    let (done, sent): (Sender<()>, _) = channel();
    let len = payload.len();
    let reader = thread::spawn(move || read_slowly(peer, len, &sent));
    {
        let payload = payload.reborrow();
        let source = Source { bytes: payload.bytes().unwrap(), sealed: payload.sealed_file() };
        hose.send(&source, soon()).unwrap();
    }
    let kept = reuse(payload);
    let _ = done.send(());
    let arrived = reader.join().unwrap();
    drop(kept);
    arrived
}

/// Small enough that a send is done before the first byte is read, where it does not wait for that.
const LEN: usize = 320 << 10;

#[test]
fn pages_that_are_written_after_a_send_never_show_on_the_wire() {
    let (home, bytes) = (home(), pattern(LEN));
    let write = |fill: &dyn Fn(&mut [u8])| {
        Sealed::write(LEN, &home, |place| {
            fill(place);
            Ok(())
        })
        .unwrap()
    };
    // As a runtime does: the pages of a payload that is done with are the next payload's.
    for method in available() {
        let payload = write(&|place| place.copy_from_slice(&bytes));
        let at = payload.bytes().unwrap().as_ptr();
        let arrived = what_arrives(method, payload, |payload| {
            drop(payload);
            assert!(home.pool.usage().bytes >= LEN, "the pages are ready for their next payload");
            Some(write(&|place| place.fill(0xff)))
        });
        assert!(arrived == bytes, "{method} showed what was written later, at {at:p}");
    }
}

#[test]
fn sealed_pages_stay_what_they_are_after_their_memfd_has_gone() {
    let (home, bytes) = (home(), pattern(LEN));
    let write = |fill: &dyn Fn(&mut [u8])| {
        let sealed = Sealed::write_shared(LEN, &home, |place| {
            fill(place);
            Ok(())
        });
        sealed.unwrap()
    };
    for method in available() {
        let payload = write(&|place| place.copy_from_slice(&bytes));
        assert!(payload.sealed_file().is_some());
        let arrived = what_arrives(method, payload, |payload| {
            drop(payload);
            Some(write(&|place| place.fill(0xff)))
        });
        assert!(arrived == bytes, "{method} showed another payload");
    }
}

#[test]
fn payloads_that_no_socket_holds_at_once_arrive_whole() {
    let (home, bytes) = (home(), pattern(24 << 20));
    for method in available() {
        let payload = Sealed::write_shared(bytes.len(), &home, |place| {
            place.copy_from_slice(&bytes);
            Ok(())
        });
        let arrived = what_arrives(method, payload.unwrap(), Some);
        assert!(arrived == bytes, "{method} sent something else");
    }
}

#[test]
fn segments_are_no_files_to_send_from() {
    use roadrunner_buffer::{Backing, Contents, Extent, Window};
    let home = home();
    let lay = |backing| {
        Window::fresh(Extent::reserve(1 << 20).unwrap(), backing, Contents::Zeroed, &home).unwrap()
    };
    for (backing, sealed) in
        [(Backing::Segment, false), (Backing::Private, false), (Backing::Memfd, true)]
    {
        let mut window = lay(backing);
        let payload = window.lend(LEN).unwrap();
        assert_eq!(payload.sealed_file().is_some(), sealed, "{backing:?}");
        // As a process passes it on.
        let (passed, _) = payload.published(&home, true).unwrap();
        assert_eq!(passed.sealed_file().is_some(), backing != Backing::Segment, "{backing:?}");
        let (payload, _) = payload.detach(&home).unwrap();
        assert_eq!(payload.sealed_file().is_some(), sealed, "{backing:?}, lifted");
    }
}

/// A payload that no socket holds, in pages that every method takes.
fn long() -> Sealed<'static> {
    Sealed::write_shared(64 << 20, &home(), |place| {
        place.fill(1);
        Ok(())
    })
    .unwrap()
}

/// Whether the kernel has let go of every page that a method sent.
fn is_settled(hose: &mut Hose) -> bool {
    let way = &mut hose.way.as_mut().unwrap().1;
    way.settle(hose.stream.as_fd(), Instant::now()).is_ok()
}

#[test]
fn a_peer_that_reads_nothing_ends_a_send_at_its_deadline() {
    let payload = long();
    let source = Source { bytes: payload.bytes().unwrap(), sealed: payload.sealed_file() };
    for method in available() {
        let (mut hose, _peer) = connect(method);
        let since = Instant::now();
        let ended = hose.send(&source, since + Duration::from_millis(200)).unwrap_err().error;
        assert_eq!(ended.kind(), ErrorKind::TimedOut, "{method}");
        assert!(since.elapsed() >= Duration::from_millis(200), "{method}");
        assert!(is_settled(&mut hose), "{method} left pages with the kernel");
    }
}

#[test]
fn a_peer_that_goes_ends_a_send_and_every_page_comes_back() {
    let payload = long();
    let source = Source { bytes: payload.bytes().unwrap(), sealed: payload.sealed_file() };
    for method in available() {
        let (mut hose, mut peer) = connect(method);
        let reader = thread::spawn(move || peer.read_exact(&mut [0; 1 << 20]));
        let ended = hose.send(&source, soon()).unwrap_err().error.kind();
        let ends = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset, ErrorKind::NotConnected];
        assert!(ends.contains(&ended), "{method}: {ended}");
        assert!(is_settled(&mut hose), "{method} left pages with the kernel");
        reader.join().unwrap().unwrap();
    }
}

/// Takes so many bytes, and needs their pages until it is asked twice.
struct Holding(usize, bool);

impl Way for Holding {
    fn some(
        &mut self,
        _: BorrowedFd<'_>,
        _: &Source<'_>,
        at: usize,
        _: Instant,
    ) -> io::Result<usize> {
        if at < self.0 { Ok(self.0 - at) } else { Err(ErrorKind::ConnectionReset.into()) }
    }

    fn settle(&mut self, _: BorrowedFd<'_>, _: Instant) -> io::Result<()> {
        if std::mem::replace(&mut self.1, false) { Err(ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

#[test]
fn what_the_kernel_has_taken_whole_may_have_arrived() {
    let source = Source { bytes: &[7; 100], sealed: None };
    for (takes, kind, whole) in
        [(100, ErrorKind::TimedOut, true), (99, ErrorKind::ConnectionReset, false)]
    {
        let (mut hose, _peer) = connect(Method::Zerocopy);
        hose.way = Some((Method::Zerocopy, Box::new(Holding(takes, true))));
        let stopped = hose.send_by(Method::Zerocopy, &source, 0, soon()).err().unwrap();
        assert_eq!((stopped.error.kind(), stopped.whole), (kind, whole));
    }
}
