//! Medians with their spread.

use std::time::Duration;

use serde::Serialize;

/// The middle, the slow end and the best of some times, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Median.
    pub p50: f64,
    /// 99th percentile: the largest of fewer than a hundred.
    pub p99: f64,
    /// Fastest.
    pub min: f64,
}

impl Stats {
    /// Of some times; zero of none.
    #[must_use]
    pub fn of(times: &mut [Duration]) -> Self {
        times.sort_unstable();
        let at = |part: f64| {
            #[allow(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rank within the number of runs"
            )]
            let rank = ((times.len() as f64 * part).ceil() as usize).saturating_sub(1);
            times.get(rank.min(times.len().saturating_sub(1))).map_or(0.0, |time| micros(*time))
        };
        Self { p50: at(0.5), p99: at(0.99), min: at(0.0) }
    }
}

/// A time in microseconds, to the nanosecond.
pub(crate) fn micros(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e9).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks() {
        let mut times: Vec<_> = (1..=200).rev().map(Duration::from_micros).collect();
        assert_eq!(Stats::of(&mut times), Stats { p50: 100.0, p99: 198.0, min: 1.0 });
        assert_eq!(
            Stats::of(&mut [Duration::from_nanos(1500)]),
            Stats { p50: 1.5, p99: 1.5, min: 1.5 }
        );
        assert_eq!(Stats::of(&mut []), Stats::default());
    }
}
