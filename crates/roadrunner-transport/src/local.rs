//! User space: the function is in this process, so the call is a call and the payload's pages go
//! from linear memory to linear memory without leaving the thread.

use crate::{Call, Inbox, Mode, Reply, Transport, Undelivered};

/// The way to an inbox in this process.
#[derive(Clone, Copy, Debug)]
pub struct Local<I>(pub I);

impl<I: Inbox> Transport for Local<I> {
    fn mode(&self) -> Mode {
        Mode::User
    }

    fn send<'p>(&self, call: Call<'p>) -> Result<Reply, Undelivered<'p>> {
        self.0.accept(call)
    }
}

#[cfg(test)]
mod tests {
    use crate::conformance::{self, EchoInbox};

    #[test]
    fn the_local_transport_conforms() {
        let inbox = EchoInbox::default();
        let home = inbox.home().clone();
        conformance::all(&super::Local(inbox), &home);
    }
}
