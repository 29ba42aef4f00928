//! Messages over UNIX sockets that carry descriptors, and waiting at sockets.
//!
//! ```text
//!   control buffer of sendmsg and recvmsg, in the kernel's layout (unix(7), cmsg(3))
//!   | length: usize | level: i32 | type: i32 | descriptor: i32 | descriptor: i32 | ... | padding |
//!   '---------- HEADER bytes ---------------'
//! ```
//!
//! The kernel's answer is taken apart in safe code; unsafe are the calls alone, and taking what the
//! kernel says are descriptors for owned ones.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;
use std::{mem, ptr};

use crate::{close_aside, closer};

/// Most descriptors in one message: the kernel's `SCM_MAX_FD`, beyond which `sendmsg` fails.
pub const MAX_DESCRIPTORS: usize = 253;

/// Bytes of the kernel's `struct cmsghdr`, of which no C library changes the layout.
const HEADER: usize = size_of::<usize>() + 2 * size_of::<libc::c_int>();
/// Words of a control buffer with room for one message of [`MAX_DESCRIPTORS`].
const CONTROL_WORDS: usize =
    (HEADER + MAX_DESCRIPTORS * size_of::<RawFd>()).div_ceil(size_of::<usize>());

/// A control buffer. Words, because the kernel wants it aligned as its header is.
type Control = [usize; CONTROL_WORDS];

/// Level and type of a control message.
type Kind = (libc::c_int, libc::c_int);

/// Sends bytes over a connected UNIX stream socket, and descriptors with the first of them, by one
/// `sendmsg`. The answer is how many bytes went, which may be fewer than there are; the descriptors
/// went if any did, so the rest is sent without them.
///
/// # Errors
/// `InvalidInput` for more than [`MAX_DESCRIPTORS`], or descriptors without a byte, which a stream
/// loses. `BrokenPipe` when the peer closed (no signal is raised). Else as `sendmsg`: among others
/// when there are over 1024 parts, or over as many descriptors in flight as the process may open.
pub fn send_with_descriptors(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    fds: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    if fds.len() > MAX_DESCRIPTORS {
        let what = format!(
            "{} descriptors in one message, over the limit of {MAX_DESCRIPTORS}",
            fds.len()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    if !fds.is_empty() && parts.iter().all(|part| part.is_empty()) {
        let what = "descriptors need a byte to travel with";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let mut control: Control = [0; CONTROL_WORDS];
    let mut message = empty_message();
    message.msg_iov = parts.as_ptr().cast_mut().cast();
    message.msg_iovlen = parts.len() as _;
    if !fds.is_empty() {
        message.msg_controllen = put_descriptors(&mut control, fds) as _;
        message.msg_control = control.as_mut_ptr().cast();
    }
    retried(|| {
        // SAFETY: R3, all pointers in the message come from references that live on; an `IoSlice`
        // is an `iovec` by its documentation, and the kernel only reads through them.
        unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) }
    })
}

/// Receives bytes into `buffer` by one `recvmsg`, and appends the descriptors that came with them
/// to `fds`; they close on `exec`. The answer is the number of bytes; 0 means that the peer closed.
///
/// What comes is at most one message's descriptors. Bytes of messages without descriptors before it
/// may come along, bytes behind it don't: who must know which bytes they belong to asks for no
/// more than up to those.
///
/// A message with more than `room` descriptors is refused. They are taken all the same, to be closed
/// aside: those that it has no room for the kernel closes on this thread, however long that takes.
///
/// # Errors
/// `InvalidInput` for an empty buffer. `InvalidData` when the peer sent more than `room` descriptors,
/// and when some were cut off: because this process may open no more, or too many that were refused
/// are still to be closed. Those that came are closed then ([`close_aside`]), and so the connection is
/// of no further use. Else as `recvmsg`. `fds` is as before then.
pub fn receive_with_descriptors(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    room: usize,
    fds: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let keeps_up = closer::keeps_up();
    let most = if keeps_up { MAX_DESCRIPTORS } else { 0 };
    let (received, came, cut) = receive(socket, buffer, most)?;
    if !cut && came.len() <= room {
        fds.extend(came);
        return Ok(received);
    }
    let what = if !cut {
        format!("{} descriptors came, over the limit of {room}", came.len())
    } else if keeps_up {
        "descriptors of a message were cut off: this process may open no more".into()
    } else {
        "descriptors of a message were cut off: too many before it are still to be closed".into()
    };
    close_aside(came);
    Err(io::Error::new(io::ErrorKind::InvalidData, what))
}

/// Receives bytes and at most `most` descriptors, and whether there were more.
fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    most: usize,
) -> io::Result<(usize, Vec<OwnedFd>, bool)> {
    if buffer.is_empty() {
        let what = "there is no room for a single byte";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut message = empty_message();
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    let mut control: Control = [0; CONTROL_WORDS];
    if most > 0 {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = (HEADER + most * size_of::<RawFd>()) as _;
    }
    let received = retried(|| {
        // SAFETY: R3, all pointers in the message come from references that live on, with the
        // lengths of what they point to. A call that fails leaves the message as it was.
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) }
    })?;
    #[allow(clippy::unnecessary_cast, reason = "the C libraries differ in this field's type")]
    let filled = message.msg_controllen as usize;
    let came = take_descriptors(&control, filled);
    Ok((received, came, message.msg_flags & libc::MSG_CTRUNC != 0))
}

