//! Every status, from what causes it.

use roadrunner_gateway::Limits;

use crate::support::{LONGEST, Server};

#[test]
fn workflows_and_functions_answer() {
    let server = Server::start(Limits::default());
    for path in ["/workflows/chain", "/workflows/single", "/functions/single", "/functions/first"] {
        let answer = server.post(path, b"hello");
        assert_eq!((answer.status, answer.text()), (200, "hello"), "{path}");
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert!(!answer.closes());
    }
    let mut client = server.client();
    for _ in 0..3 {
        assert_eq!(client.post("/workflows/noop", b"").status, 200, "on one connection");
    }
}

#[test]
fn unknown_names_are_404_and_ambiguous_ones_say_what_to_ask_for() {
    let server = Server::start(Limits::default());
    for path in [
        "/",
        "/workflows",
        "/workflows/",
        "/workflows/nothing",
        "/workflows/single/",
        "/workflows/single/x",
        "/workflows/sing%6Ce",
        "/functions/chain.nothing",
        "/functions/first.chain",
        "/../healthz",
    ] {
        assert_eq!(server.post(path, b"x").status, 404, "{path}");
    }
    let answer = server.post("/functions/second", b"x");
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("ask for WORKFLOW.FUNCTION"), "{}", answer.text());
    assert_eq!(server.post("/functions/other.second", b"x").text(), "x");
}

#[test]
fn other_methods_are_405_and_say_which_to_use() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    for (method, path, allow) in [
        ("GET", "/workflows/single", "POST"),
        ("PUT", "/functions/single", "POST"),
        ("OPTIONS", "/workflows/nothing", "POST"),
        ("BREW", "/workflows/single", "POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("DELETE", "/metrics", "GET, HEAD"),
    ] {
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {path}");
    }
}

#[test]
fn what_is_not_well_formed_is_400() {
    let server = Server::start(Limits::default());
    let cases: [&[u8]; 7] = [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nbad header: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST /workflows/single?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n",
    ];
    for case in cases {
        let mut client = server.client();
        client.send(case);
        assert_eq!(client.answer().status, 400, "{}", case.escape_ascii());
    }
    let mut client = server.client();
    client.send(b"GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!(client.answer().status, 200, "HTTP/1.0 needs no host");
}

#[test]
fn heads_have_limits() {
    let server = Server::start(Limits { header_bytes: 8 << 10, headers: 20, ..Limits::default() });
    let mut client = server.client();
    client.head("/workflows/single", &format!("X: {}\r\n", "x".repeat(9 << 10)));
    assert_eq!(client.answer().status, 431);
    let mut client = server.client();
    client.head("/workflows/single", &"X: x\r\n".repeat(21));
    assert_eq!(client.answer().status, 431);
}

#[test]
fn payloads_over_the_limit_are_413_before_and_while_they_are_read() {
    let server = Server::start(Limits { payload_bytes: 1000, ..Limits::default() });
    let mut client = server.client();
    client.head("/workflows/single", "Content-Length: 1001\r\nExpect: 100-continue\r\n");
    let answer = client.answer();
    assert_eq!(answer.status, 413);
    assert!(answer.text().contains("1000 bytes") && answer.closes());
    assert!(client.is_closed());

    // A client that goes on sending is listened to for a while, so that it sees the answer.
    let mut client = server.client();
    client.head("/workflows/single", "Content-Length: 600000\r\n");
    assert_eq!(client.answer().status, 413);
    for _ in 0..20 {
        std::io::Write::write_all(&mut client.stream, &[0; 30_000]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
    }

    let mut client = server.client();
    client.head("/workflows/single", "Transfer-Encoding: chunked\r\n");
    client.send(b"3e8\r\n");
    client.send(&[b'x'; 1000]);
    client.send(b"\r\n1\r\nx\r\n");
    assert_eq!(client.answer().status, 413);
    assert_eq!(server.post("/workflows/single", &[7; 1000]).body, [7; 1000]);
    assert_eq!(server.metric("roadrunner_body_copied_bytes_total{direction=\"request\"}"), 1000);
}

#[test]
fn the_runtimes_own_limit_counts_too() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    client.head("/workflows/single", &format!("Content-Length: {}\r\n", LONGEST + 1));
    assert_eq!(client.answer().status, 413);
    // What fits no length at all is the parser's to refuse.
    client = server.client();
    client.head("/workflows/single", &format!("Content-Length: {}\r\n", u64::MAX));
    assert_eq!(client.answer().status, 431);
}

#[test]
fn guests_that_fail_are_422_with_their_words_or_504() {
    let server = Server::start(Limits::default());
    for (name, status, words) in [
        ("fails", 422, "function `fails` failed: no \"such\" picture\n"),
        ("traps", 422, "function `traps` trapped: "),
        ("lies", 422, "function `lies` broke the guest ABI: "),
        ("spins", 504, "function `spins` did not finish within 20ms"),
    ] {
        for path in ["workflows", "functions"] {
            let answer = server.post(&format!("/{path}/{name}"), b"x");
            assert_eq!(answer.status, status, "{}", answer.text());
            assert!(answer.text().starts_with(words), "{}", answer.text());
            assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        }
        let series = format!(
            "roadrunner_requests_total{{target=\"/workflows/{name}\",status=\"{status}\"}}"
        );
        assert_eq!(server.metric(&series), 1);
    }
}

#[test]
fn functions_elsewhere_that_are_gone_are_502_and_hosts_without_room_503() {
    let server = Server::start(Limits::default());
    for (name, status) in [("lost", 502), ("unreachable", 502), ("exhausted", 503), ("panics", 500)]
    {
        let answer = server.post(&format!("/workflows/{name}"), b"x");
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.header("retry-after").is_some(), status == 503);
    }
    assert_eq!(server.post("/workflows/single", b"x").status, 200);
    server.await_metric("roadrunner_requests_running", 0);
}
