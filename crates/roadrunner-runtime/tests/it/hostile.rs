//! Guests that break the rules while they run. Each ends in one clear error or errno, and the same
//! runtime runs a good function afterwards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use roadrunner_abi::{Errno, limit};
use roadrunner_runtime::{App, Config, Fault, FunctionSpec, Payload, Runtime};

use crate::support::{
    ALLOCATOR, ECHO, answers, app_of, ask, code, config, guest, handler, load, module_with,
    pattern, runtime, sealed, spec, still_works, words_of,
};

/// Loads a hostile `main` beside good functions.
fn beside(main: FunctionSpec) -> Arc<App> {
    load(&runtime(), vec![main, spec("echo", guest(ECHO)), spec("peer", guest(ECHO))])
}

/// The fault that calls of `main` end in, of which more are made than there are sandboxes.
fn fault_of(app: &Arc<App>, sent: &[u8]) -> Fault {
    let fault = ask(app, "main", sent).unwrap_err();
    for _ in 0..20 {
        let again = ask(app, "main", sent).unwrap_err();
        assert_eq!(again.to_string(), fault.to_string());
    }
    still_works(app);
    fault
}

fn violation(app: &Arc<App>, sent: &[u8], part: &str) {
    let fault = fault_of(app, sent);
    assert!(
        matches!(&fault, Fault::Violation { function, what }
        if function == "main" && what.contains(part)),
        "{fault}"
    );
}

fn trap(app: &Arc<App>, sent: &[u8], part: &str) {
    let fault = fault_of(app, sent);
    assert!(
        matches!(&fault, Fault::Trapped { function, reason }
        if function == "main" && reason.contains(part)),
        "{fault}"
    );
}

/// Ranges that leave a memory of 65,536 bytes: past the end, across it, wrapping past 4 GiB.
const OUTSIDE: [(u32, u32); 7] = [
    (65_536, 1),
    (65_535, 2),
    (0, 65_537),
    (u32::MAX, 1),
    (u32::MAX, u32::MAX),
    (0x8000_0000, 0x8000_0000),
    (u32::MAX - 7, 16),
];

#[test]
fn ranges_outside_memory_are_faults_of_every_import() {
    let fault = code(Errno::Fault);
    let negative = (-Errno::Fault.code()).cast_unsigned();
    for (ptr, len) in OUTSIDE {
        let (ptr_len, small) = (format!("(i32.const {ptr}) (i32.const {len})"), len.min(100));
        let mut expected = vec![fault, fault, negative, negative];
        let mut body = format!(
            "(call $put (call $peer {ptr_len} (i32.const 0)))
             (call $put (call $peer {ptr_len} (i32.const 1)))
             (call $put (call $send {ptr_len} (i32.const 0)))
             (call $put (call $send {ptr_len} (i32.const 1)))"
        );
        if u64::from(len) > limit::PAYLOAD_BYTES {
            expected = vec![code(Errno::TooLarge), code(Errno::TooLarge)];
            expected.extend([(-Errno::TooLarge.code()).cast_unsigned(); 2]);
        }
        if u64::from(ptr) + u64::from(small) > 65_536 {
            expected.extend([fault, fault, fault]);
            body += &format!(
                "(call $put (call $call (i32.const {ptr}) (i32.const {small}) (i32.const 0)
                                        (i32.const 0) (i32.const 0) (i32.const 16)))
                 (call $put (call $call (i32.const 1024) (i32.const 4) (i32.const 0)
                                        (i32.const 0) (i32.const 0) (i32.const {ptr})))
                 (call $put (call $wait (i32.const 1) (i32.const {ptr})))"
            );
        }
        body += &format!("(call $put (call $buffer_free (i32.const {ptr})))");
        expected.push(code(Errno::BadBuffer));
        let app = app_of(&body, ECHO);
        assert_eq!(answers(&app, b""), expected, "pointer {ptr}, length {len}");
        still_works(&app);
    }
}

