//! The runtime of one command.

use roadrunner_runtime::{Config, Runtime};

use crate::exit::Failure;

/// A runtime with the defaults.
pub(crate) fn start() -> Result<Runtime, Failure> {
    Ok(Runtime::new(Config::default())?)
}
