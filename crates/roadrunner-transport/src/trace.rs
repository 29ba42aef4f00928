//! W3C Trace Context: where a call stands in a distributed trace, and its text, the `traceparent`.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The flag of a trace that somebody records.
const SAMPLED: u8 = 1;

/// Length in bytes of the text of version 00.
const TEXT: usize = 55;

/// The span that a call comes from, in the bytes of W3C Trace Context. The default, all zero, is no
/// trace at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Trace {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span that is the parent of what the receiver does.
    pub span_id: [u8; 8],
    /// Bit 0: sampled.
    pub flags: u8,
}

impl Trace {
    /// A trace that begins here. Nobody records it until somebody says so.
    #[must_use]
    pub fn begin() -> Self {
        let (high, low) = (random_u64(), random_u64());
        let trace_id = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
        Self { trace_id, span_id: random_u64().to_be_bytes(), flags: 0 }
    }

    /// Reads a `traceparent`. `None` for one that is not to the letter of the specification.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (known, rest) = text.split_at_checked(TEXT)?;
        let [version] = hex(&known[..2])?;
        let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        // Later versions may add fields after another dash; version 255 is forbidden.
        let end_fits = rest.is_empty() || (version > 0 && rest[0] == b'-');
        if !dashes || !end_fits || version == 255 {
            return None;
        }
        let (trace_id, span_id) = (hex(&known[3..35])?, hex(&known[36..52])?);
        let [flags] = hex(&known[53..])?;
        (trace_id != [0; 16] && span_id != [0; 8]).then_some(Self { trace_id, span_id, flags })
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.trace_id == [0; 16]
    }

    /// A span of its own in the same trace, for what is done for this one; none in none.
    #[must_use]
    pub fn child(self) -> Self {
        if self.is_none() {
            return self;
        }
        Self { span_id: random_u64().to_be_bytes(), ..self }
    }

    /// The trace in hexadecimal digits, for a log; `None` where there is none.
    #[must_use]
    pub fn trace_text(&self) -> Option<impl fmt::Display> {
        (!self.is_none()).then(|| Hex(u128::from_be_bytes(self.trace_id), 32))
    }

    /// The span in hexadecimal digits, for a log; `None` where there is none.
    #[must_use]
    pub fn span_text(&self) -> Option<impl fmt::Display> {
        (!self.is_none()).then(|| Hex(u64::from_be_bytes(self.span_id).into(), 16))
    }
}

impl fmt::Display for Trace {
    /// The `traceparent` for whoever is called next.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (u128::from_be_bytes(self.trace_id), u64::from_be_bytes(self.span_id));
        // Of the flags only the one that is known may be passed on.
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", self.flags & SAMPLED)
    }
}

/// A number in so many hexadecimal digits.
struct Hex(u128, usize);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:01$x}", self.0, self.1)
    }
}

/// Lower-case hexadecimal digits, two for each byte.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |digit: &u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(&pair[0])? << 4 | digit(&pair[1])?;
    }
    Some(bytes)
}

/// A number that is not zero. Identifiers must differ, also between processes, and not be secret, so
/// a keyed hash of a counter will do.
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

    #[test]
    fn a_trace_goes_on_in_spans_of_its_own() {
        let caller = Trace::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(caller.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());
        assert_eq!(caller.span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
        assert_eq!(caller.to_string(), GOOD);
        let (one, other) = (caller.child(), caller.child());
        for child in [one, other] {
            assert_eq!((child.trace_id, child.flags), (caller.trace_id, 1));
            assert_eq!(Trace::parse(child.to_string().as_bytes()), Some(child));
        }
        assert!(one != other && one != caller);
        assert_eq!(one.trace_text().unwrap().to_string(), GOOD[3..35]);
        assert_eq!(caller.span_text().unwrap().to_string(), GOOD[36..52]);
    }

    #[test]
    fn what_begins_here_is_not_sampled_and_no_trace_stays_none() {
        let begun = Trace::begin();
        assert_eq!(Trace::parse(begun.to_string().as_bytes()), Some(begun));
        assert!(begun.flags == 0 && begun != Trace::begin());
        assert!(Trace::default().child().is_none() && Trace::default().span_text().is_none());
    }

    #[test]
    fn what_is_not_to_the_letter_is_refused() {
        let later = format!("cc{}", &GOOD[2..]);
        let bad = [
            String::new(),
            GOOD[..54].into(),
            format!("{GOOD}-x"),
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
            assert_eq!(Trace::parse(value.as_bytes()), None, "{value}");
        }
        for value in [later.clone(), format!("{later}-more")] {
            assert!(Trace::parse(value.as_bytes()).is_some(), "{value} is of a later version");
        }
    }
}
