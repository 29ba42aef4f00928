//! Runtimes with few sandboxes, so that slots are reused at once, and guests in the text format.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use roadrunner_abi::Errno;
use roadrunner_runtime::{
    App, BreakEven, Cache, Config, Fault, FunctionSpec, ModuleSource, Payload, PoolLimits, Reply,
    Runtime, Sealed,
};

/// From here on payloads move in these tests, whatever the machine would like better.
pub(crate) const MOVES: usize = 16 << 10;

pub(crate) fn config() -> Config {
    Config {
        sandboxes: 16,
        workers: 2,
        pool: PoolLimits { bytes: 64 << 20, ranges: 32, empty_ranges: 16 },
        cache: Cache::Off,
        break_even: Some(BreakEven::fixed(MOVES)),
        ..Config::default()
    }
}

pub(crate) fn runtime() -> Runtime {
    Runtime::new(config()).unwrap()
}

pub(crate) fn source(wat: impl Into<String>) -> ModuleSource {
    let bytes = Cow::Owned(wat.into().into_bytes());
    ModuleSource::Bytes { name: "guest.wat".into(), bytes }
}

/// A function that may call all names that tests use.
pub(crate) fn spec(name: &str, wat: impl Into<String>) -> FunctionSpec {
    let mut spec = FunctionSpec::new(name, source(wat));
    spec.calls = ["peer", "self", "echo", "main", "ghost"].map(String::from).to_vec();
    spec.timeout = Duration::from_secs(20);
    spec
}

pub(crate) fn load(runtime: &Runtime, specs: Vec<FunctionSpec>) -> Arc<App> {
    runtime.load(specs).unwrap_or_else(|(name, error)| panic!("{name}: {error}"))
}

/// An app of a function `main` with this handler, and of `echo` and `peer`.
pub(crate) fn app_of(main: &str, peer: &str) -> Arc<App> {
    let specs =
        vec![spec("main", guest(main)), spec("peer", guest(peer)), spec("echo", guest(ECHO))];
    load(&runtime(), specs)
}

pub(crate) fn sealed(app: &App, bytes: &[u8]) -> Sealed<'static> {
    Sealed::write(bytes.len(), app.home(), |place| {
        place.copy_from_slice(bytes);
        Ok(())
    })
    .unwrap()
}

pub(crate) fn send(app: &Arc<App>, target: &str, bytes: &[u8]) -> Result<Reply, Fault> {
    let payload = Payload::One(sealed(app, bytes));
    app.call(target, payload, Instant::now()).map_err(|undelivered| undelivered.fault)
}

pub(crate) fn bytes_of(reply: &mut Reply) -> Vec<u8> {
    reply.payload().unwrap().bytes().unwrap().to_vec()
}

/// What a function answers.
pub(crate) fn ask(app: &Arc<App>, target: &str, bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    send(app, target, bytes).map(|mut reply| bytes_of(&mut reply))
}

pub(crate) fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

/// The words that the handler `main` answers.
pub(crate) fn answers(app: &Arc<App>, bytes: &[u8]) -> Vec<u32> {
    words(&ask(app, "main", bytes).unwrap())
}

/// The words that a handler answers whose peer is `peer`.
pub(crate) fn words_of(main: &str, peer: &str, bytes: &[u8]) -> Vec<u32> {
    answers(&app_of(main, peer), bytes)
}

pub(crate) fn code(errno: Errno) -> u32 {
    errno.code().cast_unsigned()
}

/// Bytes that differ from page to page and are never zero.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at + at / 4096) % 251).unwrap() + 1).collect()
}

/// Shows that the app still works: its `echo` gives back what it got.
pub(crate) fn still_works(app: &Arc<App>) {
    for len in [1, 5000, MOVES + 3, 300_000] {
        let sent = pattern(len);
        assert!(ask(app, "echo", &sent).unwrap() == sent, "an echo of {len} bytes differs");
    }
}

/// Gives back its payload, in place.
pub(crate) const ECHO: &str = "(return (call $pack (local.get $ptr) (local.get $len)))";

