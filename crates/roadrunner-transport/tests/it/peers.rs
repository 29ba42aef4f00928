//! Peers that break the contract, hang, die or lie: each call ends in its result or one typed fault, and
//! whoever it was, the next call works and nothing is left over.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use roadrunner_buffer::Sealed;
use roadrunner_sys::{Memfd, send_with_descriptors};
use roadrunner_transport::conformance::{ECHO, EchoInbox};
use roadrunner_transport::frame::{
    CallMeta, FaultMeta, HEADER_BYTES, Header, Meta, Part, Place, ReplyMeta, Trace, WireAccount,
    WireFault,
};
use roadrunner_transport::{
    Call, Caller, Fault, Payload, Reply, Terms, Transport, Trust, Undelivered, Unix, UnixServer,
};

const LIMIT: u64 = 64 << 20;
const PAGE: usize = 4096;

struct Node {
    _folder: tempfile::TempDir,
    path: PathBuf,
    terms: Terms,
    _server: Option<UnixServer>,
}

impl Node {
    fn path_only() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.sock");
        let home = EchoInbox::default().home().clone();
        let terms = Terms { home, payload_limit: LIMIT, trust: Trust::None };
        Self { _folder: folder, path, terms, _server: None }
    }

    fn serving() -> Self {
        let mut node = Self::path_only();
        let server =
            UnixServer::bind(&node.path, Arc::new(EchoInbox::default()), node.terms.clone());
        node._server = Some(server.unwrap());
        node
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn way(&self) -> Unix {
        Unix::new(SocketAddr::from_pathname(&self.path).unwrap(), self.terms.clone())
    }
}

fn call_with(
    way: &Unix,
    bytes: &'static [u8],
    time: Duration,
) -> Result<Reply, Undelivered<'static>> {
    let since = Instant::now();
    let payload = Payload::One(Sealed::borrowed(bytes));
    let (deadline, caller, trace) = (since + time, Caller::Unnamed, Trace::default());
    way.send(Call { target: ECHO, payload, since, deadline, depth: 0, caller, trace })
}

fn call(way: &Unix) -> Result<Reply, Undelivered<'static>> {
    call_with(way, b"hello", Duration::from_secs(20))
}

fn works(way: &Unix) {
    let mut reply = call(way).unwrap_or_else(|undelivered| panic!("{}", undelivered.fault));
    assert_eq!(reply.payload().unwrap().bytes().unwrap(), b"hello");
}

/// A right call of the echo, with its parts.
fn call_frame(parts: &[Part]) -> Vec<u8> {
    let meta = Meta::Call(CallMeta {
        function: ECHO.to_owned(),
        time_left_us: 10_000_000,
        depth: 0,
        many: false,
        parts: parts.to_vec(),
        released: Vec::new(),
    });
    meta.encode(77, Trace::default(), false).unwrap()
}

const HELLO: Part = Part { len: 5, place: Place::Inline };

fn good_call() -> Vec<u8> {
    [call_frame(&[HELLO]), b"hello".to_vec()].concat()
}

