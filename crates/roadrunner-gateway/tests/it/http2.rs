//! HTTP/2 without TLS, by a client that begins with it.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use roadrunner_gateway::{Limits, Pace};
use tokio::net::TcpStream;

use crate::support::{MIB, Server, pattern};

type Sender = SendRequest<Full<Bytes>>;

async fn connect(server: &Server) -> Sender {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let handshake = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(64 << 10)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    drop(tokio::spawn(connection));
    sender
}

async fn post(sender: &mut Sender, path: &str, body: Vec<u8>) -> hyper::Result<Response<Incoming>> {
    let request = Request::post(format!("http://a{path}"))
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    sender.ready().await?;
    sender.send_request(request.body(Full::new(body.into())).unwrap()).await
}

async fn body(response: Response<Incoming>) -> Vec<u8> {
    response.into_body().collect().await.unwrap().to_bytes().to_vec()
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test);
}

#[test]
fn bodies_come_back_over_http2() {
    let server = Server::start(Limits::default());
    run(async {
        let mut sender = connect(&server).await;
        for len in [0, 1, 100_000, 10 * MIB] {
            let sent = pattern(len);
            let response = post(&mut sender, "/workflows/single", sent.clone()).await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["content-type"], "application/octet-stream");
            let parent = response.headers()["traceparent"].to_str().unwrap();
            assert!(parent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{parent}");
            assert!(body(response).await == sent, "{len} bytes differ");
        }
        let response = post(&mut sender, "/workflows/fails", vec![1]).await.unwrap();
        assert_eq!(response.status(), 422);
        assert!(!response.headers().contains_key("connection"));
    });
    server.await_metric("roadrunner_body_bytes", 0);
}

#[test]
fn requests_of_one_connection_run_side_by_side() {
    let server = Server::start(Limits::default());
    run(async {
        let mut sender = connect(&server).await;
        let waiting: Vec<_> = (0..5)
            .map(|_| {
                let mut sender = sender.clone();
                tokio::spawn(async move {
                    post(&mut sender, "/workflows/waits", pattern(100_000)).await.unwrap()
                })
            })
            .collect();
        // The connection is driven by this thread.
        while server.peers.waiting() < 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(post(&mut sender, "/workflows/single", vec![1]).await.unwrap().status(), 200);
        server.peers.release();
        for response in waiting {
            assert!(body(response.await.unwrap()).await == pattern(100_000));
        }
    });
}

#[test]
fn refusals_leave_the_connection_as_it_is() {
    let server = Server::start(Limits { payload_bytes: 1000, ..Limits::default() });
    run(async {
        let mut sender = connect(&server).await;
        for (path, len, status) in [
            ("/workflows/single", 1001, 413),
            ("/workflows/single", 10 * MIB, 413),
            ("/workflows/nothing", 10, 404),
            ("/workflows/single?x", 10, 400),
            ("/workflows/single", 10, 200),
        ] {
            let response = post(&mut sender, path, pattern(len)).await.unwrap();
            assert_eq!(response.status(), status, "{path} {len}");
        }
    });
    server.await_metric("roadrunner_requests_in_flight", 0);
}

#[test]
fn a_stream_that_nobody_reads_ends_its_connection() {
    let pace = Pace {
        pause: Duration::from_millis(300),
        start: Duration::from_secs(3600),
        bytes_per_second: 1,
    };
    let server = Server::start(Limits { response_pace: pace, ..Limits::default() });
    run(async {
        let mut sender = connect(&server).await;
        let unread = post(&mut sender, "/workflows/single", pattern(MIB)).await.unwrap();
        assert_eq!(unread.status(), 200);
        while !sender.is_closed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(unread.into_body().collect().await.is_err(), "half a response");
    });
    assert_eq!(server.metric("roadrunner_connections_cut_total{cause=\"slow_reader\"}"), 1);
    server.await_metric("roadrunner_requests_in_flight", 0);
    server.await_metric("roadrunner_body_bytes", 0);
}

#[test]
fn a_connection_without_streams_is_closed() {
    let keep_alive = Duration::from_millis(100);
    let server = Server::start(Limits { keep_alive, ..Limits::default() });
    run(async {
        let mut sender = connect(&server).await;
        assert_eq!(post(&mut sender, "/workflows/single", vec![1]).await.unwrap().status(), 200);
        while !sender.is_closed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}
