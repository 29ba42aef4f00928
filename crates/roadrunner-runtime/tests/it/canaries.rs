//! Two tenants take turns in a few sandboxes and fill what they get with their own canary. Neither
//! ever finds the other's, in any byte of its linear memory.

use std::sync::Arc;

use roadrunner_runtime::{App, Config, Fault, PoolLimits, Runtime};

use crate::support::{ask, config, load, module, spec, words};

/// Loans, moves, shares, frees and ends of instances, together.
const OPERATIONS: u32 = 100_000;
/// Of which one invocation makes so many.
const STEPS: u32 = 10;
const SEED: u32 = 0x5eed_0001;

/// Randomness, checks and the table of held buffers (eight pairs of words at 8192).
fn common(own: u8, foreign: u8) -> String {
    format!(
        r#"
  (data (i32.const 1100) "a foreign canary")
  (data (i32.const 1120) "a fresh buffer is not zero")
  (data (i32.const 1150) "a payload is not as it was sent")
  (global $seed (mut i32) (i32.const 1))
  (global $scanned (mut i32) (i32.const 0))
  (global $buffers (mut i32) (i32.const 0))
  (func $rand (result i32)
    (global.set $seed (i32.xor (global.get $seed) (i32.shl (global.get $seed) (i32.const 13))))
    (global.set $seed (i32.xor (global.get $seed) (i32.shr_u (global.get $seed) (i32.const 17))))
    (global.set $seed (i32.xor (global.get $seed) (i32.shl (global.get $seed) (i32.const 5))))
    (global.get $seed))
  ;; No word of linear memory may be the other tenant's.
  (func $scan (local $at i32) (local $end i32)
    (local.set $end (i32.shl (memory.size) (i32.const 16)))
    (global.set $scanned (i32.add (global.get $scanned) (i32.shr_u (local.get $end) (i32.const 10))))
    (loop $next
      (if (i64.eq (i64.load (local.get $at)) (i64.mul (i64.const 0x0101010101010101) (i64.const {foreign})))
        (then (call $fail (i32.const 1100) (i32.const 16))))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $end)))))
  (func $own (param $ptr i32) (param $len i32)
    (call $fill (local.get $ptr) (local.get $len) (i32.const {own})))
  (func $is_own (param $ptr i32) (param $len i32)
    (global.set $buffers (i32.add (global.get $buffers) (i32.const 1)))
    (if (call $others (local.get $ptr) (local.get $len) (i32.const {own}))
      (then (call $fail (i32.const 1150) (i32.const 31)))))
  (func $length (result i32) (local $r i32)
    (local.set $r (i32.shr_u (call $rand) (i32.const 4)))
    (if (i32.eqz (i32.and (local.get $r) (i32.const 63))) (then
      (return (i32.add (i32.const 2097152) (i32.rem_u (local.get $r) (i32.const 100000))))))
    (if (i32.and (local.get $r) (i32.const 1)) (then
      (return (i32.add (i32.const 16384) (i32.rem_u (local.get $r) (i32.const 90000))))))
    (i32.add (i32.const 1) (i32.rem_u (local.get $r) (i32.const 5000))))
"#
    )
}