/// The text of the fault that a node answers, after which it closes.
fn refusal(mut stream: UnixStream) -> String {
    let mut answer = Vec::new();
    // Where the node left something unread, the end is a reset.
    let _ = stream.read_to_end(&mut answer);
    let (head, meta) = answer.split_first_chunk::<HEADER_BYTES>().expect("it answered nothing");
    let header = Header::decode(head, LIMIT).unwrap();
    match Meta::decode(&header, meta, LIMIT).unwrap() {
        Meta::Fault(FaultMeta { fault, delivered: false, .. }) => Fault::from(fault).to_string(),
        other => panic!("it answered {other:?}"),
    }
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn settles_at(before: usize) {
    for _ in 0..200 {
        if descriptors() <= before {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("{} descriptors are open, {before} were", descriptors());
}

#[test]
fn what_breaks_the_wire_format_is_told_so_and_cut_off() {
    let node = Node::serving();
    let way = node.way();
    works(&way);
    let good = good_call();
    let with = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        frame
    };
    let too_long = {
        let (head, meta) = good.split_first_chunk::<HEADER_BYTES>().unwrap();
        let mut header = Header::decode(head, LIMIT).unwrap();
        header.inline_len = u64::MAX;
        let meta = &meta[..meta.len() - 5];
        [&header.covering(meta).unwrap().encode()[..], meta].concat()
    };
    for (frame, says) in [
        (with(0, b'X'), "this is no Roadrunner frame"),
        (with(4, 9), "version 9"),
        (with(5, 200), "no frame of kind 200"),
        (with(HEADER_BYTES + 3, 0xff), "bytes changed on the way"),
        (too_long, "an inline payload in bytes of 18446744073709551615"),
    ] {
        let mut stream = node.connect();
        // The node may have closed before it has read all of it.
        let _ = stream.write_all(&frame);
        let said = refusal(stream);
        assert!(said.contains(says), "{said}");
    }
    works(&way);
}

#[test]
fn frames_that_end_early_harm_nobody() {
    let node = Node::serving();
    let way = node.way();
    works(&way);
    let before = descriptors();
    let good = good_call();
    for len in 0..good.len() {
        let mut stream = node.connect();
        stream.write_all(&good[..len]).unwrap();
    }
    settles_at(before);
    works(&way);
}

#[test]
fn descriptors_that_are_no_sealed_payload_are_refused() {
    let node = Node::serving();
    let way = node.way();
    works(&way);
    let before = descriptors();
    let memfd = |len: usize, seal: bool| {
        let memfd = Memfd::new(len).unwrap();
        if seal {
            memfd.seal().unwrap();
        }
        memfd
    };
    let large = |place| Part { len: 5 * PAGE as u64, place };
    let sealed = large(Place::Sealed);
    let (open, short, right) = (memfd(5 * PAGE, false), memfd(PAGE, true), memfd(5 * PAGE, true));
    let pipe = std::io::pipe().unwrap();
    let (open, short, right, pipe) = (open.as_fd(), short.as_fd(), right.as_fd(), pipe.0.as_fd());
    let cases: [(Part, &[BorrowedFd<'_>], &str); 7] = [
        (sealed, &[open], "not sealed against writes"),
        (sealed, &[short], "it has 4096 bytes, not 20480"),
        (sealed, &[pipe], "no memfd"),
        (sealed, &[], "0 descriptors came, not 1"),
        (sealed, &[right, right], "2 descriptors came, not 1"),
        (HELLO, &[right], "1 descriptors came, not 0"),
        (large(Place::Segment), &[open], "another trust domain"),
    ];
    for (part, fds, says) in cases {
        let stream = node.connect();
        let frame = call_frame(&[part]);
        let slices = [std::io::IoSlice::new(&frame)];
        send_with_descriptors(stream.as_fd(), &slices, fds).unwrap();
        let said = refusal(stream);
        assert!(said.contains(says), "{said}");
    }
    works(&way);
    // What stands in `cases` is still open here, and nothing else.
    settles_at(before + 5);
}

#[test]
fn the_silent_and_the_many_take_no_more_than_their_share() {
    let node = Node::serving();
    let way = node.way();
    works(&way);
    let before = descriptors();
    // The way itself keeps one.
    let mut silent: Vec<UnixStream> = (0..255).map(|_| node.connect()).collect();
    let said = refusal(node.connect());
    assert!(said.contains("256 connections are open"), "{said}");
    works(&way);
    silent.pop();
    settles_at(before + 2 * 254);
    let mut stream = node.connect();
    stream.write_all(&good_call()).unwrap();
    let mut answer = [0; HEADER_BYTES];
    stream.read_exact(&mut answer).unwrap();
    drop((silent, stream));
    settles_at(before);
}

/// A peer that does this with its first connection, and then ends.
fn scripted(
    node: &Node,
    script: impl FnOnce(UnixStream) + Send + 'static,
) -> thread::JoinHandle<()> {
    let listener = UnixListener::bind(&node.path).unwrap();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        script(stream);
    })
}

fn read_call(stream: &mut UnixStream) -> u64 {
    let mut head = [0; HEADER_BYTES];
    stream.read_exact(&mut head).unwrap();
    let header = Header::decode(&head, LIMIT).unwrap();
    let mut rest = vec![0; header.meta_len as usize + usize::try_from(header.inline_len).unwrap()];
    stream.read_exact(&mut rest).unwrap();
    header.id
}

fn reply_frame(id: u64, part: Part) -> Vec<u8> {
    let meta = Meta::Reply(ReplyMeta {
        busy_ns: 1,
        account: WireAccount::default(),
        landings: Vec::new(),
        hops: Vec::new(),
        part,
        response_copied: 0,
        released: Vec::new(),
    });
    meta.encode(id, Trace::default(), false).unwrap()
}

/// How a call of a scripted peer ends.
fn ends_in(script: impl FnOnce(UnixStream) + Send + 'static) -> Undelivered<'static> {
    let node = Node::path_only();
    let peer = scripted(&node, script);
    let ended = call(&node.way()).map(|reply| reply.len());
    peer.join().unwrap();
    ended.unwrap_err()
}

fn lost(script: impl FnOnce(UnixStream) + Send + 'static, says: &str) {
    let Undelivered { fault, payload, .. } = ends_in(script);
    assert!(matches!(fault, Fault::Lost { .. }), "{fault}");
    assert!(fault.to_string().contains(says), "{fault}");
    assert!(payload.is_none(), "it may have been delivered");
}

#[test]
fn a_peer_that_goes_away_with_the_call_is_lost() {
    lost(|mut peer| drop((read_call(&mut peer), peer)), "the connection was closed");
    lost(
        |mut peer| {
            let id = read_call(&mut peer);
            let frame = reply_frame(id, HELLO);
            peer.write_all(&frame[..frame.len() - 1]).unwrap();
        },
        "",
    );
    lost(
        |mut peer| {
            let frame = reply_frame(read_call(&mut peer), HELLO);
            peer.write_all(&[&frame[..], b"hel"].concat()).unwrap();
        },
        "",
    );
}

#[test]
fn a_peer_that_answers_nonsense_is_lost() {
    lost(
        |mut peer| {
            read_call(&mut peer);
            peer.write_all(&[b'x'; 200]).unwrap();
        },
        "no Roadrunner frame",
    );
    lost(
        |mut peer| {
            let frame = reply_frame(read_call(&mut peer) + 1, HELLO);
            peer.write_all(&[&frame[..], b"hello"].concat()).unwrap();
        },
        "another call",
    );
    lost(
        |mut peer| {
            read_call(&mut peer);
            peer.write_all(&good_call()).unwrap();
        },
        "",
    );
    lost(
        |mut peer| {
            let id = read_call(&mut peer);
            peer.write_all(&reply_frame(id, Part { len: LIMIT + 1, ..HELLO })).unwrap();
        },
        "over the limit",
    );
}

#[test]
fn what_a_peer_did_not_take_comes_back() {
    let back = |undelivered: Undelivered<'_>| {
        let Some(Payload::One(back)) = undelivered.payload else { panic!("the payload is lost") };
        assert_eq!(back.bytes().unwrap(), b"hello");
    };
    // Nobody listens.
    let undelivered = call(&Node::path_only().way()).unwrap_err();
    assert!(matches!(undelivered.fault, Fault::Unreachable { .. }), "{}", undelivered.fault);
    back(undelivered);
    // It says so.
    let undelivered = ends_in(|mut peer| {
        let fault = WireFault::Exhausted { function: ECHO.into(), reason: "no room".into() };
        let meta = Meta::Fault(FaultMeta { fault, delivered: false, released: Vec::new() });
        let frame = meta.encode(read_call(&mut peer), Trace::default(), false).unwrap();
        peer.write_all(&frame).unwrap();
    });
    assert!(undelivered.fault.to_string().contains("no room"));
    back(undelivered);
}

#[test]
fn a_peer_that_hangs_costs_no_more_than_the_deadline() {
    let node = Node::path_only();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let peer = scripted(&node, move |mut peer| {
        read_call(&mut peer);
        // A byte now and then is no answer either.
        while held.recv_timeout(Duration::from_millis(30)).is_err() {
            let _ = peer.write_all(b"R");
        }
    });
    let start = Instant::now();
    let ended = call_with(&node.way(), b"hello", Duration::from_millis(300)).unwrap_err();
    // The deadline is what is promised; the rest is for a busy machine.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(matches!(ended.fault, Fault::TimedOut { .. }), "{}", ended.fault);
    hold.send(()).unwrap();
    peer.join().unwrap();
}

#[test]
fn a_node_that_was_restarted_is_called_again() {
    let node = Node::serving();
    let way = node.way();
    works(&way);
    let Node { _folder, path, terms, _server } = node;
    drop(_server);
    let gone = call(&way).unwrap_err();
    assert!(matches!(gone.fault, Fault::Unreachable { .. }), "{}", gone.fault);
    let _again = UnixServer::bind(Path::new(&path), Arc::new(EchoInbox::default()), terms).unwrap();
    works(&way);
}

#[test]
fn a_node_that_stops_ends_its_idle_connections_and_takes_no_more() {
    let mut node = Node::serving();
    let way = node.way();
    works(&way);
    let idle = node.connect();
    if let Some(server) = &mut node._server {
        server.stop(Duration::from_secs(10));
    }
    let mut rest = Vec::new();
    assert_eq!((&idle).read_to_end(&mut rest).unwrap(), 0, "it is told that it is over");
    assert!(matches!(call(&way).unwrap_err().fault, Fault::Unreachable { .. }));
}
