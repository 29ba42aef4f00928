//! The executor: walks a payload through a plan.
//!
//! A chain runs on the calling thread, each response going straight from the memory it was
//! produced in to the next function. After a fan-out the branches run on the runtime's workers, and
//! on the calling thread while it has nothing else to do. Responses that wait for others at a
//! fan-in leave their sandboxes, so that those can go.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use roadrunner_runtime::{
    Account, Bounds, Fault, Hop, Mode, Payload, Ready, Reply, Sealed, Ticket, Trace, Traffic,
    Undelivered, Variables,
};

use crate::executable::Executable;
use crate::plan::Edge;
use crate::workflow::{Function, FunctionIndex};

/// How long a payload waits for a sandbox that is being made ahead, before it gets one of its own.
const PATIENCE: Duration = Duration::from_millis(100);

/// Time of a run whose caller names none: each call of a function has the runtime's longest time.
const UNBOUNDED: Duration = Duration::from_hours(24 * 365);

/// Who sends the workflow's input, in reports.
const INPUT: &str = "input";

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
#[error("{fault}")]
pub struct RunError {
    /// How the function that ended the run ended.
    pub fault: Fault,
    /// The hand-overs until then.
    pub hops: Vec<Hop>,
}

/// The result of a run.
#[derive(Debug)]
pub struct Finished {
    /// The response of the last function, still in its memory.
    pub reply: Reply,
    /// Every hand-over, in the order in which the receivers ended.
    pub hops: Vec<Hop>,
    /// From the call of [`Executable::run`] until the last function was done.
    pub total: Duration,
}

impl Executable {
    /// Runs the workflow on an input and waits for its result. `progress` is told the name of every
    /// function that is done.
    ///
    /// # Errors
    /// When a function fails; functions that run at that moment end by themselves.
    pub fn run(
        &self,
        input: Sealed<'static>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Finished, RunError> {
        self.run_within(Self::bounds(), Payload::One(input), progress)
    }

    /// What a run may take that nobody else bounds or traces.
    #[must_use]
    pub fn bounds() -> Bounds {
        Bounds { deadline: Instant::now() + UNBOUNDED, depth: 0, trace: Trace::default() }
    }

    /// As [`Executable::run`], for a caller that gives up at its own deadline. The entry may be a
    /// function of several inputs.
    ///
    /// # Errors
    /// As [`Executable::run`], and when the deadline passes.
    pub fn run_within(
        &self,
        bounds: Bounds,
        input: Payload<'static>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Finished, RunError> {
        self.run_request(bounds, Variables::new(), input, progress)
    }

    /// As [`Executable::run_within`], with environment variables for the entry. They reach it in this process
    /// only.
    ///
    /// # Errors
    /// As [`Executable::run_within`].
    pub fn run_request(
        &self,
        bounds: Bounds,
        variables: Variables,
        input: Payload<'static>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Finished, RunError> {
        let start = Instant::now();
        let mut run = Run::new(self, bounds, variables);
        let ended = run.all(input, progress);
        let hops = run.hops;
        match ended {
            Ok(reply) => {
                let total = reply.finished.saturating_duration_since(start);
                Ok(Finished { reply, hops, total })
            }
            Err(fault) => Err(RunError { fault, hops }),
        }
    }
}

/// What an input of a function cost before it reached the function, and whose it is.
#[derive(Clone, Default)]
struct Origin {
    from: String,
    bytes: u64,
    copied: Traffic,
    spent: Duration,
}

/// A payload on its way.
struct Parcel {
    payload: Payload<'static>,
    origins: Vec<Origin>,
    /// When it was ready, for a payload whose receiver follows at once.
    ready: Option<Instant>,
}

type Ended = (FunctionIndex, Vec<Origin>, Result<Reply, Fault>);

/// One run of a workflow.
struct Run<'e> {
    exe: &'e Executable,
    bounds: Bounds,
    /// For the entry, which is the first to run.
    variables: Variables,
    /// Payloads that wait for others, by function and input.
    waiting: Vec<Vec<Option<(Sealed<'static>, Origin)>>>,
    /// Functions that have all their inputs.
    ready: Vec<(FunctionIndex, Parcel)>,
    /// The sandbox of the next function of a chain.
    prepared: Option<Ticket<Option<Ready>>>,
    /// Calls that run beside this thread.
    tickets: Vec<Ticket<()>>,
    in_flight: usize,
    ended: (Sender<Ended>, Receiver<Ended>),
    hops: Vec<Hop>,
}

