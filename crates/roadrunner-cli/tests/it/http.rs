//! `roadrunner serve --http`: workflows and functions for HTTP clients.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::program::{Going, Sandbox, noise};

/// Where a node that was just started serves HTTP.
fn address(node: &mut Going) -> String {
    let said = node.wait_for(" at http://");
    said.rsplit_once("http://").unwrap().1.trim().to_owned()
}

/// The status and the body of an answer.
fn ask(address: &str, head: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let len = body.len();
    let head = format!(
        "{head} HTTP/1.1\r\nHost: node\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer[end + 4..].to_vec())
}

#[test]
fn workflows_and_functions_answer_http_clients() {
    let sandbox = Sandbox::with_function("");
    let mut node = sandbox.start(&["serve", "w.toml", "--http", "127.0.0.1:0"]);
    let address = address(&mut node);
    let payload = noise(3 << 20);
    for path in ["/workflows/w", "/functions/f", "/functions/w.f"] {
        assert!(
            ask(&address, &format!("POST {path}"), &payload) == (200, payload.clone()),
            "{path}"
        );
    }
    assert_eq!(ask(&address, "POST /workflows/other", b"").0, 404);
    assert_eq!(ask(&address, "GET /workflows/w", b"").0, 405);
    assert_eq!(ask(&address, "GET /healthz", b"").0, 200);
    assert_eq!(ask(&address, "GET /readyz", b"").0, 200);
    let metrics = String::from_utf8(ask(&address, "GET /metrics", b"").1).unwrap();
    assert!(metrics.contains("roadrunner_copied_bytes_total{"), "{metrics}");
    node.signal("-TERM");
    let ended = node.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[test]
fn a_new_version_serves_http_clients_too() {
    let sandbox = Sandbox::with_function("");
    let mut node = sandbox.start(&["serve", "w.toml", "--http", "127.0.0.1:0"]);
    let address = address(&mut node);
    assert_eq!(ask(&address, "POST /workflows/w", b"echo"), (200, b"echo".to_vec()));
    sandbox.write("f.wat", crate::program::ECHO.replace("BODY", "unreachable"));
    node.signal("-HUP");
    node.wait_for("loaded w.toml again");
    let (status, said) = ask(&address, "POST /workflows/w", b"echo");
    assert_eq!(status, 422);
    assert!(String::from_utf8(said).unwrap().contains("trapped"));
}

#[test]
fn an_address_that_is_taken_is_one_clear_error() {
    let sandbox = Sandbox::with_function("");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = sandbox.run(&["serve", "w.toml", "--http", &address]);
    let said = ended.complaint().replace(&address, "ADDRESS");
    insta::assert_snapshot!(said, @"1: roadrunner: can't take calls at http://ADDRESS: Address already in use (os error 98)");
}