/// A message with nothing in it.
pub(crate) fn empty_message() -> libc::msghdr {
    // SAFETY: a C structure of integers and pointers, for which zeros are values. Its padding
    // differs between C libraries, so that it can't be written out.
    unsafe { mem::zeroed() }
}

/// Writes one `SCM_RIGHTS` message and says how many bytes it takes.
fn put_descriptors(control: &mut Control, fds: &[BorrowedFd<'_>]) -> usize {
    let len = HEADER + size_of_val(fds);
    let header = len.to_ne_bytes().into_iter();
    let header = header.chain(libc::SOL_SOCKET.to_ne_bytes());
    let header = header.chain(libc::SCM_RIGHTS.to_ne_bytes());
    let mut bytes = header.chain(fds.iter().flat_map(|fd| fd.as_raw_fd().to_ne_bytes()));
    for word in control.iter_mut().take(len.div_ceil(size_of::<usize>())) {
        *word = usize::from_ne_bytes(std::array::from_fn(|_| bytes.next().unwrap_or(0)));
    }
    len
}

/// Takes the descriptors out of what the kernel wrote to the first `filled` bytes of a control
/// buffer. Messages of other kinds, which come only where the socket asks for them, are passed over.
fn take_descriptors(control: &[usize], filled: usize) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    for (kind, bytes) in control_messages(control, filled) {
        if kind == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            let (raw, _) = bytes.as_chunks();
            // SAFETY: R4.
            let own = |fd: &[u8; 4]| unsafe { OwnedFd::from_raw_fd(RawFd::from_ne_bytes(*fd)) };
            fds.extend(raw.iter().map(own));
        }
    }
    fds
}

/// The messages in the first `filled` bytes of a control buffer.
pub(crate) fn control_messages(control: &[usize], filled: usize) -> Vec<(Kind, Vec<u8>)> {
    let bytes: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).take(filled).collect();
    let mut rest = bytes.as_slice();
    let mut messages = Vec::new();
    while let Some((len, after)) = rest.split_first_chunk()
        && let Some((level, after)) = after.split_first_chunk()
        && let Some((kind, _)) = after.split_first_chunk()
    {
        let len = usize::from_ne_bytes(*len).clamp(HEADER, rest.len());
        let kind = (i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind));
        messages.push((kind, rest[HEADER..len].to_vec()));
        rest = rest.get(len.next_multiple_of(size_of::<usize>())..).unwrap_or(&[]);
    }
    messages
}

