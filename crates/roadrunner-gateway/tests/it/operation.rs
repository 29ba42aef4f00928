//! What its operator sees.

use roadrunner_gateway::{Gateway, Limits};

use crate::support::Server;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[test]
fn a_gateway_is_alive_and_ready() {
    let server = Server::start(Limits::default());
    assert_eq!(server.get("/healthz").text(), "alive\n");
    assert_eq!(server.get("/readyz").text(), "ready\n");
}

#[test]
fn a_gateway_that_shuts_down_is_not_ready() {
    let mut server = Server::start(Limits::default());
    // A connection that is in the middle of a request outlives the order.
    let mut client = server.client();
    client.send(b"GET /readyz HTTP/1.1\r\n");
    server.shut_down();
    while std::net::TcpStream::connect(server.address).is_ok() {}
    client.send(b"Host: a\r\n\r\n");
    if let Ok(Some(answer)) = client.try_answer() {
        assert_eq!(answer.status, 503);
    }
    server.await_end();
}

#[test]
fn requests_are_counted_by_names_that_exist() {
    let server = Server::start(Limits::default());
    server.post("/workflows/single", b"x");
    server.post("/functions/single", b"x");
    server.post("/functions/single.single", b"x");
    for name in ["a", "b", "c"] {
        server.post(&format!("/workflows/{name}"), b"x");
    }
    let count = |target, status| {
        let series =
            format!("roadrunner_requests_total{{target=\"{target}\",status=\"{status}\"}}");
        server.metric(&series)
    };
    assert_eq!(count("/workflows/single", 200), 1);
    assert_eq!(count("/functions/single.single", 200), 2);
    assert_eq!(count("other", 404), 3);
    let page = server.get("/metrics");
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let series = "roadrunner_copied_bytes_total{function=\"single\",mode=\"user\"} 3\n";
    assert!(page.text().contains(series), "{}", page.text());
    server.await_metric("roadrunner_requests_in_flight", 0);
    server.await_metric("roadrunner_connections", 1);
}

#[test]
fn a_head_alone_has_no_body() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    client.send(b"HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut client.stream, &mut text).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
    assert_eq!(text.matches("alive\n").count(), 1, "{text}");
}

#[test]
fn a_trace_comes_back_with_a_span_of_its_own() {
    let server = Server::start(Limits::default());
    let ask = |fields: &str| {
        let mut client = server.client();
        client.head("/workflows/single", &format!("Content-Length: 0\r\n{fields}"));
        let answer = client.answer();
        let parent = answer.header("traceparent").unwrap();
        let parts: Vec<_> = parent.split('-').map(str::to_owned).collect();
        assert_eq!((parts.len(), parts[0].as_str(), parts[2].len()), (4, "00", 16), "{parent}");
        (parts[1].clone(), parts[2].clone(), parts[3].clone())
    };
    let (trace, span, flags) = ask(&format!("TraceParent: 00-{TRACE}-00f067aa0ba902b7-01\r\n"));
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"));
    assert_ne!(span, "00f067aa0ba902b7");
    let twice = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n").repeat(2);
    for bad in ["", "traceparent: 00-\r\n", "traceparent: \u{e9}\r\n", &twice] {
        let (trace, _, flags) = ask(bad);
        assert_eq!((trace.len(), flags.as_str()), (32, "00"), "{bad}");
        assert_ne!(trace, TRACE);
    }
}

#[test]
fn an_address_that_is_taken_is_named() {
    let server = Server::start(Limits::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(Gateway::bind(server.address, Limits::default())).unwrap_err();
    let start = format!("can't listen at {}: ", server.address);
    assert!(error.to_string().starts_with(&start), "{error}");
}
