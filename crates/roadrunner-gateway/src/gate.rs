//! The bytes of a connection on their way to the HTTP parser, watched for two things that the parser does
//! not tell: that the head of a request has begun, and that a head has lengths that contradict each other.
//!
//! `Content-Length` twice, or beside `Transfer-Encoding`, is how requests are smuggled past a proxy that
//! believes the other one. The parser picks one and drops the rest, so it must be seen before.
//! Nothing else depends on the gate: should it lose its place, the parser's own rules remain.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::link::Link;

/// What an HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes kept of a line: both names are shorter, with twenty digits behind the longer one.
const KEPT: usize = 64;

/// What the next byte belongs to.
#[derive(Debug, PartialEq, Eq)]
enum At {
    /// The preface of HTTP/2, as far as it has come, or the first request of HTTP/1.
    Start(usize),
    /// The head of a request.
    Head,
    /// The body of one, of which so many bytes are left.
    Body(u64),
    /// Something without a length that ends the connection: HTTP/2, or a chunked body, behind which this
    /// gateway serves no request.
    Rest,
}

/// Follows the heads of a connection.
#[derive(Debug)]
pub(crate) struct Heads {
    at: At,
    line: Vec<u8>,
    /// Bytes of the line, kept or not.
    line_len: usize,
    request_line_seen: bool,
    lengths: u32,
    length: u64,
    encodings: u32,
    /// Complete heads.
    count: u64,
}

impl Heads {
    pub(crate) fn new() -> Self {
        Self {
            at: At::Start(0),
            line: Vec::new(),
            line_len: 0,
            request_line_seen: false,
            lengths: 0,
            length: 0,
            encodings: 0,
            count: 0,
        }
    }

    /// Whether part of a head has come.
    fn within(&self) -> bool {
        match self.at {
            At::Start(seen) => seen > 0,
            At::Head => self.request_line_seen || self.line_len > 0,
            At::Body(_) | At::Rest => false,
        }
    }

    /// Takes what has come; the number of the first head, counted from 1, that contradicts itself.
    fn take(&mut self, mut bytes: &[u8]) -> Option<u64> {
        let mut contradiction = None;
        while !bytes.is_empty() {
            match &mut self.at {
                At::Rest => break,
                At::Start(seen) => {
                    let common = PREFACE[*seen..].iter().zip(bytes).take_while(|(a, b)| a == b);
                    let common = common.count();
                    *seen += common;
                    let seen = *seen;
                    bytes = &bytes[common..];
                    if seen == PREFACE.len() {
                        self.at = At::Rest;
                    } else if !bytes.is_empty() {
                        self.at = At::Head;
                        contradiction = contradiction.or(self.head(&mut &PREFACE[..seen]));
                    }
                }
                At::Body(left) => {
                    let skipped = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= skipped as u64;
                    bytes = &bytes[skipped..];
                    if *left == 0 {
                        self.at = At::Head;
                    }
                }
                At::Head => contradiction = contradiction.or(self.head(&mut bytes)),
            }
        }
        contradiction
    }

    /// Takes bytes of a head up to its end.
    fn head(&mut self, bytes: &mut &[u8]) -> Option<u64> {
        while self.at == At::Head && !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            let kept = part.len().min(KEPT.saturating_sub(self.line.len()));
            self.line.extend_from_slice(&part[..kept]);
            self.line_len += part.len();
            *bytes = end.map_or(&[], |end| &bytes[end + 1..]);
            if end.is_some() && self.line_ended() {
                return Some(self.count);
            }
        }
        None
    }

    /// Ends a line of a head; whether it was the last and the head contradicts itself.
    fn line_ended(&mut self) -> bool {
        let line = std::mem::take(&mut self.line);
        let empty = self.line_len == 0 || (self.line_len == 1 && line == b"\r");
        self.line_len = 0;
        if !empty {
            if self.request_line_seen {
                self.field(&line);
            }
            self.request_line_seen = true;
            return false;
        }
        // Empty lines before a request are skipped by the parser too.
        if !self.request_line_seen {
            return false;
        }
        self.count += 1;
        let contradicts = self.lengths > 1 || (self.lengths > 0 && self.encodings > 0);
        self.at = match (self.encodings, self.length) {
            (0, 0) => At::Head,
            (0, length) => At::Body(length),
            _ => At::Rest,
        };
        (self.request_line_seen, self.lengths, self.length, self.encodings) = (false, 0, 0, 0);
        contradicts
    }

    fn field(&mut self, line: &[u8]) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return };
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            self.lengths += 1;
            // Anything that is not a number is refused by the parser.
            self.length = str::from_utf8(value).ok().and_then(|it| it.parse().ok()).unwrap_or(0);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.encodings += 1;
        }
    }
}

