//! What travels of an account, a hop and a fault: mirrors of the crate's own types in a layout that
//! is a contract. A name or text of a peer's is cut to its limit as it is read.

use std::time::Duration;

use roadrunner_abi::limit;
use roadrunner_buffer::Traffic;
use serde::{Deserialize, Serialize};

use crate::{Account, Fault, Hop, Mode};

/// Strings of at most [`limit::NAME_BYTES`] bytes: longer ones are cut off both ways.
mod name {
    use super::{cut, limit};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(cut(text, limit::NAME_BYTES as usize))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
        super::read(from, limit::NAME_BYTES as usize)
    }
}

/// Strings of at most [`TEXT_BYTES`](super::TEXT_BYTES) bytes: longer ones are cut off both ways.
mod text {
    use super::super::TEXT_BYTES;
    use super::cut;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(cut(text, TEXT_BYTES))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
        super::read(from, TEXT_BYTES)
    }
}

/// The longest beginning of at most `limit` bytes that ends with a whole character.
fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

fn read<'de, D: serde::Deserializer<'de>>(from: D, limit: usize) -> Result<String, D::Error> {
    // Borrowed from the frame, so that nothing is allocated that is cut off.
    <&str>::deserialize(from).map(|text| cut(text, limit).to_owned())
}

/// What an invocation cost. See [`Account`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireAccount {
    /// Payload bytes copied.
    pub copied: u64,
    /// Payload bytes moved.
    pub moved: u64,
    /// Time until the function was entered. In a reply it counts from when its node had the call.
    pub handover_ns: u64,
    /// Time in the function.
    pub run_ns: u64,
    /// Largest linear memory.
    pub memory_peak_bytes: u64,
}

/// Nanoseconds of a time, of which 64 bits hold 584 years.
fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl From<&Account> for WireAccount {
    fn from(account: &Account) -> Self {
        let Account { traffic: Traffic { copied, moved }, handover, run, memory_peak } = *account;
        let (handover_ns, run_ns) = (ns(handover), ns(run));
        Self { copied, moved, handover_ns, run_ns, memory_peak_bytes: memory_peak }
    }
}

impl From<&WireAccount> for Account {
    fn from(wire: &WireAccount) -> Self {
        Self {
            traffic: Traffic { copied: wire.copied, moved: wire.moved },
            handover: Duration::from_nanos(wire.handover_ns),
            run: Duration::from_nanos(wire.run_ns),
            memory_peak: wire.memory_peak_bytes,
        }
    }
}

/// What one payload of a fan-in cost to land. See [`Reply::parts`](crate::Reply::parts).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landing {
    /// Payload bytes copied.
    pub copied: u64,
    /// Payload bytes moved.
    pub moved: u64,
    /// How long it took.
    pub took_ns: u64,
}

impl From<(Traffic, Duration)> for Landing {
    fn from((Traffic { copied, moved }, took): (Traffic, Duration)) -> Self {
        Self { copied, moved, took_ns: ns(took) }
    }
}

impl From<Landing> for (Traffic, Duration) {
    fn from(Landing { copied, moved, took_ns }: Landing) -> Self {
        (Traffic { copied, moved }, Duration::from_nanos(took_ns))
    }
}

/// How a payload travelled. See [`Mode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WireMode {
    /// Number 0.
    User,
    /// Number 1.
    Kernel,
    /// Number 2.
    Network,
}

impl From<Mode> for WireMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::User => Self::User,
            Mode::Kernel => Self::Kernel,
            Mode::Network => Self::Network,
        }
    }
}

impl From<WireMode> for Mode {
    fn from(mode: WireMode) -> Self {
        match mode {
            WireMode::User => Self::User,
            WireMode::Kernel => Self::Kernel,
            WireMode::Network => Self::Network,
        }
    }
}

