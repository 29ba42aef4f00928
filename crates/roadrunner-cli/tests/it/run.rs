//! `roadrunner run`: payloads in, results and reports out.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;

use crate::program::{Ended, Sandbox, noise, repository};

/// A workflow `w.toml`: a -> (b, c) -> d -> e, of which d joins frames of the demo.
fn fan() -> Sandbox {
    let sandbox = Sandbox::new();
    let function = |name: &str, module: &str, next: &str| {
        let module = repository(&format!("guests/dist/{module}.wasm"));
        format!("[functions.{name}]\nmodule = {module:?}\nnext = [{next}]\n")
    };
    let functions = [
        function("decode", "decode", "\"grey\", \"echo\""),
        function("grey", "greyscale", "\"sheet\""),
        function("echo", "echo", "\"sheet\""),
        function("sheet", "sheet", "\"encode\""),
        function("encode", "encode", ""),
    ];
    let manifest =
        format!("[workflow]\nname = \"fan\"\nentry = \"decode\"\n{}", functions.concat());
    sandbox.write("w.toml", manifest);
    sandbox
}

/// A report without what differs from run to run.
fn redacted(mut report: Value) -> String {
    fn redact(name: &str, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.iter_mut().for_each(|(name, value)| redact(name, value));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| redact("", item)),
            Value::Number(number) if name.ends_with("_us") || name == "memory_peak_bytes" => {
                assert!(number.as_f64().unwrap() > 0.0 || name == "run_us", "{name} {number}");
                *value = "N".into();
            }
            _ => {}
        }
    }
    redact("", &mut report);
    // The branches of a fan-out end in any order.
    if let Some(hops) = report["hops"].as_array_mut() {
        hops.sort_by_key(|hop| [hop["to"].to_string(), hop["from"].to_string()]);
    }
    serde_json::to_string_pretty(&report).unwrap()
}

#[test]
fn the_report_has_its_fields_and_large_payloads_are_not_copied() {
    let sandbox = fan();
    let input = repository("assets/astronaut.png");
    let args = ["run", "w.toml", "--input", &input, "--output", "out.png", "--report", "json"];
    let report: Value = serde_json::from_slice(&sandbox.run(&args).fine()).unwrap();
    for hop in report["hops"].as_array().unwrap() {
        assert!(hop["bytes"].as_u64().unwrap() > 256 << 10, "{hop}");
        assert_eq!(hop["copied_bytes"], 0, "{hop}");
        assert_eq!(hop["moved_bytes"], hop["bytes"], "{hop}");
    }
    insta::assert_snapshot!("report", redacted(report));
}

#[test]
fn the_report_goes_to_stderr_when_the_result_goes_to_stdout() {
    let sandbox = Sandbox::with_echo(b"payload");
    let ended = sandbox.run(&["run", "w.toml", "--input", "input", "--report", "json"]);
    assert_eq!((ended.code, ended.stdout.as_slice()), (Some(0), &b"payload"[..]));
    let report: Value = serde_json::from_str(&ended.stderr).unwrap();
    assert_eq!(report["hops"][0]["copied_bytes"], 7, "copying beats moving below a page");
}

#[test]
fn stdin_is_the_input_when_nothing_else_is_said() {
    let input = noise(1_000_000);
    let sandbox = Sandbox::with_function("");
    for args in [&["run", "w.toml"][..], &["run", "w.toml", "--input", "-"]] {
        let mut command = sandbox.command(args);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let written = std::thread::scope(|scope| {
            let writer = scope.spawn(|| stdin.write_all(&input).map(|()| drop(stdin)));
            let ended = Ended::of(&child.wait_with_output().unwrap());
            writer.join().unwrap().unwrap();
            ended
        });
        assert_eq!(written.fine(), input);
    }
}

#[test]
fn empty_and_made_up_files_are_payloads_too() {
    let sandbox = Sandbox::with_echo(b"");
    let run = |input| sandbox.run(&["run", "w.toml", "--mode", "user", "--input", input]).fine();
    assert_eq!(run("input"), b"");
    assert_eq!(run("/dev/null"), b"");
    assert_eq!(run("/proc/sys/kernel/ostype"), b"Linux\n");
}

