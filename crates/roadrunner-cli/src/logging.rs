//! What is said on stderr while a command runs: warnings, and the words of the guests.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

/// Warnings and errors, also those that guests log; `--verbose` adds all that the guests say and
/// what Roadrunner does itself.
const QUIET: &str = "warn";
const VERBOSE: &str = "info,roadrunner_runtime=debug,roadrunner_workflow=debug";

/// Starts writing events to stderr. `RUST_LOG` wins over `--verbose`.
pub(crate) fn start(verbose: bool) {
    let default = if verbose { VERBOSE } else { QUIET };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
}
