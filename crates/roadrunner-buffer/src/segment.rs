//! Segments: memfds that the processes of one trust domain pass to each other, and use again.
//!
//! ```text
//!   process A                                  process B
//!   guest's window <-- place -- rest           rest -- place --> guest's window
//!                  -- return -->  |  descriptor  |  <-- return --
//!                                 `--- memfd ----'
//! ```
//!
//! A sealed memfd can't be written again, so each payload in one costs the faults of all its pages, and
//! sealing costs unmapping them. A segment is sealed against changes of its length only. Whoever has a
//! [`Lease`] of it may write it, and passes the lease on with the descriptor. Every process keeps its
//! own mapping of a segment and the page table entries in it: between two payloads the mapping *rests*
//! in a range of the host's, and is moved from there into a window and back, so that only the first
//! payload of all faults pages in.
//!
//! Leases are a promise between processes that trust each other's hosts; guests see a segment only while
//! its window is theirs. To anybody else payloads go in sealed memfds ([`crate::SharedPages`]).

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use roadrunner_sys::Memfd;

use crate::pool::Domain;
use crate::view::Extent;
use crate::{BufferError, doing};

/// Segments of a process's own at a time: a few for each function of a workflow, each a descriptor
/// and a mapping. Beyond, payloads go in sealed memfds.
const OWN: usize = 64;

/// Segments of other processes that are kept mapped for their next payload, as many bytes as own
/// ones; the one that was used longest ago goes. Their owner may have given them up meanwhile.
const FOREIGN: usize = 64;

/// Segments of other processes that a peer may give back although they were given up: as many as one
/// process keeps.
const DOUBTFUL: usize = FOREIGN;

/// Smallest step between two lengths of segments in bytes.
const STEP: usize = 64 << 10;

/// A memfd of a fixed length, and this process's mapping of it.
#[derive(Debug)]
pub(crate) struct Segment {
    memfd: Memfd,
    id: u64,
    len: usize,
    /// The mapping between two payloads; none before the first.
    rest: Mutex<Option<Extent>>,
    /// A mapping for the host itself, made when it first reads the payload.
    view: OnceLock<Extent>,
}

impl Segment {
    fn new(memfd: Memfd, len: usize) -> io::Result<Arc<Self>> {
        let id = memfd.id()?;
        Ok(Arc::new(Self { memfd, id, len, rest: Mutex::new(None), view: OnceLock::new() }))
    }

    /// Lays its first pages over a range, as many as that has.
    pub(crate) fn place(&self, target: &mut Extent) -> io::Result<()> {
        let mut rest = lock(&self.rest);
        if let Some(rested) = &mut *rest {
            if target.take_pages(rested).is_ok() {
                return Ok(());
            }
            // Several mappings, which kernels before 6.17 don't move: a fresh one does as well.
            *rest = None;
        }
        target.make_shared(&self.memfd)?;
        target.prefer_huge_pages();
        Ok(())
    }

    /// Takes its pages out of a range, which is plain memory afterwards.
    pub(crate) fn take_back(&self, from: &mut Extent) {
        let mut rest = lock(&self.rest);
        if rest.is_none() {
            let fresh = Extent::reserve(self.len).and_then(|mut fresh| {
                fresh.make_shared(&self.memfd)?;
                fresh.prefer_huge_pages();
                Ok(fresh)
            });
            *rest = fresh.ok();
        }
        // Page table entries that can't be kept are faulted in again.
        if rest.as_mut().is_some_and(|rest| rest.take_front(from, &self.memfd).is_err()) {
            *rest = None;
        }
        from.must_be_plain();
    }

    pub(crate) fn bytes(&self) -> Result<&[u8], BufferError> {
        if let Some(view) = self.view.get() {
            return Ok(view.bytes());
        }
        // Under the lock: nobody else is to map the memfd while pages are taken back.
        let rest = lock(&self.rest);
        let fresh = Extent::reserve(self.len).and_then(|mut view| {
            view.make_shared(&self.memfd)?;
            Ok(view)
        });
        drop(rest);
        let fresh = fresh.map_err(doing("map a segment", self.len))?;
        Ok(self.view.get_or_init(|| fresh).bytes())
    }
}

/// The right to a segment's contents: to show them in a window and to pass them on.
#[derive(Debug)]
pub struct Lease {
    pub(crate) segment: Arc<Segment>,
    end: End,
    /// The segment may be in use where nobody can be asked any more: it is never used again.
    abandoned: AtomicBool,
}

/// Who hears of a lease's end.
#[derive(Debug)]
enum End {
    /// The pool of this process, whose segment it is.
    Own(Weak<Segments>, Domain),
    /// The process that passed it on to this one.
    Peer(Arc<Releases>),
}