/// A connection whose heads are watched. When the server is done with it, its link gets the stream.
#[derive(Debug)]
pub(crate) struct Gate {
    /// There until the gate goes.
    stream: Option<TcpStream>,
    heads: Heads,
    link: Arc<Link>,
}

impl Gate {
    pub(crate) fn new(stream: TcpStream, link: Arc<Link>) -> Self {
        Self { stream: Some(stream), heads: Heads::new(), link }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        Ok(Pin::new(stream))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.link.leave(stream);
        }
    }
}

impl AsyncRead for Gate {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = this.stream()?.poll_read(cx, buf);
        let new = &buf.filled()[before..];
        if !new.is_empty() {
            let was_within = this.heads.within();
            if let Some(number) = this.heads.take(new) {
                let _ = this.link.contradiction.compare_exchange(
                    0,
                    number,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
            }
            if was_within != this.heads.within() {
                this.link.head_begun(!was_within);
            }
        }
        read
    }
}

impl AsyncWrite for Gate {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().stream()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().stream()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found, whatever pieces the bytes come in.
    fn found(bytes: &[u8]) -> (Option<u64>, u64) {
        let mut whole = Heads::new();
        let contradiction = whole.take(bytes);
        for size in [1, 2, 3, 7, 50] {
            let mut pieces = Heads::new();
            let found: Vec<_> = bytes.chunks(size).filter_map(|it| pieces.take(it)).collect();
            assert_eq!(found.first().copied(), contradiction, "in pieces of {size}");
            assert_eq!((pieces.count, pieces.within()), (whole.count, whole.within()));
        }
        (contradiction, whole.count)
    }

    #[test]
    fn contradictions_are_found_with_the_number_of_their_head() {
        let cl = "Content-Length: 3\r\n";
        let te = "transfer-encoding: chunked\r\n";
        let head = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let fine = head(cl) + "abc";
        assert_eq!(found(head("").as_bytes()), (None, 1));
        assert_eq!(found((fine.clone() + &fine).as_bytes()), (None, 2));
        assert_eq!(found(format!("\r\n\n{fine}\r\n{fine}").as_bytes()), (None, 2));
        assert_eq!(found(head(&format!("{cl}{cl}")).as_bytes()), (Some(1), 1));
        assert_eq!(found(head(&format!("{cl}{te}")).as_bytes()), (Some(1), 1));
        assert_eq!(found(head(&format!("{te}{cl}")).as_bytes()), (Some(1), 1));
        let second = fine.clone() + &head(&format!("{te}{cl}"));
        assert_eq!(found(second.as_bytes()), (Some(2), 2));
        // A body is no head, nor is what follows a chunked one.
        let body = format!("{cl}{cl}\r\n\r\n");
        let length = format!("content-length:{}\r\n", body.len());
        assert_eq!(found((head(&length) + &body + &fine).as_bytes()), (None, 2));
        assert_eq!(found((head(te) + &head(&format!("{cl}{te}"))).as_bytes()), (None, 1));
    }

    #[test]
    fn lines_end_as_the_parser_ends_them() {
        assert_eq!(
            found(b"POST / HTTP/1.1\nContent-Length: 1\nCONTENT-LENGTH:\t1\n\n"),
            (Some(1), 1)
        );
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "content-length: 1".repeat(900));
        assert_eq!(found(long.as_bytes()), (None, 1));
        let long_name =
            format!("GET / HTTP/1.1\r\n{}:1\r\nContent-Length: 0\r\n\r\n", "x".repeat(99));
        assert_eq!(found(long_name.as_bytes()), (None, 1));
    }

    #[test]
    fn http2_is_not_looked_into() {
        let mut heads = Heads::new();
        assert_eq!(heads.take(&PREFACE[..5]), None);
        assert!(heads.within());
        assert_eq!(heads.take(&PREFACE[5..]), None);
        assert_eq!(heads.at, At::Rest);
        // What only begins like it is HTTP/1.
        let mut heads = Heads::new();
        heads.take(b"PRI /x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n");
        assert_eq!(heads.take(b"\r\n"), Some(1));
        assert_eq!(found(b"P").0, None);
    }
}
