//! W3C Trace Context: the `traceparent` of a request, read strictly, or a new one.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::HeaderMap;

/// The header's name.
pub const TRACEPARENT: &str = "traceparent";

/// The flag of a trace that somebody records.
const SAMPLED: u8 = 1;

/// Where a request stands in its trace. [`Trace::of`] is the one place where it is read; the gateway
/// keeps it in the request's extensions, in its span and in the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The trace, never zero.
    pub trace_id: u128,
    /// The caller's span, never zero; `None` where the trace begins here.
    pub parent_id: Option<u64>,
    /// This request's own span, never zero.
    pub span_id: u64,
    /// The caller's flags, of which the lowest says that the trace is recorded.
    pub flags: u8,
}

impl Trace {
    /// The trace that a request belongs to: the one its header names, or a new one where there is no
    /// header, several, or one that is not to the letter of the specification.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut all = headers.get_all(TRACEPARENT).iter();
        let only = match (all.next(), all.next()) {
            (Some(value), None) => parse(value.as_bytes()),
            _ => None,
        };
        let span_id = random_u64();
        match only {
            Some((trace_id, parent_id, flags)) => {
                Self { trace_id, parent_id: Some(parent_id), span_id, flags }
            }
            None => {
                let trace_id = u128::from(random_u64()) << 64 | u128::from(random_u64());
                Self { trace_id, parent_id: None, span_id, flags: 0 }
            }
        }
    }

    /// Whether the caller records it.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

impl fmt::Display for Trace {
    /// The header's value for whoever is called next, and for the response.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of the flags only the one that is known may be passed on.
        let flags = self.flags & SAMPLED;
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", self.trace_id, self.span_id)
    }
}

/// Trace, span and flags of a header's value.
fn parse(value: &[u8]) -> Option<(u128, u64, u8)> {
    let (known, rest) = value.split_at_checked(55)?;
    let version = hex(&known[..2])?;
    let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
    // Later versions may add fields after another dash; version 255 is forbidden.
    let end_fits = rest.is_empty() || (version > 0 && rest[0] == b'-');
    if !dashes || !end_fits || version == 255 {
        return None;
    }
    let trace_id = hex(&known[3..35])?;
    let parent_id = u64::try_from(hex(&known[36..52])?).ok()?;
    let flags = u8::try_from(hex(&known[53..])?).ok()?;
    (trace_id != 0 && parent_id != 0).then_some((trace_id, parent_id, flags))
}

/// Lower-case hexadecimal digits, at most 32.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

/// A number that is not zero. Identifiers must differ, not be secret, so a keyed hash of a counter will do.
fn random_u64() -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut hasher = KEY.build_hasher();
    hasher.write_u64(NEXT.fetch_add(1, Ordering::Relaxed));
    hasher.finish().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(values: &[&[u8]]) -> Trace {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, hyper::header::HeaderValue::from_bytes(value).unwrap());
        }
        Trace::of(&headers)
    }

    #[test]
    fn a_trace_goes_on_in_a_span_of_its_own() {
        let trace = of(&[GOOD.as_bytes()]);
        assert_eq!(trace.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(trace.parent_id, Some(0x00f0_67aa_0ba9_02b7));
        assert!(trace.is_sampled());
        assert_ne!(trace.span_id, 0x00f0_67aa_0ba9_02b7);
        let next = trace.to_string();
        assert_eq!(next.len(), 55);
        assert_eq!(parse(next.as_bytes()), Some((trace.trace_id, trace.span_id, 1)));
        assert_ne!(of(&[GOOD.as_bytes()]).span_id, trace.span_id);
    }

    #[test]
    fn what_is_not_to_the_letter_begins_a_new_trace() {
        let long = format!("{GOOD}-x");
        let later = format!("cc{}", &GOOD[2..]);
        let bad = [
            String::new(),
            GOOD[..54].into(),
            long,
            format!("{GOOD}0"),
            format!("{later}0"),
            format!("ff{}", &GOOD[2..]),
            GOOD.to_uppercase(),
            GOOD.replace("-00f", "_00f"),
            GOOD.replace("4bf9", "4bg9"),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GOOD.replace("-01", "-0x"),
            GOOD.replace("00-4", "+0-4"),
            "\u{e9}".repeat(28),
            "-".repeat(55),
        ];
        for value in bad {
            let trace = of(&[value.as_bytes()]);
            assert_eq!(trace.parent_id, None, "{value}");
            assert!(trace.trace_id != 0 && trace.span_id != 0 && trace.flags == 0, "{value}");
        }
        assert_eq!(of(&[GOOD.as_bytes(), GOOD.as_bytes()]).parent_id, None, "two of them");
        for value in [later.clone(), format!("{later}-more")] {
            assert!(of(&[value.as_bytes()]).parent_id.is_some(), "{value} is of a later version");
        }
    }
}
