//! Payloads as bodies of POST requests, as JSON with serde or as they are.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::agent::{self, Measured, Order, nanos};
use crate::http::{Client, serve};

/// Sends payloads as JSON.
pub(super) fn json_source(address: &str) -> io::Result<()> {
    source(address, |payload| message::encode(&payload).map_err(io::Error::other))
}

/// Sends payloads as they are.
pub(super) fn raw_source(address: &str) -> io::Result<()> {
    source(address, |payload| Ok(payload.into_bytes()))
}

fn source(address: &str, encode: fn(String) -> io::Result<Vec<u8>>) -> io::Result<()> {
    let mut client = Client::new(address.parse().map_err(io::Error::other)?);
    agent::take_orders(|Order { size, consumers }| {
        let payload = agent::text(size)?;
        let start = Instant::now();
        let body = encode(payload)?;
        let mut serialization = start.elapsed();
        let answers = client.post(&body, consumers)?;
        let total = start.elapsed();
        for answer in answers {
            let (seen, decoding) = parse(&answer)?;
            agent::check(seen, size)?;
            serialization += decoding;
        }
        Ok(Measured {
            total_ns: nanos(total),
            serialization_ns: nanos(serialization),
            ..Measured::default()
        })
    })
}

/// What a consumer saw, and how long it decoded.
fn parse(answer: &str) -> io::Result<(u64, Duration)> {
    let numbers = answer.split_once(' ').map(|(seen, ns)| (seen.parse(), ns.parse()));
    match numbers {
        Some((Ok(seen), Ok(ns))) => Ok((seen, Duration::from_nanos(ns))),
        _ => Err(io::Error::other(format!("this is no consumer's answer: {answer:?}"))),
    }
}

/// Takes bodies in.
pub(super) fn sink(address: &str, take: fn(&[u8]) -> io::Result<String>) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    let bound = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        let failed = serve(listener, Arc::new(move |body| take(&body)));
        // The harness hears of it when the next request is refused.
        failed.inspect_err(|error| eprintln!("the sink ended: {error}"))
    });
    agent::say_ready(&bound)?;
    agent::wait_for_end()
}

pub(super) fn take_json(body: &[u8]) -> io::Result<String> {
    let start = Instant::now();
    let message = message::decode(body).map_err(io::Error::other)?;
    let decoding = start.elapsed();
    Ok(format!("{} {}", pattern::glance(message.payload.as_bytes()), nanos(decoding)))
}

pub(super) fn take_raw(body: &[u8]) -> io::Result<String> {
    Ok(format!("{} 0", pattern::glance(body)))
}
