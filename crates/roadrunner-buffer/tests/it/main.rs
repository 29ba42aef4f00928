//! What windows promise their owners, tested through the public interface over linear memories
//! made by the test.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "all of it is test code")]

mod alone;
mod draft;
mod growing;
mod machine;
mod memory;
mod peers;
mod refusals;
mod rules;
mod segments;
mod steady;
mod steps;
