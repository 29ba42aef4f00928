//! More than there is room for, and the end.

use std::net::TcpStream;
use std::time::Duration;

use roadrunner_gateway::Limits;

use crate::client::Client;
use crate::support::{MIB, Server, pattern};

const HOUR: Duration = Duration::from_secs(3600);

/// Clients with a request each that waits in its function.
fn waiting(server: &Server, count: usize) -> Vec<Client> {
    let clients = (0..count).map(|_| {
        let mut client = server.client();
        client.head("/workflows/waits", "Content-Length: 2\r\n");
        client.send(b"ok");
        client
    });
    let clients = clients.collect();
    server.peers.await_waiting(count);
    clients
}

fn all_answered(clients: Vec<Client>) {
    for mut client in clients {
        assert_eq!(client.answer().text(), "ok");
    }
}

#[test]
fn a_client_with_too_many_requests_is_429() {
    let server = Server::start(Limits { requests_per_client: 2, ..Limits::default() });
    let clients = waiting(&server, 2);
    let answer = server.post("/workflows/single", b"x");
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")));
    assert_eq!(server.get("/healthz").status, 200, "is never refused");
    server.peers.release();
    all_answered(clients);
    server.await_metric("roadrunner_requests_in_flight", 0);
    assert_eq!(server.post("/workflows/single", b"x").status, 200);
}

#[test]
fn a_full_gateway_is_503() {
    let server = Server::start(Limits { requests: 2, ..Limits::default() });
    let clients = waiting(&server, 2);
    let answer = server.post("/workflows/single", b"x");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    server.peers.release();
    all_answered(clients);
}

#[test]
fn a_full_queue_is_503_before_the_body_is_read() {
    let limits = Limits { running: 1, queued: 1, queue_wait: HOUR, ..Limits::default() };
    let server = Server::start(limits);
    let first = waiting(&server, 1);
    let mut second = server.client();
    second.head("/workflows/waits", "Content-Length: 2\r\n");
    second.send(b"ok");
    server.await_metric("roadrunner_requests_queued", 1);
    assert_eq!(server.metric("roadrunner_requests_running"), 1);
    let mut third = server.client();
    third.head("/workflows/single", "Content-Length: 1000000\r\n");
    let answer = third.answer();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(answer.closes());
    server.peers.release();
    all_answered(first);
    all_answered(vec![second]);
}

#[test]
fn a_queue_that_fills_while_the_body_comes_is_503() {
    let limits = Limits { running: 1, queued: 1, queue_wait: HOUR, ..Limits::default() };
    let server = Server::start(limits);
    let first = waiting(&server, 1);
    let mut others = [server.client(), server.client()];
    for client in &mut others {
        client.head("/workflows/waits", "Content-Length: 2\r\n");
        client.send(b"o");
    }
    server.await_metric("roadrunner_requests_in_flight", 3);
    let [mut second, mut third] = others;
    second.send(b"k");
    server.await_metric("roadrunner_requests_queued", 1);
    third.send(b"k");
    assert_eq!(third.answer().status, 503);
    server.peers.release();
    all_answered(first);
    all_answered(vec![second]);
}

#[test]
fn a_long_wait_in_the_queue_is_503() {
    let queue_wait = Duration::from_millis(20);
    let server = Server::start(Limits { running: 1, queue_wait, ..Limits::default() });
    let first = waiting(&server, 1);
    assert_eq!(server.post("/workflows/single", b"x").status, 503);
    assert_eq!(server.metric("roadrunner_requests_queued"), 0);
    server.peers.release();
    all_answered(first);
}

#[test]
fn bodies_beyond_the_memory_for_them_are_503() {
    let server = Server::start(Limits { body_bytes: 3 << 20, ..Limits::default() });
    // Half a body occupies what has come of it.
    let mut half = server.client();
    half.head("/workflows/single", &format!("Content-Length: {}\r\n", 20 * MIB));
    half.send(&pattern(MIB));
    server.await_metric("roadrunner_body_bytes", 2 << 20);
    assert_eq!(server.post("/workflows/single", &pattern(2 * MIB)).status, 503);
    assert_eq!(server.post("/workflows/single", &pattern(MIB / 2)).status, 200);
    half.send(&pattern(2 * MIB));
    assert_eq!(half.answer().status, 503);
    server.await_metric("roadrunner_body_bytes", 0);
    assert_eq!(server.post("/workflows/single", &pattern(2 * MIB)).status, 200);
}

