//! The targets that were set before anything was measured, and whether the runs meet them.

use crate::compare::{Comparison, Finding};
use crate::context::{Kind, Subject};
use crate::names::{Experiment, Metric, Place, System, X};
use crate::paper::Paper;
use crate::profile::Point;
use crate::runs::Runs;
use crate::spread::Spread;
use crate::units;

/// A line of the checklist.
#[derive(Debug)]
pub(crate) struct Target {
    /// What a note in `notes.toml` calls it.
    pub(crate) id: &'static str,
    pub(crate) what: &'static str,
    pub(crate) wanted: String,
    pub(crate) measured: String,
    pub(crate) verdict: Verdict,
    /// Whose profile is shown where it was missed.
    pub(crate) about: Vec<Point>,
}

impl Target {
    fn about(mut self, at: (Experiment, Place), x: &X, systems: &[System]) -> Self {
        self.about = systems.iter().map(|system| ((at.0, at.1, *system), x.clone())).collect();
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Met,
    Missed,
    NotMeasured,
}

impl Verdict {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::NotMeasured => "not measured",
        }
    }
}

/// The size that the targets of a single transfer name, MB.
const SIZE_MB: f64 = 100.0;
/// The fan-out that the targets name, and the size of its payload.
const DEGREE: f64 = 100.0;
const FANOUT_PAYLOAD_BYTES: f64 = 10e6;
/// How much memory a fan-out may take, in payloads, besides its sandboxes.
const FANOUT_PAYLOADS: f64 = 1.5;
/// What the link of 1 Gbit/s carries, bytes per second: the faster of the two, for which the targets are.
const LINK_BYTES_PER_S: f64 = 1e9 / 8.0;

/// The peers that hand payloads over between hosts. Who is better than all of them is known when all have run.
const NETWORK_PEERS: [System; 6] = [
    System::WasmtimeHttpJson,
    System::NativeHttpJson,
    System::NativeHttpRaw,
    System::Redis,
    System::Tcp,
    System::PaperHose,
];

/// Where a single transfer is looked at.
const ON_ONE_HOST: (Experiment, Place) = (Experiment::Transfer, Place::SameHost);
const BETWEEN_HOSTS: (Experiment, Place) = (Experiment::Transfer, Place::TwoHosts1Gbit);

/// The target that no ratio is below the paper's.
pub(crate) const PAPER_RATIOS: &str = "paper-ratios";

/// All of them.
pub(crate) fn all(
    runs: &Runs,
    paper: &Paper,
    comparisons: &[Comparison],
    findings: &[Finding],
) -> Vec<Target> {
    let wanted = Wanted { runs, paper };
    let mut targets = on_one_host(&wanted);
    targets.extend([
        wanted.not_more(
            "network-latency",
            "100 MB over 1 Gbit/s: not slower than any peer",
            Metric::Latency,
            units::seconds,
        ),
        wanted.link(),
        wanted.not_more(
            "network-cpu",
            "100 MB over 1 Gbit/s: no more processor time than any peer",
            Metric::Cpu,
            units::seconds,
        ),
        wanted.fanout_memory(),
        wanted.fanout_latency(
            "fanout-latency-user",
            "10 MB to 100 functions on one host, user space: a tenth of the paper's latency",
            System::RoadrunnerUser,
        ),
        wanted.fanout_latency(
            "fanout-latency-kernel",
            "10 MB to 100 functions on one host, kernel space: a tenth of the paper's latency",
            System::RoadrunnerKernel,
        ),
        never_worse(comparisons, findings),
    ]);
    targets
}

/// Those of one transfer to a function of the same host.
fn on_one_host(wanted: &Wanted<'_>) -> Vec<Target> {
    let wasm = System::WasmtimeHttpJson;
    let (json, raw) = (System::NativeHttpJson, System::NativeHttpRaw);
    let (user, kernel) = (System::RoadrunnerUser, System::RoadrunnerKernel);
    vec![
        wanted.reduction(
            "wasm-latency-user",
            "100 MB on one host, user space: latency below Wasm, HTTP + JSON (paper: 89 %)",
            (user, wasm),
            0.99,
        ),
        wanted.reduction(
            "wasm-latency-kernel",
            "100 MB on one host, kernel space: latency below Wasm, HTTP + JSON (paper: 76 %)",
            (kernel, wasm),
            0.98,
        ),
        wanted.gain(
            "wasm-throughput",
            "100 MB on one host, user space: throughput beside Wasm, HTTP + JSON (paper: 69×)",
            (user, wasm),
            100.0,
        ),
        wanted.gain(
            "native-json-user",
            "100 MB on one host, user space: latency below a container, HTTP + JSON",
            (user, json),
            50.0,
        ),
        wanted.gain(
            "native-json-kernel",
            "100 MB on one host, kernel space: latency below a container, HTTP + JSON",
            (kernel, json),
            50.0,
        ),
        wanted.gain(
            "native-raw-user",
            "100 MB on one host, user space: latency below a container, HTTP, raw bytes",
            (user, raw),
            50.0,
        ),
        wanted.gain(
            "native-raw-kernel",
            "100 MB on one host, kernel space: latency below a container, HTTP, raw bytes",
            (kernel, raw),
            50.0,
        ),
    ]
}

