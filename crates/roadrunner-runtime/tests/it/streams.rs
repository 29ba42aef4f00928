//! A command's stdin and stdout: each byte is copied once, and counted.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use roadrunner_runtime::{Backing, Config, Fault, Payload, Reply, Runtime, Traffic, WasiDir};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::support::{
    ECHO, MOVES, bytes_of, config, guest, load, pattern, runtime, send, spec, words,
};
use crate::wasi::{IMPORTS, command, open, run};

// Errnos of WASI.
const NO_SUCH_DESCRIPTOR: u32 = 8;
const FAULT: u32 = 21;
const TOO_BIG: u32 = 22;
const INVALID: u32 = 28;
const NOT_SEEKABLE: u32 = 70;

fn reply_of(code: &str, stdin: &[u8]) -> Reply {
    send(&load(&runtime(), vec![command(code)]), "main", stdin).unwrap()
}

#[test]
fn a_byte_is_copied_once_in_and_once_out() {
    let app = load(&runtime(), vec![command("(call $cat)"), spec("echo", guest(ECHO))]);
    for len in [0, 1, MOVES - 1, MOVES, 1_000_003] {
        let sent = pattern(len);
        let mut reply = send(&app, "main", &sent).unwrap();
        assert_eq!(reply.account.traffic.copied, 2 * len as u64, "{len} bytes");
        assert_eq!(reply.account.traffic.moved, 0, "{len} bytes");
        assert!(bytes_of(&mut reply) == sent && bytes_of(&mut reply) == sent, "{len} bytes");
        // A long response moves on from where it was written.
        let mut next = app.call("echo", Payload::Held(reply), Instant::now()).unwrap();
        let (moved, copied) = if len < MOVES { (0, len) } else { (len, 0) };
        let traffic = next.account.traffic;
        assert_eq!((traffic.moved, traffic.copied), (moved as u64, copied as u64), "{len} bytes");
        assert!(bytes_of(&mut next) == sent, "{len} bytes");
    }
}

#[test]
fn a_response_for_several_consumers_is_copied_once() {
    let mut cat = command("(call $cat)");
    cat.backing = Backing::Memfd;
    let app = load(&runtime(), vec![cat, spec("echo", guest(ECHO))]);
    for len in [MOVES, 300_000, 1_000_003] {
        let mut reply = send(&app, "main", &pattern(len)).unwrap();
        assert_eq!(reply.account.traffic.copied, 2 * len as u64, "{len} bytes");
        let (parts, traffic) = reply.payload().unwrap().split(3, app.home()).unwrap();
        drop(reply);
        assert_eq!(traffic, Traffic::default(), "{len} bytes");
        for part in parts {
            let mut next = app.call("echo", Payload::One(part), Instant::now()).unwrap();
            assert_eq!(next.account.traffic, Traffic { copied: 0, moved: len as u64 });
            assert!(bytes_of(&mut next) == pattern(len), "{len} bytes");
        }
    }
}

#[test]
fn a_short_response_takes_little_address_space_alone() {
    let app = load(&runtime(), vec![command("(call $cat)")]);
    drop(send(&app, "main", b"the first takes what all need").unwrap());
    let before = address_space();
    for len in [10, 3 << 20] {
        let reply = send(&app, "main", &pattern(len)).unwrap();
        let taken = address_space().saturating_sub(before);
        // A thread that allocates for the first time reserves 64 MiB for that, and there are four at most.
        assert!(taken < 2 * len + 4 * (64 << 20), "{taken} bytes for {}", reply.len());
    }
}

/// Bytes of address space in use.
fn address_space() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').next().unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn a_payload_in_anothers_memory_moves_or_is_copied_before_it_is_read() {
    let app = load(&runtime(), vec![command("(call $cat)"), spec("echo", guest(ECHO))]);
    for (len, copies) in [(1000, 3), (100_000, 2)] {
        let first = send(&app, "echo", &pattern(len)).unwrap();
        let mut reply = app.call("main", Payload::Held(first), Instant::now()).unwrap();
        assert_eq!(reply.account.traffic.copied, copies * len as u64);
        assert!(bytes_of(&mut reply) == pattern(len));
    }
}

