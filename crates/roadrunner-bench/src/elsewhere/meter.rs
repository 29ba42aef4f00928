//! Processor time of one way: this process's while it goes that way, and that of its partner, which
//! goes no other.

use std::time::Duration;

use crate::BenchError;

/// Counts from when it is made.
pub(super) struct Meter {
    partner: u32,
    partner_before: Duration,
    own: Duration,
}

impl Meter {
    pub(super) fn start(partner: u32) -> Result<Self, BenchError> {
        Ok(Self { partner, partner_before: partner_time(partner)?, own: Duration::ZERO })
    }

    /// Goes once.
    pub(super) fn count<T>(&mut self, go: impl FnOnce() -> T) -> T {
        let before = roadrunner_sys::cpu_time();
        let gone = go();
        self.own += roadrunner_sys::cpu_time().saturating_sub(before);
        gone
    }

    /// Nanoseconds for each of so many bytes, both processes together.
    pub(super) fn ns_per_byte(&self, bytes: u64) -> Result<f64, BenchError> {
        let partner = partner_time(self.partner)?.saturating_sub(self.partner_before);
        #[allow(clippy::cast_precision_loss, reason = "a ratio")]
        Ok((self.own + partner).as_secs_f64() * 1e9 / bytes.max(1) as f64)
    }
}

fn partner_time(pid: u32) -> Result<Duration, BenchError> {
    roadrunner_sys::cpu_time_of(pid).map_err(BenchError::Processor)
}
