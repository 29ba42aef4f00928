//! What a container uses, in the words of the kernel's control groups, which containerd and the kubelet understand. The numbers
//! are those of its sandboxes: a pod is one process, and control groups don't see inside.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use roadrunner_sys::{cpu_time, page_size};

use crate::error::Refusal;

/// What one container uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) cpu: Duration,
    /// Bytes that are in memory.
    pub(crate) memory: u64,
    /// Most bytes that it may have, where that is limited.
    pub(crate) limit: Option<u64>,
}

impl Figures {
    /// What this process uses besides the guests of its containers.
    fn of_host(guests: &[Self]) -> Result<Self, Refusal> {
        let statm = std::fs::read_to_string("/proc/self/statm");
        let statm = statm.map_err(Refusal::failed("read this process's memory"))?;
        let pages: u64 = statm.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or(0);
        let memory = pages * page_size() as u64;
        let sum = |of: fn(&Self) -> u64| guests.iter().map(of).sum::<u64>();
        let guests_cpu: Duration = guests.iter().map(|it| it.cpu).sum();
        Ok(Self {
            cpu: cpu_time().saturating_sub(guests_cpu),
            memory: memory.saturating_sub(sum(|it| it.memory)),
            limit: None,
        })
    }

    /// As containerd has it, which goes by the version of control groups that the host has.
    pub(crate) fn message(self, unified: bool) -> Result<Any, Refusal> {
        let (package, encoded) = if unified {
            ("io.containerd.cgroups.v2", self.second().write_to_bytes())
        } else {
            ("io.containerd.cgroups.v1", self.first().write_to_bytes())
        };
        let value = encoded.map_err(|error| Refusal::Failed(error.to_string()))?;
        Ok(Any { type_url: format!("{package}.{}", v1::Metrics::NAME), value, ..Any::default() })
    }

    fn first(self) -> v1::Metrics {
        let total = nanos(self.cpu);
        let usage = v1::CPUUsage { total, user: total, ..Default::default() };
        let cpu = v1::CPUStat { usage: MessageField::some(usage), ..Default::default() };
        // What has no limit has the greatest that the kernel would tell.
        let limit = self.limit.unwrap_or(i64::MAX.unsigned_abs());
        let entry = v1::MemoryEntry { limit, usage: self.memory, ..Default::default() };
        let memory = v1::MemoryStat {
            rss: self.memory,
            total_rss: self.memory,
            usage: MessageField::some(entry),
            ..Default::default()
        };
        v1::Metrics {
            cpu: MessageField::some(cpu),
            memory: MessageField::some(memory),
            ..Default::default()
        }
    }

    fn second(self) -> v2::Metrics {
        let usage_usec = u64::try_from(self.cpu.as_micros()).unwrap_or(u64::MAX);
        let cpu = v2::CPUStat { usage_usec, user_usec: usage_usec, ..Default::default() };
        let memory = v2::MemoryStat {
            anon: self.memory,
            usage: self.memory,
            usage_limit: self.limit.unwrap_or(u64::MAX),
            ..Default::default()
        };
        v2::Metrics {
            cpu: MessageField::some(cpu),
            memory: MessageField::some(memory),
            ..Default::default()
        }
    }
}

/// What is the pod's own: what its process uses besides the guests of its containers. Its processor time only grows, whatever a
/// guest's run has told too early, and what a container has used that is gone is not the pod's.
#[derive(Debug, Default)]
pub(crate) struct OfPod {
    ended_ns: AtomicU64,
    told_ns: AtomicU64,
}

impl OfPod {
    /// A container is gone, which had used this.
    pub(crate) fn without(&self, container: Figures) {
        self.ended_ns.fetch_add(nanos(container.cpu), Ordering::Relaxed);
    }

    /// What it is now, beside what the containers use that are there.
    pub(crate) fn figures(&self, guests: &[Figures]) -> Result<Figures, Refusal> {
        let now = Figures::of_host(guests)?;
        let own = nanos(now.cpu).saturating_sub(self.ended_ns.load(Ordering::Relaxed));
        let told = self.told_ns.fetch_max(own, Ordering::Relaxed).max(own);
        Ok(Figures { cpu: Duration::from_nanos(told), ..now })
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURES: Figures =
        Figures { cpu: Duration::from_micros(1_500), memory: 65_536, limit: Some(1 << 20) };

    #[test]
    fn both_versions_say_the_same() {
        let any = FIGURES.message(false).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
        let first = v1::Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!((first.cpu.usage.total, first.memory.usage.usage), (1_500_000, 65_536));
        assert_eq!(first.memory.usage.limit, 1 << 20);
        let any = FIGURES.message(true).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
        let second = v2::Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!((second.cpu.usage_usec, second.memory.usage), (1_500, 65_536));
        assert_eq!(second.memory.usage_limit, 1 << 20);
    }

    #[test]
    fn the_pods_own_time_never_runs_backwards_and_takes_nothing_over() {
        let pod = OfPod::default();
        let guest = |cpu| Figures { cpu, ..Figures::default() };
        let first = pod.figures(&[]).unwrap().cpu;
        let early = pod.figures(&[guest(Duration::from_secs(3600))]).unwrap().cpu;
        assert_eq!(early, first, "a guest told too much for a moment");
        pod.without(guest(Duration::from_secs(3600)));
        assert_eq!(
            pod.figures(&[]).unwrap().cpu,
            first,
            "what a container had used is not the pod's"
        );
    }

    #[test]
    fn the_pod_has_what_its_guests_have_not() {
        let alone = Figures::of_host(&[]).unwrap();
        assert!(alone.memory > 1 << 20 && alone.cpu > Duration::ZERO, "{alone:?}");
        let guest = Figures { memory: alone.memory / 2, ..Figures::default() };
        let with = Figures::of_host(&[guest]).unwrap();
        assert!(with.memory < alone.memory, "{with:?}");
        let much = Figures { cpu: Duration::MAX / 4, memory: u64::MAX / 4, limit: None };
        let least = Figures::of_host(&[much]).unwrap();
        assert_eq!((least.cpu, least.memory), (Duration::ZERO, 0), "it never wraps");
    }
}
