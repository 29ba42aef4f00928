//! One frame of each kind, as `docs/wire.md` shows them byte for byte.

use roadrunner_transport::frame::{
    CallMeta, FaultMeta, InlineChecksum, Landing, Meta, Part, Place, ReplyMeta, Trace, WireAccount,
    WireFault, WireHop, WireMode,
};

/// A fan-in's call over a UNIX socket: one payload in a descriptor, one inline.
pub(crate) fn call() -> Vec<u8> {
    let large = Part { len: 100_000, place: Place::Sealed };
    let small = Part { len: 5, place: Place::Inline };
    let function = "resize".to_owned();
    let parts = vec![large, small];
    let meta = Meta::Call(CallMeta {
        function,
        time_left_us: 10_000_000,
        depth: 1,
        many: true,
        parts,
        released: vec![3, 300],
    });
    let trace = Trace { trace_id: *b"trace-id-16bytes", span_id: *b"span-id8", flags: 1 };
    [meta.encode(7, trace, false).unwrap(), b"hello".to_vec()].concat()
}

/// Its reply, over TCP for the sake of the checksum.
pub(crate) fn reply() -> Vec<u8> {
    let account = WireAccount {
        copied: 0,
        moved: 100_005,
        handover_ns: 9000,
        run_ns: 300_000,
        memory_peak_bytes: 1 << 20,
    };
    let landing = |moved, took_ns| Landing { copied: 0, moved, took_ns };
    let hop = WireHop {
        from: "resize".to_owned(),
        to: "classify".to_owned(),
        mode: WireMode::Network,
        bytes: 64,
        account: WireAccount { copied: 64, ..WireAccount::default() },
    };
    let meta = Meta::Reply(ReplyMeta {
        busy_ns: 310_000,
        account,
        landings: vec![landing(100_000, 4000), landing(5, 1000)],
        hops: vec![hop],
        part: Part { len: 3, place: Place::Inline },
        response_copied: 3,
        released: Vec::new(),
    });
    let mut checksum = InlineChecksum::default();
    checksum.update(b"yes");
    let head = meta.encode(7, Trace::default(), true).unwrap();
    [head.as_slice(), b"yes", &checksum.encode()].concat()
}

/// A fault instead of one.
pub(crate) fn fault() -> Vec<u8> {
    let (function, message) = ("resize".to_owned(), "no image".to_owned());
    let fault = WireFault::Failed { function, message };
    let meta = Meta::Fault(FaultMeta { fault, delivered: true, released: Vec::new() });
    meta.encode(7, Trace::default(), false).unwrap()
}

/// All three, with their names.
pub(crate) fn all() -> [(&'static str, Vec<u8>); 3] {
    [("call", call()), ("reply", reply()), ("fault", fault())]
}
