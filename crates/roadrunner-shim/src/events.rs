//! Tells containerd what happens to containers. In order, and beside the requests: nobody waits for it.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::ttrpc::context::with_duration;
use containerd_shim_protos::{Client, EventsClient};

/// Events that may wait. A container has four in its life; while containerd is away they are dropped, and it asks for
/// states when it comes back.
const QUEUE: usize = 1024;

/// How long one event may take. containerd answers in microseconds or is away.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sends events to containerd from a thread of its own.
#[derive(Debug)]
pub(crate) struct Events {
    queue: Mutex<Option<SyncSender<(&'static str, Any)>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Events {
    /// For containers of this namespace, to the containerd that listens at this path.
    pub(crate) fn start(path: &str, namespace: String) -> std::io::Result<Self> {
        let address = format!("unix://{path}");
        let (sender, receiver) = sync_channel(QUEUE);
        let thread =
            roadrunner_sys::spawn("events", move || forward(&address, &namespace, &receiver))?;
        Ok(Self { queue: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) })
    }

    /// Queues an event.
    pub(crate) fn send<E: Message>(&self, topic: &'static str, event: &E) {
        let value = match event.write_to_bytes() {
            Ok(value) => value,
            Err(error) => return tracing::error!(topic, %error, "an event can't be encoded"),
        };
        let type_url = format!("containerd.events.{}", E::NAME);
        let event = Any { type_url, value, ..Any::default() };
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.as_ref().is_some_and(|queue| queue.try_send((topic, event)).is_err()) {
            tracing::warn!(topic, "an event is lost: too many wait for containerd");
        }
    }

    /// Waits until all that was sent has gone.
    pub(crate) fn finish(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of events panicked");
        }
    }
}

fn forward(address: &str, namespace: &str, queue: &Receiver<(&'static str, Any)>) {
    let mut client: Option<Client> = None;
    for (topic, event) in queue {
        let envelope = Envelope {
            timestamp: MessageField::some(timestamp(SystemTime::now())),
            namespace: namespace.into(),
            topic: topic.into(),
            event: MessageField::some(event),
            ..Envelope::default()
        };
        let request =
            ForwardRequest { envelope: MessageField::some(envelope), ..Default::default() };
        // A second try is for a containerd that was started again.
        let sent = (0..2).any(|_| {
            let connected = client.take().or_else(|| Client::connect(address).ok());
            let Some(connection) = connected else { return false };
            let events = EventsClient::new(connection.clone());
            let sent = events.forward(with_duration(PATIENCE), &request);
            match sent {
                Ok(_) => client = Some(connection),
                Err(ref error) => tracing::debug!(topic, %error, "an event was not taken"),
            }
            sent.is_ok()
        });
        if !sent {
            tracing::warn!(topic, "an event is lost: containerd doesn't take it");
        }
    }
}

/// A time as containerd has it.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: since.subsec_nanos().cast_signed(),
        ..Timestamp::default()
    }
}
