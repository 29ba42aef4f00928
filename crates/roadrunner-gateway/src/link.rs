//! Connections as the watch sees them: what they do, since when, and the way to end them.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};

use crate::limits::{Limits, Pace};

/// What a connection is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Serve,
    /// Finish the requests that are there, take no more.
    Retire,
    /// End at once.
    Cut(Cause),
}

/// Why a connection was ended from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Idle,
    SlowHead,
    SlowReader,
    Shutdown,
}

impl Cause {
    pub(crate) const ALL: [Self; 4] =
        [Self::Idle, Self::SlowHead, Self::SlowReader, Self::Shutdown];

    /// Its label in the metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::SlowHead => "slow_head",
            Self::SlowReader => "slow_reader",
            Self::Shutdown => "shutdown",
        }
    }
}

/// One connection.
pub(crate) struct Link {
    order: watch::Sender<Order>,
    state: Mutex<State>,
    /// Requests that were taken in on it.
    pub(crate) requests: AtomicU64,
    /// The number of the first request whose head contradicts itself; 0 for none.
    pub(crate) contradiction: AtomicU64,
    /// Whether the client may still be sending what nobody is going to read.
    pub(crate) unread: AtomicBool,
    left: Mutex<Option<TcpStream>>,
}

struct State {
    /// Requests and responses under way.
    active: usize,
    /// When the last of them ended.
    idle_since: Instant,
    head_since: Option<Instant>,
    flows: Vec<Weak<Progress>>,
}

impl Link {
    pub(crate) fn new() -> Arc<Self> {
        let state =
            State { active: 0, idle_since: Instant::now(), head_since: None, flows: Vec::new() };
        Arc::new(Self {
            order: watch::Sender::new(Order::Serve),
            state: Mutex::new(state),
            requests: AtomicU64::new(0),
            contradiction: AtomicU64::new(0),
            unread: AtomicBool::new(false),
            left: Mutex::new(None),
        })
    }

    /// Notes that a head has begun, or ended.
    pub(crate) fn head_begun(&self, begun: bool) {
        lock(&self.state).head_since = begun.then(Instant::now);
    }

    /// Notes a request until its response is sent.
    pub(crate) fn begin(self: &Arc<Self>) -> Active {
        lock(&self.state).active += 1;
        Active(Arc::clone(self))
    }

    /// Watches how a body flows.
    pub(crate) fn watch(&self, progress: &Arc<Progress>) {
        let mut state = lock(&self.state);
        state.flows.retain(|flow| flow.strong_count() > 0);
        state.flows.push(Arc::downgrade(progress));
    }

    pub(crate) fn orders(&self) -> watch::Receiver<Order> {
        self.order.subscribe()
    }

    fn order(&self, order: Order) {
        self.order.send_if_modified(|now| {
            let ends = !matches!(now, Order::Cut(_)) && *now != order;
            if ends {
                *now = order;
            }
            ends
        });
    }

    /// Keeps the stream of a server that is done with it.
    pub(crate) fn leave(&self, stream: TcpStream) {
        *lock(&self.left) = Some(stream);
    }

    /// That stream.
    pub(crate) fn left(&self) -> Option<TcpStream> {
        lock(&self.left).take()
    }

    /// What is to become of it now.
    fn judge(&self, limits: &Limits, now: Instant) -> Option<Order> {
        let state = lock(&self.state);
        for flow in state.flows.iter().filter_map(Weak::upgrade) {
            match &flow.overdue {
                None if flow.is_overdue(&limits.response_pace, now) => {
                    return Some(Order::Cut(Cause::SlowReader));
                }
                Some(overdue) if flow.is_overdue(&limits.request_pace, now) => overdue.notify_one(),
                _ => {}
            }
        }
        if state.active > 0 {
            return None;
        }
        let waits_since = state.head_since.map(|begun| begun.max(state.idle_since));
        if waits_since.is_some_and(|since| now.duration_since(since) > limits.header_time) {
            return Some(Order::Cut(Cause::SlowHead));
        }
        match *self.order.borrow() {
            // It had from one look of the watch to the next for its goodbyes.
            Order::Retire => Some(Order::Cut(Cause::Idle)),
            _ if now.duration_since(state.idle_since) > limits.keep_alive => Some(Order::Retire),
            _ => None,
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("order", &*self.order.borrow()).finish_non_exhaustive()
    }
}

/// A request or response under way on a connection.
#[derive(Debug)]
pub(crate) struct Active(Arc<Link>);

impl Drop for Active {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.active -= 1;
        state.idle_since = Instant::now();
    }
}

/// How far a body has flowed.
#[derive(Debug)]
pub(crate) struct Progress {
    /// For the body of a request, who receives it: it is refused, where the connection of a response is cut.
    overdue: Option<Notify>,
    began: Instant,
    bytes: AtomicU64,
    /// Of the last byte, in milliseconds after the beginning.
    last: AtomicU64,
}

impl Progress {
    /// Of a response.
    pub(crate) fn out() -> Arc<Self> {
        Self::new(None)
    }

    /// Of a request.
    pub(crate) fn incoming() -> Arc<Self> {
        Self::new(Some(Notify::new()))
    }

    fn new(overdue: Option<Notify>) -> Arc<Self> {
        let (bytes, last) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { overdue, began: Instant::now(), bytes, last })
    }

    /// Waits until the watch finds that the body of a request comes too slowly.
    pub(crate) async fn overdue(&self) {
        match &self.overdue {
            Some(overdue) => overdue.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Notes that a piece has come or gone.
    pub(crate) fn flowed(&self, bytes: usize) {
        let after = self.began.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.last.fetch_max(after, Ordering::Relaxed);
    }

    fn is_overdue(&self, pace: &Pace, now: Instant) -> bool {
        let last = self.began + Duration::from_millis(self.last.load(Ordering::Relaxed));
        now > pace.due(self.began, last, self.bytes.load(Ordering::Relaxed))
    }
}

/// All connections of a gateway.
#[derive(Debug, Default)]
pub(crate) struct Links(Mutex<Vec<Weak<Link>>>);

impl Links {
    pub(crate) fn add(&self, link: &Arc<Link>) {
        lock(&self.0).push(Arc::downgrade(link));
    }

    fn all(&self) -> Vec<Arc<Link>> {
        let mut links = lock(&self.0);
        links.retain(|link| link.strong_count() > 0);
        links.iter().filter_map(Weak::upgrade).collect()
    }

    /// Gives all the same order.
    pub(crate) fn order(&self, order: Order) {
        self.all().iter().for_each(|link| link.order(order));
    }

    /// Looks at all, again and again.
    pub(crate) async fn watch(&self, limits: &Limits) {
        let often = limits.shortest_watched() / 4;
        let often = often.clamp(Duration::from_millis(10), Duration::from_secs(1));
        loop {
            tokio::time::sleep(often).await;
            let now = Instant::now();
            for link in self.all() {
                if let Some(order) = link.judge(limits, now) {
                    link.order(order);
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
