//! Modules that are not functions: each is refused with what is wrong and what to write instead.

use std::fs;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use roadrunner_runtime::{Fault, LoadError, ModuleSource};

use crate::support::{ECHO, ask, guest, load, module, pattern, runtime, source, spec, still_works};

/// Why a module is refused.
fn refused(wat: &str) -> String {
    let (name, error) = runtime().load(vec![spec("it", wat)]).map(drop).unwrap_err();
    assert_eq!(name, "it");
    error.to_string()
}

fn with(exports: &str) -> String {
    format!(r#"(module (memory (export "memory") 1) {exports})"#)
}

#[test]
fn a_missing_or_wrong_export_is_named() {
    let handle = r#"(func (export "handle") (param i32 i32) (result i64) (i64.const 0))"#;
    let allocate = r#"(func (export "allocate_memory") (param i32) (result i32) (i32.const 0))"#;
    let cases = [
        (with(""), "exports neither `handle"),
        (with(handle), "no allocator"),
        (with(r#"(func (export "handle") (param i32) (result i64) (i64.const 0))"#), "`handle` is"),
        (with(r#"(func (export "handle") (param i32 i32))"#), "`handle` is"),
        (with(r#"(global (export "handle") i32 (i32.const 0))"#), "`handle` is"),
        (
            with(r#"(func (export "handle_many") (param i64 i32) (result i64) (i64.const 0))"#),
            "`handle_many` is",
        ),
        (
            with(&format!(
                r#"{handle} (func (export "allocate_memory") (result i32) (i32.const 0))"#
            )),
            "`allocate_memory` is",
        ),
        (
            with(&format!(r#"{handle} {allocate} (func (export "deallocate_memory"))"#)),
            "`deallocate_memory` is",
        ),
        (
            with(&format!(r#"{handle} {allocate} (func (export "_initialize") (param i32))"#)),
            "`_initialize` is",
        ),
        (
            with(&format!(r#"{handle} (func (export "cabi_realloc") (param i32))"#)),
            "`cabi_realloc` is",
        ),
        (with(r#"(func (export "_start") (result i32) (i32.const 0))"#), "`_start` is"),
        (format!("(module {handle} {allocate})"), "no `memory`"),
        (
            format!(r#"(module (global (export "memory") i32 (i32.const 0)) {handle} {allocate})"#),
            "not a memory",
        ),
    ];
    for (wat, part) in cases {
        let why = refused(&wat);
        assert!(why.contains(part), "{wat}\n{why}");
    }
}

#[test]
fn memories_of_other_kinds_are_refused() {
    let handler = r#"(func (export "handle") (param i32 i32) (result i64) (i64.const 0))
        (func (export "allocate_memory") (param i32) (result i32) (i32.const 0))"#;
    for memory in [
        r#"(memory (export "memory") i64 1)"#,
        r#"(memory (export "memory") 1 2 shared)"#,
        r#"(memory (export "memory") 1) (memory 1)"#,
        r#"(import "env" "memory" (memory 1)) (export "memory" (memory 0))"#,
    ] {
        refused(&format!("(module {memory} {handler})"));
    }
}

#[test]
fn what_is_not_a_module_is_refused() {
    let refuse = |bytes: &'static [u8]| {
        let module = ModuleSource::Bytes { name: "bad".into(), bytes: bytes.into() };
        runtime().inspect(&module).unwrap_err()
    };
    let wasm = wat::parse_str(guest(ECHO)).unwrap();
    for at in [0, 4, 7, 30, wasm.len() / 2, wasm.len() - 1] {
        let cut: &'static [u8] = wasm[..at].to_vec().leak();
        assert!(matches!(refuse(cut), LoadError::Invalid { .. }), "cut at {at}");
    }
    assert!(matches!(refuse(b"\0asm\x0d\0\x01\0"), LoadError::Invalid { .. }), "a component");
    assert!(matches!(refuse(b"(module (func"), LoadError::Invalid { .. }));
    let gone = ModuleSource::File("/nonexistent/it.wasm".into());
    assert!(matches!(runtime().inspect(&gone), Err(LoadError::Unreadable { .. })));
}

#[test]
fn precompiled_code_that_is_damaged_is_refused() {
    let runtime = runtime();
    let good = runtime.precompile(&source(guest(ECHO))).unwrap();
    let load_bytes = |bytes: Vec<u8>| {
        let mut it = spec("echo", "");
        it.module = ModuleSource::Bytes { name: "it.cwasm".into(), bytes: bytes.into() };
        runtime.load(vec![it])
    };
    still_works(&load_bytes(good.clone()).unwrap());
    for at in (64..good.len()).step_by(good.len() / 50) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        let (_, error) = load_bytes(bad).unwrap_err();
        assert!(matches!(error, LoadError::Precompiled { .. }), "byte {at}: {error}");
        let (_, error) = load_bytes(good[..at].to_vec()).unwrap_err();
        assert!(matches!(error, LoadError::Precompiled { .. }), "cut at {at}: {error}");
    }
}

#[test]
fn machine_code_is_taken_under_its_own_name_only() {
    let runtime = runtime();
    let code = runtime.precompile(&source(guest(ECHO))).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = dir.path().join(name);
        fs::write(&path, &code).unwrap();
        ModuleSource::File(path)
    };
    let bytes = |name: &str, bytes: &[u8]| {
        let bytes = bytes.to_vec().into();
        ModuleSource::Bytes { name: name.into(), bytes }
    };
    let load_it = |module: &ModuleSource| {
        let mut it = spec("echo", "");
        it.module = module.clone();
        runtime.load(vec![it])
    };
    still_works(&load_it(&file("it.cwasm")).unwrap());
    // The engine's own image, without the checksum behind it, and what only begins as one.
    let (image, damaged) = (&code[..code.len() - 32], &code[..code.len() / 2]);
    for module in [
        file("it.wasm"),
        file("it"),
        file("it.cwasm.wat"),
        file("cwasm"),
        bytes("it.wasm", &code),
        bytes("it", &code),
        bytes("it.wasm", image),
        bytes("it.wasm", damaged),
        bytes("it.wasm", b"\x7fELF"),
    ] {
        let (_, error) = load_it(&module).unwrap_err();
        for error in
            [error, runtime.inspect(&module).unwrap_err(), runtime.precompile(&module).unwrap_err()]
        {
            // It names the name: nobody looked at the code, whole or damaged.
            assert!(
                matches!(&error, LoadError::Precompiled { reason, .. }
                if reason.contains("does not end in .cwasm")),
                "{module:?}: {error}"
            );
        }
    }
}

#[test]
fn unknown_imports_are_named() {
    for (wat, part) in [
        (r#"(import "env" "secret" (func))"#, "secret"),
        (r#"(import "roadrunner" "peek" (func))"#, "peek"),
        (r#"(import "roadrunner" "buffer_free" (func (param i64) (result i32)))"#, "buffer_free"),
    ] {
        let why = refused(&format!(
            r#"(module {wat} (memory (export "memory") 1) (func (export "_start")))"#
        ));
        assert!(why.contains(part) && why.contains("`roadrunner`"), "{why}");
    }
}

/// What calling `main` of this module ends in, twenty times; `echo` works in the end.
fn ends(functions: &str) -> Fault {
    let specs = vec![spec("main", module(functions)), spec("echo", guest(ECHO))];
    let app = load(&runtime(), specs);
    let fault = ask(&app, "main", &pattern(50_000)).unwrap_err();
    for _ in 0..20 {
        let again = ask(&app, "main", &pattern(50_000)).unwrap_err();
        assert_eq!(again.to_string(), fault.to_string());
    }
    still_works(&app);
    fault
}

const HANDLE: &str = r#"(func (export "handle") (param i32 i32) (result i64) (call $done))"#;

#[test]
fn a_start_function_that_traps_is_a_trap() {
    let fault = ends(&format!("{HANDLE} (func $start (unreachable)) (start $start)"));
    assert!(
        matches!(&fault, Fault::Trapped { reason, .. } if reason.contains("unreachable")),
        "{fault}"
    );
    let fault = ends(&format!(
        "{HANDLE} (func $start (call $fail (i32.const 1024) (i32.const 4))) (start $start)"
    ));
    assert!(matches!(&fault, Fault::Failed { message, .. } if message == "peer"), "{fault}");
    let fault = ends(&format!(
        "{HANDLE} (func $start (call $log (i32.const 1) (i32.const -9) (i32.const 4))) (start $start)"
    ));
    assert!(matches!(&fault, Fault::Violation { .. }), "{fault}");
}

#[test]
fn an_initialize_that_traps_with_windows_is_a_trap() {
    let fault = ends(&format!(
        r#"{HANDLE} (func (export "_initialize")
             (call $fill (call $buffer_alloc (i32.const 100000) (i32.const 0))
                         (i32.const 100000) (i32.const 7))
             (unreachable))"#
    ));
    assert!(matches!(fault, Fault::Trapped { .. }), "{fault}");
}

/// The end of work that would not end if time stood still for it.
fn end_of<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, end) = channel();
    thread::spawn(move || done.send(work()));
    end.recv_timeout(Duration::from_secs(60)).expect("it is not stopped")
}

#[test]
fn an_initialize_for_ever_is_stopped_before_and_ahead_of_a_call() {
    // An app in a runtime of its own, where nothing has run yet.
    let idle = || {
        let initialize = r#"(func (export "_initialize") (loop $for_ever (br $for_ever)))"#;
        let mut main = spec("main", module(&format!("{HANDLE} {initialize}")));
        main.timeout = Duration::from_millis(20);
        load(&runtime(), vec![main])
    };
    let (called, prepared, ahead) = (idle(), idle(), idle());
    // After a second without a function the thread that makes time pass for functions sleeps.
    thread::sleep(Duration::from_secs(2));
    let fault = end_of(move || ask(&called, "main", b"x").unwrap_err());
    assert!(matches!(fault, Fault::TimedOut { .. }), "{fault}");
    let fault = end_of(move || prepared.prepare("main").unwrap_err());
    assert!(matches!(fault, Fault::TimedOut { .. }), "{fault}");
    let patience = Instant::now() + Duration::from_secs(60);
    let made = end_of(move || ahead.prepare_ahead("main").join(patience));
    assert!(matches!(made, Some(None)), "{made:?}");
}

#[test]
fn imports_refuse_in_a_start_function() {
    let start = r"(func $start
        (call $put (call $buffer_alloc (i32.const 100000) (i32.const 0)))
        (call $put (call $buffer_free (i32.const 1)))
        (call $put (i32.ne (i32.const 0) (call $peer (i32.const 0) (i32.const 0) (i32.const 0))))
        (call $put (i32.lt_s (call $send (i32.const 0) (i32.const 0) (i32.const 0)) (i32.const 0)))
        (call $put (i32.ne (i32.const 0) (call $wait (i32.const 1) (i32.const 16))))
        (call $log (i32.const 1) (i32.const 1024) (i32.const 4))
        (call $put (i64.gt_s (call $deadline_ns) (i64.const 0))))
      (start $start)";
    let specs = vec![spec("main", module(&format!("{HANDLE} {start}")))];
    let app = load(&runtime(), specs);
    let got = crate::support::words(&ask(&app, "main", b"x").unwrap());
    assert_eq!(got, [0, 6, 1, 1, 1, 1]);
}
