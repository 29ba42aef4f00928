//! The gateway as its clients meet it, over loopback.
#![allow(clippy::unwrap_used, reason = "a test ends where it finds what it did not expect")]

mod bodies;
mod client;
mod headers;
mod http2;
mod load;
mod operation;
mod peers;
mod slow;
mod smuggling;
mod statuses;
mod support;
