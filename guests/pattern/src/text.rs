//! Text for payloads that also travel as JSON strings.
//!
//! Sixteen different letters, as in a dump in hexadecimal: none of them takes an escape in JSON, which is the cheapest that
//! a string can be there. Lane `i` is `i * STEP` with its halves swapped, so that the bytes at which pages begin differ.

use crate::{LANE, STEP};

/// Bytes between two that [`glance`] reads: a page on the processors that this runs on.
const PAGE: usize = 4096;

/// The low half of each byte of a lane varies; with these it is one of `` `abcdefghijklmno ``.
const VARYING: u64 = 0x0f0f_0f0f_0f0f_0f0f;
const LETTERS: u64 = 0x6060_6060_6060_6060;

fn lane(nth: u64) -> u64 {
    nth.wrapping_mul(STEP).rotate_left(32) & VARYING | LETTERS
}

fn byte(index: usize) -> u8 {
    lane((index / LANE) as u64).to_le_bytes()[index % LANE]
}

/// Writes every byte of `payload`: ASCII, and so also UTF-8.
pub fn fill_text(payload: &mut [u8]) {
    let (slots, tail) = payload.as_chunks_mut::<LANE>();
    for (nth, slot) in slots.iter_mut().enumerate() {
        *slot = lane(nth as u64).to_le_bytes();
    }
    tail.copy_from_slice(&lane(slots.len() as u64).to_le_bytes()[..tail.len()]);
}

/// Reads one byte of each page and the last one: what is not there yet has to come, and what is in the wrong place
/// changes the answer.
#[must_use]
pub fn glance(payload: &[u8]) -> u64 {
    let bytes = payload.iter().step_by(PAGE).chain(payload.last());
    digest(bytes.copied())
}

/// The [`glance`] at a payload of `len` bytes that [`fill_text`] wrote.
#[must_use]
pub fn expected_glance(len: usize) -> u64 {
    let last = len.checked_sub(1).map(byte);
    digest((0..len).step_by(PAGE).map(byte).chain(last))
}

/// 32-bit FNV-1a, which depends on the order.
fn digest(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes
        .fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
        .into()
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec;

    #[test]
    fn text_is_ascii_without_escapes_and_a_glance_sees_what_is_wrong() {
        for len in [1, 7, 8, 4095, 4096, 4097, 100_000] {
            let mut payload = vec![0xaa; len];
            fill_text(&mut payload);
            assert!(payload.iter().all(|byte| (b'`'..=b'o').contains(byte)), "{len}");
            assert_eq!(glance(&payload), expected_glance(len), "{len}");
            payload[len - 1] ^= 1;
            assert_ne!(glance(&payload), expected_glance(len), "{len}");
        }
        assert_eq!(glance(&[]), expected_glance(0));
    }

    #[test]
    fn pages_that_changed_places_are_seen() {
        let mut payload = vec![0; 3 * PAGE];
        fill_text(&mut payload);
        let (first, rest) = payload.split_at_mut(PAGE);
        first.swap_with_slice(&mut rest[..PAGE]);
        assert_ne!(glance(&payload), expected_glance(3 * PAGE));
    }
}
