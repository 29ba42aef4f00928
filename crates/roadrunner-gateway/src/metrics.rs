//! Counters and gauges, in the text format of Prometheus.
//!
//! By hand: two maps and a page of text are less than the crates that would do it.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roadrunner_runtime::{Hop, Mode, Traffic};

use crate::admission::Gauges;
use crate::link::Cause;

/// Most series of one metric: names come from manifests, but also from processes elsewhere.
const SERIES: usize = 4096;

/// What stands for all further ones.
const OTHER: &str = "other";

/// Everything that is counted.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(String, Ended), u64>>,
    traffic: Mutex<BTreeMap<(String, &'static str), Traffic>>,
    /// Copies that the gateway itself made, of requests and of responses.
    copied_in: AtomicU64,
    copied_out: AtomicU64,
    refused_connections: AtomicU64,
    cut: [AtomicU64; Cause::ALL.len()],
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ended {
    Status(u16),
    /// The client went away.
    Gone,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Gone => f.write_str("gone"),
        }
    }
}

impl Metrics {
    pub(crate) fn request(&self, target: &str, ended: Ended) {
        let mut requests = lock(&self.requests);
        let full = requests.len() >= SERIES;
        let mut key = (target.to_owned(), ended);
        if full && !requests.contains_key(&key) {
            key.0 = OTHER.into();
        }
        *requests.entry(key).or_default() += 1;
    }

    pub(crate) fn hops(&self, hops: &[Hop]) {
        let mut traffic = lock(&self.traffic);
        for hop in hops {
            let full = traffic.len() >= SERIES;
            let mut key = (hop.to.clone(), Mode::name(hop.mode));
            if full && !traffic.contains_key(&key) {
                key.0 = OTHER.into();
            }
            *traffic.entry(key).or_default() += hop.account.traffic;
        }
    }

    pub(crate) fn copied_in(&self, traffic: Traffic) {
        self.copied_in.fetch_add(traffic.copied, Ordering::Relaxed);
    }

    pub(crate) fn copied_out(&self, traffic: Traffic) {
        self.copied_out.fetch_add(traffic.copied, Ordering::Relaxed);
    }

