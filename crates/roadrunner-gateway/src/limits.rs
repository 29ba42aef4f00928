//! What a gateway takes on, each limit with its reason.

use std::time::{Duration, Instant};

/// How slowly the bytes of one body may flow, in either direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Longest pause between two pieces: a network that is down for a moment, not for longer.
    pub pause: Duration,
    /// Time that counts for nothing at the beginning: connections start slowly.
    pub start: Duration,
    /// Bytes in a second on average after that: a body holds memory for as long as it takes.
    pub bytes_per_second: u64,
}

impl Pace {
    /// When the next byte is due at the latest, of a body that began at `began`, of which `bytes` have
    /// flowed, the last of them at `last`.
    #[must_use]
    pub fn due(&self, began: Instant, last: Instant, bytes: u64) -> Instant {
        let paid = Duration::from_secs(bytes / self.bytes_per_second.max(1));
        let average = began.checked_add(self.start.saturating_add(paid));
        let pause = last + self.pause;
        average.map_or(pause, |average| average.min(pause))
    }
}

/// What a gateway takes on. Nothing that a client does is without one of these.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once: each is a descriptor and some 10 KiB, and up to 128 KiB of half a head. The
    /// next one is told 503 and closed.
    pub connections: usize,
    /// Connections of one client at once, so that one does not take them all. Behind a proxy everybody is
    /// one client: raise it to `connections` there.
    pub connections_per_client: usize,
    /// Requests at once, in whatever state: each may hold a body and a place in the queue.
    pub requests: usize,
    /// Requests of one client at once. A client is an IPv4 address or an IPv6 /64. Those whose client
    /// went away count until their function has ended.
    pub requests_per_client: usize,
    /// Functions and workflows that run at once: each occupies a thread and at least one sandbox.
    pub running: usize,
    /// Requests whose body is complete and that wait for such a thread: more would wait longer than
    /// their clients do.
    pub queued: usize,
    /// Longest wait there. Later it is better to tell the client to come back.
    pub queue_wait: Duration,
    /// Longest body of a request in bytes; the runtime's own limit on payloads counts where it is lower.
    pub payload_bytes: u64,
    /// Memory in bytes of all bodies at once: of requests until their function has ended, of responses
    /// until they are sent. Responses are never refused, so they may go beyond it, by as many as run.
    pub body_bytes: u64,
    /// Longest head of a request in bytes, at least 8 KiB. It is the buffer of an HTTP/1 connection for bodies
    /// too, so this is more than a head needs: with 64 KiB a body of 10 MiB takes 1.5 times as long as with
    /// 128, with 512 hardly less.
    pub header_bytes: usize,
    /// Header fields of a request: each costs the parser's time.
    pub headers: usize,
    /// Time for the head of a request from its first byte: it comes in one packet from who means it.
    pub header_time: Duration,
    /// How slowly the body of a request may come.
    pub request_pace: Pace,
    /// How slowly the client may take a response. A piece of 64 KiB must be gone before the pause ends.
    pub response_pace: Pace,
    /// Time a connection may be open without a request: the next one then finds it open, most of the time.
    pub keep_alive: Duration,
    /// Requests of one HTTP/2 connection at once.
    pub streams: u32,
    /// Time for requests in flight once a shutdown has begun.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_client: 1024,
            requests: 1024,
            requests_per_client: 64,
            running: 64,
            queued: 256,
            queue_wait: Duration::from_secs(2),
            payload_bytes: 1 << 30,
            body_bytes: 4 << 30,
            header_bytes: 128 << 10,
            headers: 100,
            header_time: Duration::from_secs(10),
            request_pace: Pace {
                pause: Duration::from_secs(10),
                start: Duration::from_secs(15),
                bytes_per_second: 16 << 10,
            },
            response_pace: Pace {
                pause: Duration::from_secs(30),
                start: Duration::from_secs(60),
                bytes_per_second: 16 << 10,
            },
            keep_alive: Duration::from_secs(60),
            streams: 64,
            grace: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// The shortest of the times that are watched from outside a request.
    pub(crate) fn shortest_watched(&self) -> Duration {
        let shortest = |pace: Pace| pace.pause.min(pace.start);
        let paces = shortest(self.request_pace).min(shortest(self.response_pace));
        paces.min(self.header_time).min(self.keep_alive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_due_by_its_pause_and_by_its_average() {
        let pace = Pace {
            pause: Duration::from_secs(10),
            start: Duration::from_secs(15),
            bytes_per_second: 100,
        };
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(pace.due(began, began, 0), after(10), "the pause");
        assert_eq!(pace.due(began, after(9), 1), after(15), "nothing paid for");
        assert_eq!(pace.due(began, after(9), 300), after(18), "three seconds paid for");
        assert_eq!(pace.due(began, after(9), 1_000_000), after(19), "the pause again");
        assert_eq!(pace.due(began, began, u64::MAX), after(10), "no overflow");
    }
}
