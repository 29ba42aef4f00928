//! What can be wrong with what a user gives, each with one clear sentence and its exit code.

use std::fs::File;

use crate::program::Sandbox;

/// A workflow `w.toml` of these functions, each with a module that is there.
fn manifest(functions: &str) -> Sandbox {
    let sandbox = Sandbox::with_function("");
    sandbox.write("w.toml", format!("[workflow]\nname = \"w\"\nentry = \"a\"\n{functions}"));
    sandbox
}

#[test]
fn a_manifest_that_is_not_there() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.run(&["run", "w.toml"]).complaint(), @"3: roadrunner: w.toml: the manifest cannot be read: No such file or directory (os error 2)");
    insta::assert_snapshot!(sandbox.run(&["run", "."]).complaint(), @"3: roadrunner: .: this is a folder; name the manifest in it, such as ./roadrunner.toml");
}

#[test]
fn a_module_that_is_not_there() {
    let sandbox = manifest("[functions.a]\nmodule = \"nowhere.wasm\"\n");
    insta::assert_snapshot!(sandbox.run(&["run", "w.toml"]).complaint(), @r#"3: roadrunner: w.toml:5:10: function "a" has module "nowhere.wasm", but there is no file "nowhere.wasm"; build it, or correct the path, which starts at the manifest's folder"#);
    insta::assert_snapshot!(sandbox.run(&["inspect", "nowhere.wasm"]).complaint(), @"4: roadrunner: can't read module nowhere.wasm: No such file or directory (os error 2)");
}

#[test]
fn a_module_that_is_damaged() {
    let sandbox = manifest("[functions.a]\nmodule = \"a.wasm\"\n");
    // The beginning of a module, which announces 16 bytes of types and ends there.
    sandbox.write("a.wasm", b"\0asm\x01\0\0\0\x01\x10");
    insta::assert_snapshot!(sandbox.run(&["run", "w.toml"]).complaint(), @"4: roadrunner: function `a`: module a.wasm is not a WebAssembly module that can run here: failed to parse WebAssembly module: unexpected end-of-file (at offset 0xa)");
    sandbox.write("a.wasm", "plain text");
    insta::assert_snapshot!(sandbox.run(&["inspect", "a.wasm"]).complaint(), @"4: roadrunner: module a.wasm is not a WebAssembly module that can run here: it begins like neither the binary nor the text format");
    sandbox.write("a.wasm", "");
    insta::assert_snapshot!(sandbox.run(&["inspect", "a.wasm"]).complaint(), @"4: roadrunner: module a.wasm is not a WebAssembly module that can run here: it begins like neither the binary nor the text format");
}

#[test]
fn a_module_that_is_no_function() {
    let sandbox = Sandbox::new();
    sandbox.write("a.wat", "(module (memory (export \"memory\") 1))");
    insta::assert_snapshot!(sandbox.run(&["inspect", "a.wat"]).complaint(), @"4: roadrunner: module a.wat is not a function: it exports neither `handle(i32, i32) -> i64` nor `handle_many(i32, i32) -> i64` nor, as a WASI command, `_start()`");
    sandbox.write("a.wat", "(module (import \"env\" \"x\" (func)) (memory (export \"memory\") 1) (func (export \"_start\")))");
    sandbox.write(
        "w.toml",
        "[workflow]\nname = \"w\"\nentry = \"a\"\n[functions.a]\nmodule = \"a.wat\"\n",
    );
    insta::assert_snapshot!(sandbox.run(&["run", "w.toml"]).complaint(), @"4: roadrunner: function `a`: module a.wat is not a function: unknown import: `env::x` has not been defined; the host offers modules `roadrunner` and `wasi_snapshot_preview1`");
}

#[test]
fn a_compiled_module_that_is_damaged() {
    let sandbox = Sandbox::with_function("");
    sandbox.run(&["compile", "f.wat"]).fine();
    let mut code = sandbox.read("f.cwasm");
    let middle = code.len() / 2;
    code[middle] ^= 1;
    sandbox.write("f.cwasm", code);
    insta::assert_snapshot!(sandbox.run(&["inspect", "f.cwasm"]).complaint(), @"4: roadrunner: precompiled module f.cwasm can't be used: it is damaged: its checksum is wrong; make it again with `roadrunner compile`");
}

#[test]
fn a_manifest_with_an_unknown_key() {
    let sandbox = manifest("[functions.a]\nmodule = \"f.wat\"\nmemry = \"1 MiB\"\n");
    insta::assert_snapshot!(sandbox.run(&["run", "w.toml"]).complaint(), @r#"3: roadrunner: w.toml:6:1: function "a" has no key "memry"; did you mean `memory`? (known keys: module, next, calls, placement, memory, timeout, idempotent, retries, reuse, headers, content_type, wasi)"#);
}

#[test]
fn a_manifest_with_a_cycle() {
    let sandbox = manifest(
        "[functions.a]\nmodule = \"f.wat\"\nnext = [\"b\"]\n[functions.b]\nmodule = \"f.wat\"\nnext = [\"a\"]\n",
    );
    insta::assert_snapshot!(sandbox.run(&["run", "w.toml"]).complaint(), @r#"3: roadrunner: w.toml:9:9: the flow runs in a cycle: a -> b -> a; remove "a" from the `next` of "b""#);
}

#[test]
fn a_manifest_with_an_unknown_function() {
    let sandbox = manifest("[functions.a]\nmodule = \"f.wat\"\nnext = [\"resize\"]\n");
    insta::assert_snapshot!(sandbox.run(&["run", "w.toml"]).complaint(), @r#"3: roadrunner: w.toml:6:9: function "a" names unknown function "resize" in `next` (known functions: "a")"#);
}

#[test]
fn input_that_can_not_be_read() {
    let sandbox = Sandbox::with_function("");
    let run = |input| sandbox.run(&["run", "w.toml", "--input", input]).complaint();
    insta::assert_snapshot!(run("nowhere"), @"5: roadrunner: can't read input nowhere: No such file or directory (os error 2)");
    insta::assert_snapshot!(run("."), @"5: roadrunner: can't read input .: Is a directory (os error 21)");
    // Opens, and fails when it is read.
    insta::assert_snapshot!(run("/proc/self/mem"), @"5: roadrunner: can't read input /proc/self/mem: Input/output error (os error 5)");
}

#[test]
fn input_over_the_limit_is_refused_before_it_is_read() {
    let sandbox = Sandbox::with_function("");
    File::create(sandbox.path("huge")).unwrap().set_len((1 << 30) + 1).unwrap();
    let ended = sandbox.run(&["run", "w.toml", "--input", "huge"]);
    insta::assert_snapshot!(ended.complaint(), @"6: roadrunner: input huge is over the limit of 1073741824 bytes for a payload");
}

#[test]
fn functions_that_fail() {
    let complaint = |body| {
        let sandbox = Sandbox::with_function(body);
        sandbox.run(&["run", "w.toml", "--output", "out"]).complaint()
    };
    insta::assert_snapshot!(complaint("unreachable"), @"7: roadrunner: function `f` trapped: wasm trap: wasm `unreachable` instruction executed in func 2");
    insta::assert_snapshot!(complaint("(loop (br 0))"), @"8: roadrunner: function `f` did not finish within 300ms; raise its `timeout` or give it less to do");
    insta::assert_snapshot!(complaint("(local.set 1 (i32.const -1))"), @"7: roadrunner: function `f` broke the guest ABI: its response of 4294967295 bytes is over the limit of 1073741824 bytes");
}

#[test]
fn a_function_that_fails_in_its_own_words_does_not_steer_the_terminal() {
    let sandbox = Sandbox::with_function("");
    let module = r#"(module
      (import "roadrunner" "fail" (func $fail (param i32 i32)))
      (memory (export "memory") 1)
      (data (i32.const 16) "no\1b[2Jpicture")
      (func (export "allocate_memory") (param i32) (result i32) (i32.const 1024))
      (func (export "deallocate_memory") (param i32))
      (func (export "handle") (param i32 i32) (result i64)
        (call $fail (i32.const 16) (i32.const 13)) (i64.const 0)))"#;
    sandbox.write("f.wat", module);
    insta::assert_snapshot!(sandbox.run(&["run", "w.toml"]).complaint(), @"7: roadrunner: function `f` failed: no�[2Jpicture");
}

#[test]
fn placements_that_can_not_be_reached() {
    let sandbox = Sandbox::with_function("");
    let at = |placement: &str| {
        let manifest =
            "[workflow]\nname = \"w\"\nentry = \"f\"\n[functions.f]\nmodule = \"f.wat\"\n";
        let node = "[nodes.far]\naddress = \"127.0.0.1:9\"\n";
        sandbox.write("w.toml", format!("{manifest}placement = {placement:?}\n{node}"));
        sandbox.run(&["run", "w.toml"]).complaint()
    };
    // The port of the discard service, which nobody runs.
    insta::assert_snapshot!(at("node:far"), @"11: roadrunner: function `f` could not be reached at 127.0.0.1:9: Connection refused (os error 111)");
    sandbox.write("f.wat", "(module)");
    insta::assert_snapshot!(at("process:gpu").split_once('\n').map_or_else(String::new, |it| it.1.into()), @"roadrunner: the process for `process:gpu` ended before it was ready");
}
