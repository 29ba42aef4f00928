//! `docs/guest-abi.md`, seen from the host: what it offers, and how modules are entered.

use std::collections::BTreeSet;
use std::path::Path;

use roadrunner_abi::IMPORT_MODULE;
use roadrunner_runtime::{Backing, Fault, Kind, LoadError, Payload};

use crate::support::{
    ALLOCATOR, ECHO, MOVES, app_of, ask, bytes_of, guest, handler, load, module, module_with,
    pattern, runtime, sealed, send, source, spec, still_works, words, words_of,
};

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guest-abi.md");
    std::fs::read_to_string(path).unwrap()
}

/// Name, parameters and results of every import in the document's table.
fn imports() -> Vec<(String, Vec<String>, Vec<String>)> {
    let document = document();
    let lines = document.lines().skip_while(|line| *line != "| import | signature | returns |");
    let types = |list: &str| {
        let words = list.split([',', ':', '(', ')', ' ', '`']);
        words.filter(|word| ["i32", "i64"].contains(word)).map(String::from).collect()
    };
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let (params, results) = cells[2].split_once("->").unwrap_or((cells[2], ""));
        (cells[1].trim_matches('`').to_owned(), types(params), types(results))
    };
    let rows: Vec<_> = lines.skip(2).take_while(|line| line.starts_with('|')).map(row).collect();
    assert_eq!(rows.len(), 8, "the table of imports changed its shape");
    rows
}

/// Loads a function that imports this; the reason where the host refuses.
fn importing(name: &str, params: &[String], results: &[String]) -> Result<(), LoadError> {
    let list = |kind: &str, types: &[String]| match types {
        [] => String::new(),
        types => format!("({kind} {})", types.join(" ")),
    };
    let (params, results) = (list("param", params), list("result", results));
    let wat = format!(
        r#"(module (import "{IMPORT_MODULE}" "{name}" (func {params} {results}))
             (memory (export "memory") 1) (func (export "_start")))"#
    );
    thread_local!(static RUNTIME: roadrunner_runtime::Runtime = runtime());
    RUNTIME.with(|runtime| runtime.load(vec![spec("it", wat)]).map(drop).map_err(|(_, why)| why))
}

#[test]
fn every_import_of_the_document_is_offered_with_exactly_its_type() {
    for (name, params, results) in imports() {
        importing(&name, &params, &results).unwrap_or_else(|why| panic!("{name}: {why}"));
        let more = [params.clone(), vec!["i32".into()]].concat();
        assert!(importing(&name, &more, &results).is_err(), "{name} takes one more");
        let other = if results.is_empty() { vec!["i32".into()] } else { vec![] };
        assert!(importing(&name, &params, &other).is_err(), "{name} returns something else");
        for at in 0..params.len() {
            let mut wrong = params.clone();
            wrong[at] = "i64".into();
            assert!(importing(&name, &wrong, &results).is_err(), "{name} takes an i64 at {at}");
        }
    }
}

#[test]
fn nothing_else_is_offered() {
    let offered: BTreeSet<String> = imports().into_iter().map(|row| row.0).collect();
    // Every word of the document, as the likeliest names of something undocumented.
    let document = document();
    let words: BTreeSet<&str> = document
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty() && !offered.contains(*word))
        .collect();
    assert!(words.len() > 100);
    for name in words {
        let why = importing(name, &[], &[]).expect_err(name).to_string();
        assert!(why.contains("unknown import"), "{name} is known: {why}");
    }
}

