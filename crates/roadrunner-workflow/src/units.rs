//! Sizes and durations as people write them: a whole number and a unit.
//!
//! Sizes have the binary units only. `MB` is a million bytes to some and 2^20 to others, so it
//! is refused with the spelling that leaves no doubt.

use std::time::Duration;

use crate::error::quoted;

/// Why a text is not a size or a duration. The message quotes the text and says what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// It does not begin with a whole number.
    #[error(
        "{} is not a {quantity}; write a whole number and a unit, such as {example:?}",
        quoted(text)
    )]
    NotANumber {
        /// What was written.
        text: String,
        /// "size" or "duration".
        quantity: &'static str,
        /// One that is right.
        example: &'static str,
    },
    /// The unit is missing or unknown.
    #[error("{} has {}; {instead} (units: {units})", quoted(text), if unit.is_empty() { "no unit".to_owned() } else { format!("the unknown unit {}", quoted(unit)) })]
    Unit {
        /// What was written.
        text: String,
        /// The part after the number; empty if there is none.
        unit: String,
        /// What to write instead.
        instead: String,
        /// The units there are.
        units: &'static str,
    },
    /// It does not fit in 64 bits.
    #[error("{} is too large a {quantity}", quoted(text))]
    TooLarge {
        /// What was written.
        text: String,
        /// "size" or "duration".
        quantity: &'static str,
    },
}

struct Family {
    quantity: &'static str,
    example: &'static str,
    names: &'static str,
    /// Name, factor, and what people write for it by mistake, in lower case.
    units: &'static [(&'static str, u64, &'static [&'static str])],
    separator: &'static str,
}

const SIZE: Family = Family {
    quantity: "size",
    example: "256 MiB",
    names: "B, KiB, MiB, GiB",
    units: &[
        ("B", 1, &["b", "byte", "bytes"]),
        ("KiB", 1 << 10, &["k", "kb", "ki", "kib"]),
        ("MiB", 1 << 20, &["m", "mb", "mi", "mib"]),
        ("GiB", 1 << 30, &["g", "gb", "gi", "gib"]),
    ],
    separator: " ",
};

const DURATION_MS: Family = Family {
    quantity: "duration",
    example: "10s",
    names: "ms, s, m, h",
    units: &[
        ("ms", 1, &["msec", "msecs", "millis", "millisecond", "milliseconds"]),
        ("s", 1000, &["sec", "secs", "second", "seconds"]),
        ("m", 60_000, &["min", "mins", "minute", "minutes"]),
        ("h", 3_600_000, &["hr", "hrs", "hour", "hours"]),
    ],
    separator: "",
};

/// Bytes of a size such as `"256 MiB"`; the space may be left out. Units: B, KiB, MiB, GiB.
///
/// # Errors
/// [`UnitError`] for anything else.
///
/// ```
/// assert_eq!(roadrunner_workflow::units::parse_size("256 MiB"), Ok(256 << 20));
/// ```
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    parse(text, &SIZE)
}

/// A duration such as `"500ms"`, `"10s"` or `"2m"`; a space is allowed. Units: ms, s, m, h.
///
/// # Errors
/// [`UnitError`] for anything else.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    parse(text, &DURATION_MS).map(Duration::from_millis)
}

fn parse(text: &str, family: &Family) -> Result<u64, UnitError> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let unit = rest.trim_start_matches(' ');
    if digits.is_empty() || unit.starts_with(['.', ',']) {
        let Family { quantity, example, .. } = *family;
        return Err(UnitError::NotANumber { text: text.to_owned(), quantity, example });
    }
    let Some(&(_, factor, _)) = family.units.iter().find(|(name, ..)| *name == unit) else {
        return Err(UnitError::Unit {
            text: text.to_owned(),
            unit: unit.to_owned(),
            instead: instead_of(digits, unit, family),
            units: family.names,
        });
    };
    digits
        .parse()
        .ok()
        .and_then(|number: u64| number.checked_mul(factor))
        .ok_or_else(|| UnitError::TooLarge { text: text.to_owned(), quantity: family.quantity })
}

fn instead_of(digits: &str, unit: &str, family: &Family) -> String {
    let lower = unit.to_ascii_lowercase();
    let meant = family.units.iter().find(|(name, _, slips)| {
        name.eq_ignore_ascii_case(unit) || slips.contains(&lower.as_str())
    });
    match meant {
        Some((name, ..)) => {
            format!("write {}", quoted(&format!("{digits}{}{name}", family.separator)))
        }
        None => format!("write it like {:?}", family.example),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0 B", 0),
            ("1B", 1),
            ("64 KiB", 64 << 10),
            ("256MiB", 256 << 20),
            ("4 GiB", 4 << 30),
            ("18446744073709551615 B", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in
            [("500ms", 500), ("10s", 10_000), ("2m", 120_000), ("1 h", 3_600_000), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn wrong_sizes_say_what_to_write() {
        const NOT: &str = "is not a size; write a whole number and a unit, such as \"256 MiB\"";
        const UNITS: &str = "(units: B, KiB, MiB, GiB)";
        for (text, message) in [
            ("", format!(r#""" {NOT}"#)),
            ("lots", format!(r#""lots" {NOT}"#)),
            ("1.5 GiB", format!(r#""1.5 GiB" {NOT}"#)),
            ("-1 B", format!(r#""-1 B" {NOT}"#)),
            ("256", format!(r#""256" has no unit; write it like "256 MiB" {UNITS}"#)),
            ("256 MB", format!(r#""256 MB" has the unknown unit "MB"; write "256 MiB" {UNITS}"#)),
            ("3g", format!(r#""3g" has the unknown unit "g"; write "3 GiB" {UNITS}"#)),
            (
                "2 TiB",
                format!(r#""2 TiB" has the unknown unit "TiB"; write it like "256 MiB" {UNITS}"#),
            ),
            (
                "18446744073709551616 B",
                r#""18446744073709551616 B" is too large a size"#.to_owned(),
            ),
            (
                "18446744073709551615 KiB",
                r#""18446744073709551615 KiB" is too large a size"#.to_owned(),
            ),
        ] {
            assert_eq!(parse_size(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn wrong_durations_say_what_to_write() {
        const UNITS: &str = "(units: ms, s, m, h)";
        for (text, message) in [
            ("10", format!(r#""10" has no unit; write it like "10s" {UNITS}"#)),
            ("10 sec", format!(r#""10 sec" has the unknown unit "sec"; write "10s" {UNITS}"#)),
            (
                "1m30s",
                format!(r#""1m30s" has the unknown unit "m30s"; write it like "10s" {UNITS}"#),
            ),
            ("5 MS", format!(r#""5 MS" has the unknown unit "MS"; write "5ms" {UNITS}"#)),
        ] {
            assert_eq!(parse_duration(text).unwrap_err().to_string(), message);
        }
    }
}
