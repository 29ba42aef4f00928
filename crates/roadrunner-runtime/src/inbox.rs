//! Takes calls in: limits, deadline, a fresh sandbox, the payload's landing, the run.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use roadrunner_abi::limit;
use roadrunner_transport::{Account, Call, Fault, Inbox, Payload, Reply, Undelivered};

use crate::app::App;
use crate::config::{CALL_STACK, MORE_STACK};
use crate::function::Function;
use crate::instance::Instance;

/// The receiving end of an app.
pub(crate) struct AppInbox<'a> {
    pub(crate) app: &'a Arc<App>,
    /// A sandbox that was made ahead of the call.
    pub(crate) ready: Cell<Option<Instance>>,
}

impl Inbox for AppInbox<'_> {
    fn accept<'p>(&self, call: Call<'p>) -> Result<Reply, Undelivered<'p>> {
        match admit(self.app, &call) {
            Err(fault) => Err(Undelivered::before(fault, call.payload)),
            Ok(function) => {
                let ready = self.ready.take().filter(|instance| instance.is_of(function));
                // A caller's thread may have any stack; nested calls take theirs from the same.
                stacker::maybe_grow(CALL_STACK, MORE_STACK, || run(self.app, function, ready, call))
            }
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

/// Runs a call in a fresh sandbox.
fn run<'p>(
    app: &Arc<App>,
    function: &Arc<Function>,
    ready: Option<Instance>,
    call: Call<'p>,
) -> Result<Reply, Undelivered<'p>> {
    let running = app.shared.ticker.run();
    let made = match ready {
        Some(instance) => Ok(instance),
        None => Instance::new(app, function),
    };
    let mut instance = match made {
        Ok(instance) => instance,
        Err(fault) => return Err(Undelivered::before(fault, call.payload)),
    };
    instance.begin(call.deadline, call.depth);
    let traffic = instance.receive(call.payload)?;
    let entered = Instant::now();
    let handover = entered.saturating_duration_since(call.since);
    instance.run().map_err(Undelivered::after)?;
    let finished = Instant::now();
    drop(running);
    let run = finished.saturating_duration_since(entered);
    let account = Account { traffic, handover, run, ..Account::default() };
    Ok(instance.into_reply(account, finished))
}
