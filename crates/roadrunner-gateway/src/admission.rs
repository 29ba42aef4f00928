//! Who may come in: counts of everything that a client can make the host hold.
//!
//! Each permit counts until it is dropped, wherever it has been carried by then.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::Limits;
use crate::refusal::Refusal;

/// Whose limits a connection's requests count against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Client(IpAddr);

impl Client {
    /// An IPv4 address, or an IPv6 /64: whoever has one address of such a network has all of them.
    pub(crate) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = address.to_bits() >> 64 << 64;
                IpAddr::V6(Ipv6Addr::from_bits(network))
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }

    pub(crate) fn address(self) -> IpAddr {
        self.0
    }
}

/// What a gateway holds now.
pub(crate) struct Admission {
    limits: Arc<Limits>,
    clients: Mutex<HashMap<Client, Counts>>,
    connections: AtomicUsize,
    requests: AtomicUsize,
    queued: AtomicUsize,
    running: Arc<Semaphore>,
    body_bytes: AtomicU64,
}

#[derive(Default)]
struct Counts {
    connections: usize,
    requests: usize,
}

/// A snapshot of it.
pub(crate) struct Gauges {
    pub(crate) connections: usize,
    pub(crate) requests: usize,
    pub(crate) queued: usize,
    pub(crate) running: usize,
    pub(crate) body_bytes: u64,
}

impl Admission {
    pub(crate) fn new(limits: &Arc<Limits>) -> Arc<Self> {
        Arc::new(Self {
            limits: Arc::clone(limits),
            clients: Mutex::default(),
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            running: Arc::new(Semaphore::new(limits.running.min(Semaphore::MAX_PERMITS))),
            body_bytes: AtomicU64::new(0),
        })
    }

    pub(crate) fn gauges(&self) -> Gauges {
        let running = self.limits.running.min(Semaphore::MAX_PERMITS);
        Gauges {
            connections: self.connections.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
            queued: self.queued.load(Ordering::Relaxed),
            running: running - self.running.available_permits(),
            body_bytes: self.body_bytes.load(Ordering::Relaxed),
        }
    }

    /// A place for a connection; `None` where there is none, for all or for this client.
    pub(crate) fn connection(self: &Arc<Self>, client: Client) -> Option<Place> {
        let most = self.limits.connections_per_client;
        let mut place = self.place(client, Held::Connection, most)?;
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        place.counted = true;
        (before < self.limits.connections).then_some(place)
    }

    /// A place for a request.
    pub(crate) fn request(self: &Arc<Self>, client: Client) -> Result<Place, Refusal> {
        let most = self.limits.requests_per_client;
        let Some(mut place) = self.place(client, Held::Request, most) else {
            return Err(Refusal::too_many(most));
        };
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        place.counted = true;
        if before >= self.limits.requests {
            return Err(Refusal::overloaded("too many requests are in flight"));
        }
        Ok(place)
    }

    fn place(self: &Arc<Self>, client: Client, held: Held, most: usize) -> Option<Place> {
        let mut clients = self.clients();
        let now = clients.get_mut(&client).map_or(0, |counts| *counts.of(held));
        if now >= most {
            return None;
        }
        *clients.entry(client).or_default().of(held) = now + 1;
        Some(Place { admission: Arc::clone(self), client, held, counted: false })
    }

    /// A place among those that run, after a wait among those that are queued.
    pub(crate) async fn run(self: &Arc<Self>) -> Result<OwnedSemaphorePermit, Refusal> {
        if let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(permit);
        }
        let before = self.queued.fetch_add(1, Ordering::Relaxed);
        let _queued = Queued(self);
        if before >= self.limits.queued {
            return Err(Refusal::overloaded("too many requests wait to run"));
        }
        let permit = Arc::clone(&self.running).acquire_owned();
        match tokio::time::timeout(self.limits.queue_wait, permit).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Refusal::overloaded("other requests have been running for too long")),
        }
    }

    /// Whether a request that comes now would find the queue full.
    pub(crate) fn queue_is_full(&self) -> bool {
        self.running.available_permits() == 0
            && self.queued.load(Ordering::Relaxed) >= self.limits.queued
    }

    /// A claim on the memory for bodies, of nothing yet.
    pub(crate) fn charge(self: &Arc<Self>) -> Charge {
        Charge { admission: Arc::clone(self), bytes: 0 }
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<Client, Counts>> {
        // Nothing that can panic runs under the lock.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn of(&mut self, held: Held) -> &mut usize {
        match held {
            Held::Connection => &mut self.connections,
            Held::Request => &mut self.requests,
        }
    }
}

