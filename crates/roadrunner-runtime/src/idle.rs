//! Sandboxes that have had a call and wait for another, of functions that ask for it.
//!
//! ```text
//!   Idle::take --> Instance, which runs a call --> its response, which owns it --> Idle::put
//! ```
//!
//! What comes back is what the guest left in its linear memory, its globals and its tables. Everything else of a call
//! ends with it: its buffers are the host's, its files are closed, and nothing of the app is held, or the two would
//! keep each other alive. A sandbox whose call failed, trapped or ran out of time never comes back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roadrunner_buffer::{BufferError, Sealed};
use roadrunner_transport::Lender;

use crate::function::Function;
use crate::instance::Instance;

/// Sandboxes of an app that are kept: more than run at once where there are no more processors than this, and few
/// enough to look through for each call. Each keeps the memory that it grew to.
const KEPT: usize = 32;

/// The idle sandboxes of an app, the one that ran last at the end: its pages are the likeliest to be in caches.
#[derive(Default)]
pub(crate) struct Idle(Mutex<Vec<Instance>>);

impl Idle {
    fn kept(&self) -> MutexGuard<'_, Vec<Instance>> {
        // No code that can panic runs under the lock, so a poisoned one is still in order.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sandbox of this function.
    pub(crate) fn take(&self, function: &Arc<Function>) -> Option<Instance> {
        if !function.spec.reuse {
            return None;
        }
        let mut kept = self.kept();
        let at = kept.iter().rposition(|instance| instance.is_of(function))?;
        Some(kept.remove(at))
    }

    fn put(&self, instance: Instance) {
        let mut kept = self.kept();
        let surplus = (kept.len() >= KEPT).then(|| kept.remove(0));
        kept.push(instance);
        drop(kept);
        // Giving a sandbox back takes time that others need not wait for.
        drop(surplus);
    }

    /// Gives all of them back; whether there were any.
    pub(crate) fn clear(&self) -> bool {
        let kept = std::mem::take(&mut *self.kept());
        // They go when nobody has to wait for the lock.
        !kept.is_empty()
    }
}

/// A response in a sandbox that is idle as soon as the response has gone.
pub(crate) struct Lent(Option<Instance>);

impl Lent {
    pub(crate) fn new(instance: Instance) -> Self {
        Self(Some(instance))
    }
}

impl Lender for Lent {
    fn len(&self) -> usize {
        self.0.as_ref().map_or(0, Lender::len)
    }

    fn besides(&self) -> u64 {
        self.0.as_ref().map_or(0, Lender::besides)
    }

    fn lend(&mut self) -> Result<Sealed<'_>, BufferError> {
        self.0.as_mut().map_or(Ok(Sealed::empty()), Lender::lend)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some((app, instance)) = self.0.take().and_then(Instance::rest) {
            app.idle.put(instance);
        }
    }
}
