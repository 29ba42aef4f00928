//! Hands a call to the transport that its route names.

use std::cell::Cell;
use std::sync::Arc;

use roadrunner_transport::{Call, Local, Reply, Transport, Undelivered};

use crate::app::{App, WindowBytes};
use crate::inbox::AppInbox;
use crate::instance::Instance;
use crate::route::Route;

/// Sends a call its way and waits for its end. A sandbox that is ready serves a local call; what the
/// payload was charged on its way here becomes its window's.
pub(crate) fn send<'p>(
    app: &Arc<App>,
    route: Route,
    ready: Option<Instance>,
    charge: Option<WindowBytes>,
    call: Call<'p>,
) -> Result<Reply, Undelivered<'p>> {
    match route {
        Route::Local => {
            let (ready, charge) = (Cell::new(ready), Cell::new(charge));
            Local(AppInbox { app, ready, charge }).send(call)
        }
        // The charge lasts until the peer has the payload's bytes and has answered.
        Route::Remote(remote) => remote.send(call),
    }
}
