//! Payloads that arrive piece by piece.

use roadrunner_buffer::{Draft, Home};

use crate::memory::{BREAK_EVEN, MIB, PAGE, home, pool};

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at + at / PAGE) % 251).unwrap() + 1).collect()
}

const LENGTHS: [usize; 9] = [
    1,
    PAGE,
    BREAK_EVEN - 1,
    BREAK_EVEN,
    BREAK_EVEN + 1,
    300_000,
    4 * MIB,
    4 * MIB + 1,
    9 * MIB + 5,
];

/// Writes in pieces that fit no page, and checks what comes out and what it cost.
fn written(mut draft: Draft, sent: &[u8], home: &Home, copies: usize) {
    for piece in sent.chunks(60_001) {
        let memory = draft.memory_with(piece.len());
        assert!(memory >= draft.len() + piece.len(), "{memory} for {}", sent.len());
        draft.write(piece).unwrap();
    }
    assert_eq!(draft.len(), sent.len());
    let (sealed, traffic) = draft.seal().unwrap();
    assert!(sealed.bytes().unwrap() == sent, "{} bytes differ", sent.len());
    assert_eq!((traffic.copied, traffic.moved), ((sent.len() * copies) as u64, 0));
    // It lands as any other payload does, with zeros behind it.
    drop(sealed.detach(home).unwrap());
}

#[test]
fn drafts_of_known_length_are_copied_once() {
    let home = home(&pool(64), 1);
    // The second round finds recycled pages.
    for len in LENGTHS.into_iter().chain(LENGTHS) {
        let sent = bytes(len);
        written(Draft::new(len, &home).unwrap(), &sent, &home, 1);
        written(Draft::recycled(len, &home).unwrap(), &sent, &home, 1);
        written(Draft::shared(len, &home).unwrap(), &sent, &home, 1);
    }
}

#[test]
fn drafts_of_unknown_length_copy_no_more_than_the_first_bytes_twice() {
    let home = home(&pool(64), 1);
    for len in LENGTHS {
        let (sent, mut draft) = (bytes(len), Draft::up_to(16 * MIB, &home));
        for piece in sent.chunks(60_001) {
            draft.write(piece).unwrap();
        }
        let (sealed, traffic) = draft.seal().unwrap();
        assert!(sealed.bytes().unwrap() == sent, "{len} bytes differ");
        assert!(traffic.copied <= (len + len.min(BREAK_EVEN)) as u64, "{len}: {traffic:?}");
    }
}

#[test]
fn a_draft_takes_no_more_than_it_has_room_for() {
    let home = home(&pool(64), 1);
    for mut draft in [
        Draft::new(100, &home).unwrap(),
        Draft::new(MIB, &home).unwrap(),
        Draft::shared(MIB, &home).unwrap(),
        Draft::up_to(MIB, &home),
    ] {
        let room = draft.room();
        draft.write(&bytes(room - 1)).unwrap();
        let error = draft.write(&[1, 2]).unwrap_err();
        assert!(error.to_string().starts_with("write a payload"), "{error}");
        draft.write(&[1]).unwrap();
        assert!(draft.write(&[1]).is_err());
        assert_eq!(draft.seal().unwrap().0.len(), room);
    }
}

#[test]
fn a_draft_that_ends_early_shows_nothing_of_recycled_pages() {
    let home = home(&pool(64), 1);
    let mut secret = Draft::new(MIB, &home).unwrap();
    secret.write(&vec![0xAA; MIB]).unwrap();
    drop(secret.seal().unwrap());
    let mut draft = Draft::recycled(MIB, &home).unwrap();
    assert_eq!(draft.memory_with(0), MIB, "recycled pages");
    draft.write(&vec![1; 100_000]).unwrap();
    let (sealed, _) = draft.seal().unwrap();
    assert!(sealed.bytes().unwrap().iter().all(|byte| *byte == 1));
    assert_eq!(sealed.len(), 100_000);
}

#[test]
fn memory_is_what_has_come_not_what_was_announced() {
    let home = home(&pool(64), 1);
    let mut draft = Draft::new(512 * MIB, &home).unwrap();
    draft.write(&[1; 10]).unwrap();
    assert_eq!(draft.memory_with(10), 2 * MIB);
    let draft = Draft::recycled(512 * MIB, &home).unwrap();
    assert_eq!(draft.memory_with(0), 0, "none wait");
    let draft = Draft::up_to(512 * MIB, &home);
    assert_eq!(draft.memory_with(10), BREAK_EVEN);
}
