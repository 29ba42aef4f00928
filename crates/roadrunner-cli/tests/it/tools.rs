//! `inspect`, `compile` and `doctor`.

use serde_json::Value;

use crate::program::{Sandbox, repository};

#[test]
fn inspect_shows_what_a_module_offers_and_asks() {
    let sandbox = Sandbox::with_function("");
    let text = String::from_utf8(sandbox.run(&["inspect", "f.wat"]).fine()).unwrap();
    insta::assert_snapshot!(text, @r#"
    module   f.wat
    takes    one payload (handle)
    memory   64 KiB at start, no limit of its own
    exports
      memory             memory of 1 pages
      allocate_memory    func(i32) -> (i32)
      deallocate_memory  func(i32) -> ()
      handle             func(i32, i32) -> (i64)
    imports  none
    "#);
    let json = sandbox.run(&["inspect", "--json", "f.wat"]).fine();
    insta::assert_snapshot!(String::from_utf8(json).unwrap(), @r#"{"exports":[{"name":"memory","type":"memory of 1 pages"},{"name":"allocate_memory","type":"func(i32) -> (i32)"},{"name":"deallocate_memory","type":"func(i32) -> ()"},{"name":"handle","type":"func(i32, i32) -> (i64)"}],"imports":[],"kind":"handle","memory_bytes":65536,"memory_max_bytes":null,"module":"f.wat"}"#);
}

#[test]
fn inspect_knows_commands_and_fan_ins() {
    let sandbox = Sandbox::new();
    sandbox.write("c.wat", "(module (memory (export \"memory\") 1 2) (func (export \"_start\")))");
    let kind = |module: &str| {
        let json = sandbox.run(&["inspect", "--json", module]).fine();
        serde_json::from_slice::<Value>(&json).unwrap()["kind"].as_str().unwrap().to_owned()
    };
    assert_eq!(kind("c.wat"), "command");
    assert_eq!(kind(&repository("guests/dist/sheet.wasm")), "handle_many");
}

#[test]
fn a_compiled_module_runs_like_its_source() {
    let sandbox = Sandbox::with_echo(b"payload");
    let said = sandbox.run(&["compile", "f.wat"]).fine();
    assert!(said.starts_with(b"f.cwasm ("), "{}", String::from_utf8_lossy(&said));
    let manifest = String::from_utf8(sandbox.read("w.toml")).unwrap();
    sandbox.write("w.toml", manifest.replace("f.wat", "f.cwasm"));
    assert_eq!(sandbox.run(&["run", "w.toml", "--input", "input"]).fine(), b"payload");
    let again = sandbox.run(&["compile", "f.cwasm"]);
    insta::assert_snapshot!(again.complaint(), @"2: roadrunner: f.cwasm is compiled already; name a .wasm or .wat file");
}

#[test]
fn a_compiled_module_goes_where_it_is_told() {
    let sandbox = Sandbox::with_function("");
    sandbox.run(&["compile", "f.wat", "-o", "out.cwasm"]).fine();
    assert_eq!(sandbox.run(&["compile", "f.wat", "-o", "-"]).fine(), sandbox.read("out.cwasm"));
    let source = sandbox.read("f.wat");
    let over = sandbox.run(&["compile", "f.wat", "-o", "./f.wat"]);
    insta::assert_snapshot!(over.complaint(), @"2: roadrunner: f.wat would be written over the module itself; name another --output");
    assert_eq!(sandbox.read("f.wat"), source);
}

#[test]
fn the_doctor_looks_at_everything() {
    let sandbox = Sandbox::new();
    let report: Value = serde_json::from_slice(&sandbox.run(&["doctor", "--json"]).stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    for check in checks {
        let status = check["status"].as_str().unwrap();
        assert!(["ok", "warn", "fail"].contains(&status), "{check}");
        assert_eq!(check["advice"].is_null(), status == "ok", "{check}");
    }
    let names: Vec<_> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    insta::assert_snapshot!(names.join("\n"));
    let text = String::from_utf8(sandbox.run(&["doctor"]).stdout).unwrap();
    assert!(names.iter().all(|name| text.contains(name)), "{text}");
}

#[test]
fn fewer_sandboxes_do_where_address_space_is_scarce() {
    let sandbox = Sandbox::new();
    let mut shell = std::process::Command::new("sh");
    // 1 TiB of address space, which is less than a thousand sandboxes reserve.
    let run = "ulimit -v 1073741824 && exec \"$0\" doctor";
    shell.args(["-c", run, env!("CARGO_BIN_EXE_roadrunner")]).current_dir(sandbox.0.path());
    let text = String::from_utf8(shell.output().unwrap().stdout).unwrap();
    assert!(text.contains("warn  address space           1024 GiB"), "{text}");
    assert!(text.contains("warn  sandboxes               125 at once"), "{text}");
}

#[test]
fn the_doctor_fails_where_functions_can_not_run() {
    let sandbox = Sandbox::new();
    let mut shell = std::process::Command::new("sh");
    // 16 GiB of address space, which is less than the fewest sandboxes reserve.
    let run = "ulimit -v 16777216 && exec \"$0\" doctor";
    shell.args(["-c", run, env!("CARGO_BIN_EXE_roadrunner")]).current_dir(sandbox.0.path());
    let output = shell.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("warn  address space           16 GiB"), "{text}");
    assert!(text.contains("fail  sandboxes"), "{text}");
}
