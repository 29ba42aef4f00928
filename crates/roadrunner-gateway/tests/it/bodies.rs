//! Bodies in and out: every byte, and what it cost.

use std::io::Write as _;

use roadrunner_gateway::Limits;

use crate::support::{MIB, MOVES, Server, pattern};

const COPIED_IN: &str = "roadrunner_body_copied_bytes_total{direction=\"request\"}";
const COPIED_OUT: &str = "roadrunner_body_copied_bytes_total{direction=\"response\"}";

fn traffic(server: &Server, what: &str, function: &str) -> u64 {
    let series = format!("roadrunner_{what}_bytes_total{{function=\"{function}\",mode=\"user\"}}");
    server.metric(&series)
}

#[test]
fn ten_mebibytes_are_copied_once_in_and_never_again() {
    let server = Server::start(Limits::default());
    let sent = pattern(10 * MIB);
    let answer = server.post("/functions/single", &sent);
    assert_eq!((answer.status, answer.body.len()), (200, sent.len()));
    assert!(answer.body == sent, "the echo differs");
    let len = sent.len() as u64;
    assert_eq!(server.metric(COPIED_IN), len);
    assert_eq!(server.metric(COPIED_OUT), 0);
    assert_eq!(traffic(&server, "moved", "single"), len);
    assert_eq!(traffic(&server, "copied", "single"), 0);

    let answer = server.post("/workflows/chain", &sent);
    assert!(answer.body == sent, "the echo of a chain differs");
    assert_eq!((server.metric(COPIED_IN), server.metric(COPIED_OUT)), (2 * len, 0));
    for function in ["first", "second"] {
        assert_eq!(traffic(&server, "moved", function), len);
        assert_eq!(traffic(&server, "copied", function), 0);
    }
    server.await_metric("roadrunner_body_bytes", 0);
}

#[test]
fn bodies_of_every_length_come_back() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    for len in [0, 1, 4096, MOVES - 1, MOVES, MOVES + 1, 65_537, 4 * MIB, 4 * MIB + 1, 9 * MIB + 7]
    {
        let sent = pattern(len);
        let answer = client.post("/workflows/single", &sent);
        assert_eq!(answer.status, 200, "{len}");
        assert!(answer.body == sent, "{len} bytes differ");
    }
}

#[test]
fn chunked_bodies_of_every_length_come_back() {
    let server = Server::start(Limits::default());
    for (len, chunk) in [
        (0, 1),
        (1, 1),
        (1000, 1),
        (MOVES - 1, 1000),
        (MOVES, 1000),
        (MOVES + 1, MOVES + 1),
        (300_000, 7777),
        (9 * MIB + 7, 1_000_003),
    ] {
        let (before, sent) = (server.metric(COPIED_IN), pattern(len));
        let mut client = server.client();
        client.head("/workflows/single", "Transfer-Encoding: Chunked\r\n");
        let mut stream = client.stream.try_clone().unwrap();
        let answer = std::thread::scope(|scope| {
            scope.spawn(|| {
                for chunk in sent.chunks(chunk) {
                    stream.write_all(format!("{:x};x=y\r\n", chunk.len()).as_bytes()).unwrap();
                    stream.write_all(chunk).unwrap();
                    stream.write_all(b"\r\n").unwrap();
                }
                stream.write_all(b"0\r\nTrailer: x\r\n\r\n").unwrap();
            });
            client.answer()
        });
        assert_eq!(answer.status, 200, "{len}");
        assert!(answer.body == sent, "{len} bytes differ");
        // What came before it was known to be long is copied a second time, and no more.
        let copied = server.metric(COPIED_IN) - before;
        assert!(
            (len..=len + len.min(MOVES)).contains(&usize::try_from(copied).unwrap()),
            "{copied}"
        );
    }
}

#[test]
fn a_client_that_waits_for_leave_to_send_gets_it() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    client.head("/workflows/single", "Content-Length: 5\r\nExpect: 100-continue\r\n");
    let mut leave = [0; 25];
    std::io::Read::read_exact(&mut client.stream, &mut leave).unwrap();
    assert_eq!(&leave, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send(b"hello");
    assert_eq!(client.answer().text(), "hello");
}

#[test]
fn bodies_for_functions_in_other_processes_lie_in_memory_that_can_be_shared() {
    let server = Server::start(Limits::default());
    server.peers.release();
    for len in [0, 10, MOVES, 5 * MIB] {
        let sent = pattern(len);
        let answer = server.post("/workflows/waits", &sent);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.body == sent, "{len} bytes differ");
    }
    let shared = server.peers.payloads_with_descriptor();
    assert_eq!(shared, 2, "those that are long enough");
}
