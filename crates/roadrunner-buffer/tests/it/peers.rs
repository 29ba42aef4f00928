//! Payloads that go to another process and come from one, which may be hostile.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use roadrunner_buffer::{Backing, Contents, Descriptor, Sealed, Traffic, Window};
use roadrunner_sys::Memfd;

use crate::memory::{BREAK_EVEN, MIB, Memory, PAGE, Secret, home, is_zero, pattern, pool};

const LEN: usize = 40 * PAGE - 1000;

/// What another process sends: a sealed memfd with these bytes, of `len` bytes in all.
fn sent(bytes: &[u8], len: usize) -> OwnedFd {
    let memfd = Memfd::new(len).unwrap();
    memfd.file().write_all_at(bytes, 0).unwrap();
    memfd.seal().unwrap();
    memfd.as_fd().try_clone_to_owned().unwrap()
}

/// A payload of `LEN` bytes with bytes behind it on its last page.
fn littered() -> Sealed<'static> {
    let pages = LEN.next_multiple_of(PAGE);
    Sealed::adopt(sent(&pattern(1, Secret::Nobody, pages), pages), LEN).unwrap()
}

fn refusal(fd: OwnedFd, len: usize) -> String {
    let error = Sealed::adopt(fd, len).unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    let source = source.downcast_ref::<io::Error>().unwrap();
    assert_eq!(source.kind(), io::ErrorKind::InvalidData);
    error.to_string()
}

#[test]
fn an_adopted_payload_lands_without_a_copy() {
    let mut a = Memory::new(MIB);
    let bytes = pattern(1, Secret::Nobody, LEN);
    let pages = LEN.next_multiple_of(PAGE);
    let sealed = Sealed::adopt(sent(&bytes, pages), LEN).unwrap();
    assert_eq!((sealed.len(), sealed.bytes().unwrap()), (LEN, bytes.as_slice()));
    a.bytes_mut(0..pages).fill(9);
    let (mut window, cost) = sealed.land(a.place(0, pages), &home(&pool(1), 0)).unwrap();
    assert_eq!(cost, Traffic { copied: 0, moved: LEN as u64 });
    assert_eq!(a.bytes(0..LEN), bytes);
    assert!(is_zero(a.bytes(LEN..pages)));
    // It goes on to the next process as it came.
    let home = home(&pool(1), 0);
    let (on, cost) = window.lend(LEN).unwrap().published(&home, false).unwrap();
    assert_eq!(cost, Traffic::default());
    assert!(on.descriptor().is_some());
}

#[test]
fn what_a_peer_leaves_behind_its_payload_is_never_seen() {
    let (pool, pages) = (pool(4), LEN.next_multiple_of(PAGE));
    let (home, bytes) = (home(&pool, 0), pattern(1, Secret::Nobody, LEN));
    let memory = Memory::new(8 * MIB);
    let shows = |at: usize| {
        assert_eq!(memory.bytes(at..at + LEN), bytes);
        assert!(is_zero(memory.bytes(at + LEN..at + pages)), "at {at}");
    };
    let land = |sealed: Sealed<'_>, at: usize| {
        let (window, _) = sealed.land(memory.place(at, pages), &home).unwrap();
        shows(at);
        window
    };
    assert_eq!(littered().bytes().unwrap(), bytes);
    let mut window = land(littered(), 0);
    // Nor by those it is handed on to, in whatever way.
    let shared = land(window.share(LEN).unwrap().0, MIB);
    let mut moved = land(window.lend(LEN).unwrap(), 2 * MIB);
    let mut lifted = land(moved.lend(LEN).unwrap().detach(&home).unwrap().0, 3 * MIB);
    let mut at = 4 * MIB;
    let mut keep = vec![shared];
    for one in littered().split(2, &home).unwrap().0 {
        keep.push(land(one, at));
        at += MIB;
    }
    for one in lifted.lend(LEN).unwrap().split(2, &home).unwrap().0 {
        keep.push(land(one, at));
        at += MIB;
    }
}

#[test]
fn what_a_peer_leaves_behind_its_payload_goes_no_further() {
    let home = home(&pool(1), 0);
    let sealed = littered();
    assert!(sealed.descriptor().is_none());
    let (sealed, cost) = sealed.published(&home, false).unwrap();
    assert_eq!(cost.copied, LEN as u64);
    assert_adoptable(&sealed, &pattern(1, Secret::Nobody, LEN));
}

/// Another process can adopt it, and finds nothing but the payload.
fn assert_adoptable(sealed: &Sealed<'_>, bytes: &[u8]) {
    let Some(Descriptor::Sealed(fd)) = sealed.descriptor() else {
        panic!("it is in no sealed memfd");
    };
    let fd = fd.try_clone_to_owned().unwrap();
    let pages = bytes.len().next_multiple_of(PAGE);
    let memfd = Memfd::adopt(fd, pages).unwrap();
    let mut all = vec![1; pages];
    memfd.file().read_exact_at(&mut all, 0).unwrap();
    assert_eq!(&all[..bytes.len()], bytes);
    assert!(is_zero(&all[bytes.len()..]));
}

#[test]
fn payloads_are_published_with_one_copy_at_most() {
    let pool = pool(4);
    let home = home(&pool, 0);
    let mut memory = Memory::new(MIB);
    let (room, bytes) = (64 * PAGE, pattern(1, Secret::Nobody, LEN));
    let window = |memory: &mut Memory, backing, room: usize| {
        let window = Window::fresh(memory.place(0, room), backing, Contents::Zeroed, &home);
        memory.bytes_mut(0..room).fill(7);
        memory.bytes_mut(0..LEN).copy_from_slice(&bytes);
        window.unwrap()
    };
    let copied = Traffic { copied: LEN as u64, moved: 0 };
    // A memfd that the payload fills is sent as it is; one with more room is copied from.
    let free = (Backing::Memfd, LEN.next_multiple_of(PAGE), Traffic::default());
    for (backing, room, cost) in
        [free, (Backing::Memfd, room, copied), (Backing::Private, room, copied)]
    {
        let mut window = window(&mut memory, backing, room);
        let (sealed, took) = window.lend(LEN).unwrap().published(&home, false).unwrap();
        assert_eq!(took, cost, "{backing:?}, {room} bytes of room");
        assert_adoptable(&sealed, &bytes);
        drop(window);
        assert!(is_zero(memory.bytes(0..room)), "the lender keeps nothing");
    }
    let small = &bytes[..BREAK_EVEN - 1];
    let (sealed, took) = Sealed::borrowed(small).published(&home, false).unwrap();
    assert_eq!((sealed.bytes().unwrap(), took.copied), (small, small.len() as u64));
    assert!(sealed.descriptor().is_none(), "too small to map");
    assert!(Sealed::empty().published(&home, false).unwrap().0.descriptor().is_none());
}

#[test]
fn a_descriptor_must_be_what_the_peer_says() {
    let sealed = || sent(b"payload", 2 * PAGE);
    assert!(Sealed::adopt(sealed(), PAGE + 1).is_ok());
    assert!(Sealed::adopt(sealed(), 2 * PAGE).is_ok());
    let text = refusal(sealed(), PAGE);
    assert_eq!(
        text,
        "adopt a memfd (4096 bytes): the descriptor is refused: it has 8192 bytes, not 4096"
    );
    refusal(sealed(), 2 * PAGE + 1);
    refusal(sealed(), 0);
    refusal(sealed(), usize::MAX);
    refusal(Memfd::new(PAGE).unwrap().as_fd().try_clone_to_owned().unwrap(), PAGE);
    refusal(io::pipe().unwrap().0.into(), PAGE);
}
