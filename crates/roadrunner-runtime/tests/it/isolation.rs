//! Who can see and change what. The canaries have a file of their own.

use std::sync::Barrier;
use std::time::Instant;

use roadrunner_runtime::{Backing, Config, Payload, Runtime};

use crate::support::{
    ECHO, answers, app_of, ask, bytes_of, config, guest, load, pattern, runtime, send, spec,
    words_of,
};

/// Lengths of payloads that move: a few pages, and enough for huge ones.
const LENS: [usize; 3] = [20_000, 100_000, 5_000_000];

#[test]
fn the_producer_reads_zeros_after_a_hand_over() {
    for (len, backing) in
        LENS.into_iter().flat_map(|len| [(len, Backing::Private), (len, Backing::Memfd)])
    {
        let body = format!(
            "(local.set $a (call $buffer_alloc (i32.const {len}) (i32.const 0)))
             (call $fill (local.get $a) (i32.const {len}) (i32.const 7))
             (call $put (call $peer (local.get $a) (i32.const {len}) (i32.const 0)))
             (call $put (call $others (local.get $a) (i32.const {len}) (i32.const 0)))
             ;; The input, moved in and moved on, leaves zeros too.
             (call $put (call $peer (local.get $ptr) (local.get $len) (i32.const 0)))
             (call $put (call $others (local.get $ptr) (local.get $len) (i32.const 0)))"
        );
        let mut main = spec("main", guest(&body));
        main.backing = backing;
        let holds = "(call $put (call $others (local.get $ptr) (local.get $len) (i32.const 7)))";
        let app = load(&runtime(), vec![main, spec("peer", guest(holds))]);
        assert_eq!(answers(&app, &pattern(len)), [0, 0, 0, 0], "{len} bytes, {backing:?}");
    }
}

#[test]
fn a_submitted_payload_leaves_zeros_at_once() {
    let body = "(local.set $a (call $buffer_alloc (i32.const 100000) (i32.const 0)))
        (call $fill (local.get $a) (i32.const 100000) (i32.const 7))
        (local.set $b (call $send (local.get $a) (i32.const 100000) (i32.const 0)))
        (call $put (call $others (local.get $a) (i32.const 100000) (i32.const 0)))
        (call $fill (local.get $a) (i32.const 100000) (i32.const 9))
        (call $put (call $wait (local.get $b) (i32.const 16)))
        (call $put (i32.load (call $out_ptr)))";
    let peer = "(call $put (call $others (local.get $ptr) (local.get $len) (i32.const 7)))";
    assert_eq!(words_of(body, peer, b"x"), [0, 0, 0]);
}

/// Counts foreign bytes in its payload of 7s, then overwrites all of it.
const SCRIBBLE: &str = "(call $put (call $others (local.get $ptr) (local.get $len) (i32.const 7)))
    (call $fill (local.get $ptr) (local.get $len) (i32.const 66))";

#[test]
fn the_writes_of_a_consumer_reach_nobody() {
    for (len, backing) in
        LENS.into_iter().flat_map(|len| [(len, Backing::Private), (len, Backing::Memfd)])
    {
        // Three consumers share one buffer; each scribbles over it. The sharer sees none of that,
        // and its own writes after the first share reach no later or running consumer's copy.
        let body = format!(
            "(local.set $a (call $buffer_alloc (i32.const {len}) (i32.const 0)))
             (call $fill (local.get $a) (i32.const {len}) (i32.const 7))
             (call $put (call $peer (local.get $a) (i32.const {len}) (i32.const 1)))
             (call $put (i32.load (call $out_ptr)))
             (local.set $b (call $send (local.get $a) (i32.const {len}) (i32.const 1)))
             (local.set $c (call $send (local.get $a) (i32.const {len}) (i32.const 1)))
             (call $put (call $others (local.get $a) (i32.const {len}) (i32.const 7)))
             (call $fill (local.get $a) (i32.const {len}) (i32.const 99))
             (call $put (call $wait (local.get $b) (i32.const 16)))
             (call $put (i32.load (call $out_ptr)))
             (call $put (call $wait (local.get $c) (i32.const 16)))
             (call $put (i32.load (call $out_ptr)))
             (call $put (call $others (local.get $a) (i32.const {len}) (i32.const 99)))"
        );
        let mut main = spec("main", guest(&body));
        main.backing = backing;
        let app = load(&runtime(), vec![main, spec("peer", guest(SCRIBBLE))]);
        assert_eq!(answers(&app, b"x"), [0; 8], "{len} bytes, {backing:?}");
    }
}

#[test]
fn what_is_shared_is_what_the_sharer_wrote_last() {
    let body = "(local.set $a (call $buffer_alloc (i32.const 100000) (i32.const 0)))
        (loop $next
          (local.set $b (i32.add (local.get $b) (i32.const 1)))
          (call $fill (local.get $a) (i32.const 100000) (local.get $b))
          (call $put (call $peer (local.get $a) (i32.const 100000) (i32.const 1)))
          (call $put (i32.load (call $out_ptr)))
          (br_if $next (i32.lt_u (local.get $b) (i32.const 4))))";
    // How many bytes are not as the first one, and that one.
    let peer = "(call $put (i32.add
        (i32.shl (call $others (local.get $ptr) (local.get $len)
                               (i32.load8_u (local.get $ptr))) (i32.const 8))
        (i32.load8_u (local.get $ptr))))";
    assert_eq!(words_of(body, peer, b"x"), [0, 1, 0, 2, 0, 3, 0, 4]);
}