/// All imports with their types.
pub(crate) const IMPORTS: &str = r#"
  (import "roadrunner" "buffer_alloc" (func $buffer_alloc (param i32 i32) (result i32)))
  (import "roadrunner" "buffer_free" (func $buffer_free (param i32) (result i32)))
  (import "roadrunner" "call" (func $call (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "roadrunner" "submit" (func $submit (param i32 i32 i32 i32 i32) (result i32)))
  (import "roadrunner" "wait" (func $wait (param i32 i32) (result i32)))
  (import "roadrunner" "fail" (func $fail (param i32 i32)))
  (import "roadrunner" "log" (func $log (param i32 i32 i32)))
  (import "roadrunner" "deadline_ns" (func $deadline_ns (result i64)))
"#;

/// An allocator that only ever takes new memory.
pub(crate) const ALLOCATOR: &str = r#"
  (func $allocate (export "allocate_memory") (param $len i32) (result i32)
    (local $at i32) (local $end i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 15)) (i32.const -16)))
    (local.set $end (i32.add (local.get $at) (local.get $len)))
    (if (i32.lt_u (local.get $end) (local.get $at)) (then (return (i32.const 0))))
    (if (i32.gt_u (local.get $end) (i32.shl (memory.size) (i32.const 16))) (then
      (if (i32.eq (i32.const -1) (memory.grow (i32.add (i32.const 1) (i32.shr_u
            (i32.sub (local.get $end) (i32.shl (memory.size) (i32.const 16))) (i32.const 16)))))
        (then (return (i32.const 0))))))
    (global.set $top (local.get $end))
    (local.get $at))
  (func $deallocate (export "deallocate_memory") (param i32))
"#;

/// Words for handlers: results are collected from 4096 on; `out` is at 16; names are at 1024.
pub(crate) const WORDS: &str = r#"
  (memory (export "memory") 1)
  (global $top (mut i32) (i32.const 65536))
  (global $answers (mut i32) (i32.const 4096))
  (data (i32.const 1024) "peer")
  (data (i32.const 1032) "ghost")
  (data (i32.const 1040) "\ff\fe")
  (data (i32.const 1048) "self")
  (data (i32.const 1056) "words")
  (func $pack (param $ptr i32) (param $len i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $ptr)) (i64.const 32))
            (i64.extend_i32_u (local.get $len))))
  (func $put (param $word i32)
    (i32.store (global.get $answers) (local.get $word))
    (global.set $answers (i32.add (global.get $answers) (i32.const 4))))
  (func $done (result i64)
    (call $pack (i32.const 4096) (i32.sub (global.get $answers) (i32.const 4096))))
  (func $out_ptr (result i32) (i32.load (i32.const 16)))
  (func $out_len (result i32) (i32.load (i32.const 20)))
  (func $peer (param $ptr i32) (param $len i32) (param $flags i32) (result i32)
    (call $call (i32.const 1024) (i32.const 4) (local.get $ptr) (local.get $len)
                (local.get $flags) (i32.const 16)))
  (func $send (param $ptr i32) (param $len i32) (param $flags i32) (result i32)
    (call $submit (i32.const 1024) (i32.const 4) (local.get $ptr) (local.get $len)
                  (local.get $flags)))
  (func $fill (param $ptr i32) (param $len i32) (param $byte i32)
    (memory.fill (local.get $ptr) (local.get $byte) (local.get $len)))
  ;; How many bytes of a range are not the given one.
  (func $others (param $ptr i32) (param $len i32) (param $byte i32) (result i32)
    (local $count i32) (local $end i32)
    (local.set $end (i32.add (local.get $ptr) (local.get $len)))
    (block $over (loop $next
      (br_if $over (i32.ge_u (local.get $ptr) (local.get $end)))
      (if (i32.ne (i32.load8_u (local.get $ptr)) (local.get $byte))
        (then (local.set $count (i32.add (local.get $count) (i32.const 1)))))
      (local.set $ptr (i32.add (local.get $ptr) (i32.const 1)))
      (br $next)))
    (local.get $count))
"#;

/// A module whose `handle` is this code, with the locals `$a` to `$d`.
pub(crate) fn guest(code: &str) -> String {
    module(&handler(code))
}

pub(crate) fn handler(code: &str) -> String {
    format!(
        r#"(func (export "handle") (param $ptr i32) (param $len i32) (result i64)
             (local $a i32) (local $b i32) (local $c i32) (local $d i32)
             {code}
             (return (call $done)))"#
    )
}

/// A module with these functions, the words and the plain allocator.
pub(crate) fn module(functions: &str) -> String {
    module_with(ALLOCATOR, functions)
}

/// A module with these functions and an allocator of its own.
pub(crate) fn module_with(allocator: &str, functions: &str) -> String {
    format!("(module {IMPORTS} {WORDS} {allocator} {functions})")
}
