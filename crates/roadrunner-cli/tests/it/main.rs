//! The command line as scripts and people meet it: the built program, run in empty folders.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests too")]

mod bad_input;
mod bench;
mod demo;
mod help;
mod http;
mod images;
mod invoke;
mod nodes;
mod output;
mod program;
mod run;
mod serve;
mod tools;
mod trace;
