//! Segments between two processes of a trust domain: here two pools, with descriptors between them.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use roadrunner_buffer::{
    Backing, Contents, Descriptor, Home, Lease, Lent, Releases, Sealed, Traffic, Window,
};
use roadrunner_sys::Memfd;

use crate::memory::{MIB, Memory, PAGE, Secret, home, is_zero, pattern, pool};

const LEN: usize = 4 * MIB - 1000;
const PAGES: usize = 4 * MIB;

fn bytes() -> Vec<u8> {
    pattern(1, Secret::Nobody, LEN)
}

/// A producer's window with a payload in it.
fn produced(memory: &mut Memory, home: &Home) -> Window {
    let place = memory.place(0, PAGES);
    let window = Window::fresh(place, Backing::Segment, Contents::Unspecified, home).unwrap();
    memory.bytes_mut(0..LEN).copy_from_slice(&bytes());
    window
}

/// A payload as it goes to a process of the same domain.
fn passed(window: &mut Window, home: &Home) -> (Sealed<'static>, Arc<Lease>) {
    let (sealed, cost) = window.lend(LEN).unwrap().published(home, true).unwrap();
    assert_eq!(cost, Traffic::default());
    let Some(Descriptor::Segment(lease)) = sealed.descriptor() else {
        panic!("it is in no segment");
    };
    let lease = Arc::clone(lease);
    (sealed, lease)
}

fn received(lease: &Lease, home: &Home, releases: &Arc<Releases>) -> Sealed<'static> {
    let fd = lease.descriptor().try_clone_to_owned().unwrap();
    Sealed::adopt_segment(fd, LEN, home, releases).unwrap()
}

/// Page faults of this thread so far.
fn faults() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().nth(7).unwrap().parse().unwrap()
}

#[test]
fn the_same_pages_carry_one_payload_after_the_other_without_a_fault() {
    let (here, there) = (home(&pool(64), 0), home(&pool(64), 0));
    let (mut a, mut b) = (Memory::new(8 * MIB), Memory::new(8 * MIB));
    let (lent, releases) = (Lent::default(), Arc::new(Releases::default()));
    let (mut ids, mut counts) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let before = faults();
        let mut window = produced(&mut a, &here);
        let (sealed, lease) = passed(&mut window, &here);
        ids.push(lease.id());
        lent.add(Arc::clone(&lease));
        drop(sealed);
        let arrived = received(&lease, &there, &releases);
        drop(lease);
        let (landed, cost) = arrived.land(b.place(0, PAGES), &there).unwrap();
        assert_eq!(cost, Traffic { copied: 0, moved: LEN as u64 });
        assert!(b.bytes(0..LEN) == bytes(), "other bytes arrived");
        assert!(is_zero(b.bytes(LEN..PAGES)));
        b.bytes_mut(0..LEN).fill(9);
        drop(landed);
        drop(window);
        assert!(is_zero(a.bytes(0..PAGES)) && is_zero(b.bytes(0..PAGES)), "somebody kept pages");
        let ended = releases.take(10);
        assert_eq!(ended, ids[ids.len() - 1..]);
        lent.come_back(&ended);
        counts.push(faults() - before);
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "the same segment each time: {ids:?}");
    // Comparing faults in the zeros that both leave behind, and the test's own vectors.
    let (first, last) = (counts[0], counts[4]);
    assert!(first > last + 512, "the first round faulted pages in, later ones did not: {counts:?}");
}

#[test]
fn a_peer_has_a_segment_until_it_gives_it_back() {
    let here = home(&pool(64), 0);
    let mut a = Memory::new(8 * MIB);
    let lent = Lent::default();
    let id = {
        let mut window = produced(&mut a, &here);
        let (_, lease) = passed(&mut window, &here);
        lent.add(Arc::clone(&lease));
        lease.id()
    };
    let other = passed(&mut produced(&mut a, &here), &here).1.id();
    assert_ne!(other, id, "the peer may still write to it");
    lent.come_back(&[id + 1_000_000]);
    assert_ne!(passed(&mut produced(&mut a, &here), &here).1.id(), id);
    lent.come_back(&[id]);
    assert_eq!(passed(&mut produced(&mut a, &here), &here).1.id(), id);
    // A peer that is gone can't be asked any more.
    let mut window = produced(&mut a, &here);
    lent.add(passed(&mut window, &here).1);
    drop(window);
    drop(lent);
    assert_ne!(passed(&mut produced(&mut a, &here), &here).1.id(), id);
}