#[test]
fn what_is_not_read_is_not_copied() {
    let half = "(drop (call $read (i32.const 0) (i32.const 65536) (i32.const 50000)))";
    assert_eq!(reply_of(half, &pattern(100_000)).account.traffic.copied, 50_000);
    assert_eq!(reply_of("", &pattern(100_000)).account.traffic.copied, 0);
}

#[test]
fn many_small_reads_copy_as_much_as_a_large_one() {
    // Counts the reads until one gives nothing.
    let reads = "(block $over (loop $next
          (br_if $over (call $read (i32.const 0) (i32.const 65536) (i32.const 7)))
          (br_if $over (i32.eqz (i32.load (i32.const 8))))
          (local.set $a (i32.add (local.get $a) (i32.const 1)))
          (br $next)))
        (call $word (local.get $a))";
    let mut reply = reply_of(reads, &pattern(10_000));
    assert_eq!(words(&bytes_of(&mut reply)), [1429]);
    assert_eq!(reply.account.traffic.copied, 10_004);
}

/// Code that lists parts of linear memory at 256.
fn parts(parts: &[(u32, u32)]) -> String {
    let store = |at: usize, word: u32| {
        format!("(i32.store (i32.const {at}) (i32.const {}))", word.cast_signed())
    };
    let part = |(nth, &(ptr, len))| store(256 + nth * 8, ptr) + &store(260 + nth * 8, len);
    parts.iter().enumerate().map(part).collect()
}

/// Reads to or writes from parts of linear memory and leaves the errno, its number of bytes at 40.
fn call(function: &str, fd: u32, count: usize) -> String {
    format!(
        "(call ${function} (i32.const {fd}) (i32.const 256) (i32.const {count}) (i32.const 40))"
    )
}

#[test]
fn parts_are_filled_and_written_in_order() {
    // An empty part may lie anywhere, and the last two overlap.
    let into = parts(&[(65536, 3), (u32::MAX, 0), (70000, 4), (70002, 9)]);
    let from = parts(&[(70000, 5), (65536, 3), (65536, 3)]);
    let (read, write) = (call("fd_read", 0, 4), call("fd_write", 1, 3));
    let code = format!(
        "{into} (call $word {read}) (call $word (i32.load (i32.const 40)))
         {from} (call $word {write}) (call $word (i32.load (i32.const 40)))"
    );
    let mut reply = reply_of(&code, b"abcdefghijkl");
    let said = bytes_of(&mut reply);
    assert_eq!(words(&said[..8]), [0, 12]);
    assert_eq!(&said[8..19], b"dehijabcabc");
    assert_eq!(words(&said[19..]), [0, 11]);
    assert_eq!(reply.account.traffic.copied, 12 + 16 + 11);
}

#[test]
fn parts_outside_linear_memory_are_refused_and_nothing_is_copied() {
    let mut code = String::new();
    let wrong: [&[(u32, u32)]; 4] =
        [&[(65536, 10), (262_140, 5)], &[(262_144, 1)], &[(u32::MAX, u32::MAX)], &[(0, 262_145)]];
    for wrong in wrong {
        for (function, fd) in [("fd_read", 0), ("fd_write", 1)] {
            let call = call(function, fd, wrong.len());
            code += &format!("{} (call $word {call})", parts(wrong));
        }
    }
    // A list, and a place for the answer, outside.
    for (list, done) in [(262_137, 8), (-1, 8), (256, 262_141), (256, -1)] {
        for call in ["fd_read (i32.const 0)", "fd_write (i32.const 1)"] {
            code += &parts(&[(65536, 10)]);
            code += &format!(
                "(call $word (call ${call} (i32.const {list}) (i32.const 1) (i32.const {done})))"
            );
        }
    }
    let mut reply = reply_of(&format!("{code} (call $cat)"), b"whole");
    let said = bytes_of(&mut reply);
    assert_eq!(words(&said[..64]), [FAULT; 16]);
    assert_eq!(&said[64..], b"whole");
    assert_eq!(reply.account.traffic.copied, 64 + 2 * 5);
}

