//! The same workflow the copying way, for comparison: at every hop the payload is read from the
//! producer's linear memory into a buffer of the host's, and written from there into the consumer's.
//! Both copies are counted.
//!
//! Built from the runtime's public parts alone: a break-even that is never reached makes every
//! payload one that is copied, and [`Sealed::detach`] is then the copy into the host's buffer.
//! Functions run in parallel where the workflow's own executor runs them in parallel.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use roadrunner_runtime::{
    App, BreakEven, BufferError, Config, Fault, Payload, Reply, Sealed, Traffic,
};
use roadrunner_workflow::{Executable, FunctionIndex, Step};

use super::compare::Cost;
use crate::exit::{Exit, Failure};

/// What a runtime needs to copy every payload.
pub(super) fn config() -> Config {
    Config { break_even: Some(BreakEven::fixed(usize::MAX)), ..Config::default() }
}

/// A payload in a buffer of the host's, and how long it took to get there.
struct Parcel {
    input: usize,
    sealed: Sealed<'static>,
    spent: Duration,
}

type Parcels = HashMap<FunctionIndex, Vec<Parcel>>;

/// Runs a workflow, and gives its result with what that cost.
pub(super) fn run(exe: &Executable, input: Sealed<'static>) -> Result<(Reply, Cost), Failure> {
    let plan = exe.workflow().plan();
    let start = Instant::now();
    let mut cost = Cost::default();
    let first = Parcel { input: 0, sealed: input, spent: Duration::ZERO };
    let mut parcels: Parcels = HashMap::from([(exe.workflow().entry(), vec![first])]);
    loop {
        let complete = |step: &&Step| {
            parcels.get(&step.function).is_some_and(|it| it.len() == step.inputs.len().max(1))
        };
        let ready: Vec<&Step> = plan.steps().iter().filter(complete).collect();
        let calls = ready.iter().map(|step| (*step, parcels.remove(&step.function)));
        let calls: Vec<_> = calls.map(|(step, parts)| (step, parts.unwrap_or_default())).collect();
        for (step, ended) in all(exe, calls) {
            let (reply, waited) = ended?;
            cost.add(waited, reply.account.traffic);
            if step.consumers.is_empty() {
                cost.total = reply.finished.saturating_duration_since(start);
                return Ok((reply, cost));
            }
            cost.add(Duration::ZERO, pass_on(exe.app(), step, reply, &mut parcels)?);
        }
    }
}

/// A response and how long the function waited for its payload.
type Ended = Result<(Reply, Duration), Failure>;

/// Runs functions, several at once where there are several. Their payloads are ready now.
fn all<'s>(exe: &Executable, calls: Vec<(&'s Step, Vec<Parcel>)>) -> Vec<(&'s Step, Ended)> {
    let since = Instant::now();
    thread::scope(|scope| {
        let mut calls = calls;
        // The last one runs here.
        let last = calls.pop();
        let others: Vec<_> = calls
            .into_iter()
            .map(|(step, parts)| (step, scope.spawn(move || one(exe, step, parts, since))))
            .collect();
        let last = last.map(|(step, parts)| (step, one(exe, step, parts, since)));
        let join = |(step, thread): (&'s Step, thread::ScopedJoinHandle<'_, Ended>)| {
            let panicked = |_| Err(Failure::new(Exit::Host, "a thread of the demo panicked"));
            (step, thread.join().unwrap_or_else(panicked))
        };
        others.into_iter().map(join).chain(last).collect()
    })
}

/// Runs one function.
fn one(exe: &Executable, step: &Step, mut parts: Vec<Parcel>, since: Instant) -> Ended {
    parts.sort_by_key(|part| part.input);
    let spent: Duration = parts.iter().map(|part| part.spent).sum();
    let mut parts: Vec<_> = parts.into_iter().map(|part| part.sealed).collect();
    let payload =
        if parts.len() == 1 { Payload::One(parts.remove(0)) } else { Payload::Many(parts) };
    let target = exe.workflow()[step.function].name.as_str();
    let ended = exe.app().call(target, payload, since);
    let reply = ended.map_err(|undelivered| undelivered.fault)?;
    let waited = spent + reply.account.handover;
    Ok((reply, waited))
}

/// Copies a response out of its memory, for every function that follows.
fn pass_on(
    app: &App,
    step: &Step,
    mut reply: Reply,
    parcels: &mut Parcels,
) -> Result<Traffic, Failure> {
    // Not since `reply.finished`: a branch of a fan-out may have waited for the others since then.
    let start = Instant::now();
    let (sealed, copied) = copy_out(app, step, &mut reply)
        .map_err(|source| Fault::HandOver { function: "a consumer".into(), source })?;
    let spent = start.elapsed();
    for (nth, (edge, sealed)) in step.consumers.iter().zip(sealed).enumerate() {
        // Copying out was done once, for the first consumer.
        let spent = if nth == 0 { spent } else { Duration::ZERO };
        let parcel = Parcel { input: edge.input, sealed, spent };
        parcels.entry(edge.to).or_default().push(parcel);
    }
    Ok(copied)
}

fn copy_out(
    app: &App,
    step: &Step,
    reply: &mut Reply,
) -> Result<(Vec<Sealed<'static>>, Traffic), BufferError> {
    let sealed = reply.payload()?;
    match step.consumers.len() {
        1 => sealed.detach(app.home()).map(|(sealed, copied)| (vec![sealed], copied)),
        consumers => sealed.split(consumers, app.home()),
    }
}
