//! The runtime as its callers and its guests meet it. Guests are WebAssembly text in the tests.
#![allow(clippy::unwrap_used, reason = "a test ends where it finds what it did not expect")]

mod abi;
mod calls;
mod canaries;
mod endurance;
mod hostile;
mod isolation;
mod limits;
mod modules;
mod processes;
mod random;
mod reuse;
mod streams;
mod support;
mod wasi;