#[test]
fn too_many_parts_are_refused() {
    // A thousand parts of 4 MiB are more bytes than the answer has room for.
    let long = "(drop (memory.grow (i32.const 64)))
        (local.set $a (i32.const 65536))
        (loop $next
          (i32.store offset=4 (local.get $a) (i32.const 0x400000))
          (local.set $a (i32.add (local.get $a) (i32.const 8)))
          (br_if $next (i32.lt_u (local.get $a) (i32.const 73728))))";
    let mut code = String::new();
    let mut ask = |list: u32, count: i32| {
        for call in ["fd_read (i32.const 0)", "fd_write (i32.const 1)"] {
            code += &format!(
                "(call $word (call ${call} (i32.const {list}) (i32.const {count}) (i32.const 8)))"
            );
        }
    };
    ask(131_072, 1024);
    ask(131_072, 1025);
    ask(131_072, -1);
    ask(65536, 1024);
    let said = run(command(&format!("{long} {code}")), b"x").unwrap();
    let refused = [INVALID; 6];
    assert_eq!(words(&said), [&[0, 0][..], &refused].concat());
}

#[test]
fn a_response_ends_at_the_payload_limit() {
    // What fits after a refused write is still taken, up to the last byte.
    let code = "(drop (call $write (i32.const 1) (i32.const 65536) (i32.const 65536)))
        (call $word (call $write (i32.const 1) (i32.const 65536) (i32.const 65536)))
        (call $word (call $write (i32.const 1) (i32.const 65536) (i32.const 34461)))
        (call $word (call $write (i32.const 1) (i32.const 65536) (i32.const 34452)))
        (call $exit (call $write (i32.const 1) (i32.const 65536) (i32.const 1)))";
    let runtime = Runtime::new(Config { payload_bytes: 100_000, ..config() }).unwrap();
    let failed = |code: &str| match send(&load(&runtime, vec![command(code)]), "main", b"") {
        Err(Fault::Failed { message, .. }) => message,
        other => panic!("{other:?}"),
    };
    let message = failed(code);
    assert!(message.contains(&format!("code {TOO_BIG}")), "{message}");
    let fits = code.replace("$exit", "drop").replace("(call drop", "(drop");
    let mut reply = send(&load(&runtime, vec![command(&fits)]), "main", b"").unwrap();
    let said = bytes_of(&mut reply);
    assert_eq!(said.len(), 100_000);
    assert_eq!(words(&said[65536..65544]), [TOO_BIG, TOO_BIG]);
    assert_eq!(reply.account.traffic.copied, 100_000);
}

#[test]
fn a_closed_stream_is_gone() {
    let write = "(call $write (i32.const 1) (i32.const 1024) (i32.const 4))";
    let code = format!("(drop {write}) (drop (call $close (i32.const 1))) (drop {write})");
    assert_eq!(run(command(&code), b"").unwrap(), b"peer");
    let Err(Fault::Failed { message, .. }) =
        run(command(&format!("{code} (call $exit {write})")), b"")
    else {
        panic!("it wrote to a closed descriptor");
    };
    assert!(message.contains(&format!("code {NO_SUCH_DESCRIPTOR}")), "{message}");
    let read = "(call $read (i32.const 0) (i32.const 65536) (i32.const 9))";
    let code = format!("(call $word (call $close (i32.const 0))) (call $word {read})");
    let mut reply = reply_of(&code, b"payload");
    assert_eq!(words(&bytes_of(&mut reply)), [0, NO_SUCH_DESCRIPTOR]);
    assert_eq!(reply.account.traffic.copied, 8);
}

