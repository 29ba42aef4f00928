//! How a command ends: exit codes, which scripts depend on, and the failures that lead to them.

use std::fmt::{self, Write as _};
use std::process::ExitCode;

use roadrunner_bench::BenchError;
use roadrunner_image::RegistryError;
use roadrunner_runtime::{Fault, LoadError};
use roadrunner_workflow::{ManifestError, PrepareError};

/// How a command ended, as a number for scripts. The numbers are never given a new meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Success = 0,
    Host = 1,
    Usage = 2,
    Workflow = 3,
    Module = 4,
    Input = 5,
    TooLarge = 6,
    Function = 7,
    TimedOut = 8,
    Output = 9,
    Unsupported = 10,
    Peer = 11,
}

impl Exit {
    const ALL: [Self; 12] = [
        Self::Success,
        Self::Host,
        Self::Usage,
        Self::Workflow,
        Self::Module,
        Self::Input,
        Self::TooLarge,
        Self::Function,
        Self::TimedOut,
        Self::Output,
        Self::Unsupported,
        Self::Peer,
    ];

    /// The number.
    const fn code(self) -> u8 {
        self as u8
    }

    /// The exit with this number.
    pub(crate) fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| exit.code() == code)
    }

    const fn meaning(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Host => "this machine lacks something that is needed, such as memory",
            Self::Usage => "wrong command line",
            Self::Workflow => "the workflow's manifest can't be read or is wrong",
            Self::Module => "a module is missing, damaged or not a function",
            Self::Input => "the input can't be read",
            Self::TooLarge => "a payload is over the limit",
            Self::Function => "a function failed, trapped or broke the guest ABI",
            Self::TimedOut => "a function did not finish in time",
            Self::Output => {
                "the result can't be written where it should go; stderr says where it is"
            }
            Self::Unsupported => "this version can't do that",
            Self::Peer => "another process or host can't be reached, or went away",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// All exit codes, for `--help`.
pub(crate) fn table() -> String {
    let mut table = String::from("Exit codes:");
    for exit in Exit::ALL {
        // Writing to a string can't fail.
        let _ = write!(table, "\n  {:>2}  {}", exit.code(), exit.meaning());
    }
    table
}

/// Why a command has no result: one clear sentence, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ManifestError> for Failure {
    fn from(error: ManifestError) -> Self {
        Self::new(Exit::Workflow, error.to_string())
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self::new(exit_of_load(&error), error.to_string())
    }
}

impl From<PrepareError> for Failure {
    fn from(error: PrepareError) -> Self {
        let exit = match &error {
            PrepareError::Load { source, .. } => exit_of_load(source),
            _ => Exit::Unsupported,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        let exit = match &error {
            RegistryError::Unreachable { .. }
            | RegistryError::Denied { .. }
            | RegistryError::Refused { .. } => Exit::Peer,
            RegistryError::Cache(_) | RegistryError::Host(_) => Exit::Host,
            _ => Exit::Module,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let exit = match &fault {
            Fault::TooLarge { .. } => Exit::TooLarge,
            Fault::TimedOut { .. } => Exit::TimedOut,
            Fault::Exhausted { .. } | Fault::HandOver { .. } => Exit::Host,
            Fault::Unreachable { .. } | Fault::Lost { .. } | Fault::Forbidden { .. } => Exit::Peer,
            _ => Exit::Function,
        };
        Self::new(exit, fault.to_string())
    }
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Load(error) => error.into(),
            BenchError::Fault(fault) => fault.into(),
            BenchError::Damaged { .. } => Self::new(Exit::Function, error.to_string()),
            _ => Self::new(Exit::Host, error.to_string()),
        }
    }
}

fn exit_of_load(error: &LoadError) -> Exit {
    match error {
        LoadError::Engine(_) | LoadError::Kernel { .. } => Exit::Host,
        LoadError::Directory { .. } => Exit::Workflow,
        _ => Exit::Module,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_in_the_help() {
        let table = table();
        for (expected, exit) in Exit::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(exit.code()), expected);
            assert!(table.contains(&format!("\n  {expected:>2}  {}", exit.meaning())));
        }
    }
}
