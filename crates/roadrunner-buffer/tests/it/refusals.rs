//! What is left when the kernel refuses.

use roadrunner_buffer::{Backing, Contents, Extent, Sealed, Window};

use crate::alone::alone;
use crate::memory::{MIB, Memory, PAGE, Secret, home, is_zero, pattern, pool};

/// A process may have more mappings than a test can make in good time: some hosts grant a million.
const MOST_MAPS: usize = 200_000;

/// Takes every mapping that the kernel still grants this process. Each second huge page is advised
/// to be one, which splits a mapping in three; in the end that is refused.
fn exhaust_mappings() -> Option<(Memory, Vec<Extent>)> {
    const STEP: usize = 4 * MIB;
    let most = roadrunner_sys::max_map_count().unwrap();
    if most > MOST_MAPS {
        return None;
    }
    let memory = Memory::new((most / 2 + 1) * STEP);
    for step in 0..most / 2 {
        memory.place(step * STEP, 2 * MIB).prefer_huge_pages();
    }
    // Splitting ends one short of where mapping ends: the last ones are whole mappings.
    let last = std::iter::from_fn(|| Extent::reserve(2 * MIB).ok());
    let last = last.take(64).collect();
    (roadrunner_sys::map_count().unwrap() > most).then_some((memory, last))
}

#[test]
fn a_process_without_mappings_loses_no_payload_and_lives_on() {
    let name = "refusals::a_process_without_mappings_loses_no_payload_and_lives_on";
    alone(name, without_mappings);
}

fn without_mappings() {
    const LEN: usize = 80 * PAGE;
    let home = home(&pool(16), 0);
    let (mut a, b) = (Memory::new(8 * MIB), Memory::new(8 * MIB));
    let bytes = pattern(1, Secret::Nobody, LEN);
    let mut window = |at: usize, backing| {
        let place = a.place(at, LEN);
        let window = Window::fresh(place, backing, Contents::Zeroed, &home).unwrap();
        a.bytes_mut(at..at + LEN).copy_from_slice(&bytes);
        window
    };
    let mut plain = window(0, Backing::Private);
    let mut writable = window(MIB, Backing::Memfd);
    let mut sharing = window(2 * MIB, Backing::Memfd);
    let lifted = window(3 * MIB, Backing::Private).lend(LEN).unwrap().detach(&home).unwrap().0;
    let moved = window(4 * MIB, Backing::Private)
        .lend(LEN)
        .unwrap()
        .land(b.place(0, LEN), &home)
        .unwrap()
        .0;
    let view = sharing.share(LEN).unwrap().0.land(b.place(MIB, LEN), &home).unwrap().0;
    let dropped = window(5 * MIB, Backing::Memfd);

    let Some(filler) = exhaust_mappings() else {
        println!("skipped: this process can't be brought to its last mapping");
        return;
    };
    let refused = |payload: Sealed<'_>, at: usize| {
        let (error, payload) = payload.land(b.place(at, LEN), &home).err().unwrap();
        println!("refused: {error}");
        assert_eq!(payload.bytes().unwrap(), bytes);
        assert!(is_zero(b.bytes(at..at + LEN)));
    };
    refused(plain.lend(LEN).unwrap(), 2 * MIB);
    let (error, lifted) = lifted.land(b.place(2 * MIB, LEN), &home).err().unwrap();
    println!("refused: {error}");
    assert_eq!(lifted.bytes().unwrap(), bytes);
    let fresh = Window::fresh(b.place(2 * MIB, LEN), Backing::Memfd, Contents::Zeroed, &home);
    println!("refused: {}", fresh.err().unwrap());
    // What has a mapping of its own can always be replaced by plain memory.
    drop((moved, view, dropped));
    assert!(is_zero(b.bytes(0..LEN)) && is_zero(b.bytes(MIB..MIB + LEN)));
    assert!(is_zero(a.bytes(5 * MIB..5 * MIB + LEN)));

    drop(filler);
    let payloads = [plain.lend(LEN), Ok(lifted), writable.lend(LEN)];
    for (payload, at) in payloads.into_iter().zip([2 * MIB, 3 * MIB, 4 * MIB]) {
        let landed = payload.unwrap().land(b.place(at, LEN), &home).unwrap();
        assert_eq!(b.bytes(at..at + LEN), bytes);
        drop(landed);
    }
}
