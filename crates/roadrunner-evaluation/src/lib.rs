//! The papers' experiments, run here against real peers.
//!
//! ```text
//!   plan.rs       what is run: experiments as cells, and in each the systems that take turns
//!   schedule.rs   warm-up, calibration, turns, what is left; knows an `Executor` and no process
//!   executor.rs   the systems as they are: processes, containers, hosts
//!   programs.rs   programs that start, work and end
//!   job.rs        such a program's process, and its clock
//!   results.rs    a row after each run
//!   leftovers.rs  what an evaluation left that was killed
//!   agent.rs      what a system's processes and the harness say to each other
//!   native/       the peers without a sandbox, which this program runs itself
//! ```
//!
//! The peers with a sandbox are in `roadrunner-sides`, so that this crate builds without a compiler of WebAssembly.
//! `docs/evaluation.md` says what is measured and why that is fair.
#![forbid(unsafe_code)]

pub mod agent;
mod cgroup;
mod container;
mod executor;
mod hosts;
pub mod http;
mod job;
mod leftovers;
pub mod names;
pub mod native;
mod plan;
mod process;
mod programs;
mod results;
mod schedule;

pub use executor::{Real, Setting};
pub use leftovers::{own_folder, sweep};
pub use plan::{Cell, Mode, Work, cells};
pub use programs::CLANG;
pub use results::{Outcome, RUNS, Results, ResultsError};
pub use schedule::{End, Executor, Missing, Side, run};