impl<'e> Run<'e> {
    fn new(exe: &'e Executable, bounds: Bounds, variables: Variables) -> Self {
        let inputs = |function: &Function| (0..function.previous.len()).map(|_| None).collect();
        Self {
            exe,
            bounds,
            variables,
            waiting: exe.workflow.functions().iter().map(inputs).collect(),
            ready: Vec::new(),
            prepared: None,
            tickets: Vec::new(),
            in_flight: 0,
            ended: channel(),
            hops: Vec::new(),
        }
    }

    fn all(
        &mut self,
        payload: Payload<'static>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Reply, Fault> {
        let of = |len| Origin { from: INPUT.into(), bytes: len as u64, ..Origin::default() };
        let origins = match &payload {
            Payload::Many(parts) => parts.iter().map(|part| of(part.len())).collect(),
            one => vec![of(one.len())],
        };
        let parcel = Parcel { payload, origins, ready: Some(Instant::now()) };
        self.ready.push((self.exe.workflow.entry(), parcel));
        loop {
            let (function, origins, ended) = self.next();
            let mut reply = ended?;
            self.record(function, origins, &mut reply);
            progress(&self.exe.workflow[function].name);
            if function == self.exe.workflow.last() {
                return Ok(reply);
            }
            self.pass_on(function, reply)?;
        }
    }

    /// Runs what can run and gives the next end of a function.
    fn next(&mut self) -> Ended {
        if self.in_flight == 0 && self.ready.len() == 1 {
            let (function, parcel) = self.ready.remove(0);
            let target = self.exe.workflow[function].name.as_str();
            let since = parcel.ready.unwrap_or_else(Instant::now);
            let patience = Instant::now() + PATIENCE;
            let ready = self.prepared.take().and_then(|ticket| ticket.join(patience)).flatten();
            self.prepared = self.prepare_next(function);
            let call = |payload| self.bounds.call(target, payload, since);
            let variables = std::mem::take(&mut self.variables);
            let app = &self.exe.app;
            let mut ended = app.deliver_with(ready, variables.clone(), call(parcel.payload));
            if let Err(Undelivered { fault: Fault::Exhausted { .. }, payload, .. }) = &mut ended
                && let Some(payload) = payload.take()
            {
                // The sandbox that was made ahead may be the one that is missing here.
                self.prepared = None;
                ended = app.deliver_with(None, variables, call(payload));
            }
            return (function, parcel.origins, ended.map_err(|undelivered| undelivered.fault));
        }
        for (function, parcel) in std::mem::take(&mut self.ready) {
            let done = self.ended.0.clone();
            let target = self.exe.workflow[function].name.clone();
            let Parcel { payload, mut origins, ready } = parcel;
            // This thread may have run another function since then; the call counts from here.
            let waited = ready.map_or(Duration::ZERO, |ready| ready.elapsed());
            origins.iter_mut().for_each(|origin| origin.spent += waited);
            let ticket = self.exe.app.spawn_within(self.bounds, target, payload, move |ended| {
                // The receiver is gone when the run has failed; nobody wants the response then.
                let _ = done.send((function, origins, ended));
            });
            self.tickets.push(ticket);
            self.in_flight += 1;
        }
        self.in_flight -= 1;
        loop {
            if let Ok(ended) = self.ended.1.try_recv() {
                return ended;
            }
            // What no worker has begun runs here; what one has begun needs no ticket.
            let Some(ticket) = self.tickets.pop() else { break };
            ticket.help();
        }
        // This end of the channel is held here, so there is always a sender.
        self.ended.1.recv().unwrap_or_else(|_| unreachable!("a sender lives as long as the run"))
    }

    /// A sandbox for the one function that follows, made before the payload is there to wait for it.
    fn prepare_next(&self, function: FunctionIndex) -> Option<Ticket<Option<Ready>>> {
        let workflow = &self.exe.workflow;
        let local =
            |next: &FunctionIndex| self.exe.app.mode_of(&workflow[*next].name) == Some(Mode::User);
        match workflow[function].next[..] {
            [next] if local(&next) => Some(self.exe.app.prepare_ahead(&workflow[next].name)),
            _ => None,
        }
    }

