//! One small test per promise, so that a broken one is named.

use roadrunner_buffer::{Backing, Contents, PoolUse, Sealed, Traffic, Window};

use crate::memory::{BREAK_EVEN, MIB, Memory, PAGE, Secret, home, is_zero, may_see, pattern, pool};

const LEN: usize = 128 << 10;

/// A window over the first `len` bytes, filled with a pattern of secret bytes of domain 0.
fn written(
    memory: &mut Memory,
    len: usize,
    backing: Backing,
    home: &roadrunner_buffer::Home,
) -> Window {
    let window = Window::fresh(memory.place(0, len), backing, Contents::Zeroed, home).unwrap();
    memory.bytes_mut(0..len).copy_from_slice(&pattern(1, Secret::Of(0), len));
    window
}

fn copied(len: usize) -> Traffic {
    Traffic { copied: len as u64, moved: 0 }
}

fn moved(len: usize) -> Traffic {
    Traffic { copied: 0, moved: len as u64 }
}

#[test]
fn recycled_pages_stay_in_their_domain_unless_zeroed() {
    let (mut a, mut b) = (Memory::new(2 * MIB), Memory::new(2 * MIB));
    let pool = pool(16);
    drop(written(&mut a, LEN, Backing::Private, &home(&pool, 0)));
    let same =
        Window::fresh(a.place(0, LEN), Backing::Private, Contents::Unspecified, &home(&pool, 0));
    assert_eq!(a.bytes(0..LEN), pattern(1, Secret::Of(0), LEN), "pages are recycled at all");
    drop(same.unwrap());
    b.bytes_mut(0..LEN).fill(1);
    let other =
        Window::fresh(b.place(0, LEN), Backing::Private, Contents::Unspecified, &home(&pool, 1));
    assert_eq!(
        pool.usage(),
        PoolUse { empty_ranges: 1, ..PoolUse::default() },
        "taken from the other domain"
    );
    assert!(may_see(b.bytes(0..LEN), 1));
    drop(other.unwrap());
}

#[test]
fn what_a_shorter_payload_leaves_of_recycled_pages_is_gone() {
    let mut a = Memory::new(2 * MIB);
    let pool = pool(16);
    drop(written(&mut a, LEN + PAGE, Backing::Private, &home(&pool, 0)));
    let shorter =
        Window::fresh(a.place(0, LEN), Backing::Private, Contents::Unspecified, &home(&pool, 1));
    assert_eq!(pool.usage().empty_ranges, 1);
    drop(shorter.unwrap());
    // A payload written by the host takes the empty range of this length, and must find it empty.
    let mut seen = Vec::new();
    let payload = Sealed::write(LEN + PAGE, &home(&pool, 1), |place| {
        seen = place.to_vec();
        Ok(())
    });
    assert!(is_zero(&seen[LEN..]) && may_see(&seen, 1));
    drop(payload.unwrap());
}

#[test]
fn the_last_page_ends_in_zeros() {
    let pool = pool(16);
    let home = home(&pool, 0);
    let len = LEN - PAGE + 5;
    for backing in [Backing::Private, Backing::Memfd] {
        let (mut a, b) = (Memory::new(2 * MIB), Memory::new(2 * MIB));
        let mut window = written(&mut a, LEN, backing, &home);
        let landed = window.lend(len).unwrap().land(b.place(0, LEN), &home).unwrap();
        assert_eq!(b.bytes(0..len), pattern(1, Secret::Of(0), len));
        assert!(is_zero(b.bytes(len..LEN)), "{backing:?}");
        assert_eq!(landed.1, moved(len));
        assert!(is_zero(a.bytes(0..LEN)), "the producer keeps nothing");
    }
    let (mut a, b) = (Memory::new(2 * MIB), Memory::new(2 * MIB));
    drop(written(&mut a, LEN, Backing::Private, &home));
    let write = |place: &mut [u8]| {
        place.fill(7);
        Ok(())
    };
    let payload = Sealed::write(len, &home, write).unwrap();
    let _landed = payload.land(b.place(0, LEN), &home).unwrap();
    assert!(is_zero(b.bytes(len..LEN)), "a payload in recycled pages");
    drop(written(&mut a, LEN, Backing::Private, &home));
    let plain = vec![7; len];
    let place = b.place(MIB, LEN);
    let (_landed, traffic) = Sealed::borrowed(&plain).land(place, &home).unwrap();
    assert_eq!(traffic, copied(len));
    assert!(is_zero(b.bytes(MIB + len..MIB + LEN)), "a copy in recycled pages");
}