#[test]
fn every_mode_and_placement_gives_the_payload_back() {
    let input = noise(300_000);
    let sandbox = Sandbox::with_echo(&input);
    let run = |mode| sandbox.run(&["run", "w.toml", "--mode", mode, "--input", "input"]).fine();
    for mode in ["auto", "user", "kernel", "network"] {
        assert!(run(mode) == input, "{mode}");
    }
    let manifest = String::from_utf8(sandbox.read("w.toml")).unwrap();
    sandbox.write("w.toml", manifest + "placement = \"process:gpu\"\n");
    assert!(run("auto") == input);
}

#[test]
fn what_guests_log_goes_to_stderr_by_level() {
    let sandbox = Sandbox::with_function("");
    let module = r#"(module
      (import "roadrunner" "log" (func $log (param i32 i32 i32)))
      (memory (export "memory") 1)
      (data (i32.const 16) "careful")
      (data (i32.const 32) "chatter")
      (func (export "allocate_memory") (param i32) (result i32) (i32.const 1024))
      (func (export "deallocate_memory") (param i32))
      (func (export "handle") (param i32 i32) (result i64)
        (call $log (i32.const 2) (i32.const 16) (i32.const 7))
        (call $log (i32.const 3) (i32.const 32) (i32.const 7))
        (i64.const 0)))"#;
    sandbox.write("f.wat", module);
    let quiet = sandbox.run(&["run", "w.toml"]);
    assert_eq!((quiet.code, quiet.stdout.as_slice()), (Some(0), &b""[..]));
    insta::assert_snapshot!(quiet.stderr, @r#" WARN careful function="f""#);
    assert!(sandbox.run(&["run", "w.toml", "--verbose"]).stderr.contains("chatter"));
    let mut off = sandbox.command(&["run", "w.toml"]);
    assert_eq!(Ended::of(&off.env("RUST_LOG", "off").output().unwrap()).stderr, "");
}

/// The processes that a process started.
fn children(pid: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    list.unwrap_or_default().split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Waits until something is so.
fn wait_for(what: impl Fn() -> bool) {
    for _ in 0..1000 {
        if what() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("it never came to that");
}

#[test]
fn a_process_that_is_killed_ends_the_run_and_all_its_processes() {
    let sandbox = Sandbox::with_function("(loop $for_ever (br $for_ever))");
    let manifest = String::from_utf8(sandbox.read("w.toml")).unwrap();
    sandbox.write("w.toml", manifest.replace("300ms", "1h"));
    let mut command = sandbox.command(&["run", "w.toml", "--mode", "kernel"]);
    let run = command.stderr(Stdio::piped()).spawn().unwrap();
    wait_for(|| children(run.id()).len() == 1);
    let worker = children(run.id())[0];
    // It is in the function as soon as it uses its processor.
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{worker}/stat")).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default().to_owned();
        fields.split_whitespace().nth(11).and_then(|ticks| ticks.parse::<u64>().ok())
    };
    wait_for(|| ticks() > Some(30));
    let kill = std::process::Command::new("kill").args(["-KILL", &worker.to_string()]).status();
    assert!(kill.unwrap().success());
    let ended = run.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(11), "{said}");
    assert!(said.contains("which did not answer"), "{said}");
    assert!(!std::path::Path::new(&format!("/proc/{worker}")).exists());
}

#[test]
fn processes_end_with_the_run_that_is_killed() {
    let sandbox = Sandbox::with_function("(loop $for_ever (br $for_ever))");
    let manifest = String::from_utf8(sandbox.read("w.toml")).unwrap();
    sandbox.write("w.toml", manifest.replace("300ms", "1h"));
    let mut run = sandbox.command(&["run", "w.toml", "--mode", "network"]).spawn().unwrap();
    wait_for(|| children(run.id()).len() == 1);
    let worker = children(run.id())[0];
    run.kill().unwrap();
    run.wait().unwrap();
    wait_for(|| {
        // Nobody may be there to reap it.
        let stat = std::fs::read_to_string(format!("/proc/{worker}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    });
}
