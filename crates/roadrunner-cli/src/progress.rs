//! What is going on, on stderr, for whatever takes longer than a second: a spinner on a
//! terminal, a plain line otherwise.

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// Nothing is shown before that.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a spinner turns.
const TURN: Duration = Duration::from_millis(100);

/// Shows that something goes on while it lives.
pub(crate) struct Progress {
    /// Messages to the thread that shows them; closed at the end.
    news: Option<Sender<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// `what` goes on from now on.
    pub(crate) fn start(what: String) -> Self {
        let (news, inbox) = channel();
        let spawned = roadrunner_sys::spawn("progress", move || {
            let start = Instant::now();
            let mut message = what;
            let mut shown: Option<Shown> = None;
            loop {
                let wait = match &shown {
                    None => PATIENCE.saturating_sub(start.elapsed()),
                    Some(_) => Duration::from_secs(3600),
                };
                match inbox.recv_timeout(wait) {
                    Ok(news) => {
                        message = news;
                        if let Some(shown) = &shown {
                            shown.say(&message);
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => {
                        shown.get_or_insert_with(|| Shown::begin(&message));
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            if let Some(shown) = shown {
                shown.end(&message, start.elapsed());
            }
        });
        // Without a thread to spare there is no progress to see, and nothing else is lost.
        Self { news: Some(news), thread: spawned.ok() }
    }

    /// Something else goes on now.
    pub(crate) fn say(&self, message: String) {
        if let Some(news) = &self.news {
            let _ = news.send(message);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.news.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What is on the screen or in the log.
enum Shown {
    Spinner(ProgressBar),
    Line,
}

impl Shown {
    fn begin(message: &str) -> Self {
        if !io::stderr().is_terminal() {
            output::note(&format!("roadrunner: {message} ...\n"));
            return Self::Line;
        }
        let bar = ProgressBar::new_spinner().with_message(message.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TURN);
        Self::Spinner(bar)
    }

    fn say(&self, message: &str) {
        if let Self::Spinner(bar) = self {
            bar.set_message(message.to_owned());
        }
    }

    fn end(self, message: &str, took: Duration) {
        match self {
            Self::Spinner(bar) => bar.finish_and_clear(),
            Self::Line => {
                output::note(&format!("roadrunner: {message}: {:.1} s\n", took.as_secs_f64()));
            }
        }
    }
}