#[test]
fn messages_outside_memory_end_the_invocation() {
    for (ptr, len) in OUTSIDE {
        let range = format!("(i32.const {ptr}) (i32.const {len})");
        let app = app_of(&format!("(call $fail {range})"), ECHO);
        assert!(matches!(fault_of(&app, b""), Fault::Failed { .. }));
        let app = app_of(&format!("(call $log (i32.const 1) {range})"), ECHO);
        violation(&app, b"", "outside its linear memory");
    }
}

#[test]
fn responses_outside_memory_end_the_invocation() {
    for (ptr, len) in OUTSIDE {
        let body = format!("(return (call $pack (i32.const {ptr}) (i32.const {len})))");
        let part = if u64::from(len) > limit::PAYLOAD_BYTES { "over the limit" } else { "outside" };
        violation(&app_of(&body, ECHO), b"", part);
    }
    violation(&app_of("(return (i64.const -1))", ECHO), b"", "over the limit");
}

#[test]
fn a_response_that_was_freed_or_sent_ends_the_invocation() {
    for spend in [
        "(drop (call $buffer_free (local.get $ptr)))",
        "(drop (call $peer (local.get $ptr) (local.get $len) (i32.const 0)))",
    ] {
        let body = format!("{spend} (return (call $pack (local.get $ptr) (local.get $len)))");
        for len in [10, 50_000, 3_000_000] {
            // The peer takes it and answers nothing, so the range stays spent.
            let app = app_of(&body, "");
            violation(&app, &pattern(len), "no longer holds");
        }
    }
}

#[test]
fn freed_foreign_and_twice_sent_buffers_are_bad() {
    let body = "(local.set $a (call $buffer_alloc (i32.const 50000) (i32.const 0)))
        (call $put (call $peer (local.get $a) (i32.const 50000) (i32.const 0)))
        (call $put (call $peer (local.get $a) (i32.const 50000) (i32.const 0)))
        (call $put (call $send (local.get $a) (i32.const 50000) (i32.const 1)))
        (call $put (call $buffer_free (local.get $a)))
        (call $put (call $buffer_free (i32.const 0)))
        (call $put (call $buffer_free (i32.const 5)))
        (call $put (call $buffer_free (i32.add (local.get $ptr) (i32.const 4096))))
        (call $put (call $buffer_free (call $allocate (i32.const 64))))
        (call $put (call $buffer_free (local.get $ptr)))
        (call $put (call $buffer_free (local.get $ptr)))";
    let bad = code(Errno::BadBuffer);
    let negative = (-Errno::BadBuffer.code()).cast_unsigned();
    // The peer answers nothing, which is no buffer: what it got stays spent.
    let got = words_of(body, "(return (i64.const 0))", &pattern(60_000));
    assert_eq!(got, [0, bad, negative, bad, bad, bad, bad, bad, 0, bad]);
}

#[test]
fn ranges_that_overlap_buffers_in_part_are_plain_bytes() {
    // From before a held window into it, and from inside it past its end: copied, never moved.
    let body = "(local.set $a (call $buffer_alloc (i32.const 100000) (i32.const 0)))
        (call $fill (local.get $a) (i32.const 100000) (i32.const 7))
        (call $put (call $peer (i32.sub (local.get $a) (i32.const 16)) (i32.const 50000) (i32.const 0)))
        (call $put (call $peer (i32.add (local.get $a) (i32.const 99000)) (i32.const 1500) (i32.const 0)))
        (call $put (call $peer (local.get $a) (i32.const 100016) (i32.const 0)))
        (call $put (call $others (local.get $a) (i32.const 100000) (i32.const 7)))
        (call $put (call $buffer_free (local.get $a)))";
    assert_eq!(words_of(body, ECHO, b"x"), [0, 0, 0, 0, 0]);
}