    /// Brings a response to the functions that follow.
    fn pass_on(&mut self, function: FunctionIndex, mut reply: Reply) -> Result<(), Fault> {
        let plan_step = self.exe.plan.steps().iter().find(|step| step.function == function);
        let consumers = plan_step.map(|step| step.consumers.clone()).unwrap_or_default();
        let (from, bytes) = (self.exe.workflow[function].name.clone(), reply.len() as u64);
        let copied = Traffic { copied: reply.copied, moved: 0 };
        let origin = Origin { from: from.clone(), bytes, copied, ..Origin::default() };
        if let [Edge { to, .. }] = consumers[..]
            && self.waiting[to.get()].len() == 1
        {
            let ready = Some(reply.finished);
            let parcel = Parcel { payload: Payload::Held(reply), origins: vec![origin], ready };
            self.ready.push((to, parcel));
            return Ok(());
        }
        // A fan-out has waited until this thread came to it. What is to wait at a fan-in was in nobody's
        // way so far.
        let start = if consumers.len() == 1 { Instant::now() } else { reply.finished };
        let home = self.exe.app.home();
        let refused = |source| Fault::HandOver { function: from.clone(), source };
        let sealed = reply.payload().map_err(refused)?;
        let (parts, copied) = if consumers.len() == 1 {
            let (sealed, copied) = sealed.detach(home).map_err(refused)?;
            (vec![sealed], copied)
        } else {
            sealed.split(consumers.len(), home).map_err(refused)?
        };
        let copied = copied + origin.copied;
        drop(reply);
        let spent = start.elapsed();
        for (nth, (edge, sealed)) in consumers.into_iter().zip(parts).enumerate() {
            // What it took to share was spent once, for the first consumer.
            let (copied, spent) =
                if nth == 0 { (copied, spent) } else { (Traffic::default(), Duration::ZERO) };
            self.deliver(edge, sealed, Origin { copied, spent, ..origin.clone() });
        }
        Ok(())
    }

    /// Puts a payload where its receiver waits for it.
    fn deliver(&mut self, edge: Edge, sealed: Sealed<'static>, origin: Origin) {
        let inputs = &mut self.waiting[edge.to.get()];
        inputs[edge.input] = Some((sealed, origin));
        if inputs.iter().any(Option::is_none) {
            return;
        }
        let (mut parts, origins): (Vec<_>, Vec<_>) =
            inputs.iter_mut().flat_map(Option::take).unzip();
        let payload =
            if parts.len() == 1 { Payload::One(parts.remove(0)) } else { Payload::Many(parts) };
        self.ready.push((edge.to, Parcel { payload, origins, ready: None }));
    }

    /// Notes the hand-overs that a function's run needed, and those it made itself.
    fn record(&mut self, function: FunctionIndex, origins: Vec<Origin>, reply: &mut Reply) {
        let last = origins.len().saturating_sub(1);
        let whole = reply.account;
        let landing: Duration = reply.parts.iter().map(|(_, landing)| *landing).sum();
        for (nth, origin) in origins.into_iter().enumerate() {
            let (traffic, landing) = match reply.parts.get(nth) {
                // A fan-in runs once, in one sandbox: its time stands with the last of its inputs.
                Some(&(traffic, own)) if nth == last => {
                    (traffic, whole.handover.saturating_sub(landing) + own)
                }
                Some(&part) => part,
                None => (whole.traffic, whole.handover),
            };
            let account = Account {
                traffic: traffic + origin.copied,
                handover: landing + origin.spent,
                run: if nth == last { whole.run } else { Duration::ZERO },
                memory_peak: whole.memory_peak,
            };
            let to = self.exe.workflow[function].name.clone();
            let (from, bytes) = (origin.from, origin.bytes);
            let mode = self.exe.app.mode_of(&to).unwrap_or(Mode::User);
            self.hops.push(Hop { from, to, mode, bytes, account });
        }
        self.hops.append(&mut reply.hops);
    }
}
