//! Processes of one run that die: what they had lent and borrowed is given up.

use std::env;
use std::io::{BufRead, BufReader, IoSlice, Read};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use roadrunner_buffer::{
    Backing, BreakEven, BufferError, Contents, Domain, Extent, Home, Pool, PoolLimits, Sealed,
    Window,
};
use roadrunner_sys::{Memfd, send_with_descriptors};
use roadrunner_transport::conformance::EchoInbox;
use roadrunner_transport::frame::{CallMeta, HEADER_BYTES, Header, Meta, Part, Place, UNREAD};
use roadrunner_transport::{
    Account, Call, Caller, Fault, Inbox, Lender, Payload, Reply, Terms, Trace, Transport, Trust,
    Undelivered, Unix, UnixServer,
};

const LEN: usize = 64 << 10;

fn home() -> Home {
    let limits = PoolLimits { bytes: 8 << 20, ranges: 4, empty_ranges: 4 };
    let (pool, break_even) = (Arc::new(Pool::new(limits)), BreakEven::fixed(16 << 10));
    Home { pool, domain: Domain(1), break_even }
}

fn terms(home: &Home, run: u32) -> Terms {
    Terms { home: home.clone(), payload_limit: 1 << 20, trust: Trust::domain(run) }
}

/// A fresh segment, of zeros.
fn segment(home: &Home, len: usize) -> Window {
    let place = Extent::reserve(len).unwrap();
    Window::fresh(place, Backing::Segment, Contents::Zeroed, home).unwrap()
}

/// Answers in a segment of its own.
struct Lends(Home);

struct Lent(Window);

impl Lender for Lent {
    fn len(&self) -> usize {
        LEN
    }

    fn lend(&mut self) -> Result<Sealed<'_>, BufferError> {
        self.0.lend(LEN)
    }
}

impl Inbox for Lends {
    fn accept<'p>(&self, _: Call<'p>) -> Result<Reply, Undelivered<'p>> {
        Ok(Reply::new(Box::new(Lent(segment(&self.0, LEN))), Account::default(), Vec::new()))
    }
}

fn call(way: &Unix, home: &Home) -> Result<Reply, Undelivered<'static>> {
    call_with(way, home, LEN)
}

fn call_with(way: &Unix, home: &Home, len: usize) -> Result<Reply, Undelivered<'static>> {
    let (payload, _) = segment(home, len).lend(len).unwrap().detach(home).unwrap();
    send(way, Payload::One(payload))
}

fn send(way: &Unix, payload: Payload<'static>) -> Result<Reply, Undelivered<'static>> {
    let since = Instant::now();
    let deadline = since + Duration::from_secs(20);
    let (caller, trace) = (Caller::Unnamed, Trace::default());
    way.send(Call { target: "f", payload, since, deadline, depth: 0, caller, trace })
}

fn address(name: &str) -> SocketAddr {
    SocketAddr::from_abstract_name(name).unwrap()
}

/// A listening socket that nobody else has the name of.
fn listening(name: &str) -> (String, UnixListener) {
    let name = format!("roadrunner-domain-{}-{name}", std::process::id());
    let listener = UnixListener::bind_addr(&address(&name)).unwrap();
    (name, listener)
}

/// What the other process of the test below does.
#[test]
#[ignore = "it is a process of another test's"]
fn a_caller_that_keeps_an_answer() {
    let (Ok(name), Ok(run)) = (env::var("DOMAIN_NAME"), env::var("DOMAIN_RUN")) else { return };
    let home = home();
    let way = Unix::new(address(&name), terms(&home, run.parse().unwrap()));
    let mut reply = call(&way, &home).unwrap();
    // Its lease is here now.
    assert_eq!(reply.payload().unwrap().bytes().unwrap().len(), LEN);
    println!("\nhas it");
    let _ = std::io::stdin().read(&mut [0]);
}

fn start_caller(name: &str) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["domain::a_caller_that_keeps_an_answer", "--exact", "--ignored", "--nocapture"]);
    command.env("DOMAIN_NAME", name).env("DOMAIN_RUN", std::process::id().to_string());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "has it"), "it never got an answer");
    child
}

fn eventually(mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(20), "it never came to be");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_a_killed_caller_had_is_given_up() {
    let (here, _there) = UnixStream::pair().unwrap();
    if roadrunner_sys::peer_pidfd(here.as_fd()).unwrap().is_none() {
        println!(
            "skipped: this kernel has no SO_PEERPIDFD (Linux 6.5), by which an end is noticed"
        );
        return;
    }
    let (name, listener) = listening("server");
    let home = home();
    let terms = terms(&home, std::process::id());
    let _server = UnixServer::on(listener, Arc::new(Lends(home.clone())), terms).unwrap();
    let counts = || {
        let held = home.pool.usage();
        (held.segments, held.leased, held.foreign)
    };
    let (mut one, mut two) = (start_caller(&name), start_caller(&name));
    eventually(|| counts() == (2, 2, 2));
    one.kill().unwrap();
    eventually(|| counts() == (1, 1, 1));
    two.kill().unwrap();
    eventually(|| counts() == (0, 0, 0));
    one.wait().unwrap();
    two.wait().unwrap();
}

