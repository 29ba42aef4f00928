//! What containerd is told when something can't be done.

use containerd_shim_protos::ttrpc::{Code, Error as TtrpcError, get_status};

/// Why a request was refused. The text is for people; the kind is what containerd acts on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// There is no such container, or nothing of it runs any more.
    #[error("{0}")]
    NotFound(String),
    /// There is one already.
    #[error("container {0} exists already")]
    Exists(String),
    /// Not in the state that it is in.
    #[error("{0}")]
    WrongState(String),
    /// The request or the container's configuration is not right.
    #[error("{0}")]
    Invalid(String),
    /// This runtime doesn't do that.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The host could not do it.
    #[error("{0}")]
    Failed(String),
}

impl Refusal {
    /// As `Failed`, with what was being done.
    pub(crate) fn failed(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.to_string();
        move |error| Self::Failed(format!("can't {what}: {error}"))
    }
}

impl From<Refusal> for TtrpcError {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::NotFound(_) => Code::NOT_FOUND,
            Refusal::Exists(_) => Code::ALREADY_EXISTS,
            Refusal::WrongState(_) => Code::FAILED_PRECONDITION,
            Refusal::Invalid(_) => Code::INVALID_ARGUMENT,
            Refusal::Unsupported(_) => Code::UNIMPLEMENTED,
            Refusal::Failed(_) => Code::UNKNOWN,
        };
        Self::RpcStatus(get_status(code, refusal))
    }
}
