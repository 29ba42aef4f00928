//! WASI preview 1: commands by their standard streams, and nothing that was not granted.

use std::time::{Duration, Instant};

use roadrunner_runtime::{Bounds, Fault, FunctionSpec, Payload, Sealed, Trace, WasiDir};

use crate::support::{
    ECHO, MOVES, ask, bytes_of, guest, load, pattern, runtime, send, spec, words,
};

pub(crate) const IMPORTS: &str = r#"
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_renumber" (func $renumber (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_seek" (func $seek (param i32 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $env_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $env (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open" (func $open
    (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
"#;

const TOOLS: &str = r#"
  (memory (export "memory") 4)
  (data (i32.const 1024) "peer")
  (func $write (param $fd i32) (param $ptr i32) (param $len i32) (result i32)
    (i32.store (i32.const 0) (local.get $ptr)) (i32.store (i32.const 4) (local.get $len))
    (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
  (func $read (param $fd i32) (param $ptr i32) (param $len i32) (result i32)
    (i32.store (i32.const 0) (local.get $ptr)) (i32.store (i32.const 4) (local.get $len))
    (call $fd_read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
  (func $word (param $word i32)
    (i32.store (i32.const 16) (local.get $word))
    (drop (call $write (i32.const 1) (i32.const 16) (i32.const 4))))
  ;; Copies stdin to stdout.
  (func $cat
    (block $over (loop $next
      (br_if $over (call $read (i32.const 0) (i32.const 65536) (i32.const 65536)))
      (br_if $over (i32.eqz (i32.load (i32.const 8))))
      (drop (call $write (i32.const 1) (i32.const 65536) (i32.load (i32.const 8))))
      (br $next))))
"#;

pub(crate) fn command(code: &str) -> FunctionSpec {
    spec("main", command_text(code))
}

fn command_text(code: &str) -> String {
    format!(r#"(module {IMPORTS} {TOOLS} (func (export "_start") (local $a i32) {code}))"#)
}

pub(crate) fn run(spec: FunctionSpec, stdin: &[u8]) -> Result<Vec<u8>, Fault> {
    ask(&load(&runtime(), vec![spec]), "main", stdin)
}

#[test]
fn a_command_reads_its_payload_and_answers_its_output() {
    let app = load(&runtime(), vec![command("(call $cat)")]);
    for len in [0, 1, MOVES - 1, MOVES, 1_000_003] {
        let sent = pattern(len);
        assert!(ask(&app, "main", &sent).unwrap() == sent, "{len} bytes");
    }
}

#[test]
fn exit_codes_tell_success_from_failure() {
    assert_eq!(run(command("(call $cat) (call $exit (i32.const 0))"), b"done").unwrap(), b"done");
    let failing = "(drop (call $write (i32.const 2) (i32.const 1024) (i32.const 4)))
                   (call $exit (i32.const 3))";
    let Err(Fault::Failed { message, .. }) = run(command(failing), b"") else {
        panic!("exit code 3 is success");
    };
    assert!(message.contains("code 3") && message.contains("peer"), "{message}");
    assert!(matches!(run(command("(unreachable)"), b""), Err(Fault::Trapped { .. })));
}

#[test]
fn what_a_function_said_before_it_trapped_is_in_its_fault() {
    let says = "(i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 4))
                (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
                (unreachable)";
    let handler = guest(says).replace("(module", &format!("(module {IMPORTS}"));
    for spec in [command(says), spec("main", handler)] {
        let Err(Fault::Trapped { reason, .. }) = run(spec, b"") else { panic!("it did not trap") };
        assert!(reason.starts_with("peer\n(wasm trap: wasm `unreachable`"), "{reason}");
    }
}

#[test]
fn a_caller_is_told_the_end_of_what_was_said_and_the_reason() {
    // Three-byte characters from 65536 on, the one that ends the flood is another.
    let says = |end: &str| {
        format!(
            "(local.set $a (i32.const 65536))
             (loop $next
               (i32.store (local.get $a) (i32.const 0xac82e2))
               (local.set $a (i32.add (local.get $a) (i32.const 3)))
               (br_if $next (i32.lt_u (local.get $a) (i32.const 125536))))
             (i32.store (local.get $a) (i32.const 0xa582e2))
             (drop (call $write (i32.const 2) (i32.const 65536) (i32.const 60003)))
             {end}"
        )
    };
    let calls = "(drop (call $peer (i32.const 0) (i32.const 0) (i32.const 0)))
        (return (call $pack (call $out_ptr) (call $out_len)))";
    let long = format!("(func ${}", "f".repeat(50_000));
    let (traps, exits) = (says("(unreachable)"), says("(call $exit (i32.const 3))"));
    let reason = "(wasm trap: wasm `unreachable` ";
    let cases = [
        ("(func", &traps, "trapped: \u{20ac}", reason, ")"),
        (&long, &traps, "trapped: \u{20ac}", reason, "ffff)"),
        ("(func", &exits, "failed: it exited with code 3: ", "3: \u{20ac}", "\u{20ac}\u{20a5}"),
    ];
    for (func, code, start, what, end) in cases {
        let start_of = format!(r#"{func} (export "_start")"#);
        let wat = command_text(code).replace(r#"(func (export "_start")"#, &start_of);
        let app = load(&runtime(), vec![spec("main", guest(calls)), spec("peer", wat)]);
        let said = String::from_utf8(ask(&app, "main", b"").unwrap()).unwrap();
        assert!(said.starts_with(&format!("function `peer` {start}")), "{said}");
        assert!(said.ends_with(end) && said.contains(what), "{said}");
        assert!(said.len() <= 4096 && said.contains("\u{20ac}\u{20a5}"), "{} bytes", said.len());
    }
}

#[test]
fn each_invocation_of_a_command_is_a_fresh_instance() {
    let counts = "(i32.store (i32.const 64) (i32.add (i32.load (i32.const 64)) (i32.const 1)))
                  (call $word (i32.load (i32.const 64)))";
    let app = load(&runtime(), vec![command(counts)]);
    for _ in 0..40 {
        assert_eq!(words(&ask(&app, "main", b"").unwrap()), [1]);
    }
}

/// Answers the number of arguments, of variables, and what the first file descriptor behind the
/// standard streams is.
const SEES: &str = "(drop (call $args_sizes (i32.const 32) (i32.const 36)))
    (call $word (i32.load (i32.const 32)))
    (drop (call $env_sizes (i32.const 32) (i32.const 36)))
    (call $word (i32.load (i32.const 32)))
    (call $word (call $prestat (i32.const 3) (i32.const 32)))";

/// `EBADF` of WASI.
const NO_SUCH_DESCRIPTOR: u32 = 8;

#[test]
fn nothing_is_ambient() {
    assert!(std::env::vars().count() > 0, "the host has an environment to hide");
    assert_eq!(words(&run(command(SEES), b"").unwrap()), [1, 0, NO_SUCH_DESCRIPTOR]);
    let name = "(drop (call $args (i32.const 64) (i32.const 128)))
                (drop (call $write (i32.const 1) (i32.const 128) (i32.const 5)))";
    assert_eq!(run(command(name), b"").unwrap(), b"main\0");
}

#[test]
fn a_variable_is_there_as_granted() {
    let text = "(drop (call $env (i32.const 64) (i32.const 128)))
                (drop (call $write (i32.const 1) (i32.const 128) (i32.const 11)))";
    let mut spec = command(text);
    spec.wasi.env.insert("QUALITY".into(), "85".into());
    assert_eq!(run(spec.clone(), b"").unwrap(), b"QUALITY=85\0");
    spec.module = command(SEES).module;
    assert_eq!(words(&run(spec, b"").unwrap()), [1, 1, NO_SUCH_DESCRIPTOR]);
}

/// What a command that writes its environment to stdout responds to a call with these variables.
fn environment(spec: &FunctionSpec, trace: Trace, variables: &[(&str, &str)]) -> Vec<String> {
    let text = "(drop (call $env_sizes (i32.const 64) (i32.const 68)))
                (drop (call $env (i32.const 2048) (i32.const 4096)))
                (if (i32.and (i32.gt_u (i32.load (i32.const 64)) (i32.const 0))
                             (i32.ne (i32.load (i32.const 2048)) (i32.const 4096)))
                  (then unreachable))
                (drop (call $write (i32.const 1) (i32.const 4096) (i32.load (i32.const 68))))";
    let app = load(&runtime(), vec![FunctionSpec { module: command(text).module, ..spec.clone() }]);
    let since = Instant::now();
    let bounds = Bounds { trace, ..app.bounds(since) };
    let call = bounds.call("main", Payload::One(Sealed::empty()), since);
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
    let mut reply = app.deliver_with(None, variables.iter().map(own).collect(), call).unwrap();
    let text = String::from_utf8(bytes_of(&mut reply)).unwrap();
    text.split_terminator('\0').map(str::to_owned).collect()
}

#[test]
fn a_call_brings_variables_behind_those_that_are_granted() {
    let mut spec = command("");
    assert!(environment(&spec, Trace::default(), &[]).is_empty());
    let brought = [("HTTP_ACCEPT", "image/png, */*"), ("QUALITY", "0"), ("EMPTY", "")];
    let seen = environment(&spec, Trace::default(), &brought);
    assert_eq!(seen, ["HTTP_ACCEPT=image/png, */*", "QUALITY=0", "EMPTY="]);
    spec.wasi.env.insert("QUALITY".into(), "85".into());
    let seen = environment(&spec, Trace::default(), &brought);
    assert_eq!(seen, ["QUALITY=85", "HTTP_ACCEPT=image/png, */*", "EMPTY="]);
}

#[test]
fn a_function_sees_its_own_span() {
    let mut spec = command("");
    let caller = Trace { flags: 1, ..Trace::begin() };
    let seen = environment(&spec, caller, &[]);
    let own = seen[0].strip_prefix("TRACEPARENT=").and_then(|it| Trace::parse(it.as_bytes()));
    let own = own.unwrap();
    assert_eq!((own.trace_id, own.flags), (caller.trace_id, 1));
    assert_ne!(own.span_id, caller.span_id);
    spec.wasi.env.insert("TRACEPARENT".into(), "mine".into());
    assert_eq!(environment(&spec, caller, &[]), ["TRACEPARENT=mine"]);
}

#[test]
fn an_environment_outside_linear_memory_is_a_fault() {
    let text = "(call $word (call $env_sizes (i32.const -2) (i32.const 68)))
                (call $word (call $env_sizes (i32.const 64) (i32.const 262142)))
                (call $word (call $env (i32.const -2) (i32.const 128)))
                (call $word (call $env (i32.const 64) (i32.const 262140)))";
    let mut spec = command(text);
    spec.wasi.env.insert("QUALITY".into(), "85".into());
    assert_eq!(words(&run(spec, b"").unwrap()), [21; 4]);
}

/// Opens `peer` in the first directory, for reading or, made anew, for writing, and keeps the errno.
pub(crate) fn open(write: bool) -> String {
    let (flags, rights) = if write { (9, 0x40) } else { (0, 0x02) };
    format!(
        "(call $open (i32.const 3) (i32.const 0) (i32.const 1024) (i32.const 4) (i32.const {flags})
                     (i64.const {rights}) (i64.const 0) (i32.const 0) (i32.const 48))"
    )
}

#[test]
fn directories_are_there_as_granted_to_commands_and_handlers() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("peer"), "granted").unwrap();
    let (read, write) = (open(false), open(true));
    let grant = |spec: &mut FunctionSpec, write| {
        let granted = WasiDir { path: dir.path().into(), write };
        spec.wasi.dirs.insert("/data".into(), granted);
    };
    let shows = format!(
        "(call $word {read})
         (drop (call $read (i32.load (i32.const 48)) (i32.const 128) (i32.const 16)))
         (drop (call $write (i32.const 1) (i32.const 128) (i32.const 7)))"
    );
    let mut cat = command(&shows);
    grant(&mut cat, false);
    assert_eq!(run(cat, b"").unwrap(), b"\0\0\0\0granted");

    let mut writes = command(&format!("(call $word {write})"));
    grant(&mut writes, false);
    assert_ne!(words(&run(writes.clone(), b"").unwrap()), [0], "a read-only grant was written to");
    assert_eq!(std::fs::read(dir.path().join("peer")).unwrap(), b"granted");
    grant(&mut writes, true);
    assert_eq!(words(&run(writes, b"").unwrap()), [0]);
    assert_eq!(std::fs::read(dir.path().join("peer")).unwrap(), b"");

    let wat =
        guest(&format!("(call $put {read})")).replace("(module", &format!("(module {IMPORTS}"));
    let mut handler = spec("main", wat);
    grant(&mut handler, false);
    assert_eq!(words(&run(handler.clone(), b"x").unwrap()), [0]);
    handler.wasi.dirs.clear();
    assert_eq!(words(&run(handler, b"x").unwrap()), [NO_SUCH_DESCRIPTOR]);
}

#[test]
fn a_directory_that_is_gone_is_one_clear_error() {
    let mut handler = spec("main", guest(ECHO));
    let granted = WasiDir { path: "/nonexistent/models".into(), write: false };
    handler.wasi.dirs.insert("/models".into(), granted);
    let fault = run(handler, b"x").unwrap_err().to_string();
    assert!(fault.contains("/nonexistent/models"), "{fault}");
}

#[test]
fn a_sleep_ends_at_the_deadline() {
    // A relative and an absolute sleep of an hour, on the monotonic clock.
    for flags in [0, 1] {
        let hour = 3_600_000_000_000_u64 << (flags * 10);
        let mut sleeper = command(&format!(
            "(i32.store (i32.const 80) (i32.const 1))
             (i64.store (i32.const 88) (i64.const {hour}))
             (i32.store16 (i32.const 104) (i32.const {flags}))
             (drop (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 8)))
             (loop $for_ever (br $for_ever))"
        ));
        sleeper.timeout = Duration::from_millis(50);
        let (done, end) = std::sync::mpsc::channel();
        let app = load(&runtime(), vec![sleeper]);
        std::thread::spawn(move || done.send(ask(&app, "main", b"")));
        let ended =
            end.recv_timeout(Duration::from_secs(60)).expect("it sleeps beyond its deadline");
        assert!(matches!(ended, Err(Fault::TimedOut { .. })), "{ended:?}");
    }
}

#[test]
fn a_short_sleep_returns_its_event() {
    let sleeps = "(i64.store (i32.const 64) (i64.const 77))
        (i32.store (i32.const 80) (i32.const 1)) (i64.store (i32.const 88) (i64.const 1000000))
        (call $word (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 40)))
        (call $word (i32.load (i32.const 40))) (call $word (i32.load (i32.const 128)))
        (call $word (i32.load8_u (i32.const 138)))";
    assert_eq!(words(&run(command(sleeps), b"").unwrap()), [0, 1, 77, 0]);
}

#[test]
fn a_flood_of_logging_is_bounded() {
    let flood = "(loop $next
        (drop (call $write (i32.const 2) (i32.const 65536) (i32.const 60000)))
        (local.set $a (i32.add (local.get $a) (i32.const 1)))
        (br_if $next (i32.lt_u (local.get $a) (i32.const 1000))))
        (call $word (local.get $a))";
    match run(command(flood), b"") {
        Ok(said) => assert_eq!(words(&said), [1000]),
        Err(Fault::Trapped { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn committed_guests_run() {
    let dist = concat!(env!("CARGO_MANIFEST_DIR"), "/../../guests/dist/echo.wasm");
    let echo = FunctionSpec::new("main", roadrunner_runtime::ModuleSource::File(dist.into()));
    let app = load(&runtime(), vec![echo]);
    let mut reply = send(&app, "main", &pattern(2_500_000)).unwrap();
    assert!(bytes_of(&mut reply) == pattern(2_500_000));
    assert_eq!(reply.account.traffic.copied, 0);
}
