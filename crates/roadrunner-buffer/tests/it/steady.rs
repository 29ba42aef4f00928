//! What a process has after many hand-overs: the mappings, descriptors and memory it had before.

use std::fs;

use roadrunner_buffer::{Backing, Contents, Home, Window};

use crate::alone::alone;
use crate::memory::{MIB, Memory, PAGE, home, is_zero, pool};

/// The number in a field of `/proc/thread-self/stat` (see `proc_pid_stat(5)`; the first is 1).
fn stat(field: usize) -> usize {
    let text = fs::read_to_string("/proc/thread-self/stat").unwrap();
    let behind_name = text.rsplit_once(") ").unwrap().1;
    let field = behind_name.split(' ').nth(field - 3).unwrap();
    field.parse().unwrap()
}

fn minor_faults() -> usize {
    stat(10)
}

#[derive(Debug)]
struct Held {
    maps: usize,
    descriptors: usize,
    resident_pages: usize,
}

impl Held {
    fn now() -> Self {
        Self {
            maps: roadrunner_sys::map_count().unwrap(),
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
            resident_pages: stat(24),
        }
    }
}

/// One hand-over of a payload that shows `round`, as the kind that comes with the round.
fn hand_over(a: &mut Memory, b: &mut Memory, home: &Home, round: usize) {
    const LENGTHS: [usize; 7] = [1, PAGE, 5 * PAGE + 3, 64 << 10, 300_000, MIB, 2 * MIB + 5 * PAGE];
    let len = LENGTHS[round % LENGTHS.len()];
    let pages = len.next_multiple_of(PAGE);
    let offset = if len > MIB { 0 } else { round % 3 * PAGE };
    let at = offset..offset + len;
    let backing = if round.is_multiple_of(5) { Backing::Memfd } else { Backing::Private };
    let place = a.place(offset, pages);
    let mut window = Window::fresh(place, backing, Contents::Unspecified, home).unwrap();
    let stamp = round.to_le_bytes()[..len.min(8)].to_vec();
    a.bytes_mut(at.clone())[..stamp.len()].copy_from_slice(&stamp);
    if round % 11 == 3 {
        drop(window.share(len).unwrap());
    }
    let sealed = window.lend(len).unwrap();
    let sealed = match round % 4 {
        0 => sealed.detach(home).unwrap().0,
        1 => sealed.split(2, home).unwrap().0.remove(0),
        _ => sealed,
    };
    if round % 13 == 4 {
        // A payload that never lands.
        drop(sealed.detach(home).unwrap());
        return;
    }
    let received = sealed.land(b.place(offset, pages), home).unwrap().0;
    assert_eq!(b.bytes(at.clone())[..stamp.len()], stamp);
    b.bytes_mut(at)[0] = 0xFF;
    drop((received, window));
}

#[test]
fn twenty_thousand_hand_overs_leave_no_trace() {
    alone("steady::twenty_thousand_hand_overs_leave_no_trace", || {
        let (mut a, mut b) = (Memory::new(8 * MIB), Memory::new(8 * MIB));
        let mut rounds = 0..20_000;
        let mut run = |rounds: &mut dyn Iterator<Item = usize>| {
            let home = home(&pool(16), 0);
            rounds.for_each(|round| hand_over(&mut a, &mut b, &home, round));
            // The pool goes with all that waits in it.
            drop(home);
            Held::now()
        };
        let before = run(&mut rounds.by_ref().take(1000));
        let after = run(&mut rounds);
        println!("after 1000: {before:?}, after 20000: {after:?}");
        assert_eq!(before.descriptors, after.descriptors);
        // The pool may hold its ranges in another order, where fewer or more of them touch.
        assert!(after.maps <= before.maps + 8, "{before:?} -> {after:?}");
        // A hundred pages are the test's own heap; one lost page in two hundred rounds would be
        // as many.
        assert!(after.resident_pages <= before.resident_pages + 100);
    });
}

#[test]
fn recycled_payloads_fault_no_page_again() {
    alone("steady::recycled_payloads_fault_no_page_again", || {
        const ROUNDS: usize = 50;
        let (mut a, b) = (Memory::new(8 * MIB), Memory::new(8 * MIB));
        let home = home(&pool(16), 0);
        for (len, steps) in [(64 << 10, 16), (MIB, 256), (5 * MIB + PAGE, 1281)] {
            let mut faults = |contents, rounds| {
                let before = minor_faults();
                for round in 1..=rounds {
                    let place = a.place(0, len);
                    let mut window =
                        Window::fresh(place, Backing::Private, contents, &home).unwrap();
                    for page in 0..steps {
                        a.bytes_mut(page * PAGE..page * PAGE + 1)[0] = u8::try_from(round).unwrap();
                    }
                    let (received, _) =
                        window.lend(len).unwrap().land(b.place(0, len), &home).unwrap();
                    let seen = (0..steps)
                        .map(|page| usize::from(b.bytes(page * PAGE..page * PAGE + 1)[0]));
                    assert_eq!(seen.sum::<usize>(), steps * round);
                    drop((received, window));
                }
                minor_faults() - before
            };
            let fresh = faults(Contents::Zeroed, ROUNDS);
            let recycled = faults(Contents::Unspecified, ROUNDS);
            println!("{len} bytes, {ROUNDS} rounds: {fresh} faults fresh, {recycled} recycled");
            assert!(fresh >= ROUNDS, "the counter counts");
            // One page now and then belongs to this test's own stack and heap.
            assert!(recycled < ROUNDS / 2, "{recycled} faults in {ROUNDS} rounds");
        }
        assert!(is_zero(a.bytes(0..6 * MIB)) && is_zero(b.bytes(0..6 * MIB)));
    });
}
