//! Workflows of commands that run: what is said of their hand-overs.
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use roadrunner_runtime::{Cache, Config, Hop, ModuleSource, Runtime, Sealed};
use roadrunner_workflow::{Executable, Place};

use crate::parse;

/// A command that copies its stdin to its stdout, after a sleep of so many milliseconds.
fn cat(sleep: u64) -> String {
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 4)
  (func (export "_start")
    (i32.store (i32.const 80) (i32.const 1))
    (i64.store (i32.const 88) (i64.const {}))
    (if (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 40))
      (then (unreachable)))
    (block $over (loop $next
      (i32.store (i32.const 0) (i32.const 65536)) (i32.store (i32.const 4) (i32.const 65536))
      (if (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8))
        (then (unreachable)))
      (br_if $over (i32.eqz (i32.load (i32.const 8))))
      (i32.store (i32.const 4) (i32.load (i32.const 8)))
      (if (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))
        (then (unreachable)))
      (br $next)))))"#,
        sleep * 1_000_000
    )
}

/// Takes its payloads in and answers nothing.
const LAST: &str = r#"(module
  (memory (export "memory") 4)
  (global $top (mut i32) (i32.const 65536))
  (func (export "allocate_memory") (param $len i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $top))
    (drop (memory.grow (i32.add (i32.const 1) (i32.shr_u (local.get $len) (i32.const 16)))))
    (global.set $top (i32.add (local.get $at) (local.get $len)))
    (local.get $at))
  (func (export "deallocate_memory") (param i32))
  (func (export "handle_many") (param i32 i32) (result i64) (i64.const 0)))"#;

/// Functions whose module is `cat<milliseconds>.wasm` or `last.wasm`.
fn hops(manifest: &str, workers: usize, input: &[u8]) -> Vec<Hop> {
    let config = Config { sandboxes: 16, workers, cache: Cache::Off, ..Config::default() };
    let source = |path: &Path| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text =
            name.strip_prefix("cat").map_or(LAST.into(), |sleep| cat(sleep.parse().unwrap()));
        ModuleSource::Bytes { name, bytes: Cow::Owned(text.into_bytes()) }
    };
    let workflow = parse(manifest).unwrap();
    let exe = Executable::load(&Runtime::new(config).unwrap(), workflow, &source, &Place::alone())
        .unwrap();
    let write = |place: &mut [u8]| {
        place.copy_from_slice(input);
        Ok(())
    };
    let input = Sealed::write(input.len(), exe.home(), write).unwrap();
    exe.run(input, &mut |_| {}).unwrap().hops
}

fn hop<'h>(hops: &'h [Hop], from: &str, to: &str) -> &'h Hop {
    hops.iter().find(|hop| hop.from == from && hop.to == to).unwrap()
}

#[test]
fn a_fan_out_that_waits_for_the_executor_says_so() {
    // The one worker runs `quick`, and this thread `slow` meanwhile.
    let manifest = r#"
        [workflow]
        name = "waits"
        entry = "first"
        [functions.first]
        module = "cat0.wasm"
        next = ["quick", "slow"]
        [functions.quick]
        module = "cat50.wasm"
        next = ["one", "two"]
        [functions.slow]
        module = "cat600.wasm"
        next = ["last"]
        [functions.one]
        module = "cat0.wasm"
        next = ["last"]
        [functions.two]
        module = "cat0.wasm"
        next = ["last"]
        [functions.last]
        module = "last.wasm"
    "#;
    let hops = hops(manifest, 1, b"payload");
    let waited = hop(&hops, "quick", "one").account.handover;
    assert!(waited > Duration::from_millis(300), "{waited:?} of some 550 ms");
    // What waits for its fan-in keeps nobody waiting.
    let joined = hop(&hops, "one", "last").account.handover;
    assert!(joined < Duration::from_millis(300), "{joined:?}");
}

#[test]
fn a_command_may_feed_several_functions_without_a_further_copy() {
    let manifest = r#"
        [workflow]
        name = "feeds"
        entry = "first"
        [functions.first]
        module = "cat0.wasm"
        next = ["one", "two"]
        [functions.one]
        module = "cat0.wasm"
        next = ["last"]
        [functions.two]
        module = "cat0.wasm"
        next = ["last"]
        [functions.last]
        module = "last.wasm"
    "#;
    let hops = hops(manifest, 2, &[7; 1_000_003]);
    for (from, to) in [("input", "first"), ("first", "one"), ("first", "two")] {
        let copied = hop(&hops, from, to).account.traffic.copied;
        assert_eq!(copied, 2 * 1_000_003, "what {to} reads and writes");
    }
}

/// Answers how many calls its memory has seen.
const COUNT: &str = r#"(module
  (memory (export "memory") 1)
  (func (export "allocate_memory") (param i32) (result i32) (i32.const 1024))
  (func (export "deallocate_memory") (param i32))
  (func (export "handle") (param i32 i32) (result i64)
    (i32.store8 (i32.const 8) (i32.add (i32.load8_u (i32.const 8)) (i32.const 1)))
    (i64.or (i64.shl (i64.const 8) (i64.const 32)) (i64.const 1))))"#;

#[test]
fn sandboxes_are_reused_where_the_manifest_says_so() {
    let counts = |reuse: &str| {
        let manifest = format!(
            "[workflow]\nname = \"w\"\nentry = \"a\"\n[functions.a]\nmodule = \"a.wasm\"\n{reuse}"
        );
        let source = |_: &Path| ModuleSource::Bytes {
            name: "a.wat".into(),
            bytes: Cow::Borrowed(COUNT.as_bytes()),
        };
        let config = Config { sandboxes: 4, workers: 1, cache: Cache::Off, ..Config::default() };
        let workflow = parse(&manifest).unwrap();
        let runtime = Runtime::new(config).unwrap();
        let exe = Executable::load(&runtime, workflow, &source, &Place::alone()).unwrap();
        [(); 3].map(|()| {
            let mut reply = exe.run(Sealed::empty(), &mut |_| {}).unwrap().reply;
            reply.payload().unwrap().bytes().unwrap().to_vec()
        })
    };
    assert_eq!(counts(""), [[1], [1], [1]]);
    assert_eq!(counts("reuse = true"), [[1], [2], [3]]);
}
