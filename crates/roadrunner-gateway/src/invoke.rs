//! One run of a workflow or function, on a thread that may block.

use std::time::Instant;

use roadrunner_runtime::{
    Bounds, Fault, Home, Hop, Mode, Payload, Reply, Sealed, Trace, Traffic, Variables,
};
use roadrunner_workflow::{Executable, Function, FunctionIndex, Workflow};

use crate::catalog::Loaded;
use crate::metrics::Metrics;
use crate::receive::Received;
use crate::refusal::Refusal;

/// What a request asks for.
#[derive(Clone)]
pub(crate) enum Target {
    Workflow(Loaded),
    Function(Loaded, String),
}

impl Target {
    pub(crate) fn executable(&self) -> &Executable {
        match self {
            Self::Workflow(loaded) | Self::Function(loaded, _) => (**loaded).as_ref(),
        }
    }

    /// The function that gets the body.
    pub(crate) fn first(&self) -> &Function {
        self.one(Workflow::entry)
    }

    /// The function that makes the response.
    pub(crate) fn last(&self) -> &Function {
        self.one(Workflow::last)
    }

    fn one(&self, of: fn(&Workflow) -> FunctionIndex) -> &Function {
        let workflow = self.executable().workflow();
        let named = match self {
            Self::Workflow(_) => None,
            Self::Function(_, name) => workflow.find(name),
        };
        &workflow[named.unwrap_or_else(|| of(workflow))]
    }

    /// Its label in the metrics: its path, with the workflow's name where there could be several.
    pub(crate) fn label(&self) -> String {
        let workflow = self.executable().workflow().name();
        match self {
            Self::Workflow(_) => format!("/workflows/{workflow}"),
            Self::Function(_, name) => format!("/functions/{workflow}.{name}"),
        }
    }

    /// Runs it to its end. The response has left its sandbox by then: however slowly a client
    /// takes it, the sandbox is free.
    pub(crate) fn run(
        &self,
        body: Received,
        trace: Trace,
        variables: Variables,
        metrics: &Metrics,
    ) -> Result<Sealed<'static>, Refusal> {
        let (input, copied) = body.seal().map_err(Refusal::exhausted)?;
        metrics.copied_in(copied);
        let (ended, hops) = match self {
            Self::Workflow(_) => workflow(self.executable(), input, trace, variables),
            Self::Function(_, name) => function(self.executable(), name, input, trace, variables),
        };
        metrics.hops(&hops);
        let (response, copied) = leave(ended?, self.executable().home())?;
        metrics.copied_out(copied);
        Ok(response)
    }
}

fn workflow(
    exe: &Executable,
    input: Sealed<'static>,
    trace: Trace,
    variables: Variables,
) -> (Result<Reply, Fault>, Vec<Hop>) {
    let bounds = Bounds { trace, ..Executable::bounds() };
    match exe.run_request(bounds, variables, Payload::One(input), &mut |_| {}) {
        Ok(finished) => (Ok(finished.reply), finished.hops),
        Err(error) => (Err(error.fault), error.hops),
    }
}

fn function(
    exe: &Executable,
    name: &str,
    input: Sealed<'static>,
    trace: Trace,
    variables: Variables,
) -> (Result<Reply, Fault>, Vec<Hop>) {
    let (bytes, since) = (input.len() as u64, Instant::now());
    let bounds = Bounds { trace, ..exe.app().bounds(since) };
    let call = bounds.call(name, Payload::One(input), since);
    match exe.app().deliver_with(None, variables, call) {
        Ok(mut reply) => {
            let mode = exe.app().mode_of(name).unwrap_or(Mode::User);
            let (from, to, account) = ("input".into(), name.to_owned(), reply.account);
            let mut hops = vec![Hop { from, to, mode, bytes, account }];
            hops.append(&mut reply.hops);
            (Ok(reply), hops)
        }
        Err(undelivered) => (Err(undelivered.fault), Vec::new()),
    }
}

/// Takes a response out of the sandbox that made it.
fn leave(mut reply: Reply, home: &Home) -> Result<(Sealed<'static>, Traffic), Refusal> {
    let detached = reply.payload().and_then(|sealed| sealed.detach(home));
    let (response, copied) = detached.map_err(Refusal::exhausted)?;
    // Maps pages that another process shares, so that nothing is left to fail later.
    response.bytes().map_err(Refusal::exhausted)?;
    Ok((response, copied))
}
