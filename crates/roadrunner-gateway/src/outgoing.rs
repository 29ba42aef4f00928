//! Responses on their way out: slices of the pages that a function left, without a copy.
//!
//! The HTTP machinery gets pieces that are views of one payload. A piece that it drops has been written
//! to the socket, so dropped pieces are how far the client has taken the response; and the last one
//! to go takes the pages and the request's permits with it.

use std::convert::Infallible;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use roadrunner_runtime::Sealed;

use crate::link::Progress;

/// Bytes of one piece: enough for one write to keep a socket busy, few enough to see a slow reader move.
const PIECE: usize = 64 << 10;

/// From here on pages are given back on a thread that may block: unmapping a gigabyte takes milliseconds.
const HEAVY: usize = 16 << 20;

/// What a response consists of.
pub(crate) enum Content {
    Text(String),
    Payload(Sealed<'static>),
}

impl Content {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Payload(sealed) => sealed.len(),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            // Whoever made it a response has looked at the bytes before, and what is mapped stays so.
            Self::Payload(sealed) => sealed.bytes().unwrap_or_default(),
        }
    }
}

/// A response under way; `H` is whatever is to be given back when it has been sent.
struct Sending<H: Send + Sync + 'static> {
    content: Option<Content>,
    progress: Arc<Progress>,
    _held: H,
}

impl<H: Send + Sync> Drop for Sending<H> {
    fn drop(&mut self) {
        if let Some(content) = self.content.take() {
            bury(content.len(), content);
        }
    }
}

/// Drops what holds so many bytes where that does not keep an asynchronous thread.
pub(crate) fn bury(bytes: usize, what: impl Send + 'static) {
    if bytes >= HEAVY
        && let Ok(runtime) = tokio::runtime::Handle::try_current()
    {
        drop(runtime.spawn_blocking(move || drop(what)));
    }
}

/// One piece of a response.
struct Piece<H: Send + Sync + 'static> {
    sending: Arc<Sending<H>>,
    range: Range<usize>,
}

impl<H: Send + Sync> AsRef<[u8]> for Piece<H> {
    fn as_ref(&self) -> &[u8] {
        let bytes = self.sending.content.as_ref().map_or(&[][..], Content::bytes);
        bytes.get(self.range.clone()).unwrap_or_default()
    }
}

impl<H: Send + Sync> Drop for Piece<H> {
    fn drop(&mut self) {
        self.sending.progress.flowed(self.range.len());
    }
}

/// The body of a response.
pub(crate) struct Outgoing<H: Send + Sync + 'static> {
    sending: Option<Arc<Sending<H>>>,
    at: usize,
    len: usize,
}

impl<H: Send + Sync> Outgoing<H> {
    /// A response of this content, which holds `held` until it is sent.
    pub(crate) fn new(content: Content, progress: Arc<Progress>, held: H) -> Self {
        let len = content.len();
        let sending = Sending { content: Some(content), progress, _held: held };
        Self { sending: Some(Arc::new(sending)), at: 0, len }
    }
}

impl<H: Send + Sync> Body for Outgoing<H> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let range = self.at..(self.at + PIECE).min(self.len);
        self.at = range.end;
        let last = self.at == self.len;
        let sending = if last { self.sending.take() } else { self.sending.clone() };
        let piece = sending.filter(|_| !range.is_empty()).map(|sending| Piece { sending, range });
        Poll::Ready(piece.map(|piece| Ok(Frame::data(Bytes::from_owner(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.at == self.len
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact((self.len - self.at) as u64)
    }
}