/// A guest whose `allocate_memory` is this code.
fn allocating(code: &str) -> FunctionSpec {
    let allocator = format!(
        r#"(func $allocate (export "allocate_memory") (param $len i32) (result i32) {code})
           (func (export "deallocate_memory") (param i32))"#
    );
    spec("main", module_with(&allocator, &handler(ECHO)))
}

#[test]
fn an_allocator_that_traps_or_lies_ends_the_invocation() {
    for len in [10, 50_000, 3_000_000] {
        let sent = pattern(len);
        trap(&beside(allocating("(unreachable)")), &sent, "unreachable");
        violation(&beside(allocating("(i32.const 65530)")), &sent, "beyond its linear memory");
        violation(&beside(allocating("(i32.const -1)")), &sent, "beyond its linear memory");
        violation(&beside(allocating("(i32.const -4096)")), &sent, "beyond its linear memory");
        let fault = fault_of(&beside(allocating("(i32.const 0)")), &sent);
        assert!(matches!(fault, Fault::NoMemory { .. }), "{fault}");
    }
}

#[test]
fn an_allocator_that_fails_its_caller_ends_the_invocation() {
    let fail = "(call $fail (i32.const 1024) (i32.const 4)) (i32.const 0)";
    let fault = fault_of(&beside(allocating(fail)), b"x");
    assert!(matches!(&fault, Fault::Failed { message, .. } if message == "peer"), "{fault}");
}

#[test]
fn memory_given_twice_ends_the_invocation() {
    // Always the same place, with room for anything; the handler asks for a second buffer.
    let same = "(if (i32.lt_u (memory.size) (i32.const 200))
                  (then (drop (memory.grow (i32.const 200)))))
                (i32.const 131072)";
    let allocator = format!(
        r#"(func $allocate (export "allocate_memory") (param $len i32) (result i32) {same})
           (func (export "deallocate_memory") (param i32))"#
    );
    let asks = handler("(call $put (call $buffer_alloc (i32.const 20000) (i32.const 0)))");
    let app = beside(spec("main", module_with(&allocator, &asks)));
    violation(&app, &pattern(50_000), "overlaps memory that it gave before");
    let app = beside(spec("main", module_with(&allocator, &asks)));
    violation(&app, &pattern(50), "overlaps memory that it gave before");
}

#[test]
fn an_allocator_for_ever_is_stopped() {
    let mut main = allocating("(loop $for_ever (br $for_ever)) (i32.const 0)");
    main.timeout = Duration::from_millis(20);
    let app = beside(main);
    assert!(matches!(ask(&app, "main", b"x").unwrap_err(), Fault::TimedOut { .. }));
    still_works(&app);
}

#[test]
fn host_functions_refuse_while_the_allocator_runs() {
    let asks = "(if (i32.eqz (i32.load (i32.const 64))) (then
          (i32.store (i32.const 64) (i32.const 1))
          (call $put (call $buffer_alloc (i32.const 10) (i32.const 0)))
          (call $put (call $buffer_free (i32.const 10)))
          (call $put (call $peer (i32.const 0) (i32.const 0) (i32.const 0)))
          (call $put (call $send (i32.const 0) (i32.const 0) (i32.const 0)))
          (call $put (call $wait (i32.const 1) (i32.const 16)))))";
    let greedy = ALLOCATOR.replace(
        "(local $at i32) (local $end i32)",
        &format!("(local $at i32) (local $end i32) {asks}"),
    );
    let wat = module_with(&greedy, &handler("(call $put (i32.const 77))"));
    let app = beside(spec("main", wat));
    let limit = code(Errno::Limit);
    let negative = (-Errno::Limit.code()).cast_unsigned();
    for sent in [pattern(10), pattern(50_000)] {
        assert_eq!(answers(&app, &sent), [0, limit, limit, negative, limit, 77]);
    }
    still_works(&app);
}