/// One delivery that the function made itself. See [`Hop`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireHop {
    /// Who sent it.
    #[serde(with = "name")]
    pub from: String,
    /// Who received it.
    #[serde(with = "name")]
    pub to: String,
    /// How it travelled.
    pub mode: WireMode,
    /// Length of the payload.
    pub bytes: u64,
    /// What it cost.
    pub account: WireAccount,
}

impl From<&Hop> for WireHop {
    fn from(hop: &Hop) -> Self {
        let (from, to) = (hop.from.clone(), hop.to.clone());
        Self { from, to, mode: hop.mode.into(), bytes: hop.bytes, account: (&hop.account).into() }
    }
}

impl From<WireHop> for Hop {
    fn from(wire: WireHop) -> Self {
        let WireHop { from, to, mode, bytes, account } = wire;
        Self { from, to, mode: mode.into(), bytes, account: (&account).into() }
    }
}

/// How an invocation ended badly. See [`Fault`], whose variants these are but for `HandOver`: a
/// kernel's refusal is its own host's, so elsewhere it is `Exhausted` with the same text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "they are the fields of `Fault`")]
#[rustfmt::skip]
pub enum WireFault {
    /// Number 0.
    Failed { #[serde(with = "name")] function: String, #[serde(with = "text")] message: String },
    /// Number 1.
    Trapped { #[serde(with = "name")] function: String, #[serde(with = "text")] reason: String },
    /// Number 2.
    Violation { #[serde(with = "name")] function: String, #[serde(with = "text")] what: String },
    /// Number 3.
    TimedOut { #[serde(with = "name")] function: String, timeout_ns: u64 },
    /// Number 4.
    Unknown { #[serde(with = "name")] function: String },
    /// Number 5.
    TooLarge { #[serde(with = "name")] function: String, len: u64, limit: u64 },
    /// Number 6.
    TooDeep { #[serde(with = "name")] function: String, limit: u32 },
    /// Number 7.
    NoMemory { #[serde(with = "name")] function: String, len: u64, #[serde(with = "text")] reason: String },
    /// Number 8.
    Exhausted { #[serde(with = "name")] function: String, #[serde(with = "text")] reason: String },
    /// Number 9.
    Unreachable { #[serde(with = "name")] function: String, #[serde(with = "text")] peer: String, #[serde(with = "text")] reason: String },
    /// Number 10.
    Lost { #[serde(with = "name")] function: String, #[serde(with = "text")] peer: String, #[serde(with = "text")] reason: String },
    /// Number 11.
    Forbidden { #[serde(with = "name")] function: String, #[serde(with = "text")] caller: String },
}

impl From<Fault> for WireFault {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Failed { function, message } => Self::Failed { function, message },
            Fault::Trapped { function, reason } => Self::Trapped { function, reason },
            Fault::Violation { function, what } => Self::Violation { function, what },
            Fault::TimedOut { function, timeout } => {
                Self::TimedOut { function, timeout_ns: ns(timeout) }
            }
            Fault::Unknown { function } => Self::Unknown { function },
            Fault::TooLarge { function, len, limit } => Self::TooLarge { function, len, limit },
            Fault::TooDeep { function, limit } => Self::TooDeep { function, limit },
            Fault::NoMemory { function, len, reason } => Self::NoMemory { function, len, reason },
            Fault::Exhausted { function, reason } => Self::Exhausted { function, reason },
            Fault::Unreachable { function, peer, reason } => {
                Self::Unreachable { function, peer, reason }
            }
            Fault::Lost { function, peer, reason } => Self::Lost { function, peer, reason },
            Fault::Forbidden { function, caller } => Self::Forbidden { function, caller },
            Fault::HandOver { function, source } => {
                Self::Exhausted { function, reason: format!("could not {source}") }
            }
        }
    }
}

impl From<WireFault> for Fault {
    fn from(wire: WireFault) -> Self {
        match wire {
            WireFault::Failed { function, message } => Self::Failed { function, message },
            WireFault::Trapped { function, reason } => Self::Trapped { function, reason },
            WireFault::Violation { function, what } => Self::Violation { function, what },
            WireFault::TimedOut { function, timeout_ns } => {
                Self::TimedOut { function, timeout: Duration::from_nanos(timeout_ns) }
            }
            WireFault::Unknown { function } => Self::Unknown { function },
            WireFault::TooLarge { function, len, limit } => Self::TooLarge { function, len, limit },
            WireFault::TooDeep { function, limit } => Self::TooDeep { function, limit },
            WireFault::NoMemory { function, len, reason } => {
                Self::NoMemory { function, len, reason }
            }
            WireFault::Exhausted { function, reason } => Self::Exhausted { function, reason },
            WireFault::Unreachable { function, peer, reason } => {
                Self::Unreachable { function, peer, reason }
            }
            WireFault::Lost { function, peer, reason } => Self::Lost { function, peer, reason },
            WireFault::Forbidden { function, caller } => Self::Forbidden { function, caller },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::TEXT_BYTES;
    use super::*;
    use roadrunner_buffer::BufferError;
    use std::io;

    #[test]
    fn every_fault_survives_the_way() {
        let function = || "resize".to_owned();
        let text = || "as asked".to_owned();
        let faults = [
            Fault::Failed { function: function(), message: text() },
            Fault::Trapped { function: function(), reason: text() },
            Fault::Violation { function: function(), what: text() },
            Fault::TimedOut { function: function(), timeout: Duration::new(3, 999_999_999) },
            Fault::Unknown { function: function() },
            Fault::TooLarge { function: function(), len: u64::MAX, limit: 1 << 30 },
            Fault::TooDeep { function: function(), limit: u32::MAX },
            Fault::NoMemory { function: function(), len: 1 << 40, reason: text() },
            Fault::Exhausted { function: function(), reason: text() },
            Fault::Unreachable { function: function(), peer: text(), reason: text() },
            Fault::Lost { function: function(), peer: text(), reason: text() },
            Fault::Forbidden { function: function(), caller: text() },
        ];
        for (number, fault) in faults.into_iter().enumerate() {
            let told = format!("{fault:?}");
            let bytes = postcard::to_allocvec(&WireFault::from(fault)).unwrap();
            assert_eq!(usize::from(bytes[0]), number, "{told} has its number");
            let back = Fault::from(postcard::from_bytes::<WireFault>(&bytes).unwrap());
            assert_eq!(format!("{back:?}"), told);
        }
    }

    #[test]
    fn a_kernels_refusal_arrives_as_exhausted() {
        let refused = io::Error::from(io::ErrorKind::OutOfMemory);
        let source = BufferError::new("map fresh memory", 4096, refused);
        let fault = Fault::HandOver { function: "resize".into(), source };
        let said = fault.to_string();
        let Fault::Exhausted { function, reason } = Fault::from(WireFault::from(fault)) else {
            panic!("it must be exhausted");
        };
        assert_eq!(function, "resize");
        assert_eq!(reason, "could not map fresh memory (4096 bytes): out of memory");
        assert!(said.ends_with(&reason), "the same text: {said}");
    }

    #[test]
    fn what_a_peer_says_is_cut_at_a_whole_character() {
        // As a peer may send it: the same fields without limits.
        #[derive(Serialize)]
        enum Unlimited {
            Failed { function: String, message: String },
        }
        let long = Unlimited::Failed { function: "é".repeat(100), message: "€".repeat(30_000) };
        let bytes = postcard::to_allocvec(&long).unwrap();
        let WireFault::Failed { function, message } = postcard::from_bytes(&bytes).unwrap() else {
            panic!("it must be the same variant");
        };
        assert_eq!((function.len(), message.len()), (128, TEXT_BYTES - 1));
        let Unlimited::Failed { function, message } = long;
        let ours = postcard::to_allocvec(&WireFault::Failed { function, message }).unwrap();
        assert!(ours.len() <= 128 + TEXT_BYTES + 6, "cut when it is sent, too");
    }
}
