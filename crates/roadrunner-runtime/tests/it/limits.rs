//! What a guest and an app can hold, and that it comes back to them.

use std::sync::Arc;
use std::time::Instant;

use roadrunner_abi::Errno;
use roadrunner_runtime::{App, Config, Fault, FunctionSpec, Payload, Runtime};

use crate::support::{
    ALLOCATOR, ECHO, answers, ask, bytes_of, code, config, guest, handler, load, module,
    module_with, pattern, runtime, send, spec, still_works, words,
};
use crate::wasi::{IMPORTS, command};

/// An allocator that has all of its memory again when everything it gave came back.
fn starting_over() -> String {
    let given = "(global.set $top (local.get $end))";
    let counts = "(global.set $live (i32.add (global.get $live) (i32.const 1)))";
    let frees = "(param i32)
        (global.set $live (i32.sub (global.get $live) (i32.const 1)))
        (if (i32.eqz (global.get $live)) (then (global.set $top (i32.const 65536)))))";
    let allocator =
        ALLOCATOR.replace(given, &format!("{given} {counts}")).replace("(param i32))", frees);
    format!("(global $live (mut i32) (i32.const 0)) {allocator}")
}

#[test]
fn an_allocator_with_nothing_left_gets_its_spent_ranges_back() {
    // Each buffer is longer than every one that was freed before, so no spent range will do. All
    // of them together need many times the memory there is.
    const BUFFERS: u32 = 40;
    for (step, memory) in [(300, 128 << 10), (20_000, 2 << 20)] {
        let body = format!(
            "(loop $next
               (local.set $b (i32.add (local.get $b) (i32.const {step})))
               (local.set $a (call $buffer_alloc (local.get $b) (i32.const 0)))
               (if (local.get $a) (then
                 (local.set $c (i32.add (local.get $c) (i32.const 1)))
                 (local.set $d (i32.add (local.get $d)
                   (call $others (local.get $a) (local.get $b) (i32.const 0))))
                 (call $fill (local.get $a) (local.get $b) (i32.const 7))
                 (drop (call $buffer_free (local.get $a)))))
               (br_if $next (i32.lt_u (local.get $b) (i32.const {}))))
             (call $put (local.get $c)) (call $put (local.get $d))",
            BUFFERS * step
        );
        let mut main = spec("main", module_with(&starting_over(), &handler(&body)));
        main.memory_bytes = memory;
        let app = load(&runtime(), vec![main, spec("echo", guest(ECHO))]);
        assert_eq!(answers(&app, b""), [BUFFERS, 0], "buffers of {step} bytes and more");
        still_works(&app);
    }
}

/// Makes a payload of 25 pages, all 7, in `$a`: a buffer, or memory of the guest's own.
const BUFFER: &str = "(local.set $a (call $buffer_alloc (i32.const 102400) (i32.const 0)))
    (call $fill (local.get $a) (i32.const 102400) (i32.const 7))";
const HEAP: &str = "(local.set $a (call $allocate (i32.const 102400)))
    (call $fill (local.get $a) (i32.const 102400) (i32.const 7))";

/// Submits payloads until one is refused and answers how many were tried, what the last one was
/// told, how many of its bytes changed; then ends so; then answers what freeing it is told.
fn submits(first: &str, each: &str, flags: u32, end: &str) -> String {
    guest(&format!(
        "{first}
         (loop $next
           {each}
           (local.set $b (call $send (local.get $a) (i32.const 102400) (i32.const {flags})))
           (local.set $c (i32.add (local.get $c) (i32.const 1)))
           (br_if $next (i32.gt_s (local.get $b) (i32.const 0))))
         (call $put (local.get $c)) (call $put (local.get $b))
         (call $put (call $others (local.get $a) (i32.const 102400) (i32.const 7)))
         {end}
         (call $put (call $buffer_free (local.get $a)))"
    ))
}

/// Waits for all that was submitted and answers whether one went wrong.
const WAITS: &str = "(loop $next
    (local.set $c (i32.sub (local.get $c) (i32.const 1)))
    (local.set $d (i32.or (local.get $d) (call $wait (local.get $c) (i32.const 16))))
    (br_if $next (i32.gt_u (local.get $c) (i32.const 1))))
  (call $put (local.get $d))";