    pub(crate) fn refused_connection(&self) {
        self.refused_connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn cut(&self, cause: Cause) {
        self.cut[cause as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The whole page.
    pub(crate) fn page(&self, gauges: &Gauges) -> String {
        let mut page = Page(String::new());
        page.counter("roadrunner_requests_total", "Requests that ended, by target and status.");
        for ((target, ended), count) in lock(&self.requests).iter() {
            let (target, ended) = (Escaped(target), ended.to_string());
            page.line(format_args!(
                "roadrunner_requests_total{{target=\"{target}\",status=\"{ended}\"}} {count}"
            ));
        }
        self.traffic_on(&mut page);
        page.counter(
            "roadrunner_body_copied_bytes_total",
            "Bytes that the gateway itself copied between the network and a payload's pages.",
        );
        for (direction, bytes) in [("request", &self.copied_in), ("response", &self.copied_out)] {
            let bytes = bytes.load(Ordering::Relaxed);
            page.line(format_args!(
                "roadrunner_body_copied_bytes_total{{direction=\"{direction}\"}} {bytes}"
            ));
        }
        let name = "roadrunner_connections_refused_total";
        page.counter(name, "Connections closed at once because there were too many.");
        page.line(format_args!("{name} {}", self.refused_connections.load(Ordering::Relaxed)));
        let name = "roadrunner_connections_cut_total";
        page.counter(name, "Connections that the gateway ended by itself, by cause.");
        for (cause, count) in Cause::ALL.into_iter().zip(&self.cut) {
            let (cause, count) = (cause.name(), count.load(Ordering::Relaxed));
            page.line(format_args!("{name}{{cause=\"{cause}\"}} {count}"));
        }
        page.gauge("roadrunner_connections", "Open connections.", gauges.connections);
        let help = "Requests from their head until their response is sent.";
        page.gauge("roadrunner_requests_in_flight", help, gauges.requests);
        page.gauge("roadrunner_requests_queued", "Requests that wait to run.", gauges.queued);
        page.gauge("roadrunner_requests_running", "Requests whose functions run.", gauges.running);
        let help = "Memory of the bodies of requests and responses in flight.";
        page.gauge("roadrunner_body_bytes", help, gauges.body_bytes);
        page.0
    }

    fn traffic_on(&self, page: &mut Page) {
        type Bytes = fn(&Traffic) -> u64;
        let metrics: [(&str, &str, Bytes); 2] = [
            (
                "roadrunner_copied_bytes_total",
                "Payload bytes copied to bring payloads to a function.",
                |traffic| traffic.copied,
            ),
            (
                "roadrunner_moved_bytes_total",
                "Payload bytes whose pages moved to a function instead.",
                |traffic| traffic.moved,
            ),
        ];
        let traffic = lock(&self.traffic).clone();
        for (name, help, bytes) in metrics {
            page.counter(name, help);
            for ((function, mode), traffic) in &traffic {
                let (function, bytes) = (Escaped(function), bytes(traffic));
                page.line(format_args!(
                    "{name}{{function=\"{function}\",mode=\"{mode}\"}} {bytes}"
                ));
            }
        }
    }
}

/// Counts a request when it ends, in whatever way.
pub(crate) struct Tally {
    metrics: Arc<Metrics>,
    target: String,
    ended: Ended,
}

impl Tally {
    pub(crate) fn new(metrics: &Arc<Metrics>) -> Self {
        Self { metrics: Arc::clone(metrics), target: OTHER.into(), ended: Ended::Gone }
    }

    /// Names what was asked for. Only names that exist, or a client could make up series without end.
    pub(crate) fn target(&mut self, target: String) {
        self.target = target;
    }

    pub(crate) fn ended(&mut self, status: u16) {
        self.ended = Ended::Status(status);
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.metrics.request(&self.target, self.ended);
    }
}

struct Page(String);

impl Page {
    fn counter(&mut self, name: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} counter"));
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl fmt::Display) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}"));
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a string can't fail.
        let _ = self.0.write_fmt(line);
        self.0.push('\n');
    }
}

/// A label's value, which may be anything that a process elsewhere called itself.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            other => f.write_char(other),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauges() -> Gauges {
        Gauges { connections: 1, requests: 2, queued: 3, running: 4, body_bytes: 5 }
    }

    #[test]
    fn a_page_has_one_line_for_each_series() {
        let metrics = Metrics::default();
        metrics.request("/workflows/a", Ended::Status(200));
        metrics.request("/workflows/a", Ended::Status(200));
        metrics.request("a\"b\\c\nd", Ended::Gone);
        metrics.cut(Cause::SlowReader);
        let page = metrics.page(&gauges());
        for line in [
            r#"roadrunner_requests_total{target="/workflows/a",status="200"} 2"#,
            r#"roadrunner_requests_total{target="a\"b\\c\nd",status="gone"} 1"#,
            r#"roadrunner_connections_cut_total{cause="slow_reader"} 1"#,
            r#"roadrunner_connections_cut_total{cause="idle"} 0"#,
            "roadrunner_requests_queued 3",
            "# TYPE roadrunner_moved_bytes_total counter",
        ] {
            assert!(page.lines().any(|it| it == line), "{line} in\n{page}");
        }
        assert!(page.ends_with('\n'));
    }

    #[test]
    fn names_without_end_become_one_series() {
        let metrics = Metrics::default();
        for name in 0..SERIES + 10 {
            metrics.request(&name.to_string(), Ended::Status(200));
        }
        let page = metrics.page(&gauges());
        assert!(page.contains("{target=\"other\",status=\"200\"} 10\n"));
    }
}
