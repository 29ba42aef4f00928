//! Commands that run as processes do: arguments, real streams, exit codes, and an end whenever somebody asks for it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use roadrunner_runtime::{Exit, Fault, FunctionSpec, Meter, Process, Stop, WasiDir};

use crate::support::{ECHO, guest, load, pattern, runtime, spec, words};
use crate::wasi::{command, open};

/// Far more than anything here takes on the slowest machine.
const LONG: Duration = Duration::from_secs(60);

/// A stream's end for a process, and the other one.
fn pair() -> (Option<File>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    (Some(File::from(OwnedFd::from(theirs))), ours)
}

fn process(args: &[&str]) -> Process {
    let args = args.iter().map(ToString::to_string).collect();
    let stop = Arc::new(Stop::new().unwrap());
    Process { args, stdin: None, stdout: None, stderr: None, owner: None, stop }
}

/// Runs it on a thread of its own, and waits for its end elsewhere.
fn begin(spec: FunctionSpec, process: Process) -> Receiver<Result<Exit, Fault>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let app = load(&runtime(), vec![spec]);
        let _ = sender.send(app.execute("main", process));
    });
    receiver
}

fn run(spec: FunctionSpec, process: Process) -> Result<Exit, Fault> {
    begin(spec, process).recv_timeout(LONG).expect("it does not end")
}

#[test]
fn bytes_go_through_as_they_come() {
    let (stdin, mut to) = pair();
    let (stdout, mut from) = pair();
    let ended = begin(command("(call $cat)"), Process { stdin, stdout, ..process(&[]) });
    let sent = pattern(1_000_003);
    for part in sent.chunks(100_000) {
        let mut got = vec![0; part.len()];
        thread::scope(|scope| {
            scope.spawn(|| to.write_all(part).unwrap());
            from.read_exact(&mut got).unwrap();
        });
        assert!(got == part, "it answers before its input ends");
    }
    drop(to);
    assert_eq!(ended.recv_timeout(LONG).unwrap().unwrap(), Exit::Code(0));
    assert_eq!(from.read(&mut [0]).unwrap(), 0, "its output ends with it");
}

#[test]
fn arguments_codes_and_errors_are_a_process_s() {
    let says = "(drop (call $args_sizes (i32.const 32) (i32.const 36)))
        (drop (call $args (i32.const 64) (i32.const 128)))
        (drop (call $write (i32.const 1) (i32.const 128) (i32.load (i32.const 36))))
        (drop (call $write (i32.const 2) (i32.const 1024) (i32.const 4)))
        (call $exit (i32.const 42))";
    let ((stdout, mut out), (stderr, mut err)) = (pair(), pair());
    let process = Process { stdout, stderr, ..process(&["a.wasm", "two words", ""]) };
    assert_eq!(run(command(says), process).unwrap(), Exit::Code(42));
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    out.read_to_end(&mut said).unwrap();
    err.read_to_end(&mut complained).unwrap();
    assert_eq!(said, b"a.wasm\0two words\0\0");
    assert_eq!(complained, b"peer");
    let last = command("(call $exit (i32.const 255))");
    assert_eq!(run(last, self::process(&[])).unwrap(), Exit::Code(255));
}

#[test]
fn streams_that_lead_nowhere_are_empty_and_swallow() {
    let says = "(if (call $read (i32.const 0) (i32.const 65536) (i32.const 16))
            (then (call $exit (i32.const 99))))
        (if (i32.load (i32.const 8)) (then (call $exit (i32.const 98))))
        (drop (call $write (i32.const 1) (i32.const 1024) (i32.const 4)))
        (call $exit (i32.add (i32.load (i32.const 8)) (i32.const 3)))";
    assert_eq!(run(command(says), process(&[])).unwrap(), Exit::Code(7));
}

#[test]
fn a_reader_that_is_gone_is_an_error_and_not_the_end() {
    // EPIPE, by exit code.
    let says = "(call $exit (call $write (i32.const 1) (i32.const 1024) (i32.const 4)))";
    let (stdout, reader) = pair();
    drop(reader);
    assert_eq!(run(command(says), Process { stdout, ..process(&[]) }).unwrap(), Exit::Code(64));
}

#[test]
fn traps_and_handlers_are_faults() {
    let trapped = run(command("(unreachable)"), process(&[]));
    assert!(matches!(trapped, Err(Fault::Trapped { .. })), "{trapped:?}");
    let handler = run(spec("main", guest(ECHO)), process(&[]));
    assert!(matches!(handler, Err(Fault::Violation { .. })), "{handler:?}");
}

/// Polls one subscription at 256 with this tag, descriptor or clock, and time-out in ns.
fn polls(tag: i32, what: i32, timeout: i64) -> String {
    format!(
        "(i32.store8 (i32.const 264) (i32.const {tag})) (i32.store (i32.const 272) (i32.const {what}))
         (i64.store (i32.const 280) (i64.const {timeout}))
         (drop (call $poll (i32.const 256) (i32.const 512) (i32.const 1) (i32.const 16)))"
    )
}

/// Says that it is there, on stderr.
const HERE: &str = "(drop (call $write (i32.const 2) (i32.const 1024) (i32.const 4)))";

