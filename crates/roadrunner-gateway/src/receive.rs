//! Bodies of requests, copied once: from the HTTP machinery's buffer to their place in pages that move.

use std::future::poll_fn;
use std::pin::Pin;

use http_body::Body;
use hyper::body::Incoming;
use roadrunner_runtime::{BufferError, Draft, Mode, Sealed, Traffic};

use crate::admission::Charge;
use crate::invoke::Target;
use crate::limits::Limits;
use crate::link::{Link, Progress};
use crate::outgoing::bury;
use crate::refusal::Refusal;

/// From here on recycled pages are fetched by a thread that may block: those of another trust domain are
/// zeroed for it, at some gigabytes a second.
const LONG: usize = 4 << 20;

/// A body that is coming in. What has come goes with it if it never ends.
pub(crate) struct Received(Option<Draft>);

impl Received {
    /// The payload.
    pub(crate) fn seal(mut self) -> Result<(Sealed<'static>, Traffic), BufferError> {
        self.0.take().map_or_else(|| Ok((Sealed::empty(), Traffic::default())), Draft::seal)
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some(draft) = self.0.take() {
            bury(draft.len(), draft);
        }
    }
}

/// Receives the body of a request, and charges for what it takes up by then.
pub(crate) async fn receive(
    body: &mut Incoming,
    target: &Target,
    limits: &Limits,
    link: &Link,
    charge: &mut Charge,
) -> Result<Received, Refusal> {
    let longest = limits.payload_bytes.min(target.executable().app().terms().payload_limit);
    // What is announced is checked before anything is read.
    if body.size_hint().lower() > longest {
        return Err(Refusal::too_large(longest));
    }
    let mut received = place(body, target, longest, charge).await?;
    // The connection's watch tells, as a timer for each piece would cost more than the piece.
    let progress = Progress::incoming();
    link.watch(&progress);
    while let Some(draft) = &mut received.0 {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
        let frame = tokio::select! {
            biased;
            frame = frame => frame,
            () = progress.overdue() => return Err(Refusal::too_slow()),
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| {
            Refusal::malformed("the body of the request ended early or is not well-formed")
        })?;
        // Trailers say nothing that a function could hear.
        let Ok(piece) = frame.into_data() else { continue };
        progress.flowed(piece.len());
        if piece.len() > draft.room() {
            return Err(Refusal { close: true, ..Refusal::too_large(longest) });
        }
        charge.raise_to(draft.memory_with(piece.len()))?;
        draft.write(&piece).map_err(Refusal::exhausted)?;
    }
    Ok(received)
}

/// A place for a body, and the charge for what it takes up from the beginning.
async fn place(
    body: &Incoming,
    target: &Target,
    longest: u64,
    charge: &mut Charge,
) -> Result<Received, Refusal> {
    let too_large = |_| Refusal::too_large(longest);
    let home = target.executable().home();
    let Some(len) = body.size_hint().exact() else {
        let room = usize::try_from(longest).map_err(too_large)?;
        return Ok(Received(Some(Draft::up_to(room, home))));
    };
    let len = usize::try_from(len).map_err(too_large)?;
    let shared = target.executable().app().mode_of(&target.first().name) == Some(Mode::Kernel);
    let draft = if shared {
        Draft::shared(len, home)
    } else if !charge.announce(len) {
        Draft::new(len, home)
    } else if len < LONG {
        Draft::recycled(len, home)
    } else {
        let home = home.clone();
        let made = tokio::task::spawn_blocking(move || Draft::recycled(len, &home));
        made.await.map_err(|_| Refusal::panicked())?
    };
    let draft = draft.map_err(Refusal::exhausted)?;
    // Where no pages waited to be recycled, none is there yet.
    charge.set(draft.memory_with(0));
    Ok(Received(Some(draft)))
}