/// How many there are of each verdict, such as `10 of 14 met, 3 missed, 1 not measured`.
pub(crate) fn tally(targets: &[Target]) -> String {
    let count = |verdict| targets.iter().filter(|target| target.verdict == verdict).count();
    let mut text = format!("{} of {} met", count(Verdict::Met), targets.len());
    for verdict in [Verdict::Missed, Verdict::NotMeasured] {
        match count(verdict) {
            0 => {}
            some => text += &format!(", {some} {}", verdict.word()),
        }
    }
    text
}

struct Wanted<'a> {
    runs: &'a Runs,
    paper: &'a Paper,
}

impl Wanted<'_> {
    fn at_size(&self, pair: (System, System)) -> Option<Comparison> {
        let x = X::Number(SIZE_MB);
        Comparison::of(self.runs, self.paper, ON_ONE_HOST, &x, Metric::Latency, pair)
    }

    fn reduction(
        &self,
        id: &'static str,
        what: &'static str,
        pair: (System, System),
        least: f64,
    ) -> Target {
        let measured = self.at_size(pair).map(|comparison| 1.0 - comparison.part());
        let wanted = format!("at least {:.0} %", least * 100.0);
        judged(id, what, wanted, measured, units::percent, |part| part >= least).about(
            ON_ONE_HOST,
            &X::Number(SIZE_MB),
            &[pair.0, pair.1],
        )
    }

    fn gain(
        &self,
        id: &'static str,
        what: &'static str,
        pair: (System, System),
        least: f64,
    ) -> Target {
        let measured = self.at_size(pair).map(|comparison| comparison.gain());
        let wanted = format!("at least {least:.0}×");
        judged(id, what, wanted, measured, units::times, |gain| gain >= least).about(
            ON_ONE_HOST,
            &X::Number(SIZE_MB),
            &[pair.0, pair.1],
        )
    }

    fn network(&self, system: System, metric: Metric) -> Option<Spread> {
        let series = (BETWEEN_HOSTS.0, BETWEEN_HOSTS.1, system);
        self.runs.get(series, &X::Number(SIZE_MB), metric)
    }

    /// Ours over the network beside the best of all peers there. Worse than one of them is missed, whoever else ran;
    /// better than those that ran is not measured while there are others.
    fn not_more(
        &self,
        id: &'static str,
        what: &'static str,
        metric: Metric,
        unit: fn(f64) -> String,
    ) -> Target {
        let figure = |peer: &System| Some((*peer, self.network(*peer, metric)?));
        let best = NETWORK_PEERS.iter().filter_map(figure);
        let best = best.min_by(|(_, one), (_, other)| one.median.total_cmp(&other.median));
        let ours = self.network(System::RoadrunnerNetwork, metric);
        let (Some((peer, their)), Some(our)) = (best, ours) else {
            return judged(id, what, String::new(), None, unit, |_| false);
        };
        let wanted = format!("at most {} ({peer})", unit(their.median));
        let target =
            judged(id, what, wanted, Some(our.median), unit, |value| value <= their.median);
        let both = [System::RoadrunnerNetwork, peer];
        let mut target = target.about(BETWEEN_HOSTS, &X::Number(SIZE_MB), &both);
        let without = NETWORK_PEERS.iter().filter(|peer| figure(peer).is_none());
        let without: Vec<_> = without.map(ToString::to_string).collect();
        if !without.is_empty() && target.verdict == Verdict::Met {
            target.verdict = Verdict::NotMeasured;
            target.measured += &format!(
                ": met against those that ran; there is no figure of {}",
                without.join("; ")
            );
        }
        target
    }

    fn link(&self) -> Target {
        let took = self.network(System::RoadrunnerNetwork, Metric::Latency);
        let share = took.map(|took| SIZE_MB * 1e6 / took.median / LINK_BYTES_PER_S);
        let what = "100 MB over 1 Gbit/s: part of the link's rate, of which headers take about 4 %";
        let wanted = "at least 95 %".to_owned();
        let target = judged("link", what, wanted, share, units::percent, |part| part >= 0.95);
        target.about(BETWEEN_HOSTS, &X::Number(SIZE_MB), &[System::RoadrunnerNetwork])
    }

    /// What a fan-out to one function holds besides one payload are the runtime and a sandbox; each further function
    /// may add what an idle one takes.
    fn fanout_memory(&self) -> Target {
        let (host, user) = (Place::SameHost, System::RoadrunnerUser);
        let memory = |degree| {
            let at = (Experiment::Fanout, host, user);
            Some(self.runs.get(at, &X::Number(degree), Metric::Memory)?.median)
        };
        let idle = X::Name("idle-function-bytes".to_owned());
        let footprint = (Experiment::Footprint, host, System::Roadrunner);
        let limit = || {
            let idle = self.runs.get(footprint, &idle, Metric::Memory)?.median;
            let first = (memory(1.0)? - FANOUT_PAYLOAD_BYTES).max(0.0);
            Some(FANOUT_PAYLOADS * FANOUT_PAYLOAD_BYTES + first + (DEGREE - 1.0) * idle)
        };
        let limit = limit();
        let measured = memory(DEGREE).filter(|_| limit.is_some());
        let wanted =
            limit.map_or(String::new(), |limit| format!("at most {}", units::bytes(limit)));
        let what = "10 MB to 100 functions on one host, user space: memory, 1.5 payloads besides the \
            runtime and its sandboxes (paper: 196 MB)";
        let fits = |bytes| limit.is_some_and(|limit| bytes <= limit);
        let target = judged("fanout-memory", what, wanted, measured, units::bytes, fits);
        target.about((Experiment::Fanout, host), &X::Number(DEGREE), &[user])
    }

    fn fanout_latency(&self, id: &'static str, what: &'static str, system: System) -> Target {
        let (at, x) = ((Experiment::Fanout, Place::SameHost), X::Number(DEGREE));
        let published = self.paper.get((at.0, at.1, Metric::Latency, system), &x);
        let most = published.map_or(0.0, |seconds| seconds / 10.0);
        let measured = self.runs.get((at.0, at.1, system), &x, Metric::Latency);
        let wanted = format!("at most {}", units::seconds(most));
        let measured = measured.map(|spread| spread.median);
        let target = judged(id, what, wanted, measured, units::seconds, |value| value <= most);
        target.about(at, &x, &[system])
    }
}