#[test]
fn whatever_it_does_it_can_be_stopped() {
    let hours = 10_000 * 1_000_000_000;
    let cases = [
        ("computes", "(loop $ever (br $ever))".to_owned()),
        ("reads", "(call $cat)".to_owned()),
        ("sleeps", polls(0, 1, hours)),
        ("waits for input", polls(1, 0, 0)),
        ("writes", "(loop $ever (drop (call $write (i32.const 1) (i32.const 0) (i32.const 65536))) (br $ever))".to_owned()),
    ];
    for (what, code) in cases {
        let ((stdin, _to), (stdout, _from), (stderr, mut err)) = (pair(), pair(), pair());
        let process = Process { stdin, stdout, stderr, ..process(&[]) };
        let stop = Arc::clone(&process.stop);
        // After it was stopped there is no exit code.
        let code = format!("{HERE} {code} (call $exit (i32.const 1))");
        let ended = begin(command(&code), process);
        err.read_exact(&mut [0; 4]).unwrap();
        // It is in the midst of it, or soon will be: both must end.
        thread::sleep(Duration::from_millis(5));
        assert!(ended.try_recv().is_err(), "{what}: it ended by itself");
        stop.ask();
        let ended = ended.recv_timeout(LONG).unwrap_or_else(|_| panic!("{what}: it runs on"));
        assert_eq!(ended.unwrap(), Exit::Stopped, "{what}");
    }
}

#[test]
fn one_that_was_stopped_before_does_not_begin() {
    let (stderr, mut err) = pair();
    let process = Process { stderr, ..process(&[]) };
    process.stop.ask();
    let ended = run(command(&format!("(loop $ever {HERE} (br $ever))")), process);
    assert_eq!(ended.unwrap(), Exit::Stopped);
    let mut said = Vec::new();
    err.read_to_end(&mut said).unwrap();
    assert_eq!(said, b"");
}

#[test]
fn a_poll_ends_when_its_input_comes_or_its_time() {
    // How many events there were, and of which kind.
    let tells = "(call $word (i32.load (i32.const 16))) (call $word (i32.load8_u (i32.const 522)))";
    let ((stdin, mut to), (stdout, mut from), (stderr, mut err)) = (pair(), pair(), pair());
    let code = format!("{HERE} {} {tells}", polls(1, 0, 0));
    let streams = Process { stdin, stdout, stderr, ..process(&[]) };
    let ended = begin(command(&code), streams);
    err.read_exact(&mut [0; 4]).unwrap();
    assert!(ended.try_recv().is_err(), "there is nothing to read yet");
    to.write_all(b"x").unwrap();
    assert_eq!(ended.recv_timeout(LONG).unwrap().unwrap(), Exit::Code(0));
    let mut said = Vec::new();
    from.read_to_end(&mut said).unwrap();
    assert_eq!(words(&said), [1, 1]);

    let (stdout, mut from) = pair();
    let (code, since) = (format!("{} {tells}", polls(0, 1, 20_000_000)), Instant::now());
    assert_eq!(run(command(&code), Process { stdout, ..process(&[]) }).unwrap(), Exit::Code(0));
    assert!(since.elapsed() >= Duration::from_millis(20));
    let mut said = Vec::new();
    from.read_to_end(&mut said).unwrap();
    assert_eq!(words(&said), [1, 0]);
}

#[test]
fn its_files_are_its_owner_s() {
    let dir = tempfile::tempdir().unwrap();
    if fs::metadata(dir.path()).unwrap().uid() != 0 {
        println!("skipped: only root may act for others");
        return;
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let exits = |owner, write| {
        let mut spec = command(&format!("(call $exit {})", open(write)));
        spec.wasi.dirs.insert("/".into(), WasiDir { path: dir.path().into(), write: true });
        run(spec, Process { owner, ..process(&[]) }).unwrap()
    };
    let (root, other) = (None, Some((4321, 4322)));
    // Nothing of root is left for those that come after it.
    assert_eq!(exits(root, true), Exit::Code(0));
    fs::remove_file(dir.path().join("peer")).unwrap();
    assert_eq!(exits(other, true), Exit::Code(0));
    let made = dir.path().join("peer");
    let meta = fs::metadata(&made).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (4321, 4322));
    // Root's own is closed to it.
    fs::remove_file(&made).unwrap();
    fs::write(&made, "secret").unwrap();
    fs::set_permissions(&made, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(exits(root, false), Exit::Code(0));
    assert_eq!(exits(other, false), Exit::Code(2), "EACCES");
    assert_eq!(exits(root, false), Exit::Code(0), "root has rights again");
}

#[test]
fn what_a_process_uses_is_counted_while_it_runs() {
    let meter = Arc::new(Meter::default());
    let works = "(drop (memory.grow (i32.const 16)))
        (memory.fill (i32.const 65536) (i32.const 1) (i32.const 655360))
        (loop $for_ever (br $for_ever))";
    let mut spec = command(works);
    spec.meter = Some(Arc::clone(&meter));
    let process = process(&[]);
    let stop = Arc::clone(&process.stop);
    let ended = begin(spec, process);
    let since = Instant::now();
    let used = loop {
        let used = meter.usage();
        if used.cpu >= Duration::from_millis(20) && used.memory_bytes >= 655_360 {
            break used;
        }
        assert!(since.elapsed() < LONG, "only {used:?}");
        thread::sleep(Duration::from_millis(1));
    };
    stop.ask();
    assert_eq!(ended.recv_timeout(LONG).unwrap().unwrap(), Exit::Stopped);
    let after = meter.usage();
    assert!(after.cpu >= used.cpu && after.memory_bytes == 0, "{after:?} after {used:?}");
    assert!(!meter.has_refused_memory());
}

#[test]
fn memory_over_the_limit_is_noted() {
    let meter = Arc::new(Meter::default());
    let grows = "(call $exit (i32.eq (memory.grow (i32.const 100)) (i32.const -1)))";
    let mut spec = command(grows);
    spec.memory_bytes = 4 << 20;
    spec.meter = Some(Arc::clone(&meter));
    assert_eq!(run(spec, process(&[])).unwrap(), Exit::Code(1));
    assert!(meter.has_refused_memory());
}