#[test]
fn cabi_realloc_is_taken_where_allocate_memory_is_missing() {
    let realloc = r#"
      (func (export "cabi_realloc") (param $old i32) (param $had i32) (param $align i32)
                                    (param $len i32) (result i32)
        (if (i32.or (local.get $old) (local.get $had)) (then (unreachable)))
        (i32.store (i32.const 64) (i32.add (i32.load (i32.const 64)) (i32.const 1)))
        (i32.store (i32.const 68) (local.get $align))
        (call $allocate (local.get $len)))"#;
    let hidden = ALLOCATOR
        .replace(r#"(export "allocate_memory")"#, "")
        .replace(r#"(export "deallocate_memory")"#, "");
    let body = r"(call $put (i32.load (i32.const 64))) (call $put (i32.load (i32.const 68)))
                 (call $put (i32.load8_u (i32.add (local.get $ptr) (i32.const 70000))))
                 (call $put (call $buffer_free (local.get $ptr)))";
    let wat = module_with(&(hidden + realloc), &handler(body));
    let app = load(&runtime(), vec![spec("main", wat)]);
    let sent = pattern(80_000);
    let got = words(&ask(&app, "main", &sent).unwrap());
    assert_eq!(got[0], 1, "asked once");
    assert!(got[1].is_power_of_two() && got[1] >= 8, "alignment {}", got[1]);
    assert_eq!((got[2], got[3]), (u32::from(sent[70_000]), 0));
    // With both exported the plain one is asked.
    let both = module_with(&(ALLOCATOR.to_owned() + realloc), &handler(body));
    let app = load(&runtime(), vec![spec("main", both)]);
    assert_eq!(words(&ask(&app, "main", &sent).unwrap())[0], 0);
}

#[test]
fn initialize_runs_once_before_the_payload_and_may_hold_buffers() {
    let functions = r#"(global $kept (mut i32) (i32.const 0))
      (func (export "_initialize")
        (i32.store (i32.const 64) (i32.add (i32.load (i32.const 64)) (i32.const 1)))
        (global.set $kept (call $buffer_alloc (i32.const 50000) (i32.const 0)))
        (call $fill (global.get $kept) (i32.const 50000) (i32.const 7)))"#;
    let body = "(call $put (i32.load (i32.const 64)))
                (call $put (call $others (global.get $kept) (i32.const 50000) (i32.const 7)))
                (call $put (call $buffer_free (global.get $kept)))";
    let wat = module(&(functions.to_owned() + &handler(body)));
    let app = load(&runtime(), vec![spec("main", wat)]);
    for _ in 0..3 {
        assert_eq!(words(&ask(&app, "main", &pattern(20_000)).unwrap()), [1, 0, 0]);
    }
}

/// Answers the count, then length and first byte of every input, and whether the list could be freed.
const GATHER: &str = r#"(func (export "handle_many") (param $list i32) (param $count i32) (result i64)
    (local $at i32) (local $end i32)
    (call $put (local.get $count))
    (local.set $at (local.get $list))
    (local.set $end (i32.add (local.get $list) (i32.shl (local.get $count) (i32.const 3))))
    (block $over (loop $next
      (br_if $over (i32.ge_u (local.get $at) (local.get $end)))
      (call $put (i32.load offset=4 (local.get $at)))
      (if (i32.load offset=4 (local.get $at))
        (then (call $put (i32.load8_u (i32.load (local.get $at)))))
        (else (call $put (i32.const 0))))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br $next)))
    (call $done))"#;

#[test]
fn a_fan_in_arrives_in_edge_order() {
    let app = load(&runtime(), vec![spec("main", module(GATHER)), spec("echo", guest(ECHO))]);
    let lens = [70_000, 1, 0, 300_000, MOVES, 3_000_000, 5];
    let parts = lens
        .iter()
        .enumerate()
        .map(|(at, &len)| sealed(&app, &vec![u8::try_from(at).unwrap() + 10; len]));
    let payload = Payload::Many(parts.collect());
    let mut reply = app.call("main", payload, std::time::Instant::now()).unwrap();
    let mut expected = vec![u32::try_from(lens.len()).unwrap()];
    for (at, &len) in (10_u32..).zip(&lens) {
        expected.extend([u32::try_from(len).unwrap(), if len == 0 { 0 } else { at }]);
    }
    assert_eq!(words(&bytes_of(&mut reply)), expected);
    let moved: usize = lens.iter().filter(|len| **len >= MOVES).sum();
    let copied: usize = lens.iter().filter(|len| **len < MOVES).sum();
    let traffic = reply.account.traffic;
    assert_eq!((traffic.moved, traffic.copied), (moved as u64, copied as u64));
    assert_eq!(reply.parts.len(), lens.len());
    // One payload is a list of one.
    assert_eq!(words(&ask(&app, "main", &[9; 3]).unwrap()), [1, 3, 9]);
}