#[test]
fn the_pool_keeps_few_empty_ranges_and_none_of_a_view() {
    let pool = pool(16);
    let home = home(&pool, 0);
    let (mut a, b) = (Memory::new(2 * MIB), Memory::new(2 * MIB));
    let mut window = written(&mut a, LEN, Backing::Memfd, &home);
    let _shared = window.share(LEN).unwrap();
    let (payload, _) = window.lend(LEN).unwrap().detach(&home).unwrap();
    let landed = payload.land(b.place(0, LEN), &home).unwrap();
    assert_eq!(pool.usage(), PoolUse::default(), "a view's range is not kept");
    drop((landed, window));

    let unlike = |pages| 16 * PAGE + pages * 4 * PAGE;
    let mut windows = Vec::new();
    for pages in 0..6 {
        drop(written(&mut a, unlike(pages), Backing::Private, &home));
        let place = b.place(pages * 64 * PAGE, unlike(pages));
        let window = Window::fresh(place, Backing::Private, Contents::Unspecified, &home);
        windows.push(window.unwrap());
    }
    let kept = PoolUse { empty_ranges: 4, ..PoolUse::default() };
    assert_eq!(pool.usage(), kept, "of six ranges that became empty");
}

#[test]
fn a_part_of_a_payload_leaves_with_its_pages_only() {
    let pool = pool(16);
    let home = home(&pool, 0);
    let (mut a, b) = (Memory::new(2 * MIB), Memory::new(2 * MIB));
    let mut window = written(&mut a, LEN, Backing::Private, &home);
    let landed = window.lend(PAGE + 1).unwrap().land(b.place(0, 2 * PAGE), &home).unwrap();
    assert!(is_zero(a.bytes(0..2 * PAGE)));
    assert_eq!(a.bytes(2 * PAGE..LEN), &pattern(1, Secret::Of(0), LEN)[2 * PAGE..]);
    drop((landed, window));
    assert_eq!(pool.usage().bytes, 0, "no range without pages takes a place in the pool");
}

#[test]
fn a_window_whose_pages_left_has_none_to_recycle() {
    for backing in [Backing::Private, Backing::Memfd] {
        let pool = pool(16);
        let home = home(&pool, 0);
        let (mut a, b) = (Memory::new(2 * MIB), Memory::new(2 * MIB));
        let mut window = written(&mut a, LEN, backing, &home);
        let landed = window.lend(LEN).unwrap().land(b.place(0, LEN), &home).unwrap();
        drop(window);
        assert_eq!(pool.usage().bytes, 0, "{backing:?}");
        drop(landed);
        let kept = if backing == Backing::Private { LEN } else { 0 };
        assert_eq!(pool.usage().bytes, kept, "{backing:?}: only anonymous pages are recycled");
        assert!(is_zero(b.bytes(0..LEN)));
    }
}

#[test]
fn views_are_one_physical_copy_and_each_consumers_own() {
    let pool = pool(16);
    let home = home(&pool, 0);
    for (backing, cost) in [(Backing::Memfd, Traffic::default()), (Backing::Private, copied(LEN))] {
        let mut a = Memory::new(2 * MIB);
        let mut consumers: Vec<Memory> = (0..3).map(|_| Memory::new(2 * MIB)).collect();
        let mut window = written(&mut a, LEN, backing, &home);
        let (payloads, traffic) = window.lend(LEN).unwrap().split(3, &home).unwrap();
        assert_eq!(traffic, cost);
        assert!(is_zero(a.bytes(0..LEN)), "the payload has left its producer");
        let mut views = Vec::new();
        for (payload, consumer) in payloads.into_iter().zip(&consumers) {
            let (view, traffic) = payload.land(consumer.place(0, LEN), &home).unwrap();
            assert_eq!(traffic, moved(LEN));
            views.push(view);
        }
        consumers[0].bytes_mut(0..LEN).fill(9);
        for consumer in &consumers[1..] {
            assert_eq!(consumer.bytes(0..LEN), pattern(1, Secret::Of(0), LEN));
        }
        // A written view moves on with what was written, and leaves zeros.
        let (_moved_on, traffic) =
            views[0].lend(LEN).unwrap().land(a.place(0, LEN), &home).unwrap();
        assert_eq!(traffic, moved(LEN));
        assert!(a.bytes(0..LEN).iter().all(|byte| *byte == 9));
        assert!(is_zero(consumers[0].bytes(0..LEN)), "a given view shows its file no longer");
    }
}