impl Lease {
    fn new(segment: Arc<Segment>, end: End) -> Self {
        Self { segment, end, abandoned: AtomicBool::new(false) }
    }

    /// What the segment is known as, in every process: the number of its file.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.segment.id
    }

    /// Ends it without a word: whoever passed it on has not let it go.
    pub fn disown(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    /// The segment's descriptor, to be sent to another process of the trust domain.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.segment.memfd.as_fd()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let abandoned = self.abandoned.load(Ordering::Acquire);
        match &self.end {
            End::Own(segments, domain) => {
                let Some(segments) = segments.upgrade() else { return };
                let mut state = segments.lock();
                if abandoned {
                    state.own.remove(&self.segment.id);
                } else {
                    state.free.push((*domain, Arc::clone(&self.segment)));
                }
            }
            End::Peer(_) if abandoned => {}
            End::Peer(releases) => lock(&releases.0).push(self.segment.id),
        }
    }
}

/// Ids of segments that a peer is to hear of: this process has no lease of them any more.
#[derive(Debug, Default)]
pub struct Releases(Mutex<Vec<u64>>);

impl Releases {
    /// These could not be told; the next message says them.
    pub fn put_back(&self, ids: Vec<u64>) {
        lock(&self.0).extend(ids);
    }

    /// At most `most` ids, for the next message to the peer.
    #[must_use]
    pub fn take(&self, most: usize) -> Vec<u64> {
        let mut ids = lock(&self.0);
        let first = ids.len().saturating_sub(most);
        ids.split_off(first)
    }
}

/// Leases that were passed on to a peer and have not come back.
#[derive(Debug, Default)]
pub struct Lent(Mutex<Out>);

#[derive(Debug, Default)]
struct Out {
    leases: HashMap<u64, Vec<Arc<Lease>>>,
    /// Segments of other processes that were given up, the oldest first. If the peer gives one back after
    /// all, its owner is told.
    doubtful: VecDeque<Doubtful>,
}

#[derive(Debug)]
struct Doubtful {
    id: u64,
    owner: Arc<Releases>,
    /// For whoever has it here, after a call that was refused.
    lease: Weak<Lease>,
}

impl Lent {
    /// Notes that the peer has a lease.
    pub fn add(&self, lease: Arc<Lease>) {
        lock(&self.0).leases.entry(lease.id()).or_default().push(lease);
    }

    /// The peer says that it has these no more. Ids that it never had are nothing.
    pub fn come_back(&self, ids: &[u64]) {
        let mut out = lock(&self.0);
        let back: Vec<_> = ids.iter().filter_map(|id| out.come_back(*id)).collect();
        drop(out);
        // Not under the lock: their ends take others.
        drop(back);
    }

    /// Whether the peer has these nobody knows, so it is not waited for them: nobody uses them again,
    /// but for those of other processes that the peer gives back later.
    pub fn abandon(&self, ids: &[u64]) {
        let mut out = lock(&self.0);
        let given_up: Vec<_> = ids.iter().filter_map(|id| out.take(*id)).collect();
        out.give_up(&given_up);
        drop(out);
        drop(given_up);
    }

    /// The same of all that it has.
    pub fn abandon_all(&self) {
        let mut out = lock(&self.0);
        let all: Vec<_> = std::mem::take(&mut out.leases).into_values().flatten().collect();
        out.give_up(&all);
        drop(out);
        drop(all);
    }

    /// The peer is gone, and nobody knows to whom it has passed on what it had: nobody uses that again.
    pub fn end(&self) {
        self.abandon_all();
        lock(&self.0).doubtful.clear();
    }
}

impl Out {
    /// A lease that the peer has.
    fn take(&mut self, id: u64) -> Option<Arc<Lease>> {
        let leases = self.leases.get_mut(&id)?;
        let lease = leases.pop();
        if leases.is_empty() {
            self.leases.remove(&id);
        }
        lease
    }

    /// A lease that the peer had, for its end here. One that was given up has its end there already, or where it
    /// is still in use.
    fn come_back(&mut self, id: u64) -> Option<Arc<Lease>> {
        if let Some(lease) = self.take(id) {
            return Some(lease);
        }
        let at = self.doubtful.iter().position(|doubtful| doubtful.id == id)?;
        let Doubtful { id, owner, lease } = self.doubtful.remove(at)?;
        let lease = lease.upgrade();
        match &lease {
            Some(lease) => lease.abandoned.store(false, Ordering::Release),
            None => lock(&owner.0).push(id),
        }
        lease
    }

