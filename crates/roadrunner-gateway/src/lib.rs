//! The HTTP gateway: runs workflows and functions for clients outside.
//!
//! ```text
//!   POST /workflows/NAME -+-> admission -> receive: the body, copied once into pages that move
//!   POST /functions/NAME -+      -> invoke (on a thread of runners.rs): moved to the function
//!                                -> outgoing: slices of the pages that the last function left
//! ```
//!
//! HTTP/1.1, and HTTP/2 without TLS where a client begins with it. `GET /healthz`, `/readyz` and `/metrics`
//! are for whoever operates it; like everything here they are open to all who can connect, so the
//! gateway belongs behind what authenticates and encrypts.
//!
//! # What reaches a function, and what doesn't
//!
//! A function gets the body of the request, byte for byte. Of the headers it sees those that the manifest
//! names for it (`headers`), as environment variables, and of the trace its own span, `TRACEPARENT`. A query
//! is refused, and `Content-Encoding` is not looked at. A response has the type that the manifest gives the
//! function that made it (`content_type`), or is `application/octet-stream`; the text of a refusal is
//! `text/plain`.
//!
//! # Statuses
//!
//! | status | when |
//! |---|---|
//! | 200 | the response of the function, or of the workflow's last one |
//! | 400 | not well-formed, a query, no `Host`, or a length that is said twice |
//! | 404, 405 | nothing has this name; the name is used with another method |
//! | 408 | the body came too slowly |
//! | 413 | the body is over the limit |
//! | 422 | a function failed, trapped, broke the guest ABI, had no memory or made too large a payload |
//! | 429 | this client has too many requests in flight |
//! | 431 | the head is too large, or the headers in it for the function |
//! | 502 | a function elsewhere could not be reached, or went away |
//! | 503 | too many requests, or the host has no memory, sandboxes or mappings left |
//! | 504 | a function did not finish in time |
//!
//! What was refused with 429 or 503 has a `Retry-After`, and no function has run, unless one of a workflow's
//! later functions found no room.
//!
//! # Clients that go away
//!
//! A function can't be stopped from outside: when its client goes away, it runs to its end or deadline,
//! counts against the limits until then, and its response is dropped.
#![forbid(unsafe_code)]

mod admission;
mod catalog;
mod gate;
mod invoke;
mod limits;
mod link;
mod metrics;
mod outgoing;
mod receive;
mod refusal;
mod runners;
mod serve;
mod server;
mod trace;
mod variables;

pub use catalog::Catalog;
pub use limits::{Limits, Pace};
pub use server::{BindError, Gateway};
