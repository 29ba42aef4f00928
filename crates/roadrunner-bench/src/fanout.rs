//! One payload for many consumers, which read every byte and all hold it at once.

use std::fs;
use std::sync::mpsc::channel;
use std::time::Duration;

use roadrunner_runtime::{Backing, Config, Payload, Reply, Sealed};
use serde::Serialize;

use crate::stats::micros;
use crate::{BenchError, Progress, Stats, check_held, guests, produce, unreadable};

/// What a fan-out costs.
#[derive(Clone, Debug, Serialize)]
pub struct FanOut {
    /// Consumers.
    pub width: u32,
    /// Length of the payload in bytes.
    pub size_bytes: u64,
    /// Payload bytes copied, by all hand-overs together.
    pub copied_bytes: u64,
    /// From the producer's end until every consumer has read every byte.
    pub total_us: f64,
    /// Of each hand-over: from the time the consumer's payload is ready up to its entry. One that
    /// finds no thread free waits for consumers before it to read every byte.
    pub handover_us: Stats,
    /// Growth of the proportional set size (Pss) of this process while all consumers hold the payload.
    pub pss_growth_bytes: u64,
    /// Of that, what as many consumers with an empty payload took.
    pub sandbox_bytes: u64,
}

/// Measures one fan-out of `size` bytes to `width` consumers.
///
/// # Errors
/// When a guest fails or reads other bytes than were written.
pub fn fanout(
    config: &Config,
    width: u32,
    size: u64,
    progress: Progress<'_>,
) -> Result<FanOut, BenchError> {
    let config =
        Config { sandboxes: config.sandboxes.max(width.saturating_add(16)), ..config.clone() };
    let app = guests(config, Backing::Memfd)?;
    let verify = |parts: Vec<Sealed<'static>>, progress: Progress<'_>| {
        let (sender, receiver) = channel();
        let tickets: Vec<_> = parts
            .into_iter()
            .map(|part| {
                let sender = sender.clone();
                app.spawn("verify".into(), Payload::One(part), move |ended| {
                    let _ = sender.send(ended);
                })
            })
            .collect();
        tickets.iter().rev().for_each(roadrunner_runtime::Ticket::help);
        drop(sender);
        let mut replies = Vec::new();
        for ended in receiver {
            replies.push(ended?);
            progress(replies.len() as u64, u64::from(width));
        }
        Ok::<Vec<Reply>, BenchError>(replies)
    };
    let before = pss()?;
    let idle = verify((0..width).map(|_| Sealed::empty()).collect(), &mut |_, _| {})?;
    let sandbox_bytes = pss()?.saturating_sub(before);
    drop(idle);

    let before = pss()?;
    let mut produced = produce(&app, size)?;
    let start = produced.finished;
    let sealed = produced.payload().map_err(unreadable)?;
    let (parts, copied) = sealed.split(width as usize, app.home()).map_err(unreadable)?;
    drop(produced);
    let mut replies = verify(parts, progress)?;
    let total = start.elapsed();
    let pss_growth_bytes = pss()?.saturating_sub(before);
    let mut times: Vec<Duration> = replies.iter().map(|reply| reply.account.handover).collect();
    let landed: u64 = replies.iter().map(|reply| reply.account.traffic.copied).sum();
    for reply in &mut replies {
        check_held(reply, size)?;
    }
    Ok(FanOut {
        width,
        size_bytes: size,
        copied_bytes: copied.copied + landed,
        total_us: micros(total),
        handover_us: Stats::of(&mut times),
        pss_growth_bytes,
        sandbox_bytes,
    })
}

/// Memory of this process in bytes, shared pages counted in proportion.
fn pss() -> Result<u64, BenchError> {
    let text = fs::read_to_string("/proc/self/smaps_rollup").map_err(BenchError::Memory)?;
    let kib = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = kib.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| BenchError::Memory(std::io::Error::other("it has no Pss line")))
}
