//! Runs functions in sandboxes and hands payloads from one linear memory to the next.
//!
//! The path of a payload, in order of the files:
//!
//! ```text
//! guest A: handle() returns / call(target, ptr, len)
//!   -> host.rs      guest integers become checked values; state.rs is what it knows of each instance
//!   -> memory.rs    the window becomes a sealed payload: A no longer owns it
//!   -> route.rs     pure: may A call this target, and where is it
//!   -> dispatch.rs  the one match on the route
//!   -> transport    (roadrunner-transport)
//!   -> inbox.rs     admission: limits, deadline, a fresh sandbox
//!   -> memory.rs    a window in guest B, the pages moved in
//!   -> instance.rs  guest B: handle(ptr, len)
//! ```
//!
//! [`Runtime`] compiles functions and holds what they share; an [`App`] is a set of functions that
//! trust each other with recycled pages (a workflow of a tenant); [`App::call`] runs one.

mod app;
mod config;
mod deadline;
mod dispatch;
mod engine;
mod environment;
mod error;
mod function;
mod host;
mod idle;
mod inbox;
mod instance;
mod memory;
mod meter;
mod process;
mod route;
mod sleep;
mod state;
mod stdio;
mod streams;
mod wasi;
mod words;
mod workers;

pub use app::{App, Bounds, Ready, Runtime};
pub use config::{Cache, Config};
pub use environment::Variables;
pub use error::LoadError;
pub use function::{FunctionSpec, Inspection, Kind, ModuleSource, WasiDir, WasiSpec};
pub use meter::{Meter, Usage};
pub use process::{Exit, Process, Stop};
pub use route::Remote;
pub use workers::Ticket;

pub use roadrunner_buffer::{
    Backing, BreakEven, BufferError, Draft, Home, PoolLimits, Sealed, Traffic,
};
pub use roadrunner_transport::{
    Account, Call, Caller, Fault, Hop, Inbox, Lender, Mode, Payload, Reply, Retrying, Terms, Trace,
    Trust, Undelivered,
};
