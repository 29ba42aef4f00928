//! What most services do between hosts: each payload is the body of a POST over HTTP/1.1, collected into a
//! `Vec` before anybody looks at it.
//!
//! It is tuned as a careful developer would: one connection that is kept, no waiting for full segments, the
//! server's `Vec` as long as Content-Length says, the client's kept warm, and head and body in one write.

use std::future::poll_fn;
use std::io::{IoSlice, Read, Write};
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use roadrunner_runtime::Config;

use super::copying::Consumer;
use super::{Answer, broken};
use crate::{BenchError, PAYLOAD_BYTES};

/// Longest head of an answer in bytes: hyper's has about a hundred.
const HEAD_BYTES: usize = 4096;

/// Answers requests of one connection until it ends.
///
/// # Errors
/// When the connection breaks or a guest fails.
pub fn http_in(stream: TcpStream, config: &Config) -> Result<(), BenchError> {
    let consumer = Arc::new(Mutex::new(Consumer::new(config)?));
    stream.set_nonblocking(true).map_err(broken)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    runtime.map_err(broken)?.block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream).map_err(broken)?;
        let service = service_fn(|request| answer(request, Arc::clone(&consumer)));
        let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        served.map_err(broken)
    })
}

async fn answer(
    request: Request<Incoming>,
    consumer: Arc<Mutex<Consumer>>,
) -> Result<Response<String>, BenchError> {
    let mut body = request.into_body();
    let len = body.size_hint().exact().filter(|len| *len <= PAYLOAD_BYTES);
    let len = len.ok_or_else(|| broken("no length, or one over the limit"))?;
    let mut payload = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        if let Ok(data) = frame.map_err(broken)?.into_data() {
            payload.extend_from_slice(&data);
        }
    }
    let Answer { busy, sum, copied } = lock(&consumer).take(&payload)?;
    // Runs when the connection has written the answer and waits for the next request.
    tokio::spawn(async move { lock(&consumer).rest() });
    // Into the `Vec`; what the parser does besides is not counted, as little as the sockets' copies.
    let copied = copied + payload.len() as u64;
    Ok(Response::new(format!("{} {sum} {copied}", busy.as_nanos())))
}

fn lock(consumer: &Mutex<Consumer>) -> std::sync::MutexGuard<'_, Consumer> {
    consumer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Posts payloads over a connection to [`http_in`].
pub struct Client {
    stream: TcpStream,
    body: Vec<u8>,
}

impl Client {
    /// Over this connection.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, body: Vec::new() }
    }

    /// Copies a payload into the body of a request and waits for the answer to that.
    pub(super) fn post(&mut self, bytes: &[u8]) -> Result<Answer, BenchError> {
        self.body.clear();
        self.body.extend_from_slice(bytes);
        let len = self.body.len();
        let head = format!("POST / HTTP/1.1\r\nhost: consumer\r\ncontent-length: {len}\r\n\r\n");
        let mut slices = [IoSlice::new(head.as_bytes()), IoSlice::new(&self.body)];
        let mut left = &mut slices[..];
        while !left.is_empty() {
            let sent = self.stream.write_vectored(left).map_err(broken)?;
            IoSlice::advance_slices(&mut left, sent);
        }
        let mut answer = read_answer(&mut self.stream)?;
        answer.copied += bytes.len() as u64;
        Ok(answer)
    }
}

fn read_answer(stream: &mut impl Read) -> Result<Answer, BenchError> {
    let mut text = Vec::new();
    loop {
        let mut some = [0; 512];
        let got = stream.read(&mut some).map_err(broken)?;
        text.extend_from_slice(&some[..got]);
        if let Some(answer) = parse_answer(&text) {
            return answer;
        }
        if got == 0 || text.len() > HEAD_BYTES {
            return Err(broken("it ended, or goes on for too long, in an answer's head"));
        }
    }
}

/// The answer; `None` while some of it is missing.
fn parse_answer(text: &[u8]) -> Option<Result<Answer, BenchError>> {
    let (head, body) = std::str::from_utf8(text).ok()?.split_once("\r\n\r\n")?;
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let mut lens = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    if body.len() < lens.next()?.1.parse().ok()? {
        return None;
    }
    let mut numbers = body.split(' ').map(|number| number.parse().ok());
    let mut next = || numbers.next().flatten();
    let answer = (head.starts_with("HTTP/1.1 200"), next(), next(), next());
    let (true, Some(busy_ns), Some(sum), Some(copied)) = answer else {
        return Some(Err(broken(format!("this is no answer: {head}"))));
    };
    Some(Ok(Answer { busy: Duration::from_nanos(busy_ns), sum, copied }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_when_they_are_whole() {
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\ndate: today\r\n\r\n100 5 678";
        for cut in 0..whole.len() {
            assert!(parse_answer(&whole.as_bytes()[..cut]).is_none(), "{cut}");
        }
        let answer = parse_answer(whole.as_bytes()).unwrap().unwrap();
        assert_eq!((answer.busy.as_nanos(), answer.sum, answer.copied), (100, 5, 678));
        let failed = whole.replace("200 OK", "500 No");
        assert!(parse_answer(failed.as_bytes()).unwrap().is_err());
    }
}
