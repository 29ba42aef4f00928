//! What every transport must do, as plain functions to run against each of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use roadrunner_buffer::{
    BreakEven, BufferError, Domain, Extent, Home, Pool, PoolLimits, Sealed, Window, round_to_pages,
};

use crate::{
    Account, Call, Caller, Fault, Inbox, Lender, Mode, Payload, Reply, Trace, Transport,
    Undelivered,
};

/// A function that no inbox serves.
pub const NOBODY: &str = "nobody";
/// A function that takes its payload and fails.
pub const FAILS: &str = "fails";
/// A function that answers what it got.
pub const ECHO: &str = "echo";

/// A function that answers the text of its call's trace.
pub const TRACES: &str = "traces";

/// An inbox of these functions, of which [`NOBODY`] is not served, whose memory is plain host memory.
#[derive(Debug)]
pub struct EchoInbox(Home);

impl Default for EchoInbox {
    fn default() -> Self {
        let pool = Arc::new(Pool::new(PoolLimits::default()));
        Self(Home { pool, domain: Domain(1), break_even: BreakEven::fixed(16 << 10) })
    }
}

impl EchoInbox {
    /// One whose windows belong there.
    #[must_use]
    pub fn at(home: Home) -> Self {
        Self(home)
    }

    /// Where its windows belong.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.0
    }
}

/// The memory of one invocation of [`EchoInbox`].
struct Landed {
    window: Option<Window>,
    small: Vec<u8>,
    len: usize,
}

impl Landed {
    fn of(sealed: Sealed<'_>, home: &Home) -> Result<(Self, Account), BufferError> {
        let len = sealed.len();
        let mut small = Vec::new();
        let mut window = None;
        let traffic;
        if home.break_even.moves(len) {
            let extent = Extent::reserve(round_to_pages(len).unwrap_or(len))
                .map_err(|source| BufferError::new("reserve address space", len, source))?;
            let (landed, moved) = sealed.land(extent, home).map_err(|(error, _)| error)?;
            window = Some(landed);
            traffic = moved;
        } else {
            small.resize(len, 0);
            traffic = sealed.copy_to(&mut small)?;
        }
        let account = Account { traffic, ..Account::default() };
        Ok((Self { window, small, len }, account))
    }
}

impl Lender for Landed {
    fn len(&self) -> usize {
        self.len
    }

    fn lend(&mut self) -> Result<Sealed<'_>, BufferError> {
        match &mut self.window {
            Some(window) => window.lend(self.len),
            None => Ok(Sealed::borrowed(&self.small)),
        }
    }
}

impl Inbox for EchoInbox {
    fn accept<'p>(&self, call: Call<'p>) -> Result<Reply, Undelivered<'p>> {
        let function = call.target.to_owned();
        if function == NOBODY {
            return Err(Undelivered::before(Fault::Unknown { function }, call.payload));
        }
        let trace = call.trace.to_string();
        let payload = match call.payload {
            _ if function == TRACES => Payload::One(Sealed::borrowed(trace.as_bytes())),
            payload => payload,
        };
        let landed = match payload {
            Payload::One(sealed) => Landed::of(sealed, &self.0),
            Payload::Held(mut reply) => {
                reply.payload().and_then(|sealed| Landed::of(sealed, &self.0))
            }
            Payload::Many(parts) => {
                Landed::of(parts.into_iter().next().unwrap_or(Sealed::empty()), &self.0)
            }
        };
        match landed {
            Err(source) => Err(Undelivered::after(Fault::HandOver { function, source })),
            Ok(_) if function == FAILS => {
                Err(Undelivered::after(Fault::Failed { function, message: "as asked".into() }))
            }
            Ok((landed, account)) => Ok(Reply::new(Box::new(landed), account, Vec::new())),
        }
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap_or(0)).collect()
}

fn call<'p>(target: &'p str, payload: Payload<'p>) -> Call<'p> {
    let since = Instant::now();
    let (deadline, caller) = (since + Duration::from_secs(10), Caller::Unnamed);
    Call { target, payload, since, deadline, depth: 0, caller, trace: Trace::default() }
}

/// Runs every check.
///
/// # Panics
/// When the transport does not do what it must.
pub fn all(transport: &impl Transport, home: &Home) {
    payloads_of_all_sizes_arrive_whole(transport, home);
    a_reply_can_be_sent_on(transport, home);
    an_undelivered_payload_comes_back(transport, home);
    a_failed_function_says_why(transport, home);
    the_trace_goes_along(transport);
}

/// What the pages of a payload are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pages {
    Private,
    InSealedMemfd,
}

