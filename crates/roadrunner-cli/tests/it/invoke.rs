//! `roadrunner invoke`: calls of a node's workflows and functions, and how they can end badly.

use std::fs::File;
use std::process::Stdio;

use serde_json::Value;

use crate::program::{Ended, Going, Sandbox, noise, repository};

/// The name of a node's address, from what it said when it began.
fn address(node: &Going) -> String {
    let (_, address) = node.said.trim_end().rsplit_once(' ').unwrap();
    address.into()
}

/// A call's result and report.
fn call(sandbox: &Sandbox, args: &[&str]) -> (Vec<u8>, Value) {
    let more = ["--input", "input", "--output", "out", "--report", "json"];
    let report = sandbox.run(&[&["invoke"], args, &more].concat()).fine();
    (sandbox.read("out"), serde_json::from_slice(&report).unwrap())
}

/// What of a report does not differ from run to run: from, to, mode, bytes, copied bytes.
fn hops(report: &Value) -> Vec<String> {
    let text = |hop: &Value, field: &str| hop[field].to_string().replace('"', "");
    let line = |hop: &Value| {
        ["from", "to", "mode", "bytes", "copied_bytes"].map(|field| text(hop, field)).join(" ")
    };
    report["hops"].as_array().unwrap().iter().map(line).collect()
}

#[test]
fn payloads_go_to_a_node_and_back_over_its_socket() {
    let sandbox = Sandbox::with_function("");
    let _node = sandbox.serve(&["w.toml"]);
    for len in [0, 5, 3 << 20] {
        let input = noise(len);
        sandbox.write("input", &input);
        // Below the break-even a payload is copied into its function, and into the answer.
        let copied = if len < 100 { len } else { 0 };
        for name in ["f", "w.f"] {
            let (out, report) = call(&sandbox, &[name]);
            assert!(out == input, "{len} bytes by {name}");
            let expected = [format!("client {name} kernel {len} {}", 2 * copied)];
            assert_eq!(hops(&report), expected);
        }
        let (out, report) = call(&sandbox, &["w"]);
        assert!(out == input, "{len} bytes by w");
        let expected =
            [format!("client w kernel {len} {copied}"), format!("input f user {len} {copied}")];
        assert_eq!(hops(&report), expected);
        assert_eq!(report["workflow"], "w");
    }
}

#[test]
fn payloads_go_to_a_node_and_back_over_tcp() {
    let sandbox = Sandbox::with_function("");
    let node = sandbox.serve(&["w.toml", "--node", "127.0.0.1:0"]);
    let address = address(&node);
    assert!(!sandbox.path("roadrunner.sock").exists(), "nobody asked for a socket");
    for len in [0, 5, 3 << 20] {
        let input = noise(len);
        sandbox.write("input", &input);
        let (out, report) = call(&sandbox, &["w", "--node", &address]);
        assert!(out == input, "{len} bytes");
        let copied = if len < 100 { len } else { 0 };
        let expected =
            [format!("client w network {len} 0"), format!("input f user {len} {copied}")];
        assert_eq!(hops(&report), expected);
    }
}

#[test]
fn one_node_listens_at_both() {
    let sandbox = Sandbox::with_echo(b"payload");
    let node = sandbox.serve(&["w.toml", "--node", "127.0.0.1:0", "--socket", "s.sock"]);
    assert!(node.said.contains("serves w at s.sock and 127.0.0.1:"), "{}", node.said);
    let by_tcp = sandbox.run(&["invoke", "w", "-i", "input", "--node", &address(&node)]);
    let by_socket = sandbox.run(&["invoke", "w", "-i", "input", "--socket", "s.sock"]);
    assert_eq!((by_tcp.fine(), by_socket.fine()), (b"payload".to_vec(), b"payload".to_vec()));
}

