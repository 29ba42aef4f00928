//! From which length on moving pages beats copying bytes, measured on this machine.

use std::io;
use std::time::{Duration, Instant};

use crate::page::round_to_pages;
use crate::view::Extent;

/// The shortest payload that is moved instead of copied, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakEven(usize);

/// The bounds that a measurement is held to. Below a few pages there is nothing to gain; above
/// 256 KiB a copy has lost on every machine seen, so a larger result is noise.
const LEAST: usize = 16 << 10;
const MOST: usize = 256 << 10;
/// Times that the pages of a payload move in their life, each with a reset of what they left: out of
/// the pool into the producer, to the consumer, and back.
const MOVES: u32 = 3;
/// The length at which both ways are timed; a copy's time grows with the length from there.
const PROBE: usize = 64 << 10;
/// Rounds of the measurement, of which the fastest counts: everything else is somebody's noise.
const ROUNDS: usize = 8;

impl BreakEven {
    /// A fixed length, for tests and for repeatable benchmarks.
    #[must_use]
    pub const fn fixed(bytes: usize) -> Self {
        Self(bytes)
    }

    /// Measures both ways: three times an `mremap` and the `mmap` that resets its source, against
    /// one `memcpy` into fresh pages, as a fresh sandbox has. Takes under a millisecond.
    ///
    /// # Errors
    /// When the kernel has no memory for the probe.
    pub fn measure() -> io::Result<Self> {
        let len = round_to_pages(PROBE).unwrap_or(PROBE);
        let mut source = Extent::reserve(len)?;
        let mut target = Extent::reserve(len)?;
        let (mut moving, mut copying) = (Duration::MAX, Duration::MAX);
        for round in 0..ROUNDS {
            source.bytes_mut().fill(u8::try_from(round % 255).unwrap_or(0) + 1);
            target.make_plain()?;
            let start = Instant::now();
            target.bytes_mut().copy_from_slice(source.bytes());
            copying = copying.min(start.elapsed());
            let start = Instant::now();
            target.take_pages(&mut source)?;
            source.make_plain()?;
            moving = moving.min(start.elapsed());
        }
        Ok(Self::from_times(moving * MOVES, copying))
    }

    /// The length whose copy takes as long as a move, when a copy of [`PROBE`] bytes takes `copying`.
    fn from_times(moving: Duration, copying: Duration) -> Self {
        let ratio = moving.as_secs_f64() / copying.as_secs_f64().max(1e-9);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "held to the bounds right after; a float cast saturates"
        )]
        let bytes = (PROBE as f64 * ratio) as usize;
        Self(bytes.clamp(LEAST, MOST))
    }

    /// Whether a payload of this length is moved. An empty one has no pages to move.
    #[must_use]
    pub fn moves(self, len: usize) -> bool {
        len >= self.0.max(1)
    }

    /// The length in bytes.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_break_even_follows_the_times_within_its_bounds() {
        let us = Duration::from_micros;
        assert_eq!(BreakEven::from_times(us(10), us(20)), BreakEven(32 << 10));
        assert_eq!(BreakEven::from_times(us(0), us(20)), BreakEven(LEAST));
        assert_eq!(BreakEven::from_times(us(500), us(0)), BreakEven(MOST));
    }

    #[test]
    fn this_machine_has_one() {
        let bytes = BreakEven::measure().unwrap().bytes();
        assert!((LEAST..=MOST).contains(&bytes));
    }
}