#[test]
fn streams_keep_their_bytes_when_they_are_renumbered() {
    // Stdout and stdin one after the other become the descriptor of stderr.
    let code = "(drop (call $renumber (i32.const 1) (i32.const 1)))
        (drop (call $renumber (i32.const 1) (i32.const 2)))
        (drop (call $write (i32.const 1) (i32.const 1024) (i32.const 4)))
        (drop (call $write (i32.const 2) (i32.const 1024) (i32.const 4)))";
    assert_eq!(run(command(code), b"").unwrap(), b"peer");
    let code = "(call $word (call $renumber (i32.const 0) (i32.const 2)))
        (drop (call $read (i32.const 2) (i32.const 65536) (i32.const 9)))
        (drop (call $write (i32.const 1) (i32.const 65536) (i32.load (i32.const 8))))
        (call $word (call $read (i32.const 0) (i32.const 65536) (i32.const 9)))
        (call $word (call $renumber (i32.const 2) (i32.const 1)))";
    let said = run(command(code), b"payload").unwrap();
    assert_eq!(said, b"\0\0\0\0payload\x08\0\0\0");
}

#[test]
fn a_file_in_the_place_of_a_stream_is_a_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("peer"), "granted").unwrap();
    let open = open(false);
    let shows = "(drop (call $read (i32.const 0) (i32.const 65536) (i32.const 9)))
        (drop (call $write (i32.const 1) (i32.const 65536) (i32.load (i32.const 8))))";
    for places in [
        format!("(drop {open}) (drop (call $renumber (i32.load (i32.const 48)) (i32.const 0)))"),
        format!("(drop (call $close (i32.const 0))) (drop {open})"),
    ] {
        let mut cat = command(&format!("{places} {shows}"));
        cat.wasi.dirs.insert("/data".into(), WasiDir { path: dir.path().into(), write: false });
        let mut reply = send(&load(&runtime(), vec![cat]), "main", b"payload").unwrap();
        assert_eq!(bytes_of(&mut reply), b"granted");
        assert_eq!(reply.account.traffic.copied, 7, "a file is no payload");
    }
}

#[test]
fn streams_can_not_be_sought() {
    let seek = |fd: u32| {
        format!(
            "(call $word (call $seek (i32.const {fd}) (i64.const 0) (i32.const 0) (i32.const 8)))"
        )
    };
    let said = run(command(&(seek(0) + &seek(1))), b"payload").unwrap();
    assert_eq!(words(&said), [NOT_SEEKABLE; 2]);
}

/// Keeps the messages of the runtime.
#[derive(Clone, Default)]
struct Messages(Arc<Mutex<Vec<String>>>);

impl Visit for Messages {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0.lock().unwrap().push(format!("{value:?}"));
        }
    }
}

impl Subscriber for Messages {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("roadrunner")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn what_a_handler_writes_to_stdout_is_logged_and_no_response() {
    let code =
        "(i32.store (i32.const 32) (i32.const 1024)) (i32.store (i32.const 36) (i32.const 4))
        (call $put (call $fd_write (i32.const 1) (i32.const 32) (i32.const 1) (i32.const 40)))
        (call $put (call $fd_read (i32.const 0) (i32.const 32) (i32.const 1) (i32.const 40)))
        (call $put (i32.load (i32.const 40)))";
    let wat = guest(code).replace("(module", &format!("(module {IMPORTS}"));
    let app = load(&runtime(), vec![spec("main", wat), command_named("tool")]);
    let messages = Messages::default();
    let log = messages.clone();
    let (handler, tool) = tracing::subscriber::with_default(messages, || {
        (send(&app, "main", b"x").unwrap(), send(&app, "tool", b"response").unwrap())
    });
    let [mut handler, mut tool] = [handler, tool];
    assert_eq!(words(&bytes_of(&mut handler)), [0, 0, 0], "its stdin is empty");
    assert_eq!(bytes_of(&mut tool), b"response");
    assert_eq!(*log.0.lock().unwrap(), ["peer"], "a handler's stdout alone is logged");
}

/// A command that copies its stdin to its stdout.
fn command_named(name: &str) -> roadrunner_runtime::FunctionSpec {
    let mut cat = command("(call $cat)");
    cat.name = name.into();
    cat
}
