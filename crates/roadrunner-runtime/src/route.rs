//! Where a call goes. Pure: what is decided here depends on the caller and its app alone.

use std::sync::Arc;

use roadrunner_transport::{Fault, Mode, Transport};

use crate::app::App;
use crate::function::Function;

/// The way to a function of another process or host.
pub type Remote = Arc<dyn Transport + Send + Sync>;

/// Where a function is.
#[derive(Clone)]
pub(crate) enum Route {
    /// In this process.
    Local,
    /// Where this way leads.
    Remote(Remote),
}

impl Route {
    /// How payloads travel on it.
    pub(crate) fn mode(&self) -> Mode {
        match self {
            Self::Local => Mode::User,
            Self::Remote(remote) => remote.mode(),
        }
    }
}

fn find(app: &App, target: &str) -> Option<Route> {
    match app.function(target) {
        Some(_) => Some(Route::Local),
        None => app.remote(target).cloned().map(Route::Remote),
    }
}

/// The way to the target of a request from outside.
pub(crate) fn of_request(app: &App, target: &str) -> Result<Route, Fault> {
    find(app, target).ok_or_else(|| Fault::Unknown { function: target.into() })
}

/// The way to the target of a function's own call; `None` where the function may not call it.
pub(crate) fn of_call(app: &App, caller: &Function, target: &str) -> Option<Route> {
    let may = caller.spec.calls.iter().any(|allowed| allowed == target);
    if may { find(app, target) } else { None }
}
