//! Payloads by way of a Redis server, which is what remote storage between functions is at its fastest: the producer
//! sets a key and tells each consumer, and a consumer gets the key.
//!
//! The protocol (RESP 2) is a few lines: arrays of byte strings there, and one of four kinds of answer back.

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::Instant;

use crate::agent::{self, Measured, Order, nanos};

/// Longest answer that is taken, in bytes: Redis has half of that as its own limit.
const ANSWER_BYTES: usize = 1 << 30;

/// Where the payload is, and where consumers say what they saw.
const PAYLOAD: &[u8] = b"payload";
const SEEN: &[u8] = b"seen";

/// A connection to the server.
struct Redis {
    stream: BufReader<TcpStream>,
}

impl Redis {
    fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a command, and gives its answer's last byte string, or nothing.
    fn command(&mut self, words: &[&[u8]]) -> io::Result<Vec<u8>> {
        let mut head = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            head.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            if word.len() > COPIED {
                // Straight from where it lies.
                self.stream.get_mut().write_all(&head)?;
                self.stream.get_mut().write_all(word)?;
                head.clear();
            } else {
                head.extend_from_slice(word);
            }
            head.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&head)?;
        answer(&mut self.stream)
    }
}

/// Words up to this length are sent with what is around them.
const COPIED: usize = 4096;

fn answer(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = String::new();
    stream.by_ref().take(512).read_line(&mut line)?;
    let line = line.trim_end();
    let (kind, rest) = line.split_at_checked(1).ok_or(io::ErrorKind::UnexpectedEof)?;
    let number = || rest.parse::<usize>().ok().filter(|number| *number <= ANSWER_BYTES);
    let broken = || io::Error::other(format!("Redis answered {line:?}"));
    match kind {
        "+" | ":" => Ok(Vec::new()),
        "$" => {
            let len = number().ok_or_else(broken)?;
            let mut bytes = vec![0; len];
            stream.read_exact(&mut bytes)?;
            stream.read_exact(&mut [0; 2])?;
            Ok(bytes)
        }
        "*" => (0..number().ok_or_else(broken)?).try_fold(Vec::new(), |_, _| answer(stream)),
        _ => Err(broken()),
    }
}

pub(super) fn source(address: &str) -> io::Result<()> {
    let mut redis = Redis::connect(address)?;
    agent::take_orders(|Order { size, consumers }| {
        let payload = agent::text(size)?;
        let start = Instant::now();
        redis.command(&[b"SET", PAYLOAD, payload.as_bytes()])?;
        for consumer in 0..consumers {
            redis.command(&[b"LPUSH", &turn(consumer), PAYLOAD])?;
        }
        let seen = (0..consumers).map(|_| redis.command(&[b"BLPOP", SEEN, b"0"]));
        let seen = seen.collect::<io::Result<Vec<_>>>()?;
        let total_ns = nanos(start.elapsed());
        redis.command(&[b"DEL", PAYLOAD])?;
        for seen in seen {
            let seen = seen.try_into().map(u64::from_le_bytes);
            agent::check(seen.map_err(|_| io::Error::other("an answer of another length"))?, size)?;
        }
        Ok(Measured { total_ns, ..Measured::default() })
    })
}

/// Where a consumer hears that it is its turn.
fn turn(consumer: u32) -> Vec<u8> {
    format!("turn:{consumer}").into_bytes()
}

pub(super) fn sink(address: &str, consumers: u32) -> io::Result<()> {
    for consumer in 0..consumers {
        let redis = Redis::connect(address)?;
        // Ends with the server.
        thread::spawn(move || consume(redis, &turn(consumer)));
    }
    agent::say_ready(address)?;
    agent::wait_for_end()
}

fn consume(mut redis: Redis, turn: &[u8]) -> io::Result<()> {
    loop {
        let key = redis.command(&[b"BLPOP", turn, b"0"])?;
        let payload = redis.command(&[b"GET", &key])?;
        redis.command(&[b"LPUSH", SEEN, &pattern::glance(&payload).to_le_bytes()])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_the_last_string() {
        let read = |mut text: &[u8]| answer(&mut text);
        assert_eq!(read(b"+OK\r\n").unwrap(), b"");
        assert_eq!(read(b":7\r\n").unwrap(), b"");
        assert_eq!(read(b"$3\r\na\nb\r\n").unwrap(), b"a\nb");
        assert_eq!(read(b"*2\r\n$1\r\nk\r\n$2\r\nxy\r\n").unwrap(), b"xy");
        for bad in
            [&b"-ERR no\r\n"[..], b"$-1\r\n", b"$9999999999\r\n", b"$5\r\nab\r\n", b"", b"?\r\n"]
        {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
