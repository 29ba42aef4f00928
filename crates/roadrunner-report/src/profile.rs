//! Where a system's time goes at one point, as far as its rows say it.

use crate::names::{Experiment, Metric, Place, System, X};
use crate::page;
use crate::runs::Runs;

/// A system at a point of an experiment.
pub(crate) type Point = ((Experiment, Place, System), X);

/// What is shown, in this order: the whole run, its parts, and what was used in it.
const PARTS: [Metric; 9] = [
    Metric::Whole,
    Metric::HandOver,
    Metric::Consumer,
    Metric::Serialization,
    Metric::WasmIo,
    Metric::CpuUser,
    Metric::CpuKernel,
    Metric::PageFaults,
    Metric::Memory,
];

/// A line with the medians that were measured; none where that is only the whole. The parts of a fan-out add up to more than
/// the whole and are left out.
pub(crate) fn of(runs: &Runs, (series, x): &Point) -> Option<String> {
    let (experiment, _, system) = series;
    let is_part = |metric: &Metric| matches!(metric, Metric::Serialization | Metric::WasmIo);
    let shown = PARTS.iter().filter(|metric| *experiment != Experiment::Fanout || !is_part(metric));
    let parts: Vec<_> = shown
        .filter_map(|metric| {
            let median = runs.get(*series, x, *metric)?.median;
            Some(format!("{metric} {}", page::value(*metric, median)))
        })
        .collect();
    (parts.len() > 1).then(|| format!("{system} at {x}: {}.", parts.join("; ")))
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
            "Roadrunner, kernel space at 100: the whole run 2.00 ms; hand-over 500 µs; the consumer 1.00 ms; serialization 0 \
             ns; processor time, user 10.0 ms; processor time, kernel 20.0 ms; page faults 313."
        );
        assert_eq!(at(System::Redis), None, "there is only the whole");
        let row = "fanout,same-host,redis,10,0,0.02,0.5,,,0.01,0.02,5000,\n";
        let fanout = ((Experiment::Fanout, Place::SameHost, System::Redis), X::Number(10.0));
        let said = of(&made_up_of(HEADER, row), &fanout).expect("there are parts");
        assert!(said.contains("the whole run 20.0 ms; processor time"), "{said}");
    }
}
