//! A client that says what it is told to, right or wrong.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than anything here takes: a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Whether the server will close the connection.
    pub(crate) fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).unwrap())
    }

    /// With so short a receive buffer that what it does not read stays with the server.
    pub(crate) fn of_small_appetite(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(64 << 10).unwrap();
            socket.connect(address).await.unwrap().into_std().unwrap()
        });
        stream.set_nonblocking(false).unwrap();
        Self::on(stream)
    }

    fn on(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// Sends bytes; whether the server took them is seen in its answer.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Says that there is nothing more to come.
    pub(crate) fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// The head of a POST with these further fields.
    pub(crate) fn head(&mut self, path: &str, fields: &str) {
        self.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes());
    }

    pub(crate) fn post(&mut self, path: &str, body: &[u8]) -> Answer {
        self.head(path, &format!("Content-Length: {}\r\n", body.len()));
        let mut stream = self.stream.try_clone().unwrap();
        // In a thread, so that neither side waits for the other with its buffers full.
        std::thread::scope(|scope| {
            scope.spawn(move || stream.write_all(body));
            self.answer()
        })
    }

    /// Reads one response.
    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer().unwrap().expect("a response, not the end of the connection")
    }

    /// Reads one response, or the end of the connection.
    pub(crate) fn try_answer(&mut self) -> io::Result<Option<Answer>> {
        loop {
            let Some(head) = self.until_blank_line()? else { return Ok(None) };
            let status = head[9..12].parse().unwrap();
            // What announces the response is not the response.
            if status == 100 {
                continue;
            }
            let mut answer = Answer { status, head, body: Vec::new() };
            let len = answer.header("content-length").map_or(0, |len| len.parse().unwrap());
            while self.buffer.len() < len {
                if self.read_more()? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            answer.body = self.buffer.drain(..len).collect();
            return Ok(Some(answer));
        }
    }

    fn until_blank_line(&mut self) -> io::Result<Option<String>> {
        loop {
            let end = self.buffer.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = end {
                let head = self.buffer.drain(..end + 4).collect();
                return Ok(Some(String::from_utf8(head).unwrap()));
            }
            if self.read_more()? == 0 {
                return Ok(None);
            }
        }
    }

    fn read_more(&mut self) -> io::Result<usize> {
        let mut chunk = vec![0; 256 << 10];
        let read = self.stream.read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..read]);
        Ok(read)
    }

    /// Whether the server has closed the connection, after whatever it still said.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.try_answer() {
            Ok(None) => true,
            Ok(Some(answer)) => panic!("another response: {answer:?}"),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}
