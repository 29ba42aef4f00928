//! What the benchmarks write into payloads, and how they read them.
//!
//! Guests and native programs run this same code, so that they can be compared. A sandbox looks at
//! its deadline in every round of a loop, so a round works on 256 bytes, and these without a loop
//! inside: sixteen times `v128.store` or `v128.load` in WebAssembly, SSE2 and NEON elsewhere. The
//! vectorizer makes them of the pairs and halves below; look at its output after a change, as loops
//! that mean the same often stay scalar.
//!
//! A payload is a row of little-endian `u64` lanes, lane `i` holding `i * STEP` (wrapping); a tail
//! of less than 8 bytes is the beginning of the next lane.
#![no_std]

mod text;

pub use text::{expected_glance, fill_text, glance};

/// What one lane has more than the one before: odd, so that lanes do not repeat, and with bits
/// in every byte (2^64 divided by the golden ratio).
pub const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Bytes of a lane.
const LANE: usize = size_of::<u64>();

/// Bytes that one round of a loop works on.
const ROUND: usize = 256;

/// Lanes in half a round.
const HALF: usize = ROUND / LANE / 2;

/// Writes every byte of `payload`.
pub fn fill(payload: &mut [u8]) {
    let mut pair = [0, STEP];
    let (rounds, rest) = payload.as_chunks_mut::<ROUND>();
    for round in rounds {
        let (rows, _) = round.as_chunks_mut::<{ 2 * LANE }>();
        for row in rows {
            let (slots, _) = row.as_chunks_mut::<LANE>();
            for (slot, lane) in slots.iter_mut().zip(&mut pair) {
                *slot = lane.to_le_bytes();
                *lane = lane.wrapping_add(STEP.wrapping_mul(2));
            }
        }
    }
    let [mut lane, _] = pair;
    let (slots, tail) = rest.as_chunks_mut::<LANE>();
    for slot in slots {
        *slot = lane.to_le_bytes();
        lane = lane.wrapping_add(STEP);
    }
    tail.copy_from_slice(&lane.to_le_bytes()[..tail.len()]);
}

/// Reads every byte of `payload`: the wrapping sum of its lanes, a tail being filled up with zeros.
#[must_use]
pub fn sum(payload: &[u8]) -> u64 {
    let mut sums = [0u64; HALF];
    let (rounds, rest) = payload.as_chunks::<ROUND>();
    for round in rounds {
        let (slots, _) = round.as_chunks::<LANE>();
        let lane = |nth: usize| u64::from_le_bytes(slots[nth]);
        for (nth, sum) in sums.iter_mut().enumerate() {
            *sum = sum.wrapping_add(lane(nth)).wrapping_add(lane(nth + HALF));
        }
    }
    let mut sum = sums.into_iter().fold(0, u64::wrapping_add);
    let (slots, tail) = rest.as_chunks::<LANE>();
    for slot in slots {
        sum = sum.wrapping_add(u64::from_le_bytes(*slot));
    }
    let mut lane = [0; LANE];
    lane[..tail.len()].copy_from_slice(tail);
    sum.wrapping_add(u64::from_le_bytes(lane))
}

/// The [`sum`] of a payload of `len` bytes that [`fill`] wrote, without writing one.
#[must_use]
pub fn expected_sum(len: usize) -> u64 {
    let lanes = (len / LANE) as u64;
    // 0 + 1 + ... + (lanes - 1); one of the two factors is even, so it is halved first.
    let indices = if lanes.is_multiple_of(2) {
        (lanes / 2).wrapping_mul(lanes.wrapping_sub(1))
    } else {
        lanes.wrapping_mul((lanes - 1) / 2)
    };
    let tail_bits = 8 * (len % LANE) as u32;
    let tail = STEP.wrapping_mul(lanes) & ((1 << tail_bits) - 1);
    STEP.wrapping_mul(indices).wrapping_add(tail)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec;

    #[test]
    fn every_byte_is_as_documented() {
        for len in [0, 1, 7, 8, 9, 63, 64, 65, 128, 1000, 4096 + 3] {
            let mut payload = vec![0xaa; len];
            fill(&mut payload);
            for (index, byte) in payload.iter().enumerate() {
                let lane = STEP.wrapping_mul((index / LANE) as u64);
                assert_eq!(*byte, lane.to_le_bytes()[index % LANE], "byte {index} of {len}");
            }
        }
    }

    #[test]
    fn sums_are_as_expected() {
        for len in (0..300).chain([4096, 65_537, 1 << 20]) {
            let mut payload = vec![0; len];
            fill(&mut payload);
            assert_eq!(sum(&payload), expected_sum(len), "length {len}");
        }
    }
}