#[test]
fn a_result_made_in_new_buffers_is_not_copied_either() {
    let sandbox = Sandbox::new();
    let module = repository("guests/dist/decode.wasm");
    let manifest = format!(
        "[workflow]\nname = \"w\"\nentry = \"decode\"\n[functions.decode]\nmodule = {module:?}\n"
    );
    sandbox.write("w.toml", manifest);
    sandbox.write("input", std::fs::read(repository("assets/astronaut.png")).unwrap());
    let _node = sandbox.serve(&["w.toml"]);
    let (out, report) = call(&sandbox, &["w"]);
    assert!(out.len() > 1 << 20, "{}", out.len());
    let bytes = sandbox.read("input").len();
    let expected = [format!("client w kernel {bytes} 0"), format!("input decode user {bytes} 0")];
    assert_eq!(hops(&report), expected);
}

#[test]
fn stdin_and_stdout_are_payloads_too() {
    let sandbox = Sandbox::with_echo(b"piped");
    let _node = sandbox.serve(&["w.toml"]);
    let mut command = sandbox.command(&["invoke", "w", "--report", "json"]);
    command.stdin(File::open(sandbox.path("input")).unwrap());
    let ended = Ended::of(&command.output().unwrap());
    assert_eq!((ended.code, ended.stdout.as_slice()), (Some(0), &b"piped"[..]));
    let report: Value = serde_json::from_str(&ended.stderr).unwrap();
    assert_eq!(report["hops"][0]["to"], "w");
}

#[test]
fn several_calls_at_a_time_get_their_own_results() {
    let sandbox = Sandbox::with_function("");
    let _node = sandbox.serve(&["w.toml"]);
    let calls: Vec<_> = (0..8_u8)
        .map(|nth| {
            let (name, input) = (format!("input-{nth}"), vec![nth; 300_000]);
            sandbox.write(&name, &input);
            let mut command = sandbox.command(&["invoke", "w", "--input", &name]);
            (command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(), input)
        })
        .collect();
    for (child, input) in calls {
        assert!(Ended::of(&child.wait_with_output().unwrap()).fine() == input);
    }
}

#[test]
fn no_node_at_all() {
    let sandbox = Sandbox::with_function("");
    let complaint = sandbox.run(&["invoke", "w", "--socket", "s.sock"]).complaint();
    insta::assert_snapshot!(complaint, @"11: roadrunner: no node takes the call of `w` at s.sock: No such file or directory (os error 2); `roadrunner serve WORKFLOW --socket s.sock` starts one");
    let usual = sandbox.run(&["invoke", "w"]);
    assert_eq!(usual.code, Some(11));
    let expected = format!("at {}: No such file", sandbox.path("roadrunner.sock").display());
    assert!(usual.stderr.contains(&expected), "{}", usual.stderr);
    sandbox.write("file", "");
    insta::assert_snapshot!(sandbox.run(&["invoke", "w", "--socket", "file"]).complaint(), @"11: roadrunner: no node takes the call of `w` at file: Connection refused (os error 111); `roadrunner serve WORKFLOW --socket file` starts one");
    // Nobody has the port of a listener that is gone.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ended = sandbox.run(&["invoke", "w", "--node", &free.to_string()]).complaint();
    insta::assert_snapshot!(ended.replace(&free.to_string(), "ADDRESS"), @"11: roadrunner: no node takes the call of `w` at ADDRESS: Connection refused (os error 111); `roadrunner serve WORKFLOW --node ADDRESS` starts one");
    insta::assert_snapshot!(sandbox.run(&["invoke", "w", "--node", "192.0.2.1:7400"]).complaint(), @"11: roadrunner: no node takes the call of `w` at 192.0.2.1:7400: 192.0.2.1:7400 is not on this host, so it takes --tls DIR with this node's certificate, or --insecure in a network where nobody else is");
}

#[test]
fn names_that_stand_for_nothing() {
    let sandbox = Sandbox::with_function("");
    sandbox.write(
        "v.toml",
        "[workflow]\nname = \"v\"\nentry = \"f\"\n[functions.f]\nmodule = \"f.wat\"\n",
    );
    let _node = sandbox.serve(&["w.toml", "v.toml", "--socket", "s.sock"]);
    let call = |name: &str| sandbox.run(&["invoke", name, "--socket", "s.sock"]);
    insta::assert_snapshot!(call("fly").complaint(), @"2: roadrunner: the node at s.sock serves nothing called `fly`, or several functions are; WORKFLOW.FUNCTION says which");
    insta::assert_snapshot!(call("f").complaint(), @"2: roadrunner: the node at s.sock serves nothing called `f`, or several functions are; WORKFLOW.FUNCTION says which");
    assert_eq!(call("v.f").fine(), b"");
    assert_eq!(call("w.f").fine(), b"");
    for name in ["", &"n".repeat(129)] {
        assert_eq!(call(name).code, Some(2), "{name}");
    }
}