#[test]
fn a_deallocator_that_traps_ends_the_invocation() {
    let traps = ALLOCATOR.replace("(param i32))", "(param i32) (unreachable))");
    // More buffers than the host keeps the ranges of.
    let frees = "(local.set $c (i32.const 100))
        (loop $next
          (local.set $a (call $buffer_alloc (i32.const 100) (i32.const 0)))
          (i32.store (i32.add (i32.const 8192) (i32.shl (local.get $c) (i32.const 2))) (local.get $a))
          (br_if $next (local.tee $c (i32.sub (local.get $c) (i32.const 1)))))
        (local.set $c (i32.const 100))
        (loop $next
          (drop (call $buffer_free
            (i32.load (i32.add (i32.const 8192) (i32.shl (local.get $c) (i32.const 2))))))
          (br_if $next (local.tee $c (i32.sub (local.get $c) (i32.const 1)))))";
    trap(&beside(spec("main", module_with(&traps, &handler(frees)))), b"x", "unreachable");
}

#[test]
fn a_handler_that_traps_says_where() {
    trap(&app_of("(unreachable)", ECHO), &pattern(50_000), "unreachable");
    let divides = "(drop (i32.div_u (i32.const 1) (i32.const 0)))";
    trap(&app_of(divides, ECHO), b"x", "divide by zero");
    let reads = "(drop (i32.load (i32.const -16)))";
    trap(&app_of(reads, ECHO), &pattern(50_000), "out of bounds");
}

#[test]
fn a_handler_for_ever_is_stopped() {
    let mut main = spec("main", guest("(loop $for_ever (br $for_ever))"));
    main.timeout = Duration::from_millis(20);
    let app = beside(main);
    for _ in 0..20 {
        assert!(matches!(ask(&app, "main", &pattern(50_000)), Err(Fault::TimedOut { .. })));
    }
    still_works(&app);
}

#[test]
fn endless_host_calls_are_stopped_too() {
    for call in [
        "(drop (call $buffer_alloc (i32.const -1) (i32.const 0)))",
        "(drop (call $peer (i32.const 0) (i32.const 0) (i32.const 0)))",
        "(drop (call $buffer_free (call $buffer_alloc (i32.const 100000) (i32.const 1))))",
    ] {
        let mut main = spec("main", guest(&format!("(loop $on {call} (br $on))")));
        main.timeout = Duration::from_millis(50);
        let app = beside(main);
        assert!(matches!(ask(&app, "main", b"x"), Err(Fault::TimedOut { .. })), "{call}");
        still_works(&app);
    }
}

const RECURSES: &str =
    "(func $down (param i32) (call $down (local.get 0)) (call $down (local.get 0)))";

#[test]
fn infinite_recursion_is_a_trap_on_any_thread() {
    let wat = guest("(call $down (i32.const 1))")
        .replace("(global $top", &format!("{RECURSES} (global $top"));
    let app = beside(spec("main", wat));
    trap(&app, &pattern(50_000), "stack");
    // A thread of the embedder's may have little stack.
    let small = std::thread::Builder::new().stack_size(256 << 10);
    let app = &app;
    std::thread::scope(|scope| {
        let ended = small.spawn_scoped(scope, || ask(app, "main", b"x")).unwrap().join().unwrap();
        assert!(matches!(ended, Err(Fault::Trapped { .. })), "{ended:?}");
    });
}

#[test]
fn host_calls_from_a_nearly_full_stack_are_safe() {
    // Goes down until the stack ends, calling the host on every level.
    let down = "(func $down (param i32)
        (drop (call $peer (i32.const 0) (i32.const 0) (i32.const 0)))
        (drop (call $buffer_free (call $buffer_alloc (i32.const 20000) (i32.const 1))))
        (call $log (i32.const 5) (i32.const 1024) (i32.const 4))
        (call $down (local.get 0)) (call $down (local.get 0)))";
    let wat = guest("(call $down (i32.const 1))")
        .replace("(global $top", &format!("{down} (global $top"));
    let app = beside(spec("main", wat));
    let fault = ask(&app, "main", b"x").unwrap_err();
    assert!(matches!(&fault, Fault::Trapped { reason, .. } if reason.contains("stack")), "{fault}");
    still_works(&app);
}

