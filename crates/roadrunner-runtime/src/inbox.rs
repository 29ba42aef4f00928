//! Takes calls in: limits, deadline, a fresh sandbox, the payload's landing, the run.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use roadrunner_abi::limit;
use roadrunner_transport::{Account, Call, Fault, Inbox, Payload, Reply, Trace, Undelivered};
use tracing::span::EnteredSpan;

use crate::app::{App, Bounds, WindowBytes};
use crate::config::{CALL_STACK, MORE_STACK};
use crate::environment::Variables;
use crate::function::Function;
use crate::instance::Instance;

/// The receiving end of an app.
pub(crate) struct AppInbox<'a> {
    pub(crate) app: &'a Arc<App>,
    pub(crate) local: Cell<Local>,
}

/// What a call brings along that never leaves this process.
#[derive(Default)]
pub(crate) struct Local {
    /// A sandbox that was made ahead of the call.
    pub(crate) ready: Option<Instance>,
    /// What the payload was charged on its way here, which becomes its window's.
    pub(crate) charge: Option<WindowBytes>,
    /// For the environment of the function.
    pub(crate) variables: Variables,
}

impl Inbox for AppInbox<'_> {
    fn accept<'p>(&self, call: Call<'p>) -> Result<Reply, Undelivered<'p>> {
        match admit(self.app, &call) {
            Err(fault) => Err(Undelivered::before(fault, call.payload)),
            Ok(function) => {
                let run = || run(self.app, function, self.local.take(), call);
                // A caller's thread may have any stack; nested calls take theirs from the same.
                stacker::maybe_grow(CALL_STACK, MORE_STACK, run)
            }
        }
    }
}

/// The same for calls of other processes and hosts. After a call of a function it makes the sandbox for
/// the next one, while its caller is busy with the answer.
pub(crate) struct Door {
    app: Arc<App>,
    /// One for each function that was called.
    spare: Mutex<HashMap<String, Instance>>,
}

impl Door {
    pub(crate) fn new(app: Arc<App>) -> Self {
        Self { app, spare: Mutex::default() }
    }

    fn spare(&self) -> MutexGuard<'_, HashMap<String, Instance>> {
        // No code that can panic runs under the lock, so a poisoned one is still in order.
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox for Door {
    fn accept<'p>(&self, call: Call<'p>) -> Result<Reply, Undelivered<'p>> {
        let local = Local { ready: self.spare().remove(call.target), ..Local::default() };
        AppInbox { app: &self.app, local: local.into() }.accept(call)
    }

    fn rest(&self, target: &str) {
        if self.app.function(target).is_none() || self.spare().contains_key(target) {
            return;
        }
        // A sandbox that can't be made is none: the next call says why.
        if let Ok(ready) = self.app.prepare(target) {
            let surplus = self.spare().insert(target.to_owned(), ready.0);
            drop(surplus);
        }
    }
}

/// The function of a call that is within all limits.
fn admit<'a>(app: &'a Arc<App>, call: &Call<'_>) -> Result<&'a Arc<Function>, Fault> {
    let function = || call.target.to_owned();
    let Some(found) = app.function(call.target) else {
        return Err(Fault::Unknown { function: function() });
    };
    let (len, limit) = (call.payload.len() as u64, app.payload_limit());
    let largest = match &call.payload {
        Payload::Many(parts) => parts.iter().map(|part| part.len() as u64).max().unwrap_or(0),
        _ => len,
    };
    if largest > limit {
        return Err(Fault::TooLarge { function: function(), len: largest, limit });
    }
    if let Payload::Many(parts) = &call.payload
        && parts.len() > limit::INPUTS
    {
        let reason = format!("it has {} inputs, over the limit of {}", parts.len(), limit::INPUTS);
        return Err(Fault::Exhausted { function: function(), reason });
    }
    if call.depth >= limit::CALL_DEPTH {
        return Err(Fault::TooDeep { function: function(), limit: limit::CALL_DEPTH });
    }
    if call.deadline <= Instant::now() {
        return Err(Fault::TimedOut { function: function(), timeout: found.spec.timeout });
    }
    Ok(found)
}

/// Runs a call in a sandbox.
fn run<'p>(
    app: &Arc<App>,
    function: &Arc<Function>,
    Local { ready, charge, variables }: Local,
    call: Call<'p>,
) -> Result<Reply, Undelivered<'p>> {
    let trace = call.trace.child();
    let _span = span(function, &call.trace, &trace);
    let running = app.shared.ticker.run();
    let metered = function.metered();
    let made = match ready.filter(|instance| instance.is_of(function)) {
        Some(instance) => Ok(instance),
        None => app.sandbox(function),
    };
    let mut instance = match made {
        Ok(instance) => instance,
        Err(fault) => return Err(Undelivered::before(fault, call.payload)),
    };
    let Call { deadline, depth, .. } = call;
    instance.begin(Bounds { deadline, depth, trace }, charge, variables);
    let traffic = instance.receive(call.payload)?;
    let entered = Instant::now();
    let handover = entered.saturating_duration_since(call.since);
    instance.run().map_err(Undelivered::after)?;
    let finished = Instant::now();
    drop((running, metered));
    let run = finished.saturating_duration_since(entered);
    let account = Account { traffic, handover, run, ..Account::default() };
    Ok(instance.into_reply(account, finished))
}

/// What a subscriber sees of an invocation. Where nobody listens this is a look at one flag.
fn span(function: &Function, parent: &Trace, own: &Trace) -> EnteredSpan {
    tracing::info_span!(
        "function",
        name = function.spec.name,
        trace_id = own.trace_text().map(tracing::field::display),
        span_id = own.span_text().map(tracing::field::display),
        parent_id = parent.span_text().map(tracing::field::display),
    )
    .entered()
}
