//! Arguments that no sane guest would pass: whatever they are, the host answers and lives.

use std::sync::Arc;

use proptest::prelude::*;
use roadrunner_runtime::{App, Config, Runtime};

use crate::support::{
    ECHO, MOVES, app_of, ask, config, guest, load, pattern, send, spec, still_works,
};
use crate::wasi::command;

/// Reads orders of six words from its payload, calls the import that the first names with the
/// rest, and returns the last two words as its response. Pointers may be relative to the payload
/// or to a buffer, which bits 8 and 9 of the first word choose.
const OBEY: &str = "
  (local.set $d (call $buffer_alloc (i32.const 40000) (i32.const 0)))
  (local.set $c (i32.add (local.get $ptr) (local.get $len)))
  (block $over (loop $next
    (br_if $over (i32.gt_u (i32.add (local.get $ptr) (i32.const 24)) (local.get $c)))
    (local.set $a (i32.load (local.get $ptr)))
    (local.set $b (i32.load offset=12 (local.get $ptr)))
    (if (i32.and (local.get $a) (i32.const 256))
      (then (local.set $b (i32.add (local.get $b) (local.get $ptr)))))
    (if (i32.and (local.get $a) (i32.const 512))
      (then (local.set $b (i32.add (local.get $b) (local.get $d)))))
    (local.set $a (i32.and (local.get $a) (i32.const 7)))
    (if (i32.eq (local.get $a) (i32.const 0)) (then (drop (call $buffer_free (local.get $b)))))
    (if (i32.eq (local.get $a) (i32.const 1)) (then (drop (call $call
      (i32.load offset=4 (local.get $ptr)) (i32.load offset=8 (local.get $ptr)) (local.get $b)
      (i32.load offset=16 (local.get $ptr)) (i32.const 0) (i32.load offset=20 (local.get $ptr))))))
    (if (i32.eq (local.get $a) (i32.const 2)) (then (drop (call $submit
      (i32.load offset=4 (local.get $ptr)) (i32.load offset=8 (local.get $ptr)) (local.get $b)
      (i32.load offset=16 (local.get $ptr)) (i32.load offset=20 (local.get $ptr))))))
    (if (i32.eq (local.get $a) (i32.const 3)) (then (drop (call $wait
      (i32.load offset=4 (local.get $ptr)) (local.get $b)))))
    (if (i32.eq (local.get $a) (i32.const 4)) (then (drop (call $peer
      (local.get $b) (i32.load offset=16 (local.get $ptr))
      (i32.and (i32.load offset=20 (local.get $ptr)) (i32.const 1))))))
    (if (i32.eq (local.get $a) (i32.const 5)) (then (drop (call $send
      (local.get $b) (i32.load offset=16 (local.get $ptr))
      (i32.and (i32.load offset=20 (local.get $ptr)) (i32.const 1))))))
    (if (i32.eq (local.get $a) (i32.const 6)) (then (local.set $d (call $buffer_alloc
      (i32.and (i32.load offset=16 (local.get $ptr)) (i32.const 0xfffff))
      (i32.and (i32.load offset=20 (local.get $ptr)) (i32.const 1))))))
    (if (i32.eq (local.get $a) (i32.const 7)) (then
      (return (call $pack (local.get $b) (i32.load offset=16 (local.get $ptr))))))
    (local.set $ptr (i32.add (local.get $ptr) (i32.const 24)))
    (br $next)))";

const EDGES: &[u32] = &[
    0,
    1,
    2,
    4,
    8,
    16,
    1024,
    4095,
    4096,
    4097,
    16_384,
    40_000,
    65_535,
    65_536,
    65_537,
    131_072,
    0x7fff_ffff,
    0x8000_0000,
    u32::MAX - 4096,
    u32::MAX - 7,
    u32::MAX,
];

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![3 => prop::sample::select(EDGES), 1 => any::<u32>()]
}

fn order() -> impl Strategy<Value = [u32; 6]> {
    let op = (0_u32..8, 0_u32..4).prop_map(|(op, base)| op | base << 8);
    let name = prop_oneof![2 => Just((1024, 4)), 1 => (number(), number())];
    let out = prop_oneof![2 => Just(16), 1 => number()];
    (op, name, number(), number(), out)
        .prop_map(|(op, (name, name_len), ptr, len, out)| [op, name, name_len, ptr, len, out])
}

/// Orders that a command reads before it obeys them, each of five words.
const ORDERS: usize = 20;