/// Calls itself and answers 1 more than its callee, or 1 where that was refused.
const DEEPER: &str = "(local.set $a (call $call (i32.const 1048) (i32.const 4) (local.get $ptr)
        (local.get $len) (i32.const 0) (i32.const 16)))
    (if (local.get $a)
      (then (call $put (i32.const 1)) (call $put (local.get $a)))
      (else (call $put (i32.add (i32.const 1) (i32.load (call $out_ptr))))
            (call $put (i32.load offset=4 (call $out_ptr)))))";

#[test]
fn calls_in_calls_end_at_the_depth_limit() {
    for (sandboxes, reached) in [(40, limit::CALL_DEPTH), (16, 16)] {
        let runtime = Runtime::new(Config { sandboxes, ..config() }).unwrap();
        let specs = vec![spec("self", guest(DEEPER)), spec("echo", guest(ECHO))];
        let app = load(&runtime, specs);
        let got = crate::support::words(&ask(&app, "self", &pattern(50_000)).unwrap());
        assert_eq!(got, [reached, code(Errno::Limit)], "{sandboxes} sandboxes");
        still_works(&app);
    }
}

#[test]
fn memory_grows_to_its_limit_and_no_further() {
    let grows = "(loop $next (br_if $next (i32.ne (i32.const -1) (memory.grow (i32.const 16)))))
                 (call $put (memory.size))
                 (call $put (call $buffer_alloc (i32.const 100000) (i32.const 0)))
                 (call $put (call $others (local.get $ptr) (local.get $len) (i32.const 7)))";
    let mut main = spec("main", guest(grows));
    main.memory_bytes = 64 << 20;
    let app = beside(main);
    for len in [10, 50_000, 3_000_000] {
        let got = answers(&app, &vec![7; len]);
        assert!(got[0] > 1024 - 16 && got[0] <= 1024, "{} pages", got[0]);
        assert_eq!(got[2], 0, "{len} bytes changed while memory grew");
    }
    let mut starts_large =
        spec("main", guest(ECHO).replace(r#""memory") 1)"#, r#""memory") 100)"#));
    starts_large.memory_bytes = 1 << 20;
    let app = beside(starts_large);
    let fault = fault_of(&app, b"x").to_string();
    assert!(fault.contains("memory"), "{fault}");
}

#[test]
fn a_window_stays_where_it_is_while_memory_grows() {
    let body = "(local.set $a (call $buffer_alloc (i32.const 3000000) (i32.const 0)))
        (call $fill (local.get $a) (i32.const 3000000) (i32.const 9))
        (loop $next
          (drop (memory.grow (i32.const 160)))
          (call $fill (i32.sub (i32.shl (memory.size) (i32.const 16)) (i32.const 65536))
                      (i32.const 65536) (i32.const 3))
          (local.set $b (i32.add (local.get $b) (i32.const 1)))
          (br_if $next (i32.lt_u (local.get $b) (i32.const 20))))
        (call $put (call $others (local.get $a) (i32.const 3000000) (i32.const 9)))
        (call $put (call $others (local.get $ptr) (local.get $len) (i32.const 7)))
        (call $put (call $peer (local.get $a) (i32.const 3000000) (i32.const 0)))
        (call $put (call $others (call $out_ptr) (call $out_len) (i32.const 9)))
        (call $put (call $buffer_free (local.get $ptr)))";
    assert_eq!(words_of(body, ECHO, &[7; 200_000]), [0, 0, 0, 0, 0]);
}

#[test]
fn buffers_are_limited() {
    // Sizes alternate, so that spent ranges of one size wait while the other fills the limit.
    let body = format!(
        "(loop $next
           (local.set $a (call $buffer_alloc (i32.const 8) (i32.const 0)))
           (i32.store (i32.const 8192) (local.get $a))
           (local.set $c (i32.add (local.get $c) (i32.const 1)))
           (br_if $next (i32.lt_u (local.get $c) (i32.const 30))))
         (local.set $c (i32.const 0))
         (loop $next
           (local.set $a (call $buffer_alloc (i32.const 1000) (i32.const 0)))
           (if (local.get $a) (then
             (local.set $b (local.get $a)) (local.set $c (i32.add (local.get $c) (i32.const 1)))
             (br $next))))
         (call $put (local.get $c))
         (call $put (call $buffer_free (local.get $b)))
         (call $put (i32.ne (i32.const 0) (call $buffer_alloc (i32.const {len}) (i32.const 0))))
         (call $put (call $buffer_alloc (i32.const 1000) (i32.const 0)))",
        len = 8
    );
    let most = u32::try_from(limit::BUFFERS).unwrap();
    // The input is one of them.
    assert_eq!(words_of(&body, ECHO, b"x"), [most - 31, 0, 1, 0]);
}

#[test]
fn inputs_of_a_fan_in_are_limited() {
    let count = r#"(func (export "handle_many") (param i32 i32) (result i64)
        (call $put (local.get 1)) (call $done))"#;
    let app = beside(spec("main", crate::support::module(count)));
    let fan_in = |parts: usize, len: usize| {
        let parts = (0..parts).map(|_| sealed(&app, &vec![1; len])).collect();
        app.call("main", Payload::Many(parts), Instant::now())
    };
    for len in [1, 20_000] {
        let mut reply = fan_in(limit::INPUTS, len).unwrap();
        let count = u32::try_from(limit::INPUTS).unwrap();
        assert_eq!(crate::support::words(&crate::support::bytes_of(&mut reply)), [count]);
        for parts in [limit::INPUTS + 1, 2000] {
            let Err(undelivered) = fan_in(parts, len) else { panic!("{parts} inputs were taken") };
            let fault = undelivered.fault.to_string();
            assert!(fault.contains("256"), "{fault}");
        }
    }
    still_works(&app);
}

