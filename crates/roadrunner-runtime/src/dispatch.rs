//! Hands a call to the transport that its route names.

use std::cell::Cell;
use std::sync::Arc;

use roadrunner_transport::{Call, Local, Reply, Transport, Undelivered};

use crate::app::App;
use crate::inbox::AppInbox;
use crate::instance::Instance;
use crate::route::Route;

/// Sends a call its way and waits for its end. A sandbox that is ready serves a local call.
pub(crate) fn send<'p>(
    app: &Arc<App>,
    route: Route,
    ready: Option<Instance>,
    call: Call<'p>,
) -> Result<Reply, Undelivered<'p>> {
    match route {
        Route::Local => Local(AppInbox { app, ready: Cell::new(ready) }).send(call),
    }
}
