//! Where a call goes. Pure: what is decided here depends on the caller and its app alone.

use roadrunner_transport::Fault;

use crate::app::App;
use crate::function::Function;

/// Where a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// In this process.
    Local,
}

/// The way to the target of a request from outside.
pub(crate) fn of_request(app: &App, target: &str) -> Result<Route, Fault> {
    match app.function(target) {
        Some(_) => Ok(Route::Local),
        None => Err(Fault::Unknown { function: target.into() }),
    }
}

/// The way to the target of a function's own call; `None` where the function may not call it.
pub(crate) fn of_call(app: &App, caller: &Function, target: &str) -> Option<Route> {
    let may = caller.spec.calls.iter().any(|allowed| allowed == target);
    (may && app.function(target).is_some()).then_some(Route::Local)
}
