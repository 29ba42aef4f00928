//! Linear memories without Wasm, and what is written into them.

use std::ops::Range;

use roadrunner_buffer::{BreakEven, Domain, Extent, Home, PageRange, Pool, PoolLimits};

pub(crate) const PAGE: usize = 4096;
pub(crate) const MIB: usize = 1 << 20;
pub(crate) const BREAK_EVEN: usize = 16 << 10;

/// A home with the tests' break-even.
pub(crate) fn home(pool: &std::sync::Arc<Pool>, domain: u64) -> Home {
    Home {
        pool: std::sync::Arc::clone(pool),
        domain: Domain(domain),
        break_even: BreakEven::fixed(BREAK_EVEN),
    }
}

/// A pool with room for `mib` MiB.
pub(crate) fn pool(mib: usize) -> std::sync::Arc<Pool> {
    std::sync::Arc::new(Pool::new(PoolLimits { bytes: mib * MIB, ranges: 8, empty_ranges: 4 }))
}

/// Host memory that stands for a guest's: plain anonymous pages at a fixed place.
pub(crate) struct Memory(Extent);

impl Memory {
    pub(crate) fn new(len: usize) -> Self {
        Self(Extent::reserve(len).unwrap())
    }

    /// The right to lay a window over a part.
    pub(crate) fn place(&self, offset: usize, len: usize) -> Extent {
        let start = self.0.range().start() + offset;
        assert!(start + len <= self.0.range().end());
        let range = PageRange::new(start, len).unwrap();
        #[allow(
            unsafe_code,
            reason = "a test needs linear memory too, and claiming it is the crate's unsafe door"
        )]
        // SAFETY: the range stays mapped as long as this memory; every test claims a part once at
        // a time, drops its windows before the memory, and looks at the bytes between calls only.
        unsafe {
            Extent::claim(range)
        }
    }

    /// What the guest sees.
    pub(crate) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.0.bytes()[range]
    }

    /// What the guest writes.
    pub(crate) fn bytes_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.0.bytes_mut()[range]
    }
}

/// Whether all bytes are zero, at `memcmp`'s speed.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|first| *first == 0)
        && bytes.get(1..).unwrap_or(&[]) == &bytes[..bytes.len().saturating_sub(1)]
}

/// Who may see a byte, told by the byte: the high bits name the one domain that it is secret of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secret {
    Of(u64),
    Nobody,
}

/// The bit that only bytes secret of a domain (0 or 1) carry.
fn mark(domain: u64) -> u8 {
    if domain == 0 { 0x40 } else { 0x80 }
}

/// `len` bytes, never zero, that differ between seeds and from page to page.
pub(crate) fn pattern(seed: u32, secret: Secret, len: usize) -> Vec<u8> {
    let mark = match secret {
        Secret::Of(domain) => mark(domain),
        Secret::Nobody => 0,
    };
    let byte = |value: usize| mark | u8::try_from(value % 63 + 1).unwrap();
    let page: Vec<u8> = (0..PAGE).map(|at| byte(at * 7 + at / 61 + seed as usize * 13)).collect();
    let mut bytes = Vec::with_capacity(len.next_multiple_of(PAGE));
    while bytes.len() < len {
        let number = bytes.len() / PAGE + seed as usize * 31;
        bytes.extend_from_slice(&page);
        let head = bytes.len() - PAGE;
        bytes[head] = byte(number);
        bytes[head + 1] = byte(number / 63);
        bytes[head + 2] = byte(number / 63 / 63);
    }
    bytes.truncate(len);
    bytes
}

/// Whether there is no byte that is secret of another domain than this one.
pub(crate) fn may_see(bytes: &[u8], domain: u64) -> bool {
    let forbidden = u64::from_ne_bytes([mark(1 - domain); 8]);
    let (words, rest) = bytes.as_chunks::<8>();
    let seen = words.iter().fold(0, |seen, word| seen | u64::from_ne_bytes(*word));
    let rest = rest.iter().fold(0, |seen, byte| seen | byte);
    seen & forbidden == 0 && rest & mark(1 - domain) == 0
}

#[test]
fn patterns_and_checks_tell_bytes_apart() {
    assert!(is_zero(&[0; 9]) && is_zero(&[]) && !is_zero(&[1; 9]) && !is_zero(&[0, 0, 1]));
    let secret = pattern(5, Secret::Of(1), 3 * PAGE + 1);
    assert!(may_see(&secret, 1) && !may_see(&secret, 0) && !secret.contains(&0));
    assert!(!may_see(&secret[3 * PAGE..], 0));
    assert_ne!(secret[..PAGE], secret[PAGE..2 * PAGE]);
    let open = pattern(6, Secret::Nobody, PAGE);
    assert!(may_see(&open, 0) && may_see(&open, 1));
}