#[test]
fn sharing_costs_a_copy_only_where_pages_are_not_shared_yet() {
    let pool = pool(16);
    let home = home(&pool, 0);
    let (mut a, b) = (Memory::new(2 * MIB), Memory::new(2 * MIB));
    let mut window = written(&mut a, LEN, Backing::Memfd, &home);
    assert_eq!(window.share(LEN).unwrap().1, Traffic::default(), "the first time");
    let (shared, traffic) = window.share(LEN).unwrap();
    assert_eq!(traffic, Traffic::default(), "unchanged");
    a.bytes_mut(0..LEN)[PAGE] = 1;
    assert_eq!(window.share(LEN).unwrap().1, copied(LEN), "changed");
    assert_eq!(window.share(PAGE).unwrap().1, copied(PAGE), "a part");
    let _view = shared.land(b.place(0, LEN), &home).unwrap();
    assert_eq!(b.bytes(0..LEN), pattern(1, Secret::Of(0), LEN), "the older payload is as it was");
    assert_eq!(a.bytes(PAGE..PAGE + 1), [1]);
}

#[test]
fn sharing_a_part_leaves_the_rest_to_its_owner() {
    let pool = pool(16);
    let home = home(&pool, 0);
    for backing in [Backing::Private, Backing::Memfd] {
        let (mut a, b) = (Memory::new(2 * MIB), Memory::new(2 * MIB));
        let mut window = written(&mut a, LEN, backing, &home);
        let (shared, _) = window.share(PAGE + 1).unwrap();
        assert_eq!(a.bytes(0..LEN), pattern(1, Secret::Of(0), LEN));
        a.bytes_mut(0..LEN).fill(2);
        let _view = shared.land(b.place(0, 2 * PAGE), &home).unwrap();
        assert_eq!(b.bytes(0..PAGE + 1), pattern(1, Secret::Of(0), PAGE + 1));
        assert!(is_zero(b.bytes(PAGE + 1..2 * PAGE)));
    }
}

#[test]
fn small_and_empty_payloads_are_copied() {
    let pool = pool(16);
    let home = home(&pool, 0);
    let (mut a, b) = (Memory::new(2 * MIB), Memory::new(2 * MIB));
    let len = BREAK_EVEN - 1;
    let mut window = written(&mut a, BREAK_EVEN, Backing::Private, &home);
    let (payload, traffic) = window.lend(len).unwrap().detach(&home).unwrap();
    assert_eq!(traffic, copied(len));
    let (_window, traffic) = payload.land(b.place(0, BREAK_EVEN), &home).unwrap();
    assert_eq!(traffic, copied(len));
    assert_eq!(b.bytes(0..len), pattern(1, Secret::Of(0), len));

    let mut eager = home.clone();
    eager.break_even = roadrunner_buffer::BreakEven::fixed(0);
    let (empty, traffic) = Sealed::empty().detach(&eager).unwrap();
    assert_eq!((empty.bytes().unwrap(), traffic), (&[][..], Traffic::default()));
    let (split, traffic) = empty.split(2, &eager).unwrap();
    assert_eq!((split.len(), traffic), (2, Traffic::default()));
}

#[test]
#[should_panic(expected = "a window as long as the payload")]
fn a_payload_lands_in_a_window_of_its_length_only() {
    let (a, home) = (Memory::new(2 * MIB), home(&pool(16), 0));
    let _ = Sealed::borrowed(&[1; PAGE + 1]).land(a.place(0, PAGE), &home);
}