/// Reads orders from its stdin and obeys them: reads, writes, closes, renumbers, or writes a word below
/// 64 KiB, where lists of parts may lie. There is a good list of two at 256.
const OBEY_AS_COMMAND: &str = "
  (i32.store (i32.const 256) (i32.const 65536)) (i32.store (i32.const 260) (i32.const 1000))
  (i32.store (i32.const 264) (i32.const 66000)) (i32.store (i32.const 268) (i32.const 60000))
  (local.set $a (i32.const 131072))
  (drop (call $read (i32.const 0) (local.get $a) (i32.const 400)))
  (loop $next
    (if (i32.eq (i32.load (local.get $a)) (i32.const 0)) (then (drop (call $fd_read
      (i32.load offset=4 (local.get $a)) (i32.load offset=8 (local.get $a))
      (i32.load offset=12 (local.get $a)) (i32.load offset=16 (local.get $a))))))
    (if (i32.eq (i32.load (local.get $a)) (i32.const 1)) (then (drop (call $fd_write
      (i32.load offset=4 (local.get $a)) (i32.load offset=8 (local.get $a))
      (i32.load offset=12 (local.get $a)) (i32.load offset=16 (local.get $a))))))
    (if (i32.eq (i32.load (local.get $a)) (i32.const 2)) (then (drop (call $close
      (i32.load offset=4 (local.get $a))))))
    (if (i32.eq (i32.load (local.get $a)) (i32.const 3)) (then (drop (call $renumber
      (i32.load offset=4 (local.get $a)) (i32.load offset=8 (local.get $a))))))
    (if (i32.eq (i32.load (local.get $a)) (i32.const 4)) (then (i32.store
      (i32.and (i32.load offset=8 (local.get $a)) (i32.const 0xffff))
      (i32.load offset=12 (local.get $a)))))
    (local.set $a (i32.add (local.get $a) (i32.const 20)))
    (br_if $next (i32.lt_u (local.get $a) (i32.const 131472))))";

fn command_order() -> impl Strategy<Value = [u32; 5]> {
    let op = prop::sample::select(&[0_u32, 0, 0, 1, 1, 1, 2, 3, 4, 4][..]);
    let fd = prop_oneof![8 => 0_u32..4, 1 => number()];
    let list = prop_oneof![4 => Just(256), 1 => Just(260), 2 => number(), 1 => 0_u32..4];
    let count = prop_oneof![4 => 0_u32..4, 1 => Just(1024), 1 => Just(1025), 2 => number()];
    let done = prop_oneof![2 => Just(16), 1 => number()];
    (op, fd, list, count, done).prop_map(|(op, fd, list, count, done)| [op, fd, list, count, done])
}

fn app_of_command() -> Arc<App> {
    let runtime = Runtime::new(Config { payload_bytes: 4 << 20, ..config() }).unwrap();
    load(&runtime, vec![command(OBEY_AS_COMMAND), spec("echo", guest(ECHO))])
}

thread_local!(static APP: Arc<App> = app_of(OBEY, ECHO));
thread_local!(static COMMAND: Arc<App> = app_of_command());

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn random_arguments_never_harm_the_host(
        orders in prop::collection::vec(order(), 1..20),
        padding in prop_oneof![Just(0_usize), Just(20_000)],
    ) {
        let words = orders.into_iter().flatten().flat_map(u32::to_le_bytes);
        let mut payload: Vec<u8> = words.collect();
        payload.resize(payload.len() + padding, 0);
        APP.with(|app| {
            // How it ends is the guest's affair.
            drop(ask(app, "main", &payload));
            still_works(app);
        });
    }

    #[test]
    fn random_arguments_of_a_commands_streams_never_harm_the_host(
        orders in prop::collection::vec(command_order(), ORDERS),
        stdin in prop_oneof![Just(0_usize), Just(1000), Just(MOVES), Just(200_000)],
    ) {
        let words = orders.into_iter().flatten().flat_map(u32::to_le_bytes);
        let mut payload: Vec<u8> = words.collect();
        payload.extend(pattern(stdin));
        COMMAND.with(|app| {
            if let Ok(reply) = send(app, "main", &payload) {
                // A byte is read once at most, and each that was written is in the response.
                let (read, written) = (payload.len() as u64, reply.len() as u64);
                let copied = reply.account.traffic.copied;
                assert!((written + 400..=written + read).contains(&copied), "{copied} {written}");
            }
            still_works(app);
        });
    }
}
