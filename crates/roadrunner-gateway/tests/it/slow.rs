//! Clients that take their time.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use roadrunner_gateway::{Limits, Pace};

use crate::client::Client;
use crate::support::{MIB, Server, pattern};

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(100);

fn cut(server: &Server, cause: &str) -> u64 {
    server.metric(&format!("roadrunner_connections_cut_total{{cause=\"{cause}\"}}"))
}

/// Nothing in it ends by itself.
fn patient() -> Limits {
    let pace = Pace { pause: HOUR, start: HOUR, bytes_per_second: 1 };
    Limits {
        header_time: HOUR,
        keep_alive: HOUR,
        request_pace: pace,
        response_pace: pace,
        ..Limits::default()
    }
}

#[test]
fn a_head_that_does_not_end_ends_the_connection() {
    let server = Server::start(Limits { header_time: SHORT, ..patient() });
    for begun in ["P", "POST /workflows/single HTTP/1.1\r\nHost: a\r\n", "PRI * HTTP/2.0\r\n"] {
        let mut client = server.client();
        client.send(begun.as_bytes());
        assert!(client.is_closed(), "{begun:?}");
    }
    // The second head of a connection, too; and a byte now and then makes no difference.
    let mut client = server.client();
    assert_eq!(client.post("/workflows/single", b"x").status, 200);
    client.head("/workflows/single", "Content-Length: 1\r\n");
    client.send(b"y");
    assert_eq!(client.answer().text(), "y");
    let mut dripping = client.stream.try_clone().unwrap();
    let drip = std::thread::spawn(move || {
        while dripping.write_all(b"x").is_ok() {
            std::thread::sleep(SHORT / 10);
        }
    });
    assert!(client.is_closed());
    drip.join().unwrap();
    assert_eq!(cut(&server, "slow_head"), 4);
}

#[test]
fn a_connection_without_a_request_is_closed() {
    let server = Server::start(Limits { keep_alive: SHORT, ..patient() });
    let mut silent = server.client();
    let mut used = server.client();
    assert_eq!(used.post("/workflows/single", b"x").status, 200);
    assert!(silent.is_closed() && used.is_closed());
    // One with a request is not.
    let mut busy = server.client();
    busy.head("/workflows/waits", "Content-Length: 2\r\n");
    busy.send(b"ok");
    server.peers.await_waiting(1);
    std::thread::sleep(SHORT * 3);
    server.peers.release();
    assert_eq!(busy.answer().text(), "ok");
}

#[test]
fn a_body_that_pauses_is_408() {
    let request_pace = Pace { pause: SHORT, ..patient().request_pace };
    let server = Server::start(Limits { request_pace, ..patient() });
    for fields in ["Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut client = server.client();
        client.head("/workflows/single", fields);
        client.send(b"5\r\nhello");
        let answer = client.answer();
        assert_eq!(answer.status, 408);
        assert!(answer.closes() && client.is_closed());
    }
    let series = "roadrunner_requests_total{target=\"/workflows/single\",status=\"408\"}";
    assert_eq!(server.metric(series), 2);
    assert_eq!(server.metric("roadrunner_body_bytes"), 0);
}

#[test]
fn a_body_that_drips_is_408() {
    let request_pace = Pace { pause: HOUR, start: SHORT, bytes_per_second: 1 << 20 };
    let server = Server::start(Limits { request_pace, ..patient() });
    let mut client = server.client();
    client.head("/workflows/single", "Content-Length: 1000000\r\n");
    let mut dripping = client.stream.try_clone().unwrap();
    let drip = std::thread::spawn(move || {
        while dripping.write_all(b"x").is_ok() {
            std::thread::sleep(SHORT / 10);
        }
    });
    assert_eq!(client.answer().status, 408);
    drop(client);
    drip.join().unwrap();
}

#[test]
fn a_response_that_nobody_reads_is_cut_off() {
    let response_pace = Pace { pause: SHORT * 5, ..patient().response_pace };
    let server = Server::start(Limits { response_pace, ..patient() });
    let mut client = Client::of_small_appetite(server.address);
    client.head("/workflows/single", &format!("Content-Length: {}\r\n", 20 * MIB));
    client.send(&pattern(20 * MIB));
    let series = "roadrunner_connections_cut_total{cause=\"slow_reader\"}";
    server.await_metric(series, 1);
    server.await_metric("roadrunner_requests_in_flight", 0);
    server.await_metric("roadrunner_body_bytes", 0);
    assert!(client.try_answer().is_err(), "half a response");
}

#[test]
fn a_response_that_is_read_too_slowly_is_cut_off() {
    let response_pace = Pace { pause: HOUR, start: SHORT * 5, bytes_per_second: u64::MAX };
    let server = Server::start(Limits { response_pace, ..patient() });
    let mut client = Client::of_small_appetite(server.address);
    client.head("/workflows/single", &format!("Content-Length: {}\r\n", 20 * MIB));
    client.send(&pattern(20 * MIB));
    let series = "roadrunner_connections_cut_total{cause=\"slow_reader\"}";
    server.await_metric(series, 1);
    server.await_metric("roadrunner_body_bytes", 0);
}

#[test]
fn a_response_that_is_read_steadily_is_not_cut_off() {
    let response_pace = Pace { pause: SHORT * 10, ..patient().response_pace };
    let server = Server::start(Limits { response_pace, ..patient() });
    let mut client = Client::of_small_appetite(server.address);
    let len = 20 * MIB;
    client.head("/workflows/single", &format!("Content-Length: {len}\r\n"));
    client.send(&pattern(len));
    // Twice as long as the pause, and longer than the socket's buffers last.
    let mut piece = vec![0; 2 * MIB];
    for _ in 0..9 {
        client.stream.read_exact(&mut piece).unwrap();
        std::thread::sleep(SHORT * 3);
    }
    client.stream.read_exact(&mut piece).unwrap();
    assert_eq!(cut(&server, "slow_reader"), 0);
}
