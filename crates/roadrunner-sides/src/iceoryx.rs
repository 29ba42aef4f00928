//! Eclipse iceoryx2: native functions hand samples in shared memory from process to process, and sandbox nobody. Both
//! ends sleep until an event comes.
//!
//! The samples' memory is that of the services, so it is made for the size of the first payload.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use iceoryx2::port::{
    listener::Listener, notifier::Notifier, publisher::Publisher, subscriber::Subscriber,
};
use iceoryx2::prelude::*;
use iceoryx2::sample::Sample;
use roadrunner_evaluation::agent::{self, Measured, nanos};

use crate::ours::PAYLOAD_BYTES;

/// How long an end sleeps before it looks whether to go on.
const LOOK: Duration = Duration::from_millis(100);

fn failed(reason: impl std::fmt::Debug) -> io::Error {
    io::Error::other(format!("iceoryx2: {reason:?}"))
}

/// One of the two ends.
struct End {
    out: Publisher<ipc::Service, [u8], ()>,
    input: Subscriber<ipc::Service, [u8], ()>,
    wake: Notifier<ipc::Service>,
    woken: Listener<ipc::Service>,
    _node: Node<ipc::Service>,
}

impl End {
    /// Sends on the first of the names and listens on the second. Samples out have at most `len` bytes.
    fn new(place: &str, [out, input]: [&str; 2], len: usize) -> io::Result<Self> {
        set_log_level(LogLevel::Error);
        let mut config = Config::default();
        let root = folder(place);
        std::fs::create_dir_all(&root)?;
        config
            .global
            .set_root_path(&Path::new(root.as_os_str().as_encoded_bytes()).map_err(failed)?);
        config.global.prefix = FileName::new(place.as_bytes()).map_err(failed)?;
        let node = NodeBuilder::new().config(&config);
        let node = node.signal_handling_mode(SignalHandlingMode::Disabled);
        let node = node.create::<ipc::Service>().map_err(failed)?;
        let service = |name: &str| {
            let name: ServiceName = name.try_into().map_err(failed)?;
            let service = node.service_builder(&name).publish_subscribe::<[u8]>();
            let service = service.max_publishers(1).max_subscribers(1).history_size(0);
            let service = service.subscriber_max_buffer_size(1).subscriber_max_borrowed_samples(1);
            let service = service.open_or_create().map_err(failed)?;
            let event = node.service_builder(&name).event().open_or_create().map_err(failed)?;
            io::Result::Ok((service, event))
        };
        let ((out, wake), (input, woken)) = (service(out)?, service(input)?);
        Ok(Self {
            out: out.publisher_builder().initial_max_slice_len(len).create().map_err(failed)?,
            input: input.subscriber_builder().create().map_err(failed)?,
            wake: wake.notifier_builder().create().map_err(failed)?,
            woken: woken.listener_builder().create().map_err(failed)?,
            _node: node,
        })
    }

    /// Sends a sample that `write` fills, and says when it was filled.
    fn send(&self, len: usize, write: impl FnOnce(&mut [u8])) -> io::Result<Instant> {
        let mut sample = self.out.loan_slice(len).map_err(failed)?;
        write(sample.payload_mut());
        let written = Instant::now();
        sample.send().map_err(failed)?;
        self.wake.notify().map_err(failed)?;
        Ok(written)
    }

    /// The next sample; `None` once `ended` says something.
    fn receive(&self, ended: &Receiver<()>) -> io::Result<Option<Sample<ipc::Service, [u8], ()>>> {
        loop {
            if let Some(sample) = self.input.receive().map_err(failed)? {
                return Ok(Some(sample));
            }
            let woken = self.woken.timed_wait(|_| {}, LOOK).map_err(failed)?;
            if woken == 0 && ended.try_recv().is_ok() {
                return Ok(None);
            }
        }
    }
}

/// Where both ends keep their files, beside those in `/dev/shm`. The harness removes both.
fn folder(place: &str) -> PathBuf {
    std::env::temp_dir().join(place)
}

pub(crate) fn source(place: &str) -> io::Result<()> {
    let (_never, ended) = channel();
    let mut end = None;
    agent::take_orders(|order| {
        let len = usize::try_from(order.size.min(PAYLOAD_BYTES)).map_err(io::Error::other)?;
        let end = match &mut end {
            Some(end) => end,
            none => none.insert(End::new(place, ["there", "back"], len)?),
        };
        let since = end.send(len, pattern::fill_text)?;
        let answer = end.receive(&ended)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let total_ns = nanos(since.elapsed());
        let seen = answer.payload().try_into().map(u64::from_le_bytes);
        agent::check(seen.map_err(io::Error::other)?, order.size)?;
        Ok(Measured { total_ns, ..Measured::default() })
    })
}

pub(crate) fn sink(place: &str) -> io::Result<()> {
    let end = End::new(place, ["back", "there"], size_of::<u64>())?;
    agent::say_ready(place)?;
    let (end_of_input, ended) = channel();
    thread::spawn(move || {
        let _ = agent::wait_for_end();
        let _ = end_of_input.send(());
    });
    while let Some(sample) = end.receive(&ended)? {
        let seen = pattern::glance(sample.payload()).to_le_bytes();
        drop(sample);
        end.send(seen.len(), |answer| answer.copy_from_slice(&seen))?;
    }
    Ok(())
}