fn payloads_of_all_sizes_arrive_whole(transport: &impl Transport, home: &Home) {
    let lens = [0, 1, 4095, 4096, 4097, 16 << 10, 65_537, (2 << 20) - 1, (2 << 20) + 1];
    for (len, pages) in
        lens.into_iter().flat_map(|len| kinds(transport).map(move |kind| (len, kind)))
    {
        let bytes = pattern(len);
        let sealed = in_pages(pages, &bytes, home);
        let mut reply = transport.send(call(ECHO, Payload::One(sealed))).unwrap_or_else(|error| {
            panic!("{len} bytes did not arrive: {}", error.fault);
        });
        assert_eq!(reply.len(), len);
        if home.break_even.moves(len) {
            assert_eq!(reply.account.traffic.copied, 0, "{len} bytes were copied");
            assert_eq!(reply.account.traffic.moved, len as u64);
        }
        let payload = reply.payload().map(|payload| payload.bytes().map(<[u8]>::to_vec));
        assert!(matches!(payload, Ok(Ok(got)) if got == bytes), "{len} bytes changed on the way");
    }
}

fn a_reply_can_be_sent_on(transport: &impl Transport, home: &Home) {
    let bytes = pattern(100_000);
    let mut payload = Payload::One(owned(&bytes, transport, home));
    for hop in 0..5 {
        let reply = transport.send(call(ECHO, payload));
        let reply = reply.unwrap_or_else(|error| panic!("hop {hop}: {}", error.fault));
        assert_eq!(reply.account.traffic.copied, 0, "hop {hop} copied");
        payload = Payload::Held(reply);
    }
    let Payload::Held(mut reply) = payload else { unreachable!("five hops were made") };
    let payload = reply.payload().map(|payload| payload.bytes().map(<[u8]>::to_vec));
    assert!(matches!(payload, Ok(Ok(got)) if got == bytes));
}

fn an_undelivered_payload_comes_back(transport: &impl Transport, home: &Home) {
    let bytes = pattern(100_000);
    let sent = transport.send(call(NOBODY, Payload::One(owned(&bytes, transport, home))));
    let Err(Undelivered {
        fault: Fault::Unknown { function },
        payload: Some(Payload::One(back)),
        ..
    }) = sent
    else {
        panic!("a call of nobody must be refused with its payload");
    };
    assert_eq!(function, NOBODY);
    assert!(back.bytes().is_ok_and(|back| back == bytes));
}

fn a_failed_function_says_why(transport: &impl Transport, home: &Home) {
    let sent = transport.send(call(FAILS, Payload::One(owned(&pattern(10), transport, home))));
    let Err(Undelivered { fault: Fault::Failed { function, message }, .. }) = sent else {
        panic!("a failure must arrive as one");
    };
    assert_eq!((function.as_str(), message.as_str()), (FAILS, "as asked"));
}

fn the_trace_goes_along(transport: &impl Transport) {
    for trace in [Trace { flags: 1, ..Trace::begin() }, Trace::begin(), Trace::default()] {
        let call = Call { trace, ..call(TRACES, Payload::One(Sealed::empty())) };
        let got = transport.send(call).map_err(|error| error.fault.to_string());
        let got = got.and_then(|mut reply| {
            let sealed = reply.payload().map_err(|error| error.to_string())?;
            sealed.bytes().map(<[u8]>::to_vec).map_err(|error| error.to_string())
        });
        assert_eq!(got, Ok(trace.to_string().into_bytes()), "not the caller's trace");
    }
}

/// The kinds of pages that go without a copy here.
fn kinds<T: Transport>(transport: &T) -> impl Iterator<Item = Pages> + use<T> {
    let private = transport.mode() != Mode::Kernel;
    private.then_some(Pages::Private).into_iter().chain([Pages::InSealedMemfd])
}

/// A payload in the pages that a plan chooses for this way.
fn owned(bytes: &[u8], transport: &impl Transport, home: &Home) -> Sealed<'static> {
    let kind = if transport.mode() == Mode::Kernel { Pages::InSealedMemfd } else { Pages::Private };
    in_pages(kind, bytes, home)
}

fn in_pages(kind: Pages, bytes: &[u8], home: &Home) -> Sealed<'static> {
    let write = |place: &mut [u8]| {
        place.copy_from_slice(bytes);
        Ok(())
    };
    let sealed = match kind {
        Pages::Private => Sealed::write(bytes.len(), home, write),
        Pages::InSealedMemfd => Sealed::write_shared(bytes.len(), home, write),
    };
    sealed.unwrap_or_else(|error| panic!("no memory for {} bytes: {error}", bytes.len()))
}