#[test]
fn payloads_on_their_way_count_as_what_a_tenant_holds() {
    // Ten payloads of 25 pages are within the limit. Of a buffer that moves the window counts until
    // its pages have left, of a shared one for as long as it is held.
    let (refused, kept, heap) = ((-Errno::Limit.code()).cast_unsigned(), 0, code(Errno::BadBuffer));
    for (first, each, flags, tried, freed) in [
        ("", BUFFER, 0, 10, kept),
        (BUFFER, "", 1, 10, kept),
        (HEAP, "", 0, 11, heap),
        (HEAP, "", 1, 11, heap),
    ] {
        let main = |end| submits(first, each, flags, end);
        for peer in [handler_that_checks(), command_that_checks()] {
            let specs = vec![
                spec("main", main("")),
                spec("self", main(WAITS)),
                spec("ghost", main("(unreachable)")),
                peer,
                spec("echo", guest(ECHO)),
            ];
            // Without a worker nothing begins before it is waited for.
            let app = load(&limited(0), specs);
            for round in 0..3 {
                let answered = |name: &str| words(&ask(&app, name, b"").unwrap());
                let case = format!("flags {flags}, {tried} tried, round {round}");
                assert_eq!(answered("main"), [tried, refused, 0, freed], "{case}");
                // A payload that lands is not counted twice: as many windows as are allowed are full.
                assert_eq!(answered("self"), [tried, refused, 0, 0, freed], "{case}");
                let fault = ask(&app, "ghost", b"").unwrap_err();
                assert!(matches!(fault, Fault::Trapped { .. }), "{case}: {fault}");
            }
            nothing_is_counted(&app);
        }
    }
}

/// A runtime whose apps may hold a MiB.
fn limited(workers: usize) -> Runtime {
    Runtime::new(Config { workers, app_window_bytes: 1 << 20, ..config() }).unwrap()
}

fn nothing_is_counted(app: &Arc<App>) {
    still_works(app);
    let most = pattern(1 << 20);
    assert!(ask(app, "echo", &most).unwrap() == most, "something is still counted");
}

/// Not one byte of what arrives may differ from 7.
fn handler_that_checks() -> FunctionSpec {
    let checks = "(if (call $others (local.get $ptr) (local.get $len) (i32.const 7))
        (then (unreachable)))";
    spec("peer", guest(checks))
}

fn command_that_checks() -> FunctionSpec {
    let checks = "(block $over (loop $next
        (br_if $over (call $read (i32.const 0) (i32.const 65536) (i32.const 65536)))
        (br_if $over (i32.eqz (i32.load (i32.const 8))))
        (local.set $a (i32.const 65536))
        (loop $byte
          (if (i32.ne (i32.load8_u (local.get $a)) (i32.const 7)) (then (unreachable)))
          (local.set $a (i32.add (local.get $a) (i32.const 1)))
          (br_if $byte (i32.lt_u (local.get $a)
            (i32.add (i32.const 65536) (i32.load (i32.const 8))))))
        (br $next)))";
    FunctionSpec { name: "peer".into(), ..command(checks) }
}

/// `ENOSPC` of WASI.
const NO_SPACE: u32 = 51;

#[test]
fn a_commands_output_counts_as_what_a_tenant_holds() {
    // Writes two pages at a time as long as it may.
    let fills = "(loop $next
          (local.set $a (call $write (i32.const 1) (i32.const 65536) (i32.const 8192)))
          (br_if $next (i32.eqz (local.get $a))))";
    let floods = format!("{fills} (call $exit (local.get $a))");
    let fills = FunctionSpec { name: "fills".into(), ..command(fills) };
    let app = load(&limited(2), vec![command(&floods), fills, spec("echo", guest(ECHO))]);
    for _ in 0..3 {
        let Err(Fault::Failed { message, .. }) = ask(&app, "main", b"") else {
            panic!("it wrote what it liked");
        };
        assert!(message.ends_with(&format!("code {NO_SPACE}")), "{message:?}");
        let mut reply = send(&app, "fills", b"").unwrap();
        assert_eq!(reply.len(), 1 << 20);
        // Until it is gone nobody else gets a window.
        assert!(matches!(ask(&app, "echo", &pattern(100_000)), Err(Fault::Exhausted { .. })));
        assert!(matches!(ask(&app, "main", &pattern(100_000)), Err(Fault::Exhausted { .. })));
        assert_eq!(bytes_of(&mut reply).len(), 1 << 20);
        drop(reply);
        nothing_is_counted(&app);
    }
}

