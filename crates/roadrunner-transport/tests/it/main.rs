//! The wire format, seen from outside.
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod contract;
mod domain;
mod examples;
mod frames;
mod peers;
mod tls;
