//! Pulling from registries that are right, wrong, hostile or not there. They are made here: a real one is told lies by nobody.
//! What a real one takes is tested with the program (`roadrunner-cli`).

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests too")]

mod fake;
mod pull;