#[test]
fn what_a_server_that_is_gone_had_is_given_up() {
    let (name, listener) = listening("gone");
    let home = home();
    let way = Unix::new(address(&name), terms(&home, std::process::id()));
    // It takes a call, with its lease, and goes.
    let server = thread::spawn(move || drop(listener.accept().unwrap().0.read(&mut [0; 10])));
    let lost = call(&way, &home).unwrap_err();
    server.join().unwrap();
    assert!(matches!(lost.fault, Fault::Lost { .. }), "{}", lost.fault);
    assert_eq!(home.pool.usage().leased, 0, "nobody knows whether it has that");
    let refused = call(&way, &home).unwrap_err();
    assert!(refused.payload.is_some(), "{}", refused.fault);
}

#[test]
fn what_an_unread_call_gave_back_is_told_again() {
    let (name, listener) = listening("unread");
    let ((home, theirs), run) = ((home(), home()), std::process::id());
    let narrow = Terms { payload_limit: LEN as u64, ..terms(&theirs, run) };
    let inbox = Arc::new(EchoInbox::at(theirs));
    let _server = UnixServer::on(listener, inbox, narrow).unwrap();
    let way = Unix::new(address(&name), terms(&home, run));
    // The answer is in the same segment: both have a lease of it, until each hears that the other has none.
    drop(call(&way, &home).unwrap());
    assert_eq!(home.pool.usage().leased, 1);
    // The next call says so, and is too long to be read.
    let refused = call_with(&way, &home, 2 * LEN).unwrap_err();
    assert!(refused.payload.is_some(), "{}", refused.fault);
    assert!(refused.fault.to_string().contains("`f`"), "{}", refused.fault);
    drop(refused);
    drop(call(&way, &home).unwrap());
    assert_eq!(home.pool.usage().leased, 1, "that of the last call alone");
}

#[test]
fn a_segment_that_an_unread_call_passed_on_comes_back_to_its_owner() {
    let (home, owners, run) = (home(), home(), std::process::id());
    let (owner, listener) = listening("owner");
    let inbox = Arc::new(Lends(owners.clone()));
    let _owner = UnixServer::on(listener, inbox, terms(&owners, run)).unwrap();
    let (narrow, listener) = listening("narrow");
    let limited = Terms { payload_limit: LEN as u64 - 1, ..terms(&home, run) };
    let _narrow = UnixServer::on(listener, Arc::new(Lends(home.clone())), limited).unwrap();
    let [owner, narrow] = [owner, narrow].map(|name| Unix::new(address(&name), terms(&home, run)));
    let answer = call(&owner, &home).unwrap();
    let refused = send(&narrow, Payload::Held(answer)).unwrap_err();
    // It is here until this has ended with it.
    let refused = send(&narrow, refused.payload.unwrap()).unwrap_err();
    assert!(refused.payload.is_some(), "{}", refused.fault);
    drop(call(&owner, &home).unwrap());
    assert_eq!(owners.pool.usage().leased, 2);
    drop(refused);
    drop(call(&owner, &home).unwrap());
    assert_eq!(owners.pool.usage().leased, 1, "that of the last answer alone");
}

/// Makes a call with these memfds, each said to be a segment with a payload, and takes the answer: its number,
/// and the segments that it gives back.
fn call_with_memfds(name: &str, memfds: &[&Memfd]) -> (u64, Vec<u64>) {
    let mut stream = UnixStream::connect_addr(&address(name)).unwrap();
    let part = Part { len: LEN as u64, place: Place::Segment };
    let meta = Meta::Call(CallMeta {
        function: "f".into(),
        time_left_us: 20_000_000,
        depth: 0,
        many: true,
        parts: vec![part; memfds.len()],
        released: Vec::new(),
    });
    let frame = meta.encode(7, Trace::default(), false).unwrap();
    let fds: Vec<_> = memfds.iter().map(|memfd| memfd.as_fd()).collect();
    let slices = [IoSlice::new(&frame)];
    assert_eq!(send_with_descriptors(stream.as_fd(), &slices, &fds).unwrap(), frame.len());
    let mut head = [0; HEADER_BYTES];
    stream.read_exact(&mut head).unwrap();
    let header = Header::decode(&head, LEN as u64).unwrap();
    let mut rest = vec![0; header.meta_len as usize];
    stream.read_exact(&mut rest).unwrap();
    let meta = Meta::decode(&header, &rest, LEN as u64).unwrap();
    (header.id, meta.released().to_vec())
}

#[test]
fn nothing_is_given_back_of_a_call_that_is_not_read() {
    let (name, listener) = listening("half");
    let home = home();
    let terms = terms(&home, std::process::id());
    let _server = UnixServer::on(listener, Arc::new(Lends(home)), terms).unwrap();
    let [good, short] = [LEN, LEN / 2].map(|len| {
        let memfd = Memfd::new(len).unwrap();
        memfd.seal_length().unwrap();
        memfd
    });
    assert_eq!(call_with_memfds(&name, &[&good, &short]), (UNREAD, vec![]));
    // The sender has it as before. What a call brought that is read is given back.
    assert_eq!(call_with_memfds(&name, &[]), (7, vec![]));
    assert_eq!(call_with_memfds(&name, &[&good]), (7, vec![good.id().unwrap()]));
}
