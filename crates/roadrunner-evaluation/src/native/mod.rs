//! The peers without a sandbox: native functions that hand payloads over by HTTP, Redis or a bare socket.
//!
//! Each kind has a source, which runs the producer, and a sink, which runs the consumers; `agent.rs` says how they are
//! driven. What is the same for all: the producer writes every byte of a text, and a consumer looks at each page.

mod http;
mod redis;
mod stream;

use std::io;

use clap::ValueEnum;

/// How native functions hand payloads over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// As the JSON body of a POST.
    HttpJson,
    /// As the body of a POST, as it is.
    HttpRaw,
    /// By way of a Redis server.
    Redis,
    /// Over a UNIX socket.
    UnixSocket,
    /// Over a TCP connection.
    Tcp,
}

/// Runs the producer, until stdin ends.
///
/// # Errors
/// When the sink can't be reached.
pub fn source(way: Way, address: &str) -> io::Result<()> {
    match way {
        Way::HttpJson => http::json_source(address),
        Way::HttpRaw => http::raw_source(address),
        Way::Redis => redis::source(address),
        Way::UnixSocket => stream::unix_source(address),
        Way::Tcp => stream::tcp_source(address),
    }
}

/// Runs consumers, until the process is ended. `address` is where to listen, or where the Redis server does.
///
/// # Errors
/// When it can't listen there.
pub fn sink(way: Way, address: &str, consumers: u32) -> io::Result<()> {
    match way {
        Way::HttpJson => http::sink(address, http::take_json),
        Way::HttpRaw => http::sink(address, http::take_raw),
        Way::Redis => redis::sink(address, consumers),
        Way::UnixSocket => stream::unix_sink(address),
        Way::Tcp => stream::tcp_sink(address),
    }
}
