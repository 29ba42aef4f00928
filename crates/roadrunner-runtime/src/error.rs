//! Why a runtime or a function can't be made ready. What goes wrong later is a
//! [`roadrunner_transport::Fault`].

use std::io;
use std::path::PathBuf;

/// Why something could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The compiler or its allocator could not be set up.
    #[error("can't set up the WebAssembly engine: {0}")]
    Engine(String),
    /// The kernel refused what the runtime needs.
    #[error("can't {what}: {source}")]
    Kernel {
        /// What was being done.
        what: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A module's file can't be read.
    #[error("can't read module {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A module is not WebAssembly, or not what this engine runs.
    #[error("module {module} is not a WebAssembly module that can run here: {reason}")]
    Invalid {
        /// Its name or path.
        module: String,
        /// What the compiler said.
        reason: String,
    },
    /// A precompiled module is damaged or from another engine.
    #[error(
        "precompiled module {module} can't be used: {reason}; make it again with `roadrunner compile`"
    )]
    Precompiled {
        /// Its name or path.
        module: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A module doesn't have the shape of a function.
    #[error("module {module} is not a function: {reason}")]
    Shape {
        /// Its name or path.
        module: String,
        /// What is missing or wrongly typed, and what the ABI asks.
        reason: String,
    },
    /// A function's files or environment can't be set up.
    #[error("function `{function}`: can't open directory {path} for it: {reason}")]
    Directory {
        /// The function.
        function: String,
        /// The directory.
        path: PathBuf,
        /// The kernel's reason.
        reason: String,
    },
}
