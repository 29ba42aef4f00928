//! Arguments that no sane guest would pass: whatever they are, the host answers and lives.

use std::sync::Arc;

use proptest::prelude::*;
use roadrunner_runtime::App;

use crate::support::{ECHO, app_of, ask, still_works};

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

thread_local!(static APP: Arc<App> = app_of(OBEY, ECHO));

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
}