#[test]
fn several_payloads_need_handle_many() {
    let app = app_of(ECHO, ECHO);
    let many = |count: usize| {
        let parts = (0..count).map(|_| sealed(&app, b"part")).collect();
        app.call("main", Payload::Many(parts), std::time::Instant::now())
    };
    assert_eq!(bytes_of(&mut many(1).unwrap()), b"part");
    let Err(undelivered) = many(2) else { panic!("two payloads reached a handle") };
    let fault = undelivered.fault.to_string();
    assert!(fault.contains("has 2 inputs") && fault.contains("`handle_many`"), "{fault}");
    still_works(&app);
}

#[test]
fn responses_move_cut_or_are_copied() {
    // The first word of the payload chooses: whole, cut, from inside, from the heap, empty.
    let body = "(local.set $a (i32.load (local.get $ptr)))
      (if (i32.eq (local.get $a) (i32.const 0)) (then
        (return (call $pack (local.get $ptr) (local.get $len)))))
      (if (i32.eq (local.get $a) (i32.const 1)) (then
        (return (call $pack (local.get $ptr) (i32.const 50000)))))
      (if (i32.eq (local.get $a) (i32.const 2)) (then
        (return (call $pack (i32.add (local.get $ptr) (i32.const 8)) (i32.const 50000)))))
      (if (i32.eq (local.get $a) (i32.const 3)) (then
        (return (call $pack (i32.const 1024) (i32.const 4)))))
      (return (call $pack (i32.const -1) (i32.const 0)))";
    let app = app_of(body, ECHO);
    let cases: [(u8, usize, usize, bool); 5] = [
        (0, 0, 200_000, true),
        (1, 0, 50_000, true),
        (2, 8, 50_000, false),
        (3, 0, 4, false),
        (4, 0, 0, false),
    ];
    for (choice, from, len, moves) in cases {
        let mut sent = pattern(200_000);
        sent[..4].copy_from_slice(&[choice, 0, 0, 0]);
        let reply = send(&app, "main", &sent).unwrap();
        assert_eq!(reply.account.traffic.copied, 0);
        let mut next = app.call("echo", Payload::Held(reply), std::time::Instant::now()).unwrap();
        let traffic = next.account.traffic;
        let all = len as u64;
        let expected = if moves { (all, 0) } else { (0, all) };
        assert_eq!((traffic.moved, traffic.copied), expected, "choice {choice}");
        let wanted: &[u8] = if choice == 3 { b"peer" } else { &sent[from..from + len] };
        assert!(bytes_of(&mut next) == wanted, "choice {choice}");
    }
}

#[test]
fn a_response_in_a_memfd_arrives() {
    let body = "(local.set $a (call $buffer_alloc (i32.const 100000) (i32.const 0)))
      (call $fill (local.get $a) (i32.const 100000) (i32.const 9))
      (return (call $pack (local.get $a) (i32.const 100000)))";
    let mut main = spec("main", guest(body));
    main.backing = Backing::Memfd;
    let app = load(&runtime(), vec![main, spec("echo", guest(ECHO))]);
    let reply = send(&app, "main", b"go").unwrap();
    let mut next = app.call("echo", Payload::Held(reply), std::time::Instant::now()).unwrap();
    assert_eq!((next.account.traffic.moved, next.account.traffic.copied), (100_000, 0));
    assert!(bytes_of(&mut next) == vec![9; 100_000]);
}

