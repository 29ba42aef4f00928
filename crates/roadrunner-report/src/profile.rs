//! Where a system's time goes at one point, as far as its rows say it.

use crate::names::{Experiment, Metric, Place, System, X};
use crate::page;
use crate::runs::Runs;

/// A system at a point of an experiment.
pub(crate) type Point = ((Experiment, Place, System), X);

/// What is shown, in this order: the whole, its parts, and what was used on the way.
const PARTS: [Metric; 8] = [
    Metric::Latency,
    Metric::HandOver,
    Metric::Consumer,
    Metric::Serialization,
    Metric::WasmIo,
    Metric::CpuUser,
    Metric::CpuKernel,
    Metric::PageFaults,
];

/// A line with the medians that were measured and are more than nothing; none where there is only the whole.
pub(crate) fn of(runs: &Runs, (series, x): &Point) -> Option<String> {
    let median = |metric: Metric| {
        let median = runs.get(*series, x, metric)?.median;
        (median > 0.0).then(|| format!("{metric} {}", page::value(metric, median)))
    };
    let parts: Vec<_> = PARTS.into_iter().filter_map(median).collect();
    (parts.len() > 1).then(|| format!("{}: {}.", series.2, parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::tests::made_up_of;

    const HEADER: &str = "experiment,place,system,x,run,total_s,serialization_s,hand_over_s,consumer_s,cpu_user_s,\
        cpu_kernel_s,page_faults,note\n";

    #[test]
    fn what_was_measured_is_in_the_line() {
        let rows = "transfer,same-host,roadrunner-kernel,100,0,0.002,0,0.0005,0.001,0.01,0.02,313,\n\
            transfer,same-host,redis,100,0,0.002,,,,,,,\n";
        let runs = made_up_of(HEADER, rows);
        let at = |system| {
            of(&runs, &((Experiment::Transfer, Place::SameHost, system), X::Number(100.0)))
        };
        assert_eq!(
            at(System::RoadrunnerKernel).expect("there are parts"),
            "Roadrunner, kernel space: latency 2.00 ms, hand-over 500 µs, the consumer 1.00 ms, processor time, user \
             10.0 ms, processor time, kernel 20.0 ms, page faults 313."
        );
        assert_eq!(at(System::Redis), None, "there is only the whole");
    }
}