#[test]
fn functions_that_fail() {
    let complaint = |body: &str, name: &str, more: &[&str]| {
        let sandbox = Sandbox::with_function(body);
        let _node = sandbox.serve(&["w.toml"]);
        sandbox.run(&[&["invoke", name, "--output", "out"], more].concat()).complaint()
    };
    for name in ["w", "f", "w.f"] {
        insta::allow_duplicates! {
            insta::assert_snapshot!(complaint("unreachable", name, &[]), @"7: roadrunner: function `f` trapped: wasm trap: wasm `unreachable` instruction executed in func 2");
        }
    }
    insta::assert_snapshot!(complaint("(loop (br 0))", "w", &[]), @"8: roadrunner: function `f` did not finish within 300ms; raise its `timeout` or give it less to do");
    insta::assert_snapshot!(complaint("(local.set 1 (i32.const -1))", "f", &[]), @"7: roadrunner: function `f` broke the guest ABI: its response of 4294967295 bytes is over the limit of 1073741824 bytes");
}

#[test]
fn a_deadline_of_the_caller_ends_the_function() {
    let sandbox = Sandbox::with_function("(loop (br 0))");
    sandbox
        .write("w.toml", String::from_utf8(sandbox.read("w.toml")).unwrap().replace("300ms", "1h"));
    for name in ["w", "f"] {
        let node = sandbox.serve(&["w.toml", "--grace", "1h"]);
        let ended = sandbox.run(&["invoke", name, "--timeout", "400ms"]);
        let expected = format!(
            "8: roadrunner: `{name}` did not finish within 400ms; raise --timeout or give it less to do\n"
        );
        assert_eq!(ended.complaint(), expected);
        // It would wait for the call.
        node.signal("-TERM");
        assert_eq!(node.end().code, Some(0));
    }
}

#[test]
fn input_over_the_limit_is_refused_before_it_is_read() {
    let sandbox = Sandbox::with_function("");
    File::create(sandbox.path("huge")).unwrap().set_len((1 << 30) + 1).unwrap();
    let _node = sandbox.serve(&["w.toml"]);
    let ended = sandbox.run(&["invoke", "w", "--input", "huge"]);
    insta::assert_snapshot!(ended.complaint(), @"6: roadrunner: input huge is over the limit of 1073741824 bytes for a payload");
    let ended = sandbox.run(&["invoke", "w", "--input", "nowhere"]);
    insta::assert_snapshot!(ended.complaint(), @"5: roadrunner: can't read input nowhere: No such file or directory (os error 2)");
}

#[test]
fn a_result_that_can_not_be_written_is_kept() {
    let input = noise(300_000);
    let sandbox = Sandbox::with_echo(&input);
    let _node = sandbox.serve(&["w.toml"]);
    let ended = sandbox.run(&["invoke", "w", "--input", "input", "--output", "/dev/full"]);
    assert_eq!(ended.code, Some(9));
    assert!(ended.stderr.contains("No space left on device"), "{}", ended.stderr);
    assert!(sandbox.kept() == input);
}

#[test]
fn times_and_addresses_that_are_none_are_refused() {
    let sandbox = Sandbox::new();
    for more in [
        ["--timeout", "0s"],
        ["--timeout", "2h"],
        ["--timeout", "soon"],
        ["--node", "here"],
        ["--node", "localhost:http"],
        ["--socket", ""],
    ] {
        assert_eq!(sandbox.run(&[&["invoke", "w"], &more[..]].concat()).code, Some(2), "{more:?}");
    }
    let both = ["invoke", "w", "--socket", "s.sock", "--node", "127.0.0.1:1"];
    assert_eq!(sandbox.run(&both).code, Some(2));
}
