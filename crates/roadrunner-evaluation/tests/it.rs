//! The native peers as the harness drives them: a sink, a source, orders and answers.
#![allow(clippy::unwrap_used, reason = "a test ends there")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use roadrunner_evaluation::agent::{Measured, Order};

/// A process that ends with this value.
struct Peer(Child);

impl Peer {
    fn start(words: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roadrunner-evaluation"));
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        // A line at a time is asked for before the next one is written.
        BufReader::with_capacity(1, self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn order(&mut self, line: &str) -> Result<Measured, String> {
        writeln!(self.0.stdin.as_mut().unwrap(), "{line}").unwrap();
        serde_json::from_str(&self.line()).unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn hands_over(way: &str, listen: &str) -> Measured {
    let mut sink = Peer::start(&["sink", way, listen, "--consumers", "3"]);
    let ready = sink.line();
    let address = ready.strip_prefix("ready ").unwrap();
    let mut source = Peer::start(&["source", way, address, "--consumers", "3"]);
    assert_eq!(source.line(), "ready");
    let refused = source.order("what?").unwrap_err();
    assert!(refused.contains("this is no order"), "{refused}");
    let mut last = Measured::default();
    // The same connections serve all of them.
    for (size, consumers) in [(1, 1), (100_000, 3), (1_000_000, 1)] {
        let order = serde_json::to_string(&Order { size, consumers }).unwrap();
        last = source.order(&order).unwrap();
        assert!(last.total_ns > 0, "{way}: {last:?}");
    }
    // What the sink says would be another's then.
    drop(sink);
    let order = serde_json::to_string(&Order { size: 1, consumers: 1 }).unwrap();
    assert!(source.order(&order).is_err(), "{way}: nobody listens");
    last
}

#[test]
fn payloads_travel_by_http() {
    let json = hands_over("http-json", "127.0.0.1:0");
    assert!(json.serialization_ns > 0 && json.serialization_ns < json.total_ns, "{json:?}");
    assert_eq!(hands_over("http-raw", "127.0.0.1:0").wasm_io_ns, 0);
}

#[test]
fn payloads_travel_over_bare_sockets() {
    assert_eq!(hands_over("tcp", "127.0.0.1:0").serialization_ns, 0);
    let name = format!("roadrunner-evaluation-test-{}", std::process::id());
    assert_eq!(hands_over("unix-socket", &name).serialization_ns, 0);
}

#[test]
fn a_process_ends_with_its_stdin() {
    let mut sink = Peer::start(&["sink", "tcp", "127.0.0.1:0"]);
    sink.line();
    drop(sink.0.stdin.take());
    assert!(sink.0.wait().unwrap().success());
}
