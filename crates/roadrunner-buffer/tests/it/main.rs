//! What windows promise their owners, tested through the public interface over linear memories
//! made by the test.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "all of it is test code")]

mod alone;
mod machine;
mod memory;
mod refusals;
mod rules;
mod steady;
mod steps;
