//! The processes of a run that call this one, and what each has lent and borrowed.
//!
//! A process that is gone gives nothing back: what it had is given up as soon as its end is known, which
//! is looked for whenever one of the others comes or goes.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use roadrunner_sys as sys;

use crate::Trust;

/// The members by their process numbers.
#[derive(Default)]
pub(crate) struct Members(HashMap<u32, Member>);

struct Member {
    trust: Trust,
    /// Stays this process's where another one gets its number; none on kernels before 6.5.
    process: Option<Arc<OwnedFd>>,
    connections: usize,
}

impl Member {
    fn is_gone(&self, number: u32) -> bool {
        match &self.process {
            Some(process) => sys::has_ended(process.as_fd(), Duration::ZERO),
            None => sys::parent_of(number).is_none(),
        }
    }
}

impl Members {
    /// A connection of a process begins. `gone` gets what processes had that are gone.
    pub(crate) fn enter(
        &mut self,
        run: u32,
        number: u32,
        process: Option<OwnedFd>,
        gone: &mut Vec<Trust>,
    ) -> Trust {
        self.prune(gone);
        let member = self.0.entry(number).or_insert_with(|| {
            let process = process.map(Arc::new);
            Member { trust: Trust::domain(run), process, connections: 0 }
        });
        member.connections += 1;
        member.trust.clone()
    }

    /// A connection of a process has ended. A descriptor of the process where that was its last one: it may be about
    /// to end itself.
    pub(crate) fn leave(&mut self, number: u32) -> Option<Arc<OwnedFd>> {
        let member = self.0.get_mut(&number)?;
        member.connections = member.connections.saturating_sub(1);
        member.process.clone().filter(|_| member.connections == 0)
    }

    /// Forgets the processes that are gone. What they had ends where `gone` ends: not under a lock.
    pub(crate) fn prune(&mut self, gone: &mut Vec<Trust>) {
        let ended = self.0.extract_if(|number, it| it.connections == 0 && it.is_gone(*number));
        gone.extend(ended.map(|(_, member)| member.trust));
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// Without a descriptor of the process; with one in `tests/it/domain.rs`.
    #[test]
    fn a_process_that_is_gone_is_forgotten_after_its_last_connection() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let (own, number) = (std::process::id(), child.id());
        let (mut members, mut gone) = (Members::default(), Vec::new());
        for _ in 0..2 {
            members.enter(own, number, None, &mut gone);
        }
        members.leave(number);
        child.kill().unwrap();
        child.wait().unwrap();
        members.prune(&mut gone);
        assert_eq!((members.len(), gone.len()), (1, 0), "a connection is left");
        members.leave(number);
        members.enter(own, own, None, &mut gone);
        assert_eq!((members.len(), gone.len()), (1, 1));
        members.leave(own);
        members.prune(&mut gone);
        assert_eq!((members.len(), gone.len()), (1, 1), "this process has not ended");
    }
}
