//! Requests without a result: a status, and one sentence for the client.

use std::time::Duration;

use hyper::StatusCode;
use roadrunner_runtime::Fault;

/// When a client that was shed may come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a request has no result.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// The methods that would have been allowed.
    pub(crate) allow: Option<&'static str>,
    /// Whether the connection can't be trusted to be at the end of this request.
    pub(crate) close: bool,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), allow: None, close: false }
    }

    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self { close: true, ..Self::new(StatusCode::BAD_REQUEST, message) }
    }

    pub(crate) fn unknown(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn method(allow: &'static str) -> Self {
        let refusal = Self::new(StatusCode::METHOD_NOT_ALLOWED, format!("use {allow} here"));
        Self { allow: Some(allow), ..refusal }
    }

    pub(crate) fn too_slow() -> Self {
        let message = "the body of the request came too slowly";
        Self { close: true, ..Self::new(StatusCode::REQUEST_TIMEOUT, message) }
    }

    pub(crate) fn too_large(limit: u64) -> Self {
        let message = format!("the body of the request is over the limit of {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    pub(crate) fn too_many(limit: usize) -> Self {
        let message = format!("this client has {limit} requests in flight, the most it may have");
        Self::new(StatusCode::TOO_MANY_REQUESTS, message)
    }

    pub(crate) fn overloaded(what: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("no room for this request: {what}"))
    }

    pub(crate) fn exhausted(reason: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("the host could not {reason}"))
    }

    pub(crate) fn panicked() -> Self {
        let message = "the host panicked; its log says where";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// Seconds after which the client may come back, for those that may.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        let shed = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];
        shed.contains(&self.status).then_some(RETRY_AFTER.as_secs())
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        let status = match &fault {
            Fault::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
            Fault::Exhausted { .. } | Fault::HandOver { .. } => StatusCode::SERVICE_UNAVAILABLE,
            // It is loaded here, so whoever doesn't know it is where the manifest says it is.
            Fault::Unreachable { .. }
            | Fault::Lost { .. }
            | Fault::Unknown { .. }
            | Fault::Forbidden { .. } => StatusCode::BAD_GATEWAY,
            // The body was within the limit: what is over it is what a function made of it.
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, fault.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_have_the_status_that_says_whose_they_are() {
        let function = || "f".to_owned();
        let (peer, reason) = (function, function);
        let cases = [
            (Fault::Failed { function: function(), message: "no".into() }, 422),
            (Fault::Trapped { function: function(), reason: reason() }, 422),
            (Fault::Violation { function: function(), what: reason() }, 422),
            (Fault::NoMemory { function: function(), len: 1, reason: reason() }, 422),
            (Fault::TooDeep { function: function(), limit: 1 }, 422),
            (Fault::TooLarge { function: function(), len: 2, limit: 1 }, 422),
            (Fault::TimedOut { function: function(), timeout: Duration::ZERO }, 504),
            (Fault::Exhausted { function: function(), reason: reason() }, 503),
            (Fault::Unknown { function: function() }, 502),
            (Fault::Unreachable { function: function(), peer: peer(), reason: reason() }, 502),
            (Fault::Lost { function: function(), peer: peer(), reason: reason() }, 502),
            (Fault::Forbidden { function: function(), caller: peer() }, 502),
        ];
        for (fault, status) in cases {
            let said = fault.to_string();
            let refusal = Refusal::from(fault);
            assert_eq!((refusal.status.as_u16(), &refusal.message), (status, &said));
            assert_eq!(refusal.retry_after().is_some(), status == 503);
        }
    }
}
