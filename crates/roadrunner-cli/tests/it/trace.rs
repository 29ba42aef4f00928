//! Traces: one id from whoever calls to the last nested call, with a span for each hop.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::program::{ECHO, Going, Sandbox};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A function that says its name, calls another one if it is given one, and gives its payload back.
fn module(name: &str, calls: Option<&str>) -> String {
    let imports = r#"(module
        (import "roadrunner" "log" (func $log (param i32 i32 i32)))
        (import "roadrunner" "call" (func $call (param i32 i32 i32 i32 i32 i32) (result i32)))"#;
    let called = calls.unwrap_or_default();
    let data = format!("(data (i32.const 64) \"{name} runs\") (data (i32.const 128) \"{called}\")");
    let log = format!("(call $log (i32.const 3) (i32.const 64) (i32.const {}))", name.len() + 5);
    let call = format!(
        "(if (call $call (i32.const 128) (i32.const {}) (i32.const 64) (i32.const 4) (i32.const 0) (i32.const 0))
           (then unreachable))",
        called.len()
    );
    let body = if calls.is_some() { log + &call } else { log };
    ECHO.replacen("(module", imports, 1)
        .replacen(
            "(memory (export \"memory\") 1)",
            &format!("(memory (export \"memory\") 1) {data}"),
            1,
        )
        .replace("BODY", &body)
}

/// A workflow of `first`, which runs in a process of its own and calls `second`, which runs here.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("first.wat", module("first", Some("second")));
    sandbox.write("second.wat", module("second", None));
    let manifest = "[workflow]\nname = \"w\"\nentry = \"first\"\n\
        [functions.first]\nmodule = \"first.wat\"\nplacement = \"process:p\"\ncalls = [\"second\"]\n\
        [functions.second]\nmodule = \"second.wat\"\n";
    sandbox.write("w.toml", manifest);
    sandbox
}

/// A field of the last span of a line.
fn field(line: &str, name: &str) -> String {
    let span = &line[line.rfind("function{").unwrap_or_else(|| panic!("no span: {line}"))..];
    let field = span.split_once(&format!("{name}=")).unwrap_or_else(|| panic!("{name}: {line}")).1;
    field.chars().take_while(char::is_ascii_alphanumeric).collect()
}

/// Checks that both functions are of the trace, one called by `caller` and one by the other.
fn follow(program: &mut Going, caller: &str) {
    let (first, second) = (program.wait_for("first runs"), program.wait_for("second runs"));
    assert_eq!(field(&first, "trace_id"), TRACE);
    assert_eq!(field(&second, "trace_id"), TRACE);
    assert_eq!(field(&first, "parent_id"), caller);
    assert_eq!(field(&second, "parent_id"), field(&first, "span_id"));
    assert_ne!(field(&second, "span_id"), field(&first, "span_id"));
}

#[test]
fn one_trace_leads_through_the_gateway_another_process_and_a_nested_call() {
    let sandbox = sandbox();
    let mut command = sandbox.command(&["serve", "w.toml", "--http", "127.0.0.1:0"]);
    let mut node = Sandbox::going(command.env("RUST_LOG", "info"));
    let said = node.wait_for(" at http://");
    let address = said.rsplit_once("http://").unwrap().1.trim();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head = format!(
        "POST /workflows/w HTTP/1.1\r\nHost: node\r\nContent-Length: 0\r\nConnection: close\r\n\
         traceparent: 00-{TRACE}-{CALLER}-01\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let own = answer.split_once(&format!("traceparent: 00-{TRACE}-")).unwrap().1;
    let own = own.split('-').next().unwrap();
    assert_ne!(own, CALLER);
    follow(&mut node, own);
}

#[test]
fn programs_go_on_with_the_trace_of_their_environment() {
    let sandbox = sandbox();
    let traced = |args: &[&str]| {
        let mut command = sandbox.command(args);
        command.env("RUST_LOG", "info").env("TRACEPARENT", format!("00-{TRACE}-{CALLER}-01"));
        Sandbox::going(&mut command)
    };
    follow(&mut traced(&["run", "w.toml"]), CALLER);
    let mut command = sandbox.command(&["serve", "w.toml"]);
    let mut node = Sandbox::going(command.env("RUST_LOG", "info"));
    node.wait_for(" serves ");
    let ended = traced(&["invoke", "w"]).end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    follow(&mut node, CALLER);
}

#[test]
fn a_trace_of_the_environment_that_is_none_is_passed_over() {
    let sandbox = sandbox();
    let mut command = sandbox.command(&["run", "w.toml"]);
    command.env("RUST_LOG", "info").env("TRACEPARENT", format!("00-{TRACE}-{CALLER}"));
    let mut program = Sandbox::going(&mut command);
    let said = program.wait_for("second runs");
    assert!(said.contains("function{") && !said.contains("trace_id"), "{said}");
    assert_eq!(program.end().code, Some(0));
}