fn never_worse(comparisons: &[Comparison], findings: &[Finding]) -> Target {
    let comparable = comparisons.iter().filter(|one| one.paper_gain().is_some()).count();
    let below = |finding: &&Finding| {
        matches!(finding.subject, Subject::Comparison { kind: Kind::BelowPaper, .. })
    };
    let worse: usize = findings.iter().filter(below).map(|finding| finding.cases.len()).sum();
    let measured = (comparable > 0).then_some(worse);
    Target {
        id: PAPER_RATIOS,
        what: "Every ratio that the paper has too (latency, serialization, processor time, memory): \
            never worse than the paper's",
        wanted: "0 worse".to_owned(),
        measured: measured.map_or(String::new(), |worse| format!("{worse} of {comparable} worse")),
        verdict: match measured {
            None => Verdict::NotMeasured,
            Some(0) => Verdict::Met,
            Some(_) => Verdict::Missed,
        },
        about: Vec::new(),
    }
}

fn judged(
    id: &'static str,
    what: &'static str,
    wanted: String,
    measured: Option<f64>,
    unit: fn(f64) -> String,
    meets: impl FnOnce(f64) -> bool,
) -> Target {
    let verdict = match measured {
        None => Verdict::NotMeasured,
        Some(value) if meets(value) => Verdict::Met,
        Some(_) => Verdict::Missed,
    };
    let measured = measured.map_or(String::new(), unit);
    Target { id, what, wanted, measured, verdict, about: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::tests::made_up;

    fn verdict(rows: &str, id: &str) -> (Verdict, String, String) {
        let (runs, paper) = (made_up(rows), Paper::read().expect("the paper's tables are right"));
        let comparisons = crate::compare::all(&runs, &paper);
        let findings = crate::compare::findings(&comparisons);
        let targets = all(&runs, &paper, &comparisons, &findings);
        let target = targets.into_iter().find(|target| target.id == id).expect("there is one");
        (target.verdict, target.measured, target.wanted)
    }

    #[test]
    fn a_reduction_is_met_from_its_limit_on() {
        let row =
            |system, seconds| format!("transfer,same-host,{system},100,0,{seconds},,,,,,,,1,\n");
        let both = |ours| row("roadrunner-user", ours) + &row("wasmtime-http-json", 2.0);
        let of = |ours| verdict(&both(ours), "wasm-latency-user");
        assert_eq!(of(0.02).0, Verdict::Met);
        assert_eq!(of(0.0201).0, Verdict::Missed);
        assert_eq!(of(0.0002).1, "99.99 %");
        let alone = row("roadrunner-user", 0.02);
        assert_eq!(verdict(&alone, "wasm-latency-user").0, Verdict::NotMeasured);
        assert_eq!(verdict(&both(0.02), "wasm-throughput").1, "100×");
    }

    #[test]
    fn the_network_is_held_against_the_best_peer_and_the_link() {
        let row = |system, seconds, cpu| {
            format!("transfer,two-hosts-1gbit,{system},100,0,{seconds},,,,{cpu},0,,,1,\n")
        };
        let some =
            row("roadrunner-network", 0.84, 0.2) + &row("tcp", 0.85, 0.1) + &row("redis", 0.9, 0.3);
        let others = ["wasmtime-http-json", "native-http-json", "native-http-raw", "paper-hose"];
        let rows = others.iter().fold(some.clone(), |rows, peer| rows + &row(peer, 1.0, 1.0));
        assert_eq!(verdict(&rows, "network-latency").0, Verdict::Met);
        let (unknown, measured, _) = verdict(&some, "network-latency");
        assert_eq!(unknown, Verdict::NotMeasured, "others may be faster");
        assert!(measured.starts_with("840 ms: met against those that ran;"), "{measured}");
        assert!(measured.contains("HTTP") && !measured.contains("Redis"), "{measured}");
        assert_eq!(verdict(&some, "network-cpu").0, Verdict::Missed, "whoever else did not run");
        assert_eq!(
            verdict(&rows, "network-cpu"),
            (Verdict::Missed, "200 ms".to_owned(), "at most 100 ms (bare TCP)".to_owned())
        );
        assert_eq!(verdict(&rows, "link").1, "95.2 %");
        assert_eq!(verdict(&row("roadrunner-network", 0.86, 1.0), "link").0, Verdict::Missed);
        assert_eq!(
            verdict(&row("roadrunner-network", 0.86, 1.0), "network-cpu").0,
            Verdict::NotMeasured
        );
    }

    #[test]
    fn a_fanouts_memory_grows_by_half_a_payload_and_its_sandboxes() {
        let rows = |at_100: f64| {
            format!(
                "fanout,same-host,roadrunner-user,1,0,0.1,,,,,,40e6,0,1,\n\
                 fanout,same-host,roadrunner-user,100,0,0.1,,,,,,{at_100},0,100,\n\
                 footprint,same-host,roadrunner,idle-function-bytes,0,,,,,,,100000,,,\n"
            )
        };
        let (met, _, wanted) = verdict(&rows(54.9e6), "fanout-memory");
        assert_eq!((met, wanted.as_str()), (Verdict::Met, "at most 54.9 MB"));
        assert_eq!(verdict(&rows(55.0e6), "fanout-memory").0, Verdict::Missed);
        assert_eq!(verdict(&rows(1.0), "fanout-latency-user").1, "1.00 ms");
        assert_eq!(
            verdict(&rows(1.0), "fanout-latency-user").0,
            Verdict::Missed,
            "a tenth is 373 us"
        );
    }

    #[test]
    fn a_ratio_below_the_papers_is_a_target_missed() {
        let row =
            |system, seconds| format!("transfer,same-host,{system},100,0,{seconds},,,,,,,,1,\n");
        let of = |ours| {
            verdict(
                &(row("roadrunner-user", ours) + &row("wasmtime-http-json", 2.0)),
                "paper-ratios",
            )
        };
        assert_eq!(of(0.5), (Verdict::Missed, "1 of 1 worse".to_owned(), "0 worse".to_owned()));
        assert_eq!(of(0.1).0, Verdict::Met);
    }
}