/// Makes a call again until no signal interrupts it.
pub(crate) fn retried(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        if let Ok(done) = usize::try_from(call()) {
            return Ok(done);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Whether a connected socket's peer has neither closed it nor sent anything.
#[must_use]
pub fn is_quiet(socket: BorrowedFd<'_>) -> bool {
    let events = libc::POLLIN | libc::POLLRDHUP;
    let mut asked = libc::pollfd { fd: socket.as_raw_fd(), events, revents: 0 };
    // SAFETY: R3, the kernel writes to a local.
    unsafe { libc::poll(&raw mut asked, 1, 0) == 0 }
}

/// What is waited for at a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Bytes to receive, or the peer's end.
    Read,
    /// Room for bytes to send.
    Write,
}

/// Waits until a socket is ready, as long as `wait`. `false` where that was not enough.
///
/// # Errors
/// When the kernel has no memory to wait with.
pub fn wait_until_ready(socket: BorrowedFd<'_>, ready: Ready, wait: Duration) -> io::Result<bool> {
    let events = match ready {
        Ready::Read => libc::POLLIN,
        Ready::Write => libc::POLLOUT,
    };
    Ok(poll(socket, events, wait)? != 0)
}

/// Waits for events at a socket, as long as `wait`, and says which there are: after a signal those
/// that were asked for, so that whoever asks finds out and waits again.
pub(crate) fn poll(
    socket: BorrowedFd<'_>,
    events: libc::c_short,
    wait: Duration,
) -> io::Result<libc::c_short> {
    let mut asked = libc::pollfd { fd: socket.as_raw_fd(), events, revents: 0 };
    let seconds = libc::time_t::try_from(wait.as_secs()).unwrap_or(libc::time_t::MAX);
    let wait = libc::timespec { tv_sec: seconds, tv_nsec: wait.subsec_nanos().into() };
    // SAFETY: R3, the kernel reads and writes locals.
    let got = unsafe { libc::ppoll(&raw mut asked, 1, &raw const wait, ptr::null()) };
    if got >= 0 {
        return Ok(asked.revents);
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::Interrupted => Ok(events | libc::POLLERR),
        error => Err(error),
    }
}

/// Has a blocked `accept` of a listening socket return, and every later one.
pub fn stop_listening(socket: BorrowedFd<'_>) {
    // SAFETY: R2. A failure is that it does not listen.
    let _ = unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptors::{eventually, lingering, of_same_file};
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::os::unix::thread::JoinHandleExt;
    use std::thread;
    use std::time::{Duration, Instant};

    fn send(socket: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        send_with_descriptors(socket.as_fd(), &[IoSlice::new(bytes)], fds)
    }

    #[test]
    fn bytes_and_descriptors_arrive_together() {
        let (here, there) = UnixStream::pair().unwrap();
        let (end, mut start) = io::pipe().unwrap();
        let parts = [IoSlice::new(b"one "), IoSlice::new(b""), IoSlice::new(b"two")];
        let sent = send_with_descriptors(here.as_fd(), &parts, &[end.as_fd(), there.as_fd()]);
        assert_eq!(sent.unwrap(), 7);
        send(&here, b"three", &[]).unwrap();
        let (mut buffer, mut fds) = ([0; 64], vec![end.as_fd().try_clone_to_owned().unwrap()]);
        let got = receive_with_descriptors(there.as_fd(), &mut buffer, MAX_DESCRIPTORS, &mut fds)
            .unwrap();
        assert_eq!(&buffer[..got], b"one two", "what follows is another message");
        assert_eq!(fds.len(), 3, "they are added to what is there");
        for fd in &fds[1..] {
            // SAFETY: R2.
            let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) };
            assert_eq!(flags, libc::FD_CLOEXEC);
        }
        start.write_all(b"x").unwrap();
        let mut end = io::PipeReader::from(fds.swap_remove(1));
        let mut byte = [0];
        io::Read::read_exact(&mut end, &mut byte).unwrap();
        assert_eq!(&byte, b"x");
        let got = receive_with_descriptors(there.as_fd(), &mut buffer, MAX_DESCRIPTORS, &mut fds)
            .unwrap();
        assert_eq!((&buffer[..got], fds.len()), (b"three".as_slice(), 2));
        drop(here);
        assert_eq!(
            receive_with_descriptors(there.as_fd(), &mut buffer, MAX_DESCRIPTORS, &mut fds)
                .unwrap(),
            0
        );
    }

    #[test]
    fn as_many_descriptors_travel_as_the_kernel_lets() {
        let (here, there) = UnixStream::pair().unwrap();
        let (end, _start) = io::pipe().unwrap();
        let many = vec![end.as_fd(); MAX_DESCRIPTORS + 1];
        let refused = send(&here, b"x", &many).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{refused}");
        assert_eq!(send(&here, b"x", &many[1..]).unwrap(), 1);
        let (mut buffer, mut fds) = ([0; 8], Vec::new());
        assert_eq!(
            receive_with_descriptors(there.as_fd(), &mut buffer, MAX_DESCRIPTORS, &mut fds)
                .unwrap(),
            1
        );
        assert_eq!(fds.len(), MAX_DESCRIPTORS);
    }

    #[test]
    fn what_a_stream_would_lose_is_refused() {
        let (here, there) = UnixStream::pair().unwrap();
        let kind = |refused: io::Result<usize>| refused.unwrap_err().kind();
        assert_eq!(kind(send(&here, b"", &[there.as_fd()])), io::ErrorKind::InvalidInput);
        let none = receive_with_descriptors(there.as_fd(), &mut [], 1, &mut Vec::new());
        assert_eq!(kind(none), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn descriptors_that_were_cut_off_are_told() {
        for (sent, most) in [(9, 4), (2, 1), (1, 0)] {
            let (here, there) = UnixStream::pair().unwrap();
            send(&here, b"bytes", &vec![here.as_fd(); sent]).unwrap();
            let (received, came, cut) = receive(there.as_fd(), &mut [0; 8], most).unwrap();
            assert_eq!((received, came.len(), cut), (5, most, true), "{sent} for {most}");
        }
    }

    #[test]
    fn more_descriptors_than_there_is_room_for_leave_none_behind() {
        for (sent, room) in [(9, 4), (1, 0), (MAX_DESCRIPTORS, MAX_DESCRIPTORS - 1)] {
            let (here, there) = UnixStream::pair().unwrap();
            let mut fds = Vec::new();
            let mut receive = |sent: usize| {
                send(&here, b"bytes", &vec![here.as_fd(); sent]).unwrap();
                receive_with_descriptors(there.as_fd(), &mut [0; 8], room, &mut fds)
            };
            let error = receive(sent).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            let said = format!("{sent} descriptors came, over the limit of {room}");
            assert_eq!(error.to_string(), said);
            eventually(|| of_same_file(here.as_fd()) == 1);
            assert_eq!(receive(room).unwrap(), 5);
            assert_eq!(fds.len(), room);
        }
    }

    #[test]
    fn nobody_waits_until_descriptors_without_room_are_closed() {
        let (here, there) = UnixStream::pair().unwrap();
        let ((one, _one), (two, _two)) = (lingering(), lingering());
        send(&here, b"bytes", &[one.as_fd(), two.as_fd()]).unwrap();
        drop((one, two));
        let since = Instant::now();
        let got = receive_with_descriptors(there.as_fd(), &mut [0; 8], 1, &mut Vec::new());
        assert_eq!(got.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(since.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_closed_peer_is_an_error_without_a_signal() {
        let (here, there) = UnixStream::pair().unwrap();
        drop(there);
        assert_eq!(send(&here, b"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_signal_does_not_end_a_receive() {
        extern "C" fn ignore(_: libc::c_int) {}
        // SAFETY: a C structure for which zeros are values; without `SA_RESTART` calls are broken off.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = ignore as *const () as libc::sighandler_t;
        // SAFETY: R3, and the handler does nothing.
        let set = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut()) };
        assert_eq!(set, 0);
        let (here, there) = UnixStream::pair().unwrap();
        let receiver = thread::spawn(move || {
            let mut buffer = [0; 8];
            receive_with_descriptors(there.as_fd(), &mut buffer, 0, &mut Vec::new())
        });
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(5));
            assert!(!receiver.is_finished(), "broken off by a signal");
            // SAFETY: the thread has not been joined, so the handle is good.
            assert_eq!(unsafe { libc::pthread_kill(receiver.as_pthread_t(), libc::SIGUSR1) }, 0);
        }
        send(&here, b"x", &[]).unwrap();
        assert_eq!(receiver.join().unwrap().unwrap(), 1);
    }
}