/// A command with buffers and calls, which answers the words that it puts.
fn tool(code: &str) -> FunctionSpec {
    let start = format!(
        r#"(data (i32.const 1064) "echo")
           (func (export "_start")
             {code}
             (i32.store (i32.const 32) (i32.const 4096))
             (i32.store (i32.const 36) (i32.sub (global.get $answers) (i32.const 4096)))
             (drop (call $fd_write (i32.const 1) (i32.const 32) (i32.const 1) (i32.const 40))))"#
    );
    spec("peer", module(&start).replace("(module", &format!("(module {IMPORTS}")))
}

#[test]
fn a_commands_input_counts_until_it_is_closed() {
    // Of 256 pages 80 are its payload's. A response of as many lands while the callee's window counts.
    let pages = 80 * 4096;
    let buffer = format!("(call $buffer_alloc (i32.const {pages}) (i32.const 0))");
    let code = format!(
        "(call $put (call $call (i32.const 1064) (i32.const 4) (call $allocate (i32.const {pages}))
           (i32.const {pages}) (i32.const 0) (i32.const 16)))
         (call $put (i32.ne {buffer} (i32.const 0)))
         (call $put (i32.ne {buffer} (i32.const 0)))
         (call $put (call $close (i32.const 0)))
         (call $put (i32.ne {buffer} (i32.const 0)))"
    );
    // Submits its payload, and gives back what comes.
    let main = "(local.set $a (call $send (local.get $ptr) (local.get $len) (i32.const 0)))
        (if (call $wait (local.get $a) (i32.const 16)) (then (unreachable)))
        (return (call $pack (call $out_ptr) (call $out_len)))";
    let specs = vec![spec("main", guest(main)), tool(&code), spec("echo", guest(ECHO))];
    let app = load(&limited(0), specs);
    for _ in 0..3 {
        assert_eq!(answers(&app, &pattern(pages)), [0, 1, 0, 0, 1], "submitted");
        let said = ask(&app, "peer", &pattern(pages)).unwrap();
        assert_eq!(words(&said), [0, 1, 0, 0, 1], "called");
        nothing_is_counted(&app);
    }
}

#[test]
fn a_command_that_is_done_keeps_no_payload() {
    let runtime = runtime();
    let app = load(&runtime, vec![command("(call $word (i32.const 5))")]);
    for _ in 0..3 {
        let mut reply = send(&app, "main", &pattern(1 << 20)).unwrap();
        assert!(runtime.pool_usage().bytes >= 1 << 20, "its pages wait for another payload");
        assert_eq!(words(&bytes_of(&mut reply)), [5]);
    }
}

#[test]
fn a_large_sandbox_goes_before_the_next_function_runs() {
    // 72 MiB of linear memory, and 10 MiB that were written out of it or lie in it.
    let grows = "(drop (memory.grow (i32.sub (i32.const 1152) (memory.size))))";
    let writes = format!(
        "{grows} (drop (call $write (i32.const 1) (i32.const 65536) (i32.const 10485760)))"
    );
    let lends = format!(
        "(local.set $a (call $buffer_alloc (i32.const 10485760) (i32.const 0))) {grows}
         (return (call $pack (local.get $a) (i32.const 10485760)))"
    );
    let calls = "(call $put (call $peer (local.get $ptr) (i32.const 4) (i32.const 0)))";
    // Two sandboxes, so the peer's must be the first function's.
    let runtime = Runtime::new(Config { sandboxes: 2, workers: 0, ..config() }).unwrap();
    for (first, errno) in [(command(&writes), 0), (spec("main", guest(&lends)), code(Errno::Limit))]
    {
        let app =
            load(&runtime, vec![first, spec("next", guest(calls)), spec("peer", guest(ECHO))]);
        let reply = send(&app, "main", b"").unwrap();
        assert_eq!((reply.len(), reply.account.memory_peak), (10 << 20, 72 << 20));
        let mut answered = app.call("next", Payload::Held(reply), Instant::now()).unwrap();
        assert_eq!(words(&bytes_of(&mut answered)), [errno]);
    }
}