#[test]
fn a_segment_that_may_be_in_use_elsewhere_is_given_up_and_not_used_again() {
    let here = home(&pool(64), 0);
    let mut a = Memory::new(8 * MIB);
    let lent = Lent::default();
    let mut lend = || {
        let mut window = produced(&mut a, &here);
        let lease = passed(&mut window, &here).1;
        lent.add(Arc::clone(&lease));
        lease.id()
    };
    let counts = || (here.pool.usage().segments, here.pool.usage().leased);
    let (one, two) = (lend(), lend());
    assert_eq!(counts(), (2, 2));
    lent.abandon(&[one, one + 1_000_000]);
    assert_eq!(counts(), (1, 1), "it counts no more");
    lent.come_back(&[one]);
    let three = lend();
    assert!(three != one && three != two, "a late release is nothing");
    lent.abandon_all();
    assert_eq!(counts(), (0, 0));
    lent.come_back(&[two, three]);
    assert_eq!(counts(), (0, 0));
}

#[test]
fn the_owner_hears_of_a_segment_that_was_given_up_and_comes_back() {
    let (here, there) = (home(&pool(64), 0), home(&pool(64), 0));
    let mut a = Memory::new(8 * MIB);
    let owner = Arc::new(Releases::default());
    let lent = Lent::default();
    let mut pass_on = || {
        let lease = passed(&mut produced(&mut a, &here), &here).1;
        let arrived = received(&lease, &there, &owner);
        let (on, _) = arrived.published(&there, true).unwrap();
        let Some(Descriptor::Segment(theirs)) = on.descriptor() else { panic!("it is in none") };
        lent.add(Arc::clone(theirs));
        // Its owner waits for it.
        std::mem::forget(lease);
        theirs.id()
    };
    let (one, two, three) = (pass_on(), pass_on(), pass_on());
    lent.abandon(&[one]);
    lent.abandon_all();
    assert_eq!(owner.take(10), [], "whoever has it may still write to it");
    lent.come_back(&[two, two, one]);
    assert_eq!(owner.take(10), [two, one]);
    lent.end();
    lent.come_back(&[three]);
    assert_eq!(owner.take(10), []);
}

#[test]
fn the_owner_hears_no_more_than_once_and_not_before_the_last_lease_ends() {
    let (here, there) = (home(&pool(64), 0), home(&pool(64), 0));
    let mut a = Memory::new(8 * MIB);
    let (owner, lent) = (Arc::new(Releases::default()), Lent::default());
    let lease = passed(&mut produced(&mut a, &here), &here).1;
    let arrived = received(&lease, &there, &owner);
    let (on, _) = arrived.published(&there, true).unwrap();
    let Some(Descriptor::Segment(theirs)) = on.descriptor() else { panic!("it is in none") };
    // Given up once, and gone to the peer once more.
    lent.add(Arc::clone(theirs));
    lent.abandon_all();
    lent.add(Arc::clone(theirs));
    lent.come_back(&[lease.id()]);
    lent.come_back(&[lease.id()]);
    assert_eq!(owner.take(10), [], "a payload is still in it here");
    drop((on, arrived));
    assert_eq!(owner.take(10), [lease.id()]);
    lent.come_back(&[lease.id()]);
    assert_eq!(owner.take(10), []);
    // What was disowned is nobody's news.
    received(&lease, &there, &owner).descriptor().map(disowned).unwrap();
    assert_eq!(owner.take(10), []);
}

fn disowned(descriptor: Descriptor<'_>) {
    let Descriptor::Segment(lease) = descriptor else { panic!("it is in none") };
    lease.disown();
}

#[test]
fn what_a_peer_that_is_gone_lent_is_kept_no_longer_than_it_is_used() {
    let (here, there) = (home(&pool(64), 0), home(&pool(64), 0));
    let (mut a, b) = (Memory::new(8 * MIB), Memory::new(8 * MIB));
    let [gone, other] = [(); 2].map(|()| Arc::new(Releases::default()));
    let lease = passed(&mut produced(&mut a, &here), &here).1;
    let arrived = received(&lease, &there, &gone);
    assert_eq!(there.pool.usage().foreign, 1);
    there.pool.forget(&other);
    assert_eq!(there.pool.usage().foreign, 1, "nothing is known of the other");
    there.pool.forget(&gone);
    assert_eq!(there.pool.usage().foreign, 0);
    let (landed, _) = arrived.land(b.place(0, PAGES), &there).unwrap();
    assert!(b.bytes(0..LEN) == bytes(), "a payload that is there stays");
    drop(landed);
}

#[test]
fn a_payload_that_nobody_took_is_still_there() {
    let here = home(&pool(64), 0);
    let mut a = Memory::new(8 * MIB);
    let mut window = produced(&mut a, &here);
    drop(passed(&mut window, &here));
    assert!(a.bytes(0..LEN) == bytes());
    assert!(window.lend(LEN).unwrap().bytes().unwrap() == bytes());
}

