//! Numbers as people read them: three digits, with a unit.

/// Three significant digits.
fn digits(value: f64) -> String {
    if value >= 999.5 {
        let unit = 10f64.powf(value.log10().floor() - 2.0);
        return grouped((value / unit).round() * unit);
    }
    match value {
        0.0 => "0".to_owned(),
        _ if value < 0.000_999_5 => format!("{value:.1e}"),
        _ if value < 0.009_995 => format!("{value:.5}"),
        _ if value < 0.099_95 => format!("{value:.4}"),
        _ if value < 0.999_5 => format!("{value:.3}"),
        _ if value < 9.995 => format!("{value:.2}"),
        _ if value < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// All digits of a whole number, with a comma for each thousand.
fn grouped(value: f64) -> String {
    let whole = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time.
pub(crate) fn seconds(value: f64) -> String {
    // Half a digit below each unit, what three digits round up to it.
    if value >= 0.999_5 {
        format!("{} s", digits(value))
    } else if value >= 0.999_5e-3 {
        format!("{} ms", digits(value * 1e3))
    } else if value >= 0.999_5e-6 {
        format!("{} µs", digits(value * 1e6))
    } else {
        format!("{} ns", digits(value * 1e9))
    }
}

/// Memory, in powers of ten as the paper has it.
pub(crate) fn bytes(value: f64) -> String {
    if value >= 0.999_5e9 {
        format!("{} GB", digits(value / 1e9))
    } else if value >= 0.999_5e6 {
        format!("{} MB", digits(value / 1e6))
    } else if value >= 0.999_5e3 {
        format!("{} kB", digits(value / 1e3))
    } else {
        format!("{} B", digits(value))
    }
}

/// How many times as much.
pub(crate) fn times(value: f64) -> String {
    format!("{}×", digits(value))
}

/// How many times faster, or slower.
pub(crate) fn gain(value: f64) -> String {
    if value < 0.999_5 { format!("{} slower", times(1.0 / value)) } else { times(value) }
}

/// How many.
pub(crate) fn count(value: usize) -> String {
    grouped(f64::from(u32::try_from(value).unwrap_or(u32::MAX)))
}

/// A part of a whole; small differences from all of it stay visible.
pub(crate) fn percent(part: f64) -> String {
    let decimals = if part > 0.99 && part < 1.0 { 2 } else { 1 };
    format!("{:.decimals$} %", part * 100.0)
}

/// A number without a unit.
pub(crate) fn plain(value: f64) -> String {
    digits(value)
}

/// A number of things, with all its digits.
pub(crate) fn whole(value: f64) -> String {
    grouped(value)
}

/// A number on an axis: without the zeros that only show precision.
pub(crate) fn tick(shown: &str) -> String {
    let (number, unit) = shown.split_once(' ').unwrap_or((shown, ""));
    let number = match number.split_once('.') {
        Some((whole, decimals)) if !decimals.contains('e') => {
            let decimals = decimals.trim_end_matches('0');
            if decimals.is_empty() { whole.to_owned() } else { format!("{whole}.{decimals}") }
        }
        _ => number.to_owned(),
    };
    if unit.is_empty() { number } else { format!("{number} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        let times: Vec<_> =
            [0.0, 4.04e-7, 0.000_999_9, 0.1234, 1.0, 12.34, 2345.6].map(seconds).into();
        assert_eq!(times, ["0 ns", "404 ns", "1.00 ms", "123 ms", "1.00 s", "12.3 s", "2,350 s"]);
        assert_eq!([1.0, 195_872_611.0, 2.5e9].map(bytes), ["1.00 B", "196 MB", "2.50 GB"]);
        assert_eq!([0.0123, 0.98, 9512.4].map(super::times), ["0.0123×", "0.980×", "9,510×"]);
        assert_eq!([0.9999, 0.89, 1.0].map(percent), ["99.99 %", "89.0 %", "100.0 %"]);
        assert_eq!(
            ["1.00 ms", "0.500", "12.5 MB", "100"].map(tick),
            ["1 ms", "0.5", "12.5 MB", "100"]
        );
        assert_eq!(plain(1_234_567.0), "1,230,000");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!([0.5, 0.9996, 2.0].map(gain), ["2.00× slower", "1.00×", "2.00×"]);
    }
}
