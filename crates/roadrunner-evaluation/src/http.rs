//! HTTP between functions, as a careful developer sets it up: connections that are kept, no waiting for full segments,
//! bodies that are not copied on their way out, and a buffer of the announced length on their way in. The server is
//! hyper; the client needs no more than one vectored write.

use std::convert::Infallible;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

/// Largest body that a server takes, in bytes: a payload of 1 GiB, which is the product's limit too, and some words.
const BODY_BYTES: u64 = (1 << 30) + (1 << 20);

/// Longest answer in bytes: hyper's head has about a hundred, and the rest is a few numbers or a sentence.
const ANSWER_BYTES: usize = 4096;

/// What a function does with the body of a request: its answer's body.
pub type Handler = dyn Fn(Vec<u8>) -> io::Result<String> + Send + Sync;

/// Posts bodies over connections that it keeps.
pub struct Client {
    address: SocketAddr,
    connections: Vec<TcpStream>,
}

impl Client {
    /// To this address.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, connections: Vec::new() }
    }

    /// Posts the same body so many times at once, over a connection each, and gives the answers.
    ///
    /// # Errors
    /// When one of them is none.
    pub fn post(&mut self, body: &[u8], copies: u32) -> io::Result<Vec<String>> {
        while self.connections.len() < copies as usize {
            let connection = TcpStream::connect(self.address)?;
            connection.set_nodelay(true)?;
            self.connections.push(connection);
        }
        if let [connection] = &mut self.connections[..] {
            return Ok(vec![exchange(connection, body)?]);
        }
        thread::scope(|scope| {
            let posts = self.connections.iter_mut().map(|it| scope.spawn(|| exchange(it, body)));
            let posts: Vec<_> = posts.collect();
            let join = |post: thread::ScopedJoinHandle<'_, io::Result<String>>| {
                post.join().map_err(|_| io::Error::other("a thread panicked"))?
            };
            posts.into_iter().map(join).collect()
        })
    }
}

/// Head and body in one write, from where they lie.
fn exchange(connection: &mut TcpStream, body: &[u8]) -> io::Result<String> {
    let len = body.len();
    let head = format!("POST / HTTP/1.1\r\nhost: function\r\ncontent-length: {len}\r\n\r\n");
    let mut slices = [IoSlice::new(head.as_bytes()), IoSlice::new(body)];
    let mut left = &mut slices[..];
    while !left.is_empty() {
        let sent = connection.write_vectored(left)?;
        IoSlice::advance_slices(&mut left, sent);
    }
    let mut text = Vec::new();
    loop {
        let mut some = [0; 512];
        let got = connection.read(&mut some)?;
        text.extend_from_slice(&some[..got]);
        if let Some(answer) = parse_answer(&text) {
            return answer;
        }
        if got == 0 || text.len() > ANSWER_BYTES {
            return Err(io::Error::other("an answer ended too soon, or goes on for too long"));
        }
    }
}

/// The body of an answer; `None` while some of it is missing.
fn parse_answer(text: &[u8]) -> Option<io::Result<String>> {
    let (head, body) = str::from_utf8(text).ok()?.split_once("\r\n\r\n")?;
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let len = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    if body.len() < len.1.parse().ok()? {
        return None;
    }
    let ok = head.starts_with("HTTP/1.1 200 ");
    Some(if ok { Ok(body.to_owned()) } else { Err(io::Error::other(body.to_owned())) })
}

/// Answers requests until the process ends.
///
/// # Errors
/// When the kernel refuses threads, or the socket is none that listens.
pub fn serve(listener: TcpListener, handler: Arc<Handler>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_io().build()?;
    listener.set_nonblocking(true)?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let handler = Arc::clone(&handler);
            tokio::spawn(async move {
                let service = service_fn(|request| answer(request, Arc::clone(&handler)));
                // A client that goes away is no matter here.
                let _ =
                    server::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

async fn answer(
    request: Request<Incoming>,
    handler: Arc<Handler>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let answer = match receive(request.into_body()).await {
        // The function takes its time; connections of others must not wait for it.
        Ok(body) => tokio::task::block_in_place(|| handler(body)),
        Err(error) => Err(error),
    };
    Ok(match answer {
        Ok(text) => Response::new(Full::new(text.into())),
        Err(error) => {
            let mut response = Response::new(Full::new(error.to_string().into()));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    })
}

async fn receive(mut body: Incoming) -> io::Result<Vec<u8>> {
    let len = body.size_hint().exact().filter(|len| *len <= BODY_BYTES);
    let len = len.ok_or_else(|| io::Error::other("no length, or one over the limit"))?;
    let mut payload = Vec::with_capacity(usize::try_from(len).map_err(io::Error::other)?);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
            payload.extend_from_slice(&data);
        }
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_go_there_and_answers_come_back() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = Client::new(listener.local_addr().unwrap());
        let handler = |body: Vec<u8>| match body.len() {
            0 => Err(io::Error::other("nothing came")),
            len => Ok(format!("{len} bytes")),
        };
        thread::spawn(move || serve(listener, Arc::new(handler)));
        assert_eq!(client.post(&[1; 100_000], 1).unwrap(), ["100000 bytes"]);
        assert_eq!(client.post(&[1; 7], 3).unwrap(), ["7 bytes"; 3]);
        assert_eq!(client.post(&[], 3).unwrap_err().to_string(), "nothing came");
    }

    #[test]
    fn answers_are_read_when_they_are_whole() {
        let whole = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n1 2";
        for cut in 0..whole.len() {
            assert!(parse_answer(&whole.as_bytes()[..cut]).is_none(), "{cut}");
        }
        assert_eq!(parse_answer(whole.as_bytes()).unwrap().unwrap(), "1 2");
    }
}
