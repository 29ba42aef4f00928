//! `call`, `submit` and `wait`: what they answer, who keeps the payload, what is counted.

use std::fs;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use roadrunner_abi::{Errno, limit};
use roadrunner_runtime::{Backing, Config, Fault, Payload, Runtime, Sealed, WasiDir};

use crate::support::{
    ECHO, answers, app_of, ask, bytes_of, code, config, guest, load, pattern, runtime, send, spec,
    still_works, words_of,
};

/// A buffer of 100,000 bytes of 7, in `$a`.
const FILLED: &str = "(local.set $a (call $buffer_alloc (i32.const 100000) (i32.const 0)))
    (call $fill (local.get $a) (i32.const 100000) (i32.const 7))";

/// Answers how many bytes in `$a` are not 7, then what freeing it answers.
const STATE: &str = "(call $put (call $others (local.get $a) (i32.const 100000) (i32.const 7)))
    (call $put (call $buffer_free (local.get $a)))";

const KEPT: [u32; 2] = [0, 0];
const GONE: [u32; 2] = [100_000, 3];

fn after(call: &str, peer: &str) -> Vec<u32> {
    words_of(&format!("{FILLED} (call $put {call}) {STATE}"), peer, b"x")
}

fn with(errno: Errno, state: [u32; 2]) -> Vec<u32> {
    vec![code(errno), state[0], state[1]]
}

const MOVE: &str = "(call $peer (local.get $a) (i32.const 100000) (i32.const 0))";

#[test]
fn a_moved_payload_is_gone_and_a_shared_one_stays() {
    let share = MOVE.replace("(i32.const 0))", "(i32.const 1))");
    // The peer answers nothing: a response could lie where the payload was.
    assert_eq!(after(MOVE, ""), with(Errno::Ok, GONE));
    assert_eq!(after(&share, ""), with(Errno::Ok, KEPT));
}

#[test]
fn a_delivered_payload_is_gone_however_the_callee_ends() {
    let failing = "(call $fail (i32.const 1024) (i32.const 4))";
    assert_eq!(after(MOVE, failing), with(Errno::CalleeFailed, GONE));
    assert_eq!(after(MOVE, "(unreachable)"), with(Errno::CalleeFailed, GONE));
    assert_eq!(
        after(MOVE, "(return (call $pack (i32.const -8) (i32.const 64)))"),
        with(Errno::CalleeFailed, GONE)
    );
}

#[test]
fn an_undelivered_payload_stays() {
    let call = |name: &str, flags: &str, out: &str| {
        format!("(call $call {name} (local.get $a) (i32.const 100000) {flags} {out})")
    };
    let peer = "(i32.const 1024) (i32.const 4)";
    let (none, out) = ("(i32.const 0)", "(i32.const 16)");
    let ghost = "(i32.const 1032) (i32.const 5)";
    let bad = "(i32.const 1040) (i32.const 2)";
    let unlisted = "(i32.const 1056) (i32.const 5)";
    let long = "(i32.const 1024) (i32.const 129)";
    let outside = "(i32.const 65534) (i32.const 4)";
    for (name, flags, out, errno) in [
        (ghost, none, out, Errno::NotPermitted),
        (unlisted, none, out, Errno::NotPermitted),
        (bad, none, out, Errno::Invalid),
        (long, none, out, Errno::Invalid),
        (outside, none, out, Errno::Ok),
        (peer, "(i32.const 2)", out, Errno::Invalid),
        (peer, none, "(i32.const -4)", Errno::Fault),
    ] {
        // Memory has grown beyond one page, so a name at its end is no function's name.
        let errno = if name == outside { Errno::NotPermitted } else { errno };
        let answered = after(&call(name, flags, out), ECHO);
        assert_eq!(answered, with(errno, KEPT), "{name} {flags} {out}");
    }
}

/// What remains of a payload of `main` whose call finds no sandbox.
fn refused_with(backing: Backing) -> Vec<u32> {
    let runtime = Runtime::new(Config { sandboxes: 1, ..config() }).unwrap();
    let mut main = spec("main", guest(&format!("{FILLED} (call $put {MOVE}) {STATE}")));
    main.backing = backing;
    answers(&load(&runtime, vec![main, spec("peer", guest(ECHO))]), b"x")
}

#[test]
fn a_callee_without_a_sandbox_leaves_the_payload() {
    assert_eq!(refused_with(Backing::Private), with(Errno::Limit, KEPT));
}

