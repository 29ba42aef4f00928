//! The recycling pool under every interleaving of two threads, by the model checker.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p roadrunner-buffer --release --test loom`
#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use loom::sync::Arc;
use loom::thread;
use roadrunner_buffer::{
    Backing, BreakEven, Contents, Domain, Extent, Home, Pool, PoolLimits, PoolUse, Sealed, Window,
};

/// The shortest range that the pool recycles.
const LEN: usize = 64 << 10;

fn home(ranges: usize) -> Home {
    let limits = PoolLimits { bytes: ranges * LEN, ranges, empty_ranges: 1 };
    Home { pool: Arc::new(Pool::new(limits)), domain: Domain(0), break_even: BreakEven::fixed(1) }
}

fn fresh(home: &Home, contents: Contents) -> Window {
    let place = Extent::reserve(LEN).unwrap();
    Window::fresh(place, Backing::Private, contents, home).unwrap()
}

/// A payload of the host's in pages of the pool's, whose first byte says what was there before.
fn take(home: &Home, mark: u8) -> (u8, Sealed<'static>) {
    let mut before = 0;
    let payload = Sealed::write(LEN, home, |place| {
        before = place[0];
        place[0] = mark;
        Ok(())
    });
    (before, payload.unwrap())
}

fn mark_of(payload: &Sealed<'_>) -> u8 {
    payload.bytes().unwrap()[0]
}

#[test]
fn waiting_pages_go_to_one_taker() {
    loom::model(|| {
        let home = home(2);
        drop(take(&home, 1).1);
        assert_eq!(home.pool.usage().bytes, LEN);
        let other = {
            let home = home.clone();
            thread::spawn(move || take(&home, 2))
        };
        let (before_mine, mine) = take(&home, 3);
        let (before_other, theirs) = other.join().unwrap();
        assert_eq!(before_mine + before_other, 1, "one of both found the pages");
        assert_eq!((mark_of(&mine), mark_of(&theirs)), (3, 2));
        assert_eq!(home.pool.usage().bytes, 0);
        drop((mine, theirs));
        assert_eq!(home.pool.usage().bytes, 2 * LEN);
    });
}

#[test]
fn two_takers_get_two_ranges_and_leave_one_empty() {
    loom::model(|| {
        let home = home(2);
        drop((take(&home, 1).1, take(&home, 2).1));
        let other = {
            let home = home.clone();
            thread::spawn(move || fresh(&home, Contents::Unspecified))
        };
        let mut mine = fresh(&home, Contents::Unspecified);
        let mut theirs = other.join().unwrap();
        let marks = [&mut mine, &mut theirs].map(|window| mark_of(&window.lend(LEN).unwrap()));
        assert!(marks == [1, 2] || marks == [2, 1], "{marks:?}");
        let left = PoolUse { empty_ranges: 1, ..PoolUse::default() };
        assert_eq!(home.pool.usage(), left, "both left an empty range, one is kept");
    });
}

#[test]
fn pages_put_aside_at_once_are_both_there_or_over_the_bound() {
    for ranges in [1, 2] {
        loom::model(move || {
            let home = home(ranges);
            let other = {
                let home = home.clone();
                thread::spawn(move || {
                    drop(take(&home, 1).1);
                    // What waits is the other's or nobody's; it's taken whole or not at all.
                    let window = fresh(&home, Contents::Unspecified);
                    assert!(home.pool.usage().bytes <= ranges * LEN);
                    drop(window);
                })
            };
            drop(take(&home, 2).1);
            other.join().unwrap();
            let usage = home.pool.usage();
            assert!(usage.empty_ranges <= 1, "{usage:?}");
            // Both put a range aside; one may have recycled the other's before.
            assert!((1..=ranges).contains(&(usage.bytes / LEN)), "{usage:?}");
            let mut found = Vec::new();
            while home.pool.usage().bytes > 0 {
                let (before, payload) = take(&home, 9);
                assert!([0, 1, 2].contains(&before));
                found.push(payload);
            }
            assert_eq!(found.len() * LEN, usage.bytes, "what is counted is there");
        });
    }
}

#[test]
fn a_payload_crosses_threads_while_the_pool_is_in_use() {
    loom::model(|| {
        let home = home(2);
        let (_, payload) = take(&home, 7);
        let other = {
            let home = home.clone();
            thread::spawn(move || {
                let place = Extent::reserve(LEN).unwrap();
                let (window, _) = payload.land(place, &home).unwrap();
                drop(window);
            })
        };
        let (before, mine) = take(&home, 8);
        assert!(before == 0 || before == 7);
        other.join().unwrap();
        assert_eq!(mark_of(&mine), 8);
        drop(mine);
        // Pages that crossed and were taken here are one range, else there are two.
        let ranges = if before == 7 { 1 } else { 2 };
        assert_eq!(home.pool.usage().bytes, ranges * LEN);
    });
}
