//! Sandboxes that have one call after another, of functions that ask for it: what stays, and what must not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use roadrunner_abi::Errno;
use roadrunner_runtime::{App, Fault, FunctionSpec, LoadError, Payload};

use crate::support::{
    ALLOCATOR, ECHO, answers, ask, code, guest, handler, load, module, module_with, pattern,
    runtime, sealed, send, source, spec, still_works, words,
};

/// Counts its calls in its memory, and begins its answer anew.
const COUNT: &str = "(global.set $answers (i32.const 4096))
    (i32.store (i32.const 2048) (i32.add (i32.load (i32.const 2048)) (i32.const 1)))
    (call $put (i32.load (i32.const 2048)))";

fn reused(name: &str, body: &str) -> FunctionSpec {
    let mut spec = spec(name, guest(&format!("{COUNT} {body}")));
    spec.reuse = true;
    spec
}

/// An app of a function `main` that is reused, and of `peer` and `echo`.
fn app_of(body: &str) -> Arc<App> {
    let others = [spec("peer", guest(ECHO)), spec("echo", guest(ECHO))];
    load(&runtime(), [reused("main", body)].into_iter().chain(others).collect())
}

#[test]
fn memory_stays_only_where_the_function_asks_for_it() {
    let app = app_of("");
    assert_eq!([answers(&app, b"x"), answers(&app, b"x"), answers(&app, b"x")], [[1], [2], [3]]);
    let app = load(&runtime(), vec![spec("main", guest(COUNT))]);
    assert_eq!([answers(&app, b"x"), answers(&app, b"x")], [[1], [1]]);
}

#[test]
fn no_other_app_gets_it() {
    let runtime = runtime();
    let [one, other] = [(); 2].map(|()| load(&runtime, vec![reused("main", "")]));
    assert_eq!([answers(&one, b"x"), answers(&one, b"x")], [[1], [2]]);
    assert_eq!(answers(&other, b"x"), [1]);
}

#[test]
fn a_sandbox_whose_call_did_not_succeed_never_comes_back() {
    let body = "(local.set $a (i32.load8_u (local.get $ptr)))
        (if (i32.eq (local.get $a) (i32.const 1)) (then (unreachable)))
        (if (i32.eq (local.get $a) (i32.const 2)) (then (loop $ever (br $ever))))
        (if (i32.eq (local.get $a) (i32.const 3)) (then (call $fail (i32.const 1024) (i32.const 4))))
        (if (i32.eq (local.get $a) (i32.const 4)) (then (return (i64.const -1))))";
    let mut main = reused("main", body);
    main.timeout = Duration::from_secs(2);
    let app = load(&runtime(), vec![main, spec("echo", guest(ECHO))]);
    for (what, fault) in [(1, "Trapped"), (2, "TimedOut"), (3, "Failed"), (4, "Violation")] {
        assert_eq!([answers(&app, b"x"), answers(&app, b"x")], [[1], [2]], "before a {fault}");
        let ended = ask(&app, "main", &[what]).unwrap_err();
        assert!(format!("{ended:?}").starts_with(fault), "{ended:?} is no {fault}");
    }
    assert_eq!(answers(&app, b"x"), [1]);
    still_works(&app);
}

#[test]
fn buffers_end_with_their_call() {
    // Remembers its input and a buffer that it keeps, and sees at the next call what became of them.
    let body = "(if (i32.gt_u (i32.load (i32.const 2048)) (i32.const 1)) (then
          (local.set $a (i32.load (i32.const 2052)))
          (call $put (call $others (local.get $a) (i32.const 100000) (i32.const 0)))
          (call $put (call $peer (local.get $a) (i32.const 100000) (i32.const 0)))
          (call $put (call $buffer_free (i32.load (i32.const 2056))))))
        (local.set $a (call $buffer_alloc (i32.const 100000) (i32.const 0)))
        (call $fill (local.get $a) (i32.const 100000) (i32.const 7))
        (i32.store (i32.const 2052) (local.get $a))
        (i32.store (i32.const 2056) (local.get $ptr))";
    let app = app_of(body);
    let sent = pattern(300_000);
    assert_eq!(words(&ask(&app, "main", &sent).unwrap()), [1]);
    let bad = code(Errno::BadBuffer);
    // An empty payload, so that nothing of the second call lies where something of the first did.
    assert_eq!(words(&ask(&app, "main", &[]).unwrap()), [2, 0, bad, bad]);
}