#[test]
fn a_callee_without_a_sandbox_leaves_a_payload_in_a_memfd() {
    assert_eq!(refused_with(Backing::Memfd), with(Errno::Limit, KEPT));
}

#[test]
fn a_callee_out_of_time_answers_timeout() {
    let mut peer = spec("peer", guest("(loop $for_ever (br $for_ever))"));
    peer.timeout = Duration::from_millis(20);
    let main = guest(&format!("{FILLED} (call $put {MOVE}) {STATE}"));
    let app = load(&runtime(), vec![spec("main", main), peer, spec("echo", guest(ECHO))]);
    assert_eq!(answers(&app, b"x"), with(Errno::Timeout, GONE));
    still_works(&app);
}

#[test]
fn a_response_without_room_answers_no_memory() {
    let mut main = spec("main", guest(&format!("(call $put {MOVE}) (call $put (i32.const 1))")));
    main.memory_bytes = 1 << 20;
    let big = "(return (call $pack (call $buffer_alloc (i32.const 8000000) (i32.const 0))
                                   (i32.const 8000000)))";
    let move_input = "(call $peer (local.get $ptr) (local.get $len) (i32.const 0))";
    main.module = crate::support::source(guest(&format!(
        "(i64.store (i32.const 16) (i64.const 5)) (call $put {move_input})
         (call $put (call $out_ptr))"
    )));
    let app = load(&runtime(), vec![main, spec("peer", guest(big)), spec("echo", guest(ECHO))]);
    assert_eq!(answers(&app, &pattern(50_000)), [code(Errno::NoMemory), 5]);
    still_works(&app);
}

#[test]
fn a_payload_over_the_limit_is_refused_and_stays() {
    let runtime = Runtime::new(Config { payload_bytes: 60_000, ..config() }).unwrap();
    let body = "(call $put (call $peer (local.get $ptr) (i32.const 60001) (i32.const 0)))
                (call $put (call $send (local.get $ptr) (i32.const 60001) (i32.const 0)))
                (call $put (call $buffer_alloc (i32.const 60001) (i32.const 0)))
                (call $put (call $buffer_free (local.get $ptr)))";
    let app = load(&runtime, vec![spec("main", guest(body)), spec("peer", guest(ECHO))]);
    let negative = (-Errno::TooLarge.code()).cast_unsigned();
    assert_eq!(answers(&app, &[1; 60_000]), [code(Errno::TooLarge), negative, 0, 0]);
    let Err(Fault::TooLarge { len: 60_001, limit: 60_000, .. }) = ask(&app, "main", &[1; 60_001])
    else {
        panic!("a request over the limit was taken");
    };
}

#[test]
fn a_failure_names_its_message() {
    let main = "(call $put (call $peer (i32.const 0) (i32.const 0) (i32.const 0)))
                (call $put (call $out_len))
                (call $put (i32.load8_u (call $out_ptr)))
                (call $put (call $buffer_free (call $out_ptr)))";
    let failing = "(call $fail (i32.const 1024) (i32.const 4))";
    let message = "function `peer` failed: peer";
    let expected = [code(Errno::CalleeFailed), u32::try_from(message.len()).unwrap()];
    assert_eq!(words_of(main, failing, b""), [expected[0], expected[1], u32::from(b'f'), 0]);
}

#[test]
fn a_message_is_cut_between_characters() {
    // 1365 characters of three bytes, of which 1357 fit behind 24 bytes of the host's.
    let failing = "(local.set $a (call $allocate (i32.const 4096)))
        (loop $next
          (i32.store (i32.add (local.get $a) (local.get $b)) (i32.const 0xac82e2))
          (local.set $b (i32.add (local.get $b) (i32.const 3)))
          (br_if $next (i32.lt_u (local.get $b) (i32.const 4095))))
        (call $fail (local.get $a) (i32.const 4095))";
    let main = "(drop (call $peer (i32.const 0) (i32.const 0) (i32.const 0)))
                (return (call $pack (call $out_ptr) (call $out_len)))";
    let said = ask(&app_of(main, failing), "main", b"").unwrap();
    let expected = format!("function `peer` failed: {}", "\u{20ac}".repeat(1357));
    assert_eq!(String::from_utf8(said).unwrap(), expected);
}

