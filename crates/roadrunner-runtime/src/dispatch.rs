//! Hands a call to the transport that its route names.

use std::sync::Arc;

use roadrunner_transport::{self as transport, Call, Reply, Transport, Undelivered};

use crate::app::App;
use crate::inbox::{AppInbox, Local};
use crate::route::Route;

/// Sends a call its way and waits for its end.
pub(crate) fn send<'p>(
    app: &Arc<App>,
    route: Route,
    local: Local,
    call: Call<'p>,
) -> Result<Reply, Undelivered<'p>> {
    match route {
        Route::Local => transport::Local(AppInbox { app, local: local.into() }).send(call),
        // The charge lasts until the peer has the payload's bytes and has answered.
        Route::Remote(remote) => remote.send(call),
    }
}
