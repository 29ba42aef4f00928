//! Payloads whose length nobody knows before they are written.

use roadrunner_buffer::{Backing, Growing, Sealed, Traffic, Window};

use crate::alone::alone;
use crate::memory::{MIB, Memory, PAGE, Secret, home, is_zero, pattern, pool};

/// These bytes, written in pieces of many lengths.
fn written(backing: Backing, bytes: &[u8]) -> Growing {
    let mut growing = Growing::new(backing).unwrap();
    let (mut left, mut piece) = (bytes, 1);
    while !left.is_empty() {
        let (next, rest) = left.split_at(piece.min(left.len()));
        let place = growing.extend(next.len()).unwrap();
        assert!(is_zero(place), "nothing was written there yet");
        place.copy_from_slice(next);
        (left, piece) = (rest, piece * 3 % 100_003);
    }
    assert_eq!(growing.len(), bytes.len());
    assert!(growing.bytes() == bytes);
    growing
}

#[test]
fn what_is_written_bit_by_bit_moves_on_without_a_copy() {
    for backing in [Backing::Private, Backing::Memfd] {
        for len in [1, PAGE, 16 * PAGE, 16 * PAGE + 1, 5 * MIB + 77] {
            let (home, memory) = (home(&pool(16), 0), Memory::new(8 * MIB));
            let pages = len.next_multiple_of(PAGE);
            let bytes = pattern(1, Secret::Nobody, len);
            let mut window = written(backing, &bytes).into_window(&home).unwrap();
            assert_eq!(window.len(), pages);
            let (sealed, detached) = window.lend(len).unwrap().detach(&home).unwrap();
            let (landed, traffic) = sealed.land(memory.place(0, pages), &home).unwrap();
            assert!(memory.bytes(0..len) == bytes && is_zero(memory.bytes(len..pages)));
            let moves = Traffic { copied: 0, moved: len as u64 };
            let copies = Traffic { copied: 2 * len as u64, moved: 0 };
            let expected = if home.break_even.moves(len) { moves } else { copies };
            assert_eq!(detached + traffic, expected, "{backing:?}, {len} bytes");
            drop(landed);
        }
    }
}

#[test]
fn what_was_written_to_a_memfd_is_split_without_a_copy() {
    let home = home(&pool(16), 0);
    let bytes = pattern(2, Secret::Nobody, 3 * MIB + 5);
    let split = |mut window: Window| window.lend(bytes.len()).unwrap().split(3, &home).unwrap();
    let (parts, traffic) = split(written(Backing::Memfd, &bytes).into_window(&home).unwrap());
    assert_eq!(traffic, Traffic::default());
    assert!(parts.iter().all(|part| part.bytes().unwrap() == bytes));
    assert!(parts.iter().all(|part| part.descriptor().is_some()), "it holds nothing else");
    let (_, traffic) = split(written(Backing::Private, &bytes).into_window(&home).unwrap());
    assert_eq!(traffic, Traffic { copied: bytes.len() as u64, moved: 0 });
}

#[test]
fn a_growing_payload_takes_little_more_address_space_than_bytes() {
    alone("growing::a_growing_payload_takes_little_more_address_space_than_bytes", || {
        let before = address_space();
        let mut growing = Growing::new(Backing::Private).unwrap();
        for kib in [1, 40, 100, 1000, 9000] {
            growing.extend(kib << 10).unwrap().fill(1);
            let taken = address_space() - before;
            assert!(taken <= 2 * growing.len() + MIB, "{taken} bytes for {}", growing.len());
        }
        drop(growing);
        assert_eq!(address_space(), before);
    });
}

/// Bytes of address space in use.
fn address_space() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').next().unwrap().parse::<usize>().unwrap() * PAGE
}

#[test]
fn more_than_there_can_be_is_refused() {
    let mut growing = written(Backing::Memfd, b"some");
    for too_many in [usize::MAX, usize::MAX - 4, 1 << 62] {
        assert!(growing.extend(too_many).is_err());
    }
    assert_eq!(growing.bytes(), b"some");
    let home = home(&pool(16), 0);
    assert_eq!(window_bytes(growing.into_window(&home).unwrap().lend(4).unwrap()), b"some");
}

fn window_bytes(sealed: Sealed<'_>) -> Vec<u8> {
    sealed.bytes().unwrap().to_vec()
}