const MAIN: &str = r#"
  (func $step (local $op i32) (local $slot i32) (local $ptr i32) (local $len i32) (local $errno i32)
    (local.set $op (i32.rem_u (i32.shr_u (call $rand) (i32.const 3)) (i32.const 8)))
    (local.set $slot (i32.add (i32.const 8192)
      (i32.shl (i32.and (i32.shr_u (call $rand) (i32.const 5)) (i32.const 7)) (i32.const 3))))
    (local.set $ptr (i32.load (local.get $slot)))
    (local.set $len (i32.load offset=4 (local.get $slot)))
    (if (i32.eqz (local.get $ptr)) (then
      ;; An empty slot gets a fresh buffer, zeroed or not.
      (local.set $len (call $length))
      (local.set $ptr (call $buffer_alloc (local.get $len) (i32.and (local.get $op) (i32.const 1))))
      (if (i32.eqz (local.get $ptr)) (then (unreachable)))
      (if (i32.eqz (i32.and (local.get $op) (i32.const 1))) (then
        (global.set $buffers (i32.add (global.get $buffers) (i32.const 1)))
        (if (call $others (local.get $ptr) (local.get $len) (i32.const 0))
          (then (call $fail (i32.const 1120) (i32.const 26))))))
      (if (i32.and (local.get $op) (i32.const 1)) (then (call $scan)))
      (call $own (local.get $ptr) (local.get $len))
      (i32.store (local.get $slot) (local.get $ptr))
      (i32.store offset=4 (local.get $slot) (local.get $len))
      (return)))
    (call $is_own (local.get $ptr) (local.get $len))
    (if (i32.lt_u (local.get $op) (i32.const 2)) (then
      (if (call $buffer_free (local.get $ptr)) (then (unreachable)))
      (i32.store (local.get $slot) (i32.const 0))
      (return)))
    (if (i32.lt_u (local.get $op) (i32.const 3)) (then
      (local.set $len (call $length))
      (call $own (call $allocate (local.get $len)) (local.get $len))
      (return)))
    (if (i32.lt_u (local.get $op) (i32.const 5)) (then
      ;; Shared: stays here, and may be written here.
      (local.set $errno (call $peer (local.get $ptr) (local.get $len) (i32.const 1)))
      (call $is_own (local.get $ptr) (local.get $len))
      (call $own (local.get $ptr) (local.get $len)))
    (else
      (i32.store (local.get $slot) (i32.const 0))
      (if (i32.eq (local.get $op) (i32.const 7))
        (then (local.set $errno (call $wait
          (call $send (local.get $ptr) (local.get $len) (i32.const 0)) (i32.const 16))))
        (else (local.set $errno (call $peer (local.get $ptr) (local.get $len) (i32.const 0)))))))
    (if (i32.eqz (local.get $errno)) (then
      (if (call $out_len) (then
        (call $is_own (call $out_ptr) (call $out_len))
        (if (call $buffer_free (call $out_ptr)) (then (unreachable))))))
    (else (if (i32.ne (local.get $errno) (i32.const 8)) (then (unreachable)))
      (if (call $buffer_free (call $out_ptr)) (then (unreachable))))))
  (func (export "handle") (param $ptr i32) (param $len i32) (result i64) (local $left i32)
    (call $scan)
    (global.set $seed (i32.load (local.get $ptr)))
    (local.set $left (i32.load offset=4 (local.get $ptr)))
    (loop $next (call $step) (br_if $next (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (call $scan)
    (call $put (global.get $scanned)) (call $put (global.get $buffers))
    (call $done))
"#;

/// Checks its payload and overwrites it, then ends in one of five ways that the length chooses.
const PEER: &str = r#"
  (func (export "handle") (param $ptr i32) (param $len i32) (result i64) (local $way i32)
    (call $is_own (local.get $ptr) (local.get $len))
    (call $scan)
    (local.set $way (i32.rem_u (local.get $len) (i32.const 5)))
    (call $own (local.get $ptr) (local.get $len))
    (if (i32.eqz (local.get $way)) (then (unreachable)))
    (if (i32.eq (local.get $way) (i32.const 1)) (then (call $fail (i32.const 1024) (i32.const 4))))
    (if (i32.eq (local.get $way) (i32.const 2)) (then
      (local.set $ptr (call $buffer_alloc (local.get $len) (i32.const 1)))
      (call $scan)
      (call $own (local.get $ptr) (local.get $len))))
    (if (i32.eq (local.get $way) (i32.const 3)) (then
      (local.set $len (i32.add (i32.const 1) (i32.shr_u (local.get $len) (i32.const 1))))))
    (call $pack (local.get $ptr) (local.get $len)))
"#;

fn tenant(runtime: &Runtime, own: u8, foreign: u8) -> Arc<App> {
    let common = common(own, foreign);
    let guest = |code: &str| module(&(common.clone() + code));
    load(runtime, vec![spec("main", guest(MAIN)), spec("peer", guest(PEER))])
}

#[test]
fn no_guest_ever_sees_anothers_canary() {
    println!("seed {SEED:#x}");
    let runtime = Runtime::new(Config {
        sandboxes: 3,
        workers: 1,
        pool: PoolLimits { bytes: 8 << 20, ranges: 16, empty_ranges: 8 },
        ..config()
    })
    .unwrap();
    let tenants = [tenant(&runtime, 0xa1, 0xb2), tenant(&runtime, 0xb2, 0xa1)];
    let mut seed = SEED;
    let (mut kilobytes, mut buffers) = (0_u64, 0_u64);
    for turn in 0..OPERATIONS / STEPS {
        seed = seed.wrapping_mul(0x9e37_79b1).wrapping_add(turn) | 1;
        let app = &tenants[(seed >> 16) as usize % 2];
        let order = [seed.to_le_bytes(), STEPS.to_le_bytes()].concat();
        match ask(app, "main", &order) {
            Ok(told) => {
                let told = words(&told);
                kilobytes += u64::from(told[0]);
                buffers += u64::from(told[1]);
            }
            Err(Fault::Failed { message, .. }) => panic!("turn {turn}, seed {seed:#x}: {message}"),
            Err(fault) => panic!("turn {turn}, seed {seed:#x}: {fault}"),
        }
    }
    println!("{OPERATIONS} operations, {buffers} buffers and {kilobytes} KiB of memory checked");
    assert!(buffers > u64::from(OPERATIONS) / 2, "only {buffers} buffers were checked");
    assert!(kilobytes > 1 << 20, "only {kilobytes} KiB were checked");
    assert!(runtime.pool_usage().bytes > 0, "nothing was recycled");
}