#[test]
fn a_tenants_windows_are_limited() {
    let runtime = Runtime::new(Config { app_window_bytes: 1 << 20, ..config() }).unwrap();
    let body = "(loop $next
        (local.set $a (call $buffer_alloc (i32.const 102400) (i32.const 0)))
        (local.set $b (i32.add (local.get $b) (i32.const 1)))
        (br_if $next (local.get $a)))
      (call $put (local.get $b))";
    let app = load(&runtime, vec![spec("main", guest(body)), spec("echo", guest(ECHO))]);
    for _ in 0..20 {
        assert_eq!(answers(&app, b"x"), [11], "ten fit, the next does not");
    }
    still_works(&app);
}

#[test]
fn sandboxes_run_out_and_come_back() {
    let app = app_of(ECHO, ECHO);
    let mut held = Vec::new();
    let fault = loop {
        match crate::support::send(&app, "echo", &pattern(20_000)) {
            Ok(reply) => held.push(reply),
            Err(fault) => break fault,
        }
        assert!(held.len() <= 16);
    };
    assert!(
        matches!(&fault, Fault::Exhausted { reason, .. } if reason.contains("sandboxes")),
        "{fault}"
    );
    assert_eq!(held.len(), 16);
    held.pop();
    still_works(&app);
}

#[test]
fn an_unknown_target_gives_the_payload_back() {
    let app = app_of(ECHO, ECHO);
    let payload = Payload::One(sealed(&app, &pattern(50_000)));
    let Err(undelivered) = app.call("nobody", payload, Instant::now()) else { panic!() };
    assert!(matches!(undelivered.fault, Fault::Unknown { .. }));
    let Some(Payload::One(back)) = undelivered.payload else { panic!("the payload is lost") };
    assert!(back.bytes().unwrap() == pattern(50_000));
}
