//! What a run cost, for scripts (`--report json`, whose fields are stable) and for people.

use std::fmt::Write as _;
use std::time::Duration;

use roadrunner_runtime::Hop;
use serde::Serialize;

/// One run of a workflow.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    workflow: &'a str,
    total_us: f64,
    hops: Vec<HopLine<'a>>,
    usage: Usage,
}

/// One delivery of a payload.
#[derive(Debug, Serialize)]
struct HopLine<'a> {
    from: &'a str,
    to: &'a str,
    mode: &'static str,
    bytes: u64,
    copied_bytes: u64,
    moved_bytes: u64,
    handover_us: f64,
    run_us: f64,
}

/// What a run used.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Usage {
    /// WebAssembly instructions; only counted for functions that are metered.
    instructions: Option<u64>,
    /// Processor time of the whole process, all threads together.
    cpu_us: f64,
    wall_us: f64,
    /// Linear memory of the function that had most.
    memory_peak_bytes: u64,
}

impl Usage {
    pub(crate) fn of(hops: &[Hop], cpu: Duration, wall: Duration) -> Self {
        let peak = hops.iter().map(|hop| hop.account.memory_peak).max().unwrap_or(0);
        Self { instructions: None, cpu_us: us(cpu), wall_us: us(wall), memory_peak_bytes: peak }
    }
}

impl<'a> Report<'a> {
    pub(crate) fn new(workflow: &'a str, total: Duration, hops: &'a [Hop], usage: Usage) -> Self {
        let line = |hop: &'a Hop| HopLine {
            from: &hop.from,
            to: &hop.to,
            mode: hop.mode.name(),
            bytes: hop.bytes,
            copied_bytes: hop.account.traffic.copied,
            moved_bytes: hop.account.traffic.moved,
            handover_us: us(hop.account.handover),
            run_us: us(hop.account.run),
        };
        Self { workflow, total_us: us(total), hops: hops.iter().map(line).collect(), usage }
    }
}

/// Microseconds, to the nanosecond.
pub(crate) fn us(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e9).round() / 1e3
}

/// An object on one line.
pub(crate) fn line(value: &impl Serialize) -> String {
    // Only maps with keys that are no text fail, and reports have none.
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    text
}

/// A table with a line for each hop.
pub(crate) fn table(hops: &[Hop]) -> String {
    let mut rows: Vec<[String; 7]> =
        vec![["from", "to", "mode", "bytes", "copied", "hand-over", "run"].map(Into::into)];
    rows.extend(hops.iter().map(|hop| {
        [
            hop.from.clone(),
            hop.to.clone(),
            hop.mode.name().into(),
            grouped(hop.bytes),
            grouped(hop.account.traffic.copied),
            time(hop.account.handover),
            if hop.account.run.is_zero() { String::new() } else { time(hop.account.run) },
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; 7] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let mut text = String::new();
    for row in &rows {
        let mut written = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            // Words to the left, numbers to the right. Writing to a string can't fail.
            let _ = match column {
                0..3 => write!(written, "{gap}{cell:<width$}"),
                _ => write!(written, "{gap}{cell:>width$}"),
            };
        }
        text.push_str(written.trim_end());
        text.push('\n');
    }
    text
}

/// A time in the unit that suits it.
pub(crate) fn time(time: Duration) -> String {
    let us = time.as_secs_f64() * 1e6;
    match us {
        ..99.95 => format!("{us:.1} us"),
        ..999.5 => format!("{us:.0} us"),
        ..99_950.0 => format!("{:.1} ms", us / 1e3),
        ..999_500.0 => format!("{:.0} ms", us / 1e3),
        _ => format!("{:.2} s", us / 1e6),
    }
}

/// A number of bytes in the unit that suits it.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (unit, name) in UNITS {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{} {name}", bytes / unit);
        }
        if bytes >= unit {
            let tenths = u128::from(bytes) * 10 / u128::from(unit);
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

/// A number with a comma before every three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([5, 1024, 1536, 3 << 20].map(bytes), ["5 B", "1 KiB", "1.5 KiB", "3 MiB"]);
        let shown = [7_040, 99_949, 99_950, 1_500_000, 250_000_000, 2_000_000_000];
        let shown = shown.map(|ns| time(Duration::from_nanos(ns)));
        assert_eq!(shown, ["7.0 us", "99.9 us", "100 us", "1.5 ms", "250 ms", "2.00 s"]);
    }

    #[test]
    fn microseconds_keep_nanoseconds() {
        assert!((us(Duration::from_nanos(1_234_567)) - 1234.567).abs() < 1e-9);
    }
}
