//! Medians with their spread.

/// The middle half of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    /// First quartile.
    pub(crate) low: f64,
    /// Third quartile.
    pub(crate) high: f64,
    /// How many values there were.
    pub(crate) runs: usize,
}

impl Spread {
    /// Of some finite values; `None` of none.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        // Between two ranks, linearly: what spreadsheets and numpy do.
        let at = |quarters: usize| {
            let (whole, rest) = (last * quarters / 4, last * quarters % 4);
            let low = values[whole];
            let high = values[(whole + 1).min(last)];
            low + (high - low) * [0.0, 0.25, 0.5, 0.75][rest]
        };
        Some(Self { median: at(2), low: at(1), high: at(3), runs: values.len() })
    }

    /// Whether the middle halves meet: then the order of the medians may be chance.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.low <= other.high && other.low <= self.high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_ranks() {
        let of = |values: &[f64]| Spread::of(values.to_vec());
        let spread = |low, median, high, runs| Some(Spread { median, low, high, runs });
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0]), spread(3.0, 3.0, 3.0, 1));
        assert_eq!(of(&[4.0, 1.0, 3.0, 2.0]), spread(1.75, 2.5, 3.25, 4));
        assert_eq!(of(&[9.0, 1.0, 5.0, 7.0, 3.0]), spread(3.0, 5.0, 7.0, 5));
    }

    #[test]
    fn spreads_that_meet_overlap() {
        let of = |values: &[f64]| Spread::of(values.to_vec()).expect("some values");
        assert!(of(&[1.0, 3.0]).overlaps(of(&[2.0, 4.0])));
        assert!(!of(&[1.0, 2.0]).overlaps(of(&[3.0, 4.0])));
    }
}