#[test]
fn the_response_of_a_call_is_a_buffer_and_nothing_is_copied() {
    let body = "(call $put (call $peer (local.get $ptr) (local.get $len) (i32.const 0)))
                (return (call $pack (call $out_ptr) (call $out_len)))";
    let app = app_of(body, ECHO);
    let sent = pattern(3_000_001);
    let mut reply = send(&app, "main", &sent).unwrap();
    assert!(crate::support::bytes_of(&mut reply) == sent);
    let hops: Vec<_> = reply.hops.iter().map(|hop| (&*hop.from, &*hop.to)).collect();
    assert_eq!(hops, [("main", "peer"), ("peer", "main")]);
    for hop in &reply.hops {
        assert_eq!(hop.account.traffic.copied, 0);
        assert_eq!(hop.account.traffic.moved, 3_000_001);
    }
}

#[test]
fn heap_bytes_are_copied_and_counted() {
    let body = "(local.set $a (i32.add (call $allocate (i32.const 50000)) (i32.const 1)))
                (call $put (call $peer (local.get $a) (i32.const 40000) (i32.const FLAG)))
                (call $put (call $buffer_free (local.get $a)))";
    for flag in ["0", "1"] {
        let app = app_of(&body.replace("FLAG", flag), ECHO);
        let reply = send(&app, "main", b"x").unwrap();
        let there = reply.hops[0].account.traffic;
        assert_eq!(there.copied, 40_000, "flag {flag}");
        assert_eq!(answers(&app, b"x"), [0, code(Errno::BadBuffer)]);
    }
}

#[test]
fn submitted_calls_answer_each_to_its_ticket() {
    // Four calls, each with a buffer of its number; waited for backwards.
    let body = "(loop $next
        (local.set $a (i32.add (local.get $a) (i32.const 1)))
        (local.set $b (call $buffer_alloc (i32.const 70000) (i32.const 0)))
        (call $fill (local.get $b) (i32.const 70000) (local.get $a))
        (i32.store (i32.add (i32.const 64) (i32.shl (local.get $a) (i32.const 2)))
          (call $send (local.get $b) (i32.const 70000) (i32.const 0)))
        (if (i32.ne (call $buffer_free (local.get $b)) (i32.const 3)) (then (unreachable)))
        (br_if $next (i32.lt_u (local.get $a) (i32.const 4))))
      (loop $next
        (local.set $c (i32.load (i32.add (i32.const 64) (i32.shl (local.get $a) (i32.const 2)))))
        (call $put (call $wait (local.get $c) (i32.const 16)))
        (call $put (call $others (call $out_ptr) (call $out_len) (local.get $a)))
        (call $put (call $out_len))
        (call $put (call $wait (local.get $c) (i32.const 16)))
        (local.set $a (i32.sub (local.get $a) (i32.const 1)))
        (br_if $next (local.get $a)))";
    let one = [0, 0, 70_000, code(Errno::BadTicket)];
    assert_eq!(words_of(body, ECHO, b"x"), [one, one, one, one].concat());
}

#[test]
fn tickets_are_bounded_and_survive_a_bad_out() {
    let body = format!(
        "(loop $next
           (local.set $b (call $send (i32.const 1024) (i32.const 4) (i32.const 0)))
           (local.set $a (i32.add (local.get $a) (i32.const 1)))
           (br_if $next (i32.gt_s (local.get $b) (i32.const 0))))
         (call $put (local.get $a)) (call $put (local.get $b))
         (call $put (call $wait (i32.const 1) (i32.const -8)))
         (call $put (call $wait (i32.const 1) (i32.const 16)))
         (call $put (i32.gt_s (call $send (i32.const 1024) (i32.const 4) (i32.const 0))
                              (i32.const {})))
         (call $put (call $wait (i32.const 0) (i32.const 16)))
         (call $put (call $wait (i32.const -1) (i32.const 16)))",
        limit::TICKETS
    );
    let (tickets, bad) = (u32::try_from(limit::TICKETS).unwrap(), code(Errno::BadTicket));
    let limit = (-Errno::Limit.code()).cast_unsigned();
    let fault = code(Errno::Fault);
    let app = app_of(&body, ECHO);
    assert_eq!(answers(&app, b"x"), [tickets + 1, limit, fault, 0, 1, bad, bad]);
    still_works(&app);
}

/// What a function imports to make a file: a run that leaves a trace.
const PATH_OPEN: &str = r#"(import "wasi_snapshot_preview1" "path_open" (func $open
    (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))"#;

