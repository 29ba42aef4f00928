//! A registry of a few lines, which says what it is told to.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A status without anything to it.
    Status(&'static str),
    /// Zeros for ever, until the other side has enough.
    Endless,
    /// A part of a long answer.
    Cut,
}

/// The registry, until this is dropped.
pub(crate) struct Fake {
    pub(crate) address: String,
    /// Bytes of endless answers that were taken.
    pub(crate) taken: Arc<AtomicU64>,
    pub(crate) requests: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// Answers each path behind `/v2/`; the empty one is the question whether it is a registry.
    pub(crate) fn start(answer: impl Fn(&str) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (taken, requests) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let ended = Arc::<AtomicBool>::default();
        let shared = (taken.clone(), requests.clone(), ended.clone());
        let thread = thread::spawn(move || {
            let (taken, requests, ended) = shared;
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                requests.fetch_add(1, Ordering::SeqCst);
                // Who hangs up has what he wanted.
                let _ = serve(stream.unwrap(), &answer, &taken);
            }
        });
        Self { address, taken, requests, ended, thread: Some(thread) }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn serve(
    stream: TcpStream,
    answer: &impl Fn(&str) -> Answer,
    taken: &AtomicU64,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let Some(request) = lines.next().transpose()? else { return Ok(()) };
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = request.split(' ').nth(1).unwrap().trim_start_matches("/v2/");
    let mut stream = stream;
    let head = |status: &str, len: &str| {
        format!("HTTP/1.1 {status}\r\nConnection: close\r\n{len}\r\n").into_bytes()
    };
    let answer = if path.is_empty() { Answer::Status("200 OK") } else { answer(path) };
    match answer {
        Answer::Bytes(bytes) => {
            stream.write_all(&head("200 OK", &format!("Content-Length: {}\r\n", bytes.len())))?;
            stream.write_all(&bytes)
        }
        Answer::Status(status) => stream.write_all(&head(status, "Content-Length: 0\r\n")),
        Answer::Cut => {
            stream.write_all(&head("200 OK", "Content-Length: 1000\r\n"))?;
            stream.write_all(b"some")
        }
        Answer::Endless => {
            stream.write_all(&head("200 OK", ""))?;
            loop {
                stream.write_all(&[0; 1 << 16])?;
                taken.fetch_add(1 << 16, Ordering::SeqCst);
            }
        }
    }
}
