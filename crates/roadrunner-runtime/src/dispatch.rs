//! Hands a call to the transport that its route names.

use std::sync::Arc;

use roadrunner_transport::{Call, Local, Reply, Transport, Undelivered};

use crate::app::App;
use crate::inbox::AppInbox;
use crate::route::Route;

/// Sends a call its way and waits for its end.
pub(crate) fn send<'p>(
    app: &Arc<App>,
    route: Route,
    call: Call<'p>,
) -> Result<Reply, Undelivered<'p>> {
    match route {
        Route::Local => Local(AppInbox(app)).send(call),
    }
}
