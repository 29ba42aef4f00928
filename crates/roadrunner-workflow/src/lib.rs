//! Workflows: from `roadrunner.toml` to what is run.
//!
//! ```text
//! text -> manifest.rs   keys, types, units, files     every value keeps its place in the text
//!         function.rs   one function of it
//!         http.rs       its headers and its type
//!      -> graph.rs      names, cycles, reachability   -> Workflow: nothing in it can be wrong
//!      -> plan.rs       order, inputs, backing        -> Plan: what the executor walks through
//!      -> executable.rs  its functions compiled and linked
//!      -> run.rs        the executor
//!
//! names of workflows and functions -> catalog.rs -> what a node runs when one is called
//! ```
//!
//! Parsing asks the file system through one closure only (does this module exist?), so a
//! workflow whose modules are embedded in the program is read by the same code. Problems are
//! collected, not thrown: a [`ManifestError`] shows all of them, each on its own line as
//! `file:line:column: what is wrong; what to write instead`.
//!
//! ```
//! use roadrunner_workflow::{Backing, Found, Workflow};
//! use std::path::Path;
//!
//! let text = r#"
//!     [workflow]
//!     name = "thumbnail"
//!     entry = "decode"
//!     [functions.decode]
//!     module = "decode.wasm"
//!     next = ["encode"]
//!     [functions.encode]
//!     module = "encode.wasm"
//! "#;
//! let workflow = Workflow::parse(text, Path::new("roadrunner.toml"), &|_| Found::File)?;
//! let plan = workflow.plan();
//! let order: Vec<_> = plan.steps().iter().map(|step| &workflow[step.function].name).collect();
//! assert_eq!(order, ["decode", "encode"]);
//! assert_eq!(plan.backing(workflow.entry()), Backing::Private);
//! # Ok::<(), roadrunner_workflow::ManifestError>(())
//! ```
//!
//! The crate knows nothing of Wasm or of transports; the manifest's reference is `docs/manifest.md`.
#![forbid(unsafe_code)]

#[cfg(feature = "run")]
mod catalog;
mod error;
#[cfg(feature = "run")]
mod executable;
mod fields;
mod function;
mod graph;
mod http;
mod manifest;
mod names;
mod plan;
#[cfg(feature = "run")]
mod run;
pub mod units;
mod workflow;

#[cfg(feature = "run")]
pub use catalog::{Catalog, Clash, Names, answer};
pub use error::{ManifestError, Problem, Problems};
#[cfg(feature = "run")]
pub use executable::{Executable, Place, PrepareError};
pub use plan::{Backing, Edge, Plan, Step};
#[cfg(feature = "run")]
pub use run::{Finished, RunError};
pub use workflow::{
    Dir, Found, Function, FunctionIndex, Header, Module, NoSuchNode, Node, NodeIndex, Placement,
    Wasi, Workflow,
};

/// Bounds on what one manifest may ask for; those that guests meet are in [`roadrunner_abi::limit`].
pub mod limit {
    use std::time::Duration;

    /// Largest manifest in bytes. Room for [`FUNCTIONS`] functions of a kilobyte each; what is
    /// larger is a file named by mistake.
    pub const MANIFEST_BYTES: usize = 1 << 20;
    /// Functions in one workflow: each is a compiled module that stays mapped.
    pub const FUNCTIONS: usize = 1024;
    /// Other hosts in one workflow: each is a connection, and no more than one per function is of use.
    pub const NODES: usize = FUNCTIONS;
    /// Names of callers in one workflow: each is compared when a stranger calls.
    pub const CALLERS: usize = 1024;
    /// Most `retries`: with their waits they take some ten seconds, and what is not there by then is
    /// not about to come.
    pub const RETRIES: u32 = 10;
    /// Least `memory`: one page of WebAssembly.
    pub const MEMORY_MIN_BYTES: u64 = 64 << 10;
    /// Most `memory`: what a 32-bit guest can address.
    pub const MEMORY_MAX_BYTES: u64 = 4 << 30;
    /// Least `timeout`.
    pub const TIMEOUT_MIN: Duration = Duration::from_millis(1);
    /// Most `timeout`: a function that needs more is a batch job, and would hold its sandbox
    /// and its payload for as long.
    pub const TIMEOUT_MAX: Duration = Duration::from_hours(24);
    /// Most headers that one function sees: each is looked up in every request.
    pub const HEADERS: usize = 16;
    /// Longest name of a header in bytes, and longest `content_type`: several times those in use.
    pub const HEADER_BYTES: usize = 128;
    /// Problems shown for one manifest; the rest is counted.
    pub const PROBLEMS: usize = 20;
}