#[test]
fn connections_beyond_the_limit_hear_503() {
    let server = Server::start(Limits { connections: 3, ..Limits::default() });
    let mut clients: Vec<_> = (0..3).map(|_| server.client()).collect();
    for client in &mut clients {
        assert_eq!(client.post("/workflows/single", b"x").status, 200);
    }
    let mut fourth = server.client();
    let answer = fourth.answer();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(fourth.is_closed());
    drop(clients.pop());
    while server.client().post("/workflows/single", b"x").status != 200 {}
}

#[test]
fn one_client_can_not_take_all_connections() {
    let server = Server::start(Limits { connections_per_client: 2, ..Limits::default() });
    let clients = [server.client(), server.client()];
    assert_eq!(server.client().answer().status, 503);
    drop(clients);
}

#[test]
fn a_thousand_idle_connections_keep_nobody_waiting() {
    let server = Server::start(Limits::default());
    let idle: Vec<_> = (0..1000).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    let mut client = server.client();
    for _ in 0..10 {
        assert_eq!(client.post("/workflows/single", b"x").text(), "x");
    }
    // This client, and the one that asks.
    server.await_metric("roadrunner_connections", 1002);
    drop(idle);
    server.await_metric("roadrunner_connections", 2);
}

#[test]
fn the_function_of_a_client_that_left_runs_on_and_counts() {
    let server = Server::start(Limits { requests_per_client: 1, ..Limits::default() });
    drop(waiting(&server, 1));
    let gone = "roadrunner_requests_total{target=\"/workflows/waits\",status=\"gone\"}";
    server.await_metric(gone, 1);
    assert_eq!(server.metric("roadrunner_requests_running"), 1);
    assert_eq!(server.metric("roadrunner_requests_in_flight"), 1);
    assert_eq!(server.post("/workflows/single", b"x").status, 429);
    server.peers.release();
    server.peers.await_ended(1);
    server.await_metric("roadrunner_requests_in_flight", 0);
    server.await_metric("roadrunner_body_bytes", 0);
    assert_eq!(server.post("/workflows/single", b"x").status, 200);
}

#[test]
fn requests_in_flight_end_before_a_shutdown_does() {
    let mut server = Server::start(Limits { grace: HOUR, ..Limits::default() });
    let mut idle = server.client();
    assert_eq!(idle.post("/workflows/single", b"x").status, 200);
    let mut clients = waiting(&server, 3);
    let mut uploading = server.client();
    uploading.head("/workflows/single", "Content-Length: 2\r\n");
    uploading.send(b"o");
    server.await_metric("roadrunner_requests_in_flight", 4);
    server.shut_down();
    assert!(idle.is_closed());
    while TcpStream::connect(server.address).is_ok() {}
    server.peers.release();
    uploading.send(b"k");
    clients.push(uploading);
    for mut client in clients {
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), (200, "ok"));
        assert!(client.is_closed());
    }
    server.await_end();
}

#[test]
fn a_shutdown_does_not_wait_for_ever() {
    let grace = Duration::from_millis(50);
    let mut server = Server::start(Limits { grace, ..Limits::default() });
    let clients = waiting(&server, 2);
    server.shut_down();
    server.await_end();
    for mut client in clients {
        assert!(client.is_closed());
    }
}

#[test]
fn workflows_are_exchanged_under_requests_in_flight() {
    let server = Server::start(Limits::default());
    let clients = waiting(&server, 1);
    server.replace("waits", "instead");
    assert_eq!(server.post("/workflows/waits", b"x").status, 404);
    assert_eq!(server.post("/workflows/instead", b"x").status, 422);
    server.peers.release();
    all_answered(clients);
}