#[test]
fn a_call_that_nobody_waited_for_does_not_begin_after_the_response() {
    let dir = tempfile::tempdir().unwrap();
    let ran = || fs::read_dir(dir.path()).unwrap().count();
    let creates = "(call $put (call $open (i32.const 3) (i32.const 0) (i32.const 1024)
        (i32.const 4) (i32.const 1) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 32)))";
    let peer = guest(creates).replace("(module", &format!("(module {PATH_OPEN}"));
    let mut peer = spec("peer", peer);
    let granted = WasiDir { path: dir.path().into(), write: true };
    peer.wasi.dirs.insert("/".into(), granted);
    let submits = "(call $put (call $send (i32.const 0) (i32.const 0) (i32.const 0)))";
    let runtime = Runtime::new(Config { workers: 1, ..config() }).unwrap();
    let specs = vec![spec("main", guest(submits)), peer, spec("echo", guest(ECHO))];
    let app = load(&runtime, specs);
    let beside = |done: Box<dyn FnOnce() + Send>| {
        app.spawn("echo".into(), Payload::One(Sealed::empty()), move |_| done())
    };

    // The one worker is busy from before the call is submitted until the response is there.
    let ((busy, is_busy), (go_on, goes_on)) = (channel(), channel::<()>());
    let first = beside(Box::new(move || {
        busy.send(()).unwrap();
        let _ = goes_on.recv();
    }));
    is_busy.recv().unwrap();
    let mut reply = send(&app, "main", b"").unwrap();
    assert_eq!(bytes_of(&mut reply), [1, 0, 0, 0], "a ticket");
    // Its turn comes after that of the submitted call.
    let (done, is_done) = channel();
    let last = beside(Box::new(move || done.send(()).unwrap()));
    drop(go_on);
    is_done.recv().unwrap();
    assert_eq!(ran(), 0, "the submitted call ran after the response");

    drop((reply, first, last));
    assert_eq!(ask(&app, "peer", b"").unwrap(), [0; 4]);
    assert_eq!(ran(), 1, "a call that runs is seen");
}

#[test]
fn the_wait_for_a_worker_is_part_of_a_hand_over() {
    let runtime = Runtime::new(Config { workers: 1, ..config() }).unwrap();
    let app = load(&runtime, vec![spec("echo", guest(ECHO))]);
    let ((busy, is_busy), (go_on, goes_on)) = (channel(), channel::<()>());
    let first = app.spawn("echo".into(), Payload::One(Sealed::empty()), move |_| {
        busy.send(()).unwrap();
        let _ = goes_on.recv();
    });
    is_busy.recv().unwrap();
    let (done, is_done) = channel();
    let second = app.spawn("echo".into(), Payload::One(Sealed::empty()), move |ended| {
        done.send(ended.map(|reply| reply.account.handover)).unwrap();
    });
    let spawned = Instant::now();
    // Longer than an empty call takes, so that leaving the wait out is seen.
    std::thread::sleep(Duration::from_millis(300));
    let waited = spawned.elapsed();
    drop(go_on);
    let handover = is_done.recv().unwrap().unwrap();
    assert!(handover >= waited, "{handover:?} of a payload that waited {waited:?}");
    drop((first, second));
}

#[test]
fn a_refused_submit_keeps_the_payload() {
    let send = |name: &str, flags: &str| {
        format!("(call $submit {name} (local.get $a) (i32.const 100000) {flags})")
    };
    let negative = |errno: Errno| (-errno.code()).cast_unsigned();
    let ghost = send("(i32.const 1032) (i32.const 5)", "(i32.const 0)");
    let flags = send("(i32.const 1024) (i32.const 4)", "(i32.const 4)");
    assert_eq!(after(&ghost, ECHO), [negative(Errno::NotPermitted), 0, 0]);
    assert_eq!(after(&flags, ECHO), [negative(Errno::Invalid), 0, 0]);
}

#[test]
fn a_freed_range_is_no_payload_whether_shared_or_moved_small_or_large() {
    for len in ["100", "30000", "100000"] {
        for flags in ["0", "1"] {
            let body = format!(
                "(local.set $a (call $buffer_alloc (i32.const {len}) (i32.const 0)))
                 (call $put (call $buffer_free (local.get $a)))
                 (call $put (call $peer (local.get $a) (i32.const {len}) (i32.const {flags})))
                 (call $put (call $peer (i32.add (local.get $a) (i32.const 9)) (i32.const 50)
                                        (i32.const {flags})))
                 (call $put (call $send (local.get $a) (i32.const {len}) (i32.const {flags})))"
            );
            let bad = code(Errno::BadBuffer);
            let negative = (-Errno::BadBuffer.code()).cast_unsigned();
            let got = words_of(&body, ECHO, b"x");
            assert_eq!(got, [0, bad, bad, negative], "{len} bytes, flags {flags}");
        }
    }
}