#[test]
fn buffers_are_zeroed_aligned_and_freed_once() {
    let body = "(local.set $a (call $buffer_alloc (i32.const 100001) (i32.const 0)))
      (call $put (i32.and (local.get $a) (i32.const 4095)))
      (call $put (call $others (local.get $a) (i32.const 100001) (i32.const 0)))
      (call $fill (local.get $a) (i32.const 100001) (i32.const 5))
      (call $put (call $buffer_free (local.get $a)))
      (call $put (call $buffer_free (local.get $a)))
      (local.set $b (call $buffer_alloc (i32.const 100001) (i32.const 0)))
      (call $put (call $others (local.get $b) (i32.const 100001) (i32.const 0)))
      (local.set $c (call $buffer_alloc (i32.const 10) (i32.const 0)))
      (call $put (call $others (local.get $c) (i32.const 10) (i32.const 0)))
      (call $put (call $buffer_alloc (i32.const 0) (i32.const 0)))
      (call $put (call $buffer_alloc (i32.const 10) (i32.const 2)))
      (call $put (call $buffer_free (i32.add (local.get $b) (i32.const 4096))))
      (call $put (i32.ne (i32.const 0) (call $buffer_alloc (i32.const 99999) (i32.const 1))))";
    assert_eq!(words_of(body, ECHO, b"x"), [0, 0, 0, 3, 0, 0, 0, 0, 3, 1]);
}

#[test]
fn fail_ends_the_invocation_with_its_message() {
    let app = app_of("(call $fail (local.get $ptr) (local.get $len)) (unreachable)", ECHO);
    let failed = |said: &[u8]| match ask(&app, "main", said) {
        Err(Fault::Failed { function, message }) => {
            assert_eq!(function, "main");
            message
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(failed("no such picture: ä".as_bytes()), "no such picture: ä");
    assert_eq!(failed(b"bad \xff"), "bad \u{fffd}");
    assert_eq!(failed(&[b'm'; 5000]).len(), 4096, "cut at MESSAGE_BYTES");
    still_works(&app);
}

#[test]
fn log_takes_every_level_and_any_bytes() {
    let body = "(block $over (loop $next
        (call $log (local.get $a) (local.get $ptr) (local.get $len))
        (local.set $a (i32.add (local.get $a) (i32.const 1)))
        (br_if $next (i32.lt_u (local.get $a) (i32.const 8)))))
      (call $log (i32.const -1) (local.get $ptr) (local.get $len))
      (call $log (i32.const 1) (i32.const 65536) (i32.const 0))
      (call $put (local.get $a))";
    assert_eq!(words_of(body, ECHO, b"\xff\xfe line"), [8]);
}

#[test]
fn the_deadline_is_the_functions_own_and_shrinks_for_a_callee() {
    let left = "(i64.store (i32.const 4096) (call $deadline_ns))
                (global.set $answers (i32.const 4104))";
    let main = format!(
        "{left} (call $put (call $peer (i32.const 0) (i32.const 0) (i32.const 0)))
         (i64.store (i32.const 4108) (i64.load (call $out_ptr)))
         (return (call $pack (i32.const 4096) (i32.const 20)))"
    );
    let got = ask(&app_of(&main, left), "main", b"").unwrap();
    let ns = |at: usize| i64::from_le_bytes(got[at..at + 8].try_into().unwrap());
    let (mine, callee) = (ns(0), ns(12));
    assert!(mine > 0 && mine <= 20_000_000_000, "{mine}");
    assert!(callee > 0 && callee < mine, "{callee} of {mine}");
}

#[test]
fn a_module_says_what_it_is() {
    let inspect = |wat: &str| runtime().inspect(&source(wat)).unwrap().kind;
    assert_eq!(inspect(&guest(ECHO)), Kind::Handler { one: true, many: false });
    assert_eq!(inspect(&module(GATHER)), Kind::Handler { one: false, many: true });
    let command = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;
    assert_eq!(inspect(command), Kind::Command);
}
