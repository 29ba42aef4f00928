//! Functions that are elsewhere, as the tests need them: they wait until they are told to answer, or
//! can't be reached.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex};

use roadrunner_runtime::{
    Account, BufferError, Call, Fault, Lender, Mode, Payload, Reply, Sealed, Undelivered,
};
use roadrunner_transport::Transport;

/// Where functions wait for the test.
#[derive(Default)]
pub(crate) struct Peers {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: usize,
    ended: usize,
    released: bool,
    descriptors: usize,
}

impl Peers {
    /// Waits until so many calls wait here.
    pub(crate) fn await_waiting(&self, calls: usize) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| state.waiting < calls).unwrap());
    }

    /// Calls that wait here now.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().unwrap().waiting
    }

    /// Waits until so many calls have ended here.
    pub(crate) fn await_ended(&self, calls: usize) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| state.ended < calls).unwrap());
    }

    /// Calls whose payload came in a memfd.
    pub(crate) fn payloads_with_descriptor(&self) -> usize {
        self.state.lock().unwrap().descriptors
    }

    /// Lets all calls go on, now and later.
    pub(crate) fn release(&self) {
        self.state.lock().unwrap().released = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |state| !state.released).unwrap();
        state.waiting -= 1;
        state.ended += 1;
        self.changed.notify_all();
    }
}

/// The way there.
pub(crate) struct Way(pub(crate) Arc<Peers>);

impl Transport for Way {
    fn mode(&self) -> Mode {
        Mode::Kernel
    }

    fn send<'p>(&self, call: Call<'p>) -> Result<Reply, Undelivered<'p>> {
        let (function, peer) = (call.target.to_owned(), "there".to_owned());
        let reason = "the test says so".to_owned();
        match call.target {
            "unreachable" => Err(Undelivered::after(Fault::Unreachable { function, peer, reason })),
            "lost" => Err(Undelivered::after(Fault::Lost { function, peer, reason })),
            "exhausted" => Err(Undelivered::after(Fault::Exhausted { function, reason })),
            "panics" => panic!("as the test says"),
            _ => {
                self.0.wait();
                let Payload::One(sealed) = call.payload else { panic!("one payload") };
                if sealed.descriptor().is_some() {
                    self.0.state.lock().unwrap().descriptors += 1;
                }
                let bytes = sealed.bytes().unwrap().to_vec();
                Ok(Reply::new(Box::new(Bytes(bytes)), Account::default(), Vec::new()))
            }
        }
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Way")
    }
}

struct Bytes(Vec<u8>);

impl Lender for Bytes {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn lend(&mut self) -> Result<Sealed<'_>, BufferError> {
        Ok(Sealed::borrowed(&self.0))
    }
}