#[test]
fn others_see_neither_a_segment_nor_what_was_in_it() {
    let pool = pool(64);
    let (here, other) = (home(&pool, 0), home(&pool, 1));
    let mut a = Memory::new(8 * MIB);
    // To a process of no trust domain goes a sealed copy.
    let mut window = produced(&mut a, &here);
    let (sealed, cost) = window.lend(LEN).unwrap().published(&here, false).unwrap();
    assert_eq!(cost.copied, LEN as u64);
    assert!(matches!(sealed.descriptor(), Some(Descriptor::Sealed(_))));
    assert!(sealed.bytes().unwrap() == bytes());
    drop(window);
    let fresh = |a: &Memory, home, contents| {
        Window::fresh(a.place(0, PAGES), Backing::Segment, contents, home).unwrap()
    };
    let zeroed = fresh(&a, &here, Contents::Zeroed);
    assert!(is_zero(a.bytes(0..PAGES)), "what was asked to be zero");
    drop(zeroed);
    drop(produced(&mut a, &here));
    let foreign = fresh(&a, &other, Contents::Unspecified);
    assert!(is_zero(a.bytes(0..PAGES)), "another domain's bytes");
    drop(foreign);
}

#[test]
fn a_segment_that_splits_or_is_shared_is_copied() {
    let here = home(&pool(64), 0);
    let (mut a, b) = (Memory::new(8 * MIB), Memory::new(16 * MIB));
    let mut window = produced(&mut a, &here);
    let (shared, cost) = window.share(PAGES).unwrap();
    assert_eq!((cost.copied, shared.bytes().unwrap() == a.bytes(0..PAGES)), (PAGES as u64, true));
    drop(window);
    let mut window = produced(&mut a, &here);
    let (parts, cost) = window.lend(LEN).unwrap().split(2, &here).unwrap();
    assert_eq!(cost.copied, LEN as u64);
    for (nth, part) in parts.into_iter().enumerate() {
        let (landed, _) = part.land(b.place(nth * PAGES, PAGES), &here).unwrap();
        assert!(b.bytes(nth * PAGES..nth * PAGES + LEN) == bytes());
        drop(landed);
    }
    drop(window);
    assert!(is_zero(a.bytes(0..PAGES)));
}

#[test]
fn a_segment_moves_within_a_process_too() {
    let here = home(&pool(64), 0);
    let (mut a, b) = (Memory::new(8 * MIB), Memory::new(16 * MIB));
    let mut window = produced(&mut a, &here);
    let (landed, cost) = window.lend(LEN).unwrap().land(b.place(0, PAGES), &here).unwrap();
    assert_eq!(cost.copied, 0);
    assert!(b.bytes(0..LEN) == bytes() && is_zero(a.bytes(0..PAGES)));
    let mut landed = landed;
    let (lifted, _) = landed.lend(LEN).unwrap().detach(&here).unwrap();
    assert!(is_zero(b.bytes(0..PAGES)));
    let (on, cost) = lifted.published(&here, true).unwrap();
    assert!(matches!(on.descriptor(), Some(Descriptor::Segment(_))) && cost.copied == 0);
    drop(on);
    let (landed, _) = lifted.land(b.place(PAGES, PAGES), &here).unwrap();
    assert!(b.bytes(PAGES..PAGES + LEN) == bytes());
    drop(landed);
    assert!(is_zero(b.bytes(PAGES..2 * PAGES)));
}

#[test]
fn too_many_segments_are_sealed_memfds() {
    let here = home(&pool(2), 0);
    let mut a = Memory::new(8 * MIB);
    // The pool has no room for this one.
    let mut window = produced(&mut a, &here);
    let (sealed, cost) = window.lend(PAGES).unwrap().published(&here, true).unwrap();
    assert_eq!(cost.copied, 0);
    assert!(matches!(sealed.descriptor(), Some(Descriptor::Sealed(_))));
}

#[test]
fn a_segment_must_be_what_the_peer_says() {
    let there = home(&pool(64), 0);
    let releases = Arc::new(Releases::default());
    let refused = |memfd: &Memfd, len| {
        let fd: OwnedFd = memfd.as_fd().try_clone_to_owned().unwrap();
        Sealed::adopt_segment(fd, len, &there, &releases).unwrap_err().to_string()
    };
    let memfd = Memfd::new(2 * PAGE).unwrap();
    assert!(refused(&memfd, PAGE).contains("not sealed as a segment is"));
    memfd.seal_length().unwrap();
    let fd = memfd.as_fd().try_clone_to_owned().unwrap();
    assert!(Sealed::adopt_segment(fd, 2 * PAGE, &there, &releases).is_ok());
    assert!(refused(&memfd, 2 * PAGE + 1).contains("it has 8192 bytes"));
    let sealed = Memfd::new(PAGE).unwrap();
    sealed.seal().unwrap();
    assert!(refused(&sealed, PAGE).contains("not sealed as a segment is"));
}
