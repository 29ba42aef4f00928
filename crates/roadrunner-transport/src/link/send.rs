//! Sending a frame.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use roadrunner_buffer::{Descriptor, Sealed};
use roadrunner_sys::Ready;

use super::{Link, LinkError, ready};
use crate::frame::{DESCRIPTORS, Part, Place};
use crate::hose::{self, Source};
use crate::{Terms, Trust};

/// How each payload of a frame is to travel: in a descriptor, where descriptors do, as long as there is
/// room for one more, else as bytes.
fn forms<'s>(link: &impl Link, parts: &'s [Sealed<'_>]) -> Vec<Option<Descriptor<'s>>> {
    let mut room = if link.passes_descriptors() { usize::from(DESCRIPTORS) } else { 0 };
    let form = |part: &'s Sealed<'_>| {
        let descriptor = part.descriptor().filter(|_| room > 0);
        room -= usize::from(descriptor.is_some());
        descriptor
    };
    parts.iter().map(form).collect()
}

/// What a frame says of its payloads.
pub(crate) fn parts_of(link: &impl Link, parts: &[Sealed<'_>]) -> Vec<Part> {
    let place = |form: &Option<Descriptor<'_>>| match form {
        None => Place::Inline,
        Some(Descriptor::Sealed(_)) => Place::Sealed,
        Some(Descriptor::Segment(_)) => Place::Segment,
    };
    let forms = forms(link, parts);
    let part = |(part, form): (&Sealed<'_>, _)| Part { len: part.len() as u64, place: place(form) };
    parts.iter().zip(&forms).map(part).collect()
}

/// The segments whose leases go over with these payloads.
pub(crate) fn leases_of(link: &impl Link, parts: &[Sealed<'_>]) -> Vec<u64> {
    let lease = |form| match form {
        Some(Descriptor::Segment(lease)) => Some(lease.id()),
        _ => None,
    };
    forms(link, parts).into_iter().filter_map(lease).collect()
}

/// A frame that could not be sent.
#[derive(Debug)]
pub(crate) struct Unsent {
    pub(crate) error: LinkError,
    pub(crate) got: Got,
}

/// How much of a frame that could not be sent its peer may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Nothing,
    Some,
    All,
}

/// Sends a frame: the head as [`Meta::encode`] made it, and its payloads. Leases that go over are
/// noted.
pub(crate) fn send(
    link: &mut impl Link,
    head: &[u8],
    parts: &[Sealed<'_>],
    until: Instant,
    terms: &Terms,
) -> Result<(), Unsent> {
    let (mut fds, mut leases) = (Vec::new(), Vec::new());
    let hose_from = if link.hose().is_some() { hose::FROM } else { usize::MAX };
    let mut pieces = vec![Piece::Written(head)];
    for (part, form) in parts.iter().zip(forms(link, parts)) {
        match form {
            Some(Descriptor::Sealed(fd)) => fds.push(fd),
            Some(Descriptor::Segment(lease)) => {
                fds.push(lease.descriptor());
                leases.push(lease);
            }
            None if part.is_empty() => {}
            None => match part.bytes() {
                Ok(bytes) if bytes.len() < hose_from => pieces.push(Piece::Written(bytes)),
                Ok(bytes) => {
                    pieces.push(Piece::Hosed(Source { bytes, sealed: part.sealed_file() }));
                }
                Err(error) => return Err(Unsent { error: error.into(), got: Got::Nothing }),
            },
        }
    }
    let Trust::Domain(domain) = &terms.trust else {
        return send_all(link, &pieces, &fds, until);
    };
    // Noted before they are sent: another thread may hear of their end before this one goes on.
    leases.iter().for_each(|lease| domain.lent.add(Arc::clone(lease)));
    let sent = send_all(link, &pieces, &fds, until);
    if sent.is_err() {
        // A receiver takes leases only with the whole frame.
        domain.lent.come_back(&leases.iter().map(|lease| lease.id()).collect::<Vec<_>>());
    }
    sent
}

/// A part of a frame on its way.
enum Piece<'s> {
    /// The head, and payloads that are not large.
    Written(&'s [u8]),
    /// A large payload, where there is a hose.
    Hosed(Source<'s>),
}

fn send_all(
    link: &mut impl Link,
    pieces: &[Piece<'_>],
    mut fds: &[BorrowedFd<'_>],
    until: Instant,
) -> Result<(), Unsent> {
    let mut got = Got::Nothing;
    let mut left = pieces.len();
    let are_written =
        |a: &Piece<'_>, b: &Piece<'_>| matches!((a, b), (Piece::Written(_), Piece::Written(_)));
    for run in pieces.chunk_by(are_written) {
        let mut slices = Vec::with_capacity(run.len());
        for piece in run {
            left -= 1;
            match (piece, link.hose()) {
                (Piece::Hosed(source), Some(hose)) => {
                    hose.send(source, until).map_err(|stopped| {
                        let got = if stopped.whole && left == 0 { Got::All } else { Got::Some };
                        Unsent { error: stopped.error.into(), got }
                    })?;
                }
                (Piece::Written(bytes) | Piece::Hosed(Source { bytes, .. }), _) => {
                    slices.push(IoSlice::new(bytes));
                }
            }
        }
        write_all(link, &mut slices, &mut fds, &mut got, until)
            .map_err(|error| Unsent { error: error.into(), got })?;
    }
    ready(link, Ready::Write, until, Link::flush)
        .map_err(|error| Unsent { error: error.into(), got })
}

/// Writes all slices, the descriptors with the first byte, and notes when that is gone. It never fails with
/// everything written.
fn write_all(
    link: &mut impl Link,
    mut left: &mut [IoSlice<'_>],
    fds: &mut &[BorrowedFd<'_>],
    got: &mut Got,
    until: Instant,
) -> io::Result<()> {
    while !left.is_empty() {
        let sent = ready(link, Ready::Write, until, |link| link.write(left, fds))?;
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        (*fds, *got) = (&[], Got::Some);
        IoSlice::advance_slices(&mut left, sent);
    }
    Ok(())
}