#[derive(Clone, Copy)]
enum Held {
    Connection,
    Request,
}

/// A connection or a request, counted for its client and for all.
pub(crate) struct Place {
    admission: Arc<Admission>,
    client: Client,
    held: Held,
    /// Whether it counts for all too.
    counted: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        let all = match self.held {
            Held::Connection => &self.admission.connections,
            Held::Request => &self.admission.requests,
        };
        if self.counted {
            all.fetch_sub(1, Ordering::Relaxed);
        }
        let mut clients = self.admission.clients();
        if let Some(counts) = clients.get_mut(&self.client) {
            *counts.of(self.held) -= 1;
            if counts.connections == 0 && counts.requests == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

/// A place in the queue.
struct Queued<'a>(&'a Admission);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Memory for a body.
pub(crate) struct Charge {
    admission: Arc<Admission>,
    bytes: u64,
}

impl Charge {
    /// Makes it `bytes` if it is less and there is so much.
    pub(crate) fn raise_to(&mut self, bytes: usize) -> Result<(), Refusal> {
        let more = (bytes as u64).saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        let total = &self.admission.body_bytes;
        let before = total.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) > self.admission.limits.body_bytes {
            total.fetch_sub(more, Ordering::Relaxed);
            return Err(Refusal::overloaded("the bodies of other requests take up its memory"));
        }
        self.bytes += more;
        Ok(())
    }

    /// Makes it `bytes`, before they are there, if that leaves half of the memory for others. So what is
    /// only announced can't keep out what is sent.
    pub(crate) fn announce(&mut self, bytes: usize) -> bool {
        let total = &self.admission.body_bytes;
        let before = total.fetch_add(bytes as u64, Ordering::Relaxed);
        let fits = before.saturating_add(bytes as u64) <= self.admission.limits.body_bytes / 2;
        if fits {
            self.bytes += bytes as u64;
        } else {
            total.fetch_sub(bytes as u64, Ordering::Relaxed);
        }
        fits
    }

    /// Makes it `bytes`, which are there already.
    pub(crate) fn set(&mut self, bytes: usize) {
        let total = &self.admission.body_bytes;
        total.fetch_add(bytes as u64, Ordering::Relaxed);
        total.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes as u64;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.admission.body_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> Client {
        Client::of(address.parse().unwrap())
    }

    fn admission(limits: Limits) -> Arc<Admission> {
        Admission::new(&Arc::new(limits))
    }

    #[test]
    fn a_client_is_an_address_or_a_network() {
        assert_eq!(client("10.0.0.1"), client("::ffff:10.0.0.1"));
        assert_ne!(client("10.0.0.1"), client("10.0.0.2"));
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:0:0:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
    }

    #[test]
    fn places_are_given_back_and_clients_forgotten() {
        let limits = Limits { requests: 3, requests_per_client: 2, ..Limits::default() };
        let admission = admission(limits);
        let (one, two) = (client("10.0.0.1"), client("10.0.0.2"));
        let status = |client| admission.request(client).err().map(|it| it.status.as_u16());
        let held = [admission.request(one).ok().unwrap(), admission.request(one).ok().unwrap()];
        assert_eq!(status(one), Some(429));
        let third = admission.request(two).ok().unwrap();
        assert_eq!(status(two), Some(503));
        assert_eq!(admission.gauges().requests, 3);
        drop(held);
        assert_eq!(status(one), None);
        drop(third);
        assert_eq!(admission.gauges().requests, 0);
        assert!(admission.clients().is_empty());
    }

    #[test]
    fn charges_stay_within_the_budget_unless_they_must_not() {
        let admission = admission(Limits { body_bytes: 100, ..Limits::default() });
        let (mut one, mut two) = (admission.charge(), admission.charge());
        one.raise_to(60).unwrap();
        one.raise_to(10).unwrap();
        assert_eq!(two.raise_to(41).unwrap_err().status.as_u16(), 503);
        two.raise_to(40).unwrap();
        one.set(200);
        assert_eq!(admission.gauges().body_bytes, 240);
        one.set(0);
        assert_eq!(admission.gauges().body_bytes, 40);
        drop(two);
        assert_eq!(admission.gauges().body_bytes, 0);
        let mut announced = admission.charge();
        assert!(!announced.announce(51) && announced.announce(50));
        assert!(!admission.charge().announce(1));
        admission.charge().raise_to(50).unwrap();
        assert_eq!(admission.gauges().body_bytes, 50);
    }
}