    fn give_up(&mut self, leases: &[Arc<Lease>]) {
        for lease in leases {
            lease.disown();
            if let End::Peer(owner) = &lease.end {
                let (id, owner) = (lease.id(), Arc::clone(owner));
                self.doubtful.push_back(Doubtful { id, owner, lease: Arc::downgrade(lease) });
            }
        }
        let surplus = self.doubtful.len().saturating_sub(DOUBTFUL);
        self.doubtful.drain(..surplus);
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // The peer may still write to them.
        self.end();
    }
}

/// The segments that a process knows.
#[derive(Debug)]
pub(crate) struct Segments {
    state: Mutex<State>,
    /// Most bytes of the process's own, and of others.
    bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Of the own ones, those that nobody has a lease of.
    free: Vec<(Domain, Arc<Segment>)>,
    /// The own ones.
    own: HashMap<u64, usize>,
    /// Those of other processes, the last used last.
    foreign: Vec<Foreign>,
}

/// A segment of another process, and who passed it on last.
#[derive(Debug)]
struct Foreign {
    segment: Arc<Segment>,
    from: Arc<Releases>,
}

impl Segments {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), bytes })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// A lease of a segment of at least `len` bytes, and whether it is a fresh one, all zero. `None`
    /// where there are too many.
    pub(crate) fn lease(
        self: &Arc<Self>,
        domain: Domain,
        len: usize,
    ) -> io::Result<Option<(Arc<Lease>, bool)>> {
        let class = class(len);
        if class > self.bytes {
            return Ok(None);
        }
        let lease = |segment| Arc::new(Lease::new(segment, End::Own(Arc::downgrade(self), domain)));
        let mut state = self.lock();
        let fits = |(of, segment): &(Domain, Arc<Segment>)| *of == domain && segment.len == class;
        if let Some(at) = state.free.iter().rposition(fits) {
            let (_, segment) = state.free.swap_remove(at);
            return Ok(Some((lease(segment), false)));
        }
        // Those of other lengths make room.
        while state.own.len() >= OWN || state.own.values().sum::<usize>() + class > self.bytes {
            if state.free.is_empty() {
                return Ok(None);
            }
            let (_, oldest) = state.free.remove(0);
            state.own.remove(&oldest.id);
        }
        let memfd = Memfd::new(class)?;
        memfd.seal_length()?;
        let segment = Segment::new(memfd, class)?;
        state.own.insert(segment.id, class);
        Ok(Some((lease(segment), true)))
    }

    /// A lease that a peer of the trust domain passed on, with its descriptor.
    pub(crate) fn adopt(
        &self,
        fd: OwnedFd,
        len: usize,
        releases: &Arc<Releases>,
    ) -> io::Result<Arc<Lease>> {
        let memfd = Memfd::adopt_segment(fd, len)?;
        let id = memfd.id()?;
        let lease = |segment| Arc::new(Lease::new(segment, End::Peer(Arc::clone(releases))));
        let mut state = self.lock();
        let from = Arc::clone(releases);
        if let Some(at) = state.foreign.iter().position(|known| known.segment.id == id) {
            let segment = state.foreign.remove(at).segment;
            state.foreign.push(Foreign { segment: Arc::clone(&segment), from });
            return Ok(lease(segment));
        }
        let len = memfd.len()?;
        let segment = Segment::new(memfd, len)?;
        state.foreign.push(Foreign { segment: Arc::clone(&segment), from });
        let mut held: usize = state.foreign.iter().map(|known| known.segment.len).sum();
        let mut oldest = Vec::new();
        while state.foreign.len() > FOREIGN || (held > self.bytes && state.foreign.len() > 1) {
            let surplus = state.foreign.remove(0);
            held -= surplus.segment.len;
            oldest.push(surplus);
        }
        drop(state);
        drop(oldest);
        Ok(lease(segment))
    }

    /// Ends the mappings of segments that came from a process which is gone. Leases of them that are
    /// still here keep theirs as long as they live.
    pub(crate) fn forget(&self, releases: &Arc<Releases>) {
        let gone: Vec<_> = {
            let foreign = &mut self.lock().foreign;
            foreign.extract_if(.., |known| Arc::ptr_eq(&known.from, releases)).collect()
        };
        // Unmapping takes long, and nobody waits for it.
        drop(gone);
    }

    /// How many segments of its own there are, how many of them somebody has a lease of, and how many
    /// of other processes.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let state = self.lock();
        let own = state.own.len();
        (own, own - state.free.len(), state.foreign.len())
    }
}

/// The length of the segments that a payload of `len` bytes goes in: at most an eighth more, so that
/// payloads which differ a little use the same.
fn class(len: usize) -> usize {
    let step = (len.next_power_of_two() / 16).max(STEP);
    len.next_multiple_of(step)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks, so a poisoned one is still in order.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
