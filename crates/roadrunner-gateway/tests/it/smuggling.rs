//! Lengths that lie, are wrong, or contradict each other.

use roadrunner_gateway::Limits;

use crate::support::Server;

/// A request that somebody tries to hide in the body of another.
const HIDDEN: &[u8] = b"POST /workflows/noop HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";

fn refused(server: &Server, fields: &str, body: &[u8]) {
    let mut client = server.client();
    client.head("/workflows/single", fields);
    client.send(body);
    client.send(HIDDEN);
    let answer = client.answer();
    assert_eq!(answer.status, 400, "{fields:?} {}", answer.text());
    assert!(client.is_closed(), "{fields:?}");
}

#[test]
fn a_length_that_is_said_twice_ends_the_connection() {
    let server = Server::start(Limits::default());
    refused(&server, "Content-Length: 1\r\nContent-Length: 2\r\n", b"x");
    refused(&server, "Content-Length: 1\r\nContent-Length: 1\r\n", b"x");
    refused(&server, "Content-Length: 1, 1\r\n", b"x");
    for body in [&b"0\r\n\r\n"[..], b"1\r\nx\r\n0\r\n\r\n"] {
        refused(&server, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", body);
        refused(&server, "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", body);
        refused(&server, "transfer-encoding:chunked\r\nX: y\r\ncontent-length:0\r\n", body);
    }
    assert_eq!(
        server.metric("roadrunner_requests_total{target=\"/workflows/noop\",status=\"200\"}"),
        0
    );
    assert_eq!(
        server.metric("roadrunner_requests_total{target=\"/workflows/single\",status=\"200\"}"),
        0
    );
}

#[test]
fn a_length_that_is_no_number_ends_the_connection() {
    let server = Server::start(Limits::default());
    for length in ["-1", "+1", "1x", "0x1", "", "1 1", "99999999999999999999"] {
        refused(&server, &format!("Content-Length: {length}\r\n"), b"x");
    }
}

#[test]
fn a_coding_that_is_not_chunked_alone_ends_the_connection() {
    let server = Server::start(Limits::default());
    for coding in
        ["gzip", "identity", "chunked, gzip", "xchunked", "chunked\r\nTransfer-Encoding: x"]
    {
        refused(&server, &format!("Transfer-Encoding: {coding}\r\n"), b"0\r\n\r\n");
    }
    let mut client = server.client();
    client.send(b"POST /workflows/single HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(client.answer().status, 400);
    for chunk in ["x\r\n", "-1\r\nx\r\n", "ffffffffffffffffff\r\nx", "1\r\nxy\r\n0\r\n\r\n"] {
        let mut client = server.client();
        client.head("/workflows/single", "Transfer-Encoding: chunked\r\n");
        client.send(chunk.as_bytes());
        assert_eq!(client.answer().status, 400, "{chunk:?}");
        assert!(client.is_closed());
    }
}

#[test]
fn behind_a_chunked_body_no_request_is_served() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    client.head("/workflows/single", "Transfer-Encoding: chunked\r\n");
    client.send(b"1\r\nx\r\n0\r\n\r\n");
    client.send(HIDDEN);
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (200, "x"));
    assert!(answer.closes() && client.is_closed());
}

#[test]
fn a_body_longer_than_it_says_is_the_next_request() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    client.head("/workflows/single", "Content-Length: 3\r\n");
    client.send(b"abcdefg\r\n\r\n");
    assert_eq!(client.answer().text(), "abc");
    assert_eq!(client.answer().status, 400);
    assert!(client.is_closed());
}

#[test]
fn a_body_shorter_than_it_says_reaches_no_function() {
    let server = Server::start(Limits::default());
    for fields in ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut client = server.client();
        client.head("/workflows/single", fields);
        client.send(b"5\r\nabcde\r\n");
        client.finish();
        // A client that is half gone may get an answer or the end.
        if let Ok(Some(answer)) = client.try_answer() {
            assert_eq!(answer.status, 400, "{}", answer.text());
        }
    }
    server.await_metric("roadrunner_requests_in_flight", 0);
    assert_eq!(server.metric("roadrunner_body_copied_bytes_total{direction=\"request\"}"), 0);
    assert_eq!(server.metric("roadrunner_body_bytes"), 0);
}

#[test]
fn pipelined_requests_are_served_in_order_up_to_the_wrong_one() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    let fine = "POST /workflows/single HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok";
    let wrong = "POST /workflows/single HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n";
    client.send(format!("{fine}{fine}{wrong}{fine}").as_bytes());
    assert_eq!(client.answer().text(), "ok");
    assert_eq!(client.answer().text(), "ok");
    assert_eq!(client.answer().status, 400);
    assert!(client.is_closed());
}