#[test]
fn what_each_call_leaves_behind_adds_up_to_nothing() {
    // Ten times as many calls as an instance may hold buffers.
    let body = "(call $put (i32.eqz (call $buffer_alloc (i32.const 20000) (i32.const 0))))
        (call $put (memory.size))";
    let app = app_of(body);
    let sent = pattern(40_000);
    let pages = |round: u32| match words(&ask(&app, "main", &sent).unwrap())[..] {
        [number, 0, pages] if number == round => pages,
        ref other => panic!("call {round} answered {other:?}"),
    };
    let all: Vec<_> = (1..=5000).map(pages).collect();
    assert_eq!(all[9], all[4999], "linear memory grows from call to call");
}

#[test]
fn a_guest_that_keeps_many_buffers_gets_a_fresh_sandbox() {
    let keep = |buffers| {
        format!(
            "(loop $next
               (drop (call $buffer_alloc (i32.const 100) (i32.const 0)))
               (local.set $a (i32.add (local.get $a) (i32.const 1)))
               (br_if $next (i32.lt_u (local.get $a) (i32.const {buffers}))))"
        )
    };
    let app = app_of(&keep(30));
    assert_eq!([answers(&app, b"x"), answers(&app, b"x")], [[1], [2]]);
    let app = app_of(&keep(60));
    assert_eq!([answers(&app, b"x"), answers(&app, b"x")], [[1], [1]]);
}

#[test]
fn idle_sandboxes_make_way() {
    let app = app_of("");
    // All sandboxes that there are, and then all of them idle.
    let mut replies = Vec::new();
    while let Ok(reply) = send(&app, "main", b"x") {
        replies.push(reply);
    }
    assert_eq!(replies.len(), 16);
    drop(replies);
    assert_eq!(answers(&app, b"x"), [2]);
    still_works(&app);
    assert_eq!(answers(&app, b"x"), [1]);
}

#[test]
fn idle_sandboxes_of_other_apps_make_way_too() {
    let runtime = runtime();
    let [one, other] = [(); 2].map(|()| load(&runtime, vec![reused("main", "")]));
    let replies: Vec<_> = (0..16).map(|_| send(&one, "main", b"x").unwrap()).collect();
    drop(replies);
    assert_eq!(answers(&other, b"x"), [1]);
}

#[test]
fn a_function_that_can_not_start_costs_nobody_an_idle_sandbox() {
    let broken = format!("(func $broken unreachable) (start $broken) {}", handler(ECHO));
    let specs = vec![reused("main", ""), spec("peer", module(&broken))];
    let app = load(&runtime(), specs);
    assert_eq!(answers(&app, b"x"), [1]);
    assert!(matches!(ask(&app, "peer", b"x"), Err(Fault::Trapped { .. })));
    assert_eq!(answers(&app, b"x"), [2]);
}

