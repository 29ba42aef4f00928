//! Names to addresses by a time: the C library's resolver knows no deadline, and waits for a name
//! server that is gone for half a minute.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Asks the resolver; may take as long as it likes.
type Ask = fn(&str) -> io::Result<Vec<SocketAddr>>;

/// One name, which is asked for anew by each connection that is made.
pub(crate) struct Name {
    text: String,
    ask: Ask,
    /// The question that is under way: one at a time, so that a resolver which hangs has one thread of
    /// this process and no more.
    asked: Mutex<Option<Arc<Question>>>,
}

#[derive(Default)]
struct Question {
    answer: Mutex<Option<Answer>>,
    answered: Condvar,
}

/// An `io::Error` can't be cloned, and several may wait for this.
type Answer = Result<Vec<SocketAddr>, (io::ErrorKind, String)>;

impl Name {
    /// `HOST:PORT`.
    pub(crate) fn new(text: String) -> Self {
        Self::asking(text, |text| text.to_socket_addrs().map(Iterator::collect))
    }

    fn asking(text: String, ask: Ask) -> Self {
        Self { text, ask, asked: Mutex::new(None) }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The addresses that the name has now. `TimedOut` where that can't be said by then.
    pub(crate) fn addresses(&self, until: Instant) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = self.text.parse() {
            return Ok(vec![address]);
        }
        let question = self.question()?;
        let mut answer = lock(&question.answer);
        while answer.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let waited = question.answered.wait_timeout(answer, left);
            answer = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        match answer.clone() {
            Some(Ok(addresses)) => Ok(addresses),
            Some(Err((kind, what))) => Err(io::Error::new(kind, what)),
            None => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// The question that is under way, or a new one.
    fn question(&self) -> io::Result<Arc<Question>> {
        let mut asked = lock(&self.asked);
        if let Some(question) = &*asked
            && lock(&question.answer).is_none()
        {
            return Ok(Arc::clone(question));
        }
        let question = Arc::new(Question::default());
        let (theirs, text, ask) = (Arc::clone(&question), self.text.clone(), self.ask);
        roadrunner_sys::spawn("resolver", move || {
            let answer = ask(&text).map_err(|error| (error.kind(), error.to_string()));
            *lock(&theirs.answer) = Some(answer);
            theirs.answered.notify_all();
        })?;
        *asked = Some(Arc::clone(&question));
        Ok(question)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks, so a poisoned one is still in order.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn names_and_numbers_have_addresses() {
        let of = |text: &str| Name::new(text.into()).addresses(soon());
        assert_eq!(of("127.0.0.1:80").unwrap(), ["127.0.0.1:80".parse().unwrap()]);
        assert!(of("localhost:80").unwrap().iter().all(|address| address.ip().is_loopback()));
        assert!(of("no port").is_err());
    }

    #[test]
    fn a_resolver_that_hangs_costs_one_thread_and_no_deadline() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        static OPEN: Mutex<()> = Mutex::new(());
        let shut = lock(&OPEN);
        let name = Name::asking("slow:80".into(), |_| {
            ASKED.fetch_add(1, Ordering::SeqCst);
            drop(lock(&OPEN));
            Ok(Vec::new())
        });
        for _ in 0..3 {
            let late = name.addresses(Instant::now() + Duration::from_millis(20)).unwrap_err();
            assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        }
        drop(shut);
        assert_eq!(name.addresses(soon()).unwrap(), []);
        assert!(ASKED.load(Ordering::SeqCst) <= 2, "one that hung, and one after it at most");
        assert_eq!(name.addresses(soon()).unwrap(), [], "asked anew");
        assert!(ASKED.load(Ordering::SeqCst) >= 2);
    }
}