#[test]
fn the_writes_of_one_branch_of_a_fan_out_reach_no_other() {
    let app = app_of(SCRIBBLE, ECHO);
    for len in LENS {
        let whole = crate::support::sealed(&app, &vec![7; len]);
        let (parts, _) = whole.split(6, app.home()).unwrap();
        for part in parts {
            let mut reply = app.call("main", Payload::One(part), Instant::now()).unwrap();
            assert_eq!(reply.account.traffic.copied, 0);
            assert_eq!(bytes_of(&mut reply), [0; 4], "a branch saw another's writes");
        }
    }
}

#[test]
fn what_lies_behind_a_payload_on_its_last_page_is_zero() {
    for len in [20_001, 100_000, 2_097_153] {
        let end = usize::next_multiple_of(len, 4096);
        // The producer writes the whole last page, then sends a payload that ends inside it.
        let body = format!(
            "(local.set $a (call $buffer_alloc (i32.const {end}) (i32.const 0)))
             (call $fill (local.get $a) (i32.const {end}) (i32.const 7))
             (call $put (call $peer (local.get $a) (i32.const {len}) (i32.const FLAGS)))
             (call $put (i32.load (call $out_ptr))) (call $put (i32.load offset=4 (call $out_ptr)))"
        );
        let peer = format!(
            "(call $put (call $others (i32.add (local.get $ptr) (i32.const {len}))
                                      (i32.const {}) (i32.const 0)))
             (call $put (call $others (local.get $ptr) (local.get $len) (i32.const 7)))",
            end - len
        );
        for (flags, backing) in [
            ("0", Backing::Private),
            ("1", Backing::Private),
            ("0", Backing::Memfd),
            ("1", Backing::Memfd),
        ] {
            let mut main = spec("main", guest(&body.replace("FLAGS", flags)));
            main.backing = backing;
            let app = load(&runtime(), vec![main, spec("peer", guest(&peer))]);
            assert_eq!(answers(&app, b"x"), [0, 0, 0], "{len} bytes, flags {flags}, {backing:?}");
        }
    }
}

#[test]
fn the_tail_of_a_recycled_page_is_zero_for_another_tenant() {
    let runtime = runtime();
    let tail = "(call $put (call $others (i32.add (local.get $ptr) (local.get $len))
                  (i32.const 400) (i32.const 0)))
                (call $fill (local.get $ptr) (i32.const 102400) (i32.const 66))";
    let tenants = [
        load(&runtime, vec![spec("main", guest(tail))]),
        load(&runtime, vec![spec("main", guest(tail))]),
    ];
    for turn in 0..20 {
        let app = &tenants[turn % 2];
        assert_eq!(answers(app, &[7; 102_000]), [0], "turn {turn}");
    }
    assert!(runtime.pool_usage().bytes > 0, "nothing was recycled, so nothing was tested");
}

#[test]
fn a_sandbox_goes_back_without_foreign_mappings() {
    // One sandbox for two tenants: the first ends with windows of every kind, by a trap or not.
    let runtime = Runtime::new(Config { sandboxes: 1, ..config() }).unwrap();
    let fill = "(local.set $a (call $buffer_alloc (i32.const 100000) (i32.const 0)))
        (call $fill (local.get $a) (i32.const 100000) (i32.const 7))";
    let grows = "(drop (memory.grow (i32.const 200)))
        (call $put (call $others (i32.const 131072) (i32.const 13000000) (i32.const 0)))";
    let after = load(&runtime, vec![spec("main", guest(grows))]);
    for end in ["", "(unreachable)"] {
        for backing in [Backing::Private, Backing::Memfd] {
            let mut main = spec("main", guest(&format!("{fill} {end}")));
            main.backing = backing;
            let before = load(&runtime, vec![main]);
            for len in LENS {
                let whole = crate::support::sealed(&before, &vec![7; len]);
                let (mut parts, _) = whole.split(1, before.home()).unwrap();
                let view = Payload::One(parts.remove(0));
                assert_eq!(before.call("main", view, Instant::now()).is_ok(), end.is_empty());
                assert_eq!(answers(&after, b""), [0], "{len} bytes, {backing:?}, end {end:?}");
            }
        }
    }
}

#[test]
fn two_instances_hand_over_to_each_other_at_once() {
    // Each function sends its payload to the other, which sends it back, on two threads.
    let swap = |other: &str| {
        let at = if other == "peer" { (1024, 4) } else { (1064, 4) };
        format!(
            r#"(if (i32.load8_u (local.get $ptr)) (then
                 (i32.store8 (local.get $ptr) (i32.const 0))
                 (if (call $call (i32.const {}) (i32.const {}) (local.get $ptr) (local.get $len)
                                 (i32.const 0) (i32.const 16)) (then (unreachable)))
                 (return (call $pack (call $out_ptr) (call $out_len)))))
               (return (call $pack (local.get $ptr) (local.get $len)))"#,
            at.0, at.1
        )
    };
    let named = |wat: String| wat.replace("(module", r#"(module (data (i32.const 1064) "main")"#);
    let specs =
        vec![spec("main", named(guest(&swap("peer")))), spec("peer", named(guest(&swap("main"))))];
    let app = load(&runtime(), specs);
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        for (target, seed) in [("main", 3_u8), ("peer", 5)] {
            let (app, barrier) = (&app, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for round in 0..400 {
                    let len = LENS[round % 2] + round;
                    let mut sent = vec![seed; len];
                    let got = ask(app, target, &sent).unwrap();
                    sent[0] = 0;
                    assert!(got == sent, "{target}, round {round}: wrong bytes");
                }
            });
        }
    });
    let mut reply = send(&app, "main", &pattern(100_000)).unwrap();
    assert_eq!(bytes_of(&mut reply).len(), 100_000);
}
