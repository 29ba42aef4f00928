//! Why a function has no response, in words for people.

use std::fmt::Write as _;
use std::time::Duration;

use roadrunner_abi::limit;
use roadrunner_transport::Fault;
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};

use crate::function::Function;
use crate::host::Stop;

/// Frames of a trap that its message names.
const FRAMES: usize = 4;

/// Bytes of the reason for a trap that its message keeps: a sentence and the frames' names, which a
/// module can choose as long as it likes.
pub(crate) const REASON_BYTES: usize = 1024;

/// Room in a message for the sentence around name, reason and the function's own words.
const SENTENCE_BYTES: usize = 64;

/// The reason for which a function was stopped.
pub(crate) fn fault_of(function: &Function, error: wasmtime::Error) -> Fault {
    let name = function.spec.name.clone();
    if let Some(Trap::Interrupt) = error.downcast_ref() {
        return timed_out(name, function.spec.timeout);
    }
    let trap = error.downcast_ref::<Trap>().map(ToString::to_string);
    let frames = error.downcast_ref::<WasmBacktrace>().map(place_of).unwrap_or_default();
    match error.downcast::<Stop>() {
        Ok(Stop::Failed(message)) => Fault::Failed { function: name, message },
        Ok(Stop::Violation(what)) => Fault::Violation { function: name, what },
        Err(error) => {
            let reason = trap.unwrap_or_else(|| error.root_cause().to_string());
            Fault::Trapped { function: name, reason: reason + &frames }
        }
    }
}

/// How much of a function's own words a message has room for, beside what says whose they are.
pub(crate) fn said_bytes() -> usize {
    (limit::MESSAGE_BYTES - limit::NAME_BYTES) as usize - SENTENCE_BYTES
}

/// The beginning of a text, at most `len` bytes of it.
pub(crate) fn first(text: &str, len: usize) -> &str {
    &text[..text.floor_char_boundary(len)]
}

/// The end of a text, at most `len` bytes of it.
pub(crate) fn last(text: &str, len: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(len))..]
}

fn timed_out(function: String, timeout: Duration) -> Fault {
    Fault::TimedOut { function, timeout }
}

/// Where it happened, innermost function first.
fn place_of(backtrace: &WasmBacktrace) -> String {
    let mut place = String::new();
    for frame in backtrace.frames().iter().take(FRAMES) {
        let separator = if place.is_empty() { " in" } else { " <-" };
        let name =
            frame.func_name().map_or_else(|| format!("func {}", frame.func_index()), Into::into);
        let _ = write!(place, "{separator} {name}");
    }
    place
}

/// Whether an instance could not be made because there are as many as there can be.
pub(crate) fn is_crowded(error: &wasmtime::Error) -> bool {
    error.is::<PoolConcurrencyLimitError>()
}

pub(crate) fn instantiation_fault(function: &Function, error: wasmtime::Error) -> Fault {
    if is_crowded(&error) {
        return Fault::Exhausted {
            function: function.spec.name.clone(),
            reason: format!("all sandboxes are in use ({error})"),
        };
    }
    fault_of(function, error)
}