#[test]
fn room_for_a_payload_is_made_in_the_functions_own_time() {
    // Slow enough for the deadline to be looked at.
    let slow = "(local $n i32) (loop $next
        (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (br_if $next (i32.lt_u (local.get $n) (i32.const 30000000))))
        (local.set $at";
    let allocator = ALLOCATOR.replacen("(local.set $at", slow, 1);
    let mut main = spec("main", module_with(&allocator, &handler(COUNT)));
    (main.reuse, main.timeout) = (true, Duration::from_millis(1500));
    let mut others = spec("peer", guest("(loop $ever (br $ever))"));
    others.timeout = Duration::from_millis(1700);
    let app = load(&runtime(), vec![main, others]);
    let small = send(&app, "main", &pattern(50_000)).unwrap();
    let large = send(&app, "main", &pattern(5_000_000)).unwrap();
    // Idle, and without room for what came last: making some takes the guest's allocator, after its call's time is over.
    drop(small);
    // Time only passes for guests while one runs.
    assert!(matches!(ask(&app, "peer", b"x"), Err(Fault::TimedOut { .. })));
    assert!(app.prepare("main").is_ok());
    drop(large);
}

#[test]
fn an_app_ends_with_its_idle_sandboxes() {
    let runtime = runtime();
    let app = load(&runtime, vec![reused("main", "")]);
    let mut reply = send(&app, "main", b"x").unwrap();
    assert_eq!(answers(&app, b"x"), [1]);
    let ended = Arc::downgrade(&app);
    drop(app);
    assert!(ended.upgrade().is_some(), "a response is still out");
    assert_eq!(words(reply.payload().unwrap().bytes().unwrap()), [1]);
    drop(reply);
    assert!(ended.upgrade().is_none(), "the app and an idle sandbox keep each other");
}

#[test]
fn a_sandbox_that_was_made_ahead_may_be_an_idle_one() {
    let app = app_of("");
    assert_eq!(answers(&app, &pattern(50_000)), [1]);
    let ready = app.prepare("main").unwrap();
    let payload = Payload::One(sealed(&app, &pattern(50_000)));
    let mut reply = app.call_ready(Some(ready), "main", payload, Instant::now()).unwrap();
    assert_eq!(reply.account.traffic.copied, 0);
    assert_eq!(words(reply.payload().unwrap().bytes().unwrap()), [2]);
}

#[test]
fn the_list_of_a_fan_in_is_the_guests_to_free() {
    // An allocator that gives the same range again as soon as it is free.
    let allocator = r#"
      (global $free (mut i32) (i32.const 0))
      (func $allocate (export "allocate_memory") (param $len i32) (result i32)
        (local $at i32)
        (local.set $at (global.get $free))
        (if (i32.and (i32.le_u (local.get $len) (i32.const 64)) (i32.ne (local.get $at) (i32.const 0)))
          (then (global.set $free (i32.const 0)) (return (local.get $at))))
        (local.set $at (global.get $top))
        (global.set $top (i32.add (global.get $top)
          (i32.and (i32.add (local.get $len) (i32.const 127)) (i32.const -64))))
        (local.get $at))
      (func $deallocate (export "deallocate_memory") (param $at i32)
        (global.set $free (local.get $at)))"#;
    let join = format!(
        r#"(func (export "handle_many") (param $list i32) (param $count i32) (result i64)
             {COUNT}
             (call $deallocate (local.get $list))
             (call $put (i32.eq (call $buffer_alloc (i32.const 8) (i32.const 0)) (local.get $list)))
             (call $done))"#
    );
    let text = module_with(allocator, &join).replace("\"memory\") 1", "\"memory\") 2");
    let mut main = spec("main", text);
    main.reuse = true;
    let app = load(&runtime(), vec![main]);
    for round in 1..100 {
        let parts = vec![sealed(&app, b"one"), sealed(&app, b"two")];
        let mut reply = app.call("main", Payload::Many(parts), Instant::now()).unwrap();
        // From the second round on a spent range is where the buffer goes.
        let again = u32::from(round == 1);
        assert_eq!(words(reply.payload().unwrap().bytes().unwrap()), [round, again]);
    }
}

#[test]
fn a_command_can_not_be_reused() {
    let text = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;
    let mut command = FunctionSpec::new("main", source(text));
    command.reuse = true;
    let Err((_, LoadError::Shape { reason, .. })) = runtime().load(vec![command]) else {
        panic!("a command was taken")
    };
    assert!(reason.contains("take `reuse` out"), "{reason}");
}

#[test]
fn each_call_has_its_own_deadline_and_the_clock_goes_on() {
    let import = r#"(import "wasi_snapshot_preview1" "clock_time_get"
        (func $clock (param i32 i64 i32) (result i32)))"#;
    let body = format!(
        "(func (export \"handle\") (param $ptr i32) (param $len i32) (result i64)
           {COUNT}
           (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 3000)))
           (call $put (i64.lt_u (i64.load (i32.const 3008)) (i64.load (i32.const 3000))))
           (i64.store (i32.const 3008) (i64.load (i32.const 3000)))
           (call $put (i64.gt_s (call $deadline_ns) (i64.const 19000000000)))
           (call $done))"
    );
    let text = module(&body).replacen("(module", &format!("(module {import}"), 1);
    let mut main = spec("main", text);
    main.reuse = true;
    let app = load(&runtime(), vec![main]);
    for round in 1..4 {
        assert_eq!(answers(&app, b"x"), [round, 1, 1]);
        // Longer than the second that its time may seem to have passed already.
        std::thread::sleep(Duration::from_millis(400));
    }
}

#[test]
fn what_can_not_land_leaves_the_next_call_in_order() {
    let mut main = reused("main", ECHO);
    main.memory_bytes = 1 << 20;
    let app = load(&runtime(), vec![main, spec("echo", guest(ECHO))]);
    for _ in 0..5 {
        assert!(ask(&app, "main", &pattern(100_000)).unwrap() == pattern(100_000));
        let refused = ask(&app, "main", &pattern(2 << 20)).unwrap_err();
        assert!(matches!(refused, Fault::NoMemory { .. }), "{refused:?}");
    }
}
