//! Frames survive the way, and nothing else does.

use proptest::collection::vec;
use proptest::prelude::*;
use roadrunner_transport::frame::{
    CallMeta, FaultMeta, FrameError, HEADER_BYTES, Header, Landing, Meta, Part, Place, ReplyMeta,
    Trace, WireAccount, WireFault, WireHop, WireMode,
};

use crate::examples;

const LIMIT: u64 = 1 << 30;

/// Header and meta of whatever frame begins here.
fn decode(bytes: &[u8]) -> Result<(Header, Meta), FrameError> {
    let cut = || FrameError::Meta("cut off".to_owned());
    let (head, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or_else(cut)?;
    let header = Header::decode(head, LIMIT)?;
    let meta = rest.get(..header.meta_len as usize).ok_or_else(cut)?;
    Ok((header, Meta::decode(&header, meta, LIMIT)?))
}

fn head_of(frame: &[u8]) -> &[u8] {
    let (header, _) = decode(frame).unwrap();
    &frame[..HEADER_BYTES + header.meta_len as usize]
}

#[test]
fn every_flipped_bit_is_noticed() {
    for (_, frame) in examples::all() {
        let mut head = head_of(&frame).to_vec();
        for bit in 0..head.len() * 8 {
            head[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&head).is_err(), "bit {} of byte {}", bit % 8, bit / 8);
            head[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(decode(&head).is_ok());
    }
}

#[test]
fn a_frame_that_ends_early_is_noticed() {
    for (_, frame) in examples::all() {
        let head = head_of(&frame);
        for end in 0..head.len() {
            assert!(decode(&head[..end]).is_err(), "cut at {end}");
        }
        // Nor is a shorter meta one, where the header fits it.
        let (header, _) = decode(head).unwrap();
        for end in HEADER_BYTES..head.len() {
            let meta = &head[HEADER_BYTES..end];
            let header = header.covering(meta).unwrap();
            let read = Meta::decode(&header, meta, LIMIT);
            assert!(matches!(read, Err(FrameError::Meta(_))), "cut at {end}: {read:?}");
        }
    }
}

#[test]
fn lengths_inside_a_meta_allocate_nothing_that_is_not_there() {
    let (header, _) = decode(&examples::call()).unwrap();
    // A name of 2^64 - 1 bytes, a list of 2^64 - 1 payloads.
    let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let list = [&[1, b'f', 1, 0, 1][..], &most].concat();
    for meta in [&most[..], &list] {
        let header = header.covering(meta).unwrap();
        assert!(matches!(Meta::decode(&header, meta, LIMIT), Err(FrameError::Meta(_))));
    }
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        (0..1_u64 << 20).prop_map(|len| Part { len, place: Place::Inline }),
        (1..=LIMIT).prop_map(|len| Part { len, place: Place::Sealed }),
        (1..=LIMIT).prop_map(|len| Part { len, place: Place::Segment }),
    ]
}

fn name() -> impl Strategy<Value = String> {
    "[a-zé-]{1,64}"
}

fn call() -> impl Strategy<Value = Meta> {
    let parts = prop_oneof![
        vec(part(), 1).prop_map(|parts| (false, parts)),
        vec(part(), 0..=253).prop_map(|parts| (true, parts)),
    ];
    let call = |(function, time_left_us, depth, (many, parts), released)| {
        Meta::Call(CallMeta { function, time_left_us, depth, many, parts, released })
    };
    (name(), any::<u64>(), any::<u32>(), parts, vec(any::<u64>(), 0..=64)).prop_map(call)
}

fn account() -> impl Strategy<Value = WireAccount> {
    any::<[u64; 5]>().prop_map(|[copied, moved, handover_ns, run_ns, memory_peak_bytes]| {
        WireAccount { copied, moved, handover_ns, run_ns, memory_peak_bytes }
    })
}

fn hop() -> impl Strategy<Value = WireHop> {
    let mode = prop_oneof![Just(WireMode::User), Just(WireMode::Kernel), Just(WireMode::Network)];
    (name(), name(), mode, any::<u64>(), account())
        .prop_map(|(from, to, mode, bytes, account)| WireHop { from, to, mode, bytes, account })
}

fn reply() -> impl Strategy<Value = Meta> {
    let landing =
        any::<[u64; 3]>().prop_map(|[copied, moved, took_ns]| Landing { copied, moved, took_ns });
    let released = vec(any::<u64>(), 0..=64);
    (any::<u64>(), account(), vec(landing, 0..=256), vec(hop(), 0..20), part(), released).prop_map(
        |(busy_ns, account, landings, hops, part, released)| {
            let response_copied = part.len;
            Meta::Reply(ReplyMeta {
                busy_ns,
                account,
                landings,
                hops,
                part,
                response_copied,
                released,
            })
        },
    )
}

fn fault() -> impl Strategy<Value = Meta> {
    let fault = (name(), "\\PC{0,200}", any::<u64>(), any::<u64>(), any::<u32>(), 0..9_u8);
    let fault = fault.prop_map(|(function, text, len, limit, depth, nth)| match nth {
        0 => WireFault::Failed { function, message: text },
        1 => WireFault::Trapped { function, reason: text },
        2 => WireFault::Violation { function, what: text },
        3 => WireFault::TimedOut { function, timeout_ns: len },
        4 => WireFault::Unknown { function },
        5 => WireFault::TooLarge { function, len, limit },
        6 => WireFault::TooDeep { function, limit: depth },
        7 => WireFault::NoMemory { function, len, reason: text },
        _ => WireFault::Exhausted { function, reason: text },
    });
    (fault, any::<bool>()).prop_map(|(fault, delivered)| {
        Meta::Fault(FaultMeta { fault, delivered, released: vec![1, 2] })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_sent_arrives(
        meta in prop_oneof![call(), reply(), fault()],
        id: u64,
        trace: ([u8; 16], [u8; 8], u8),
        inline_checksum: bool,
    ) {
        let trace = Trace { trace_id: trace.0, span_id: trace.1, flags: trace.2 };
        let frame = meta.encode(id, trace, inline_checksum).unwrap();
        let (header, got) = decode(&frame).unwrap();
        prop_assert_eq!(head_of(&frame).len(), frame.len());
        let said = (header.id, header.trace, header.inline_checksum);
        prop_assert_eq!(said, (id, trace, inline_checksum));
        prop_assert_eq!((header.kind, got), (meta.kind(), meta));
        prop_assert_eq!(&header.encode()[..], &frame[..HEADER_BYTES]);
    }

    #[test]
    fn random_bytes_never_harm(bytes in vec(any::<u8>(), 0..300), kind in 1..=3_u8) {
        prop_assert!(decode(&bytes).is_err());
        // Behind a header that fits, a meta is read; whatever it says can be sent again.
        let mut head = examples::fault();
        head[5] = kind;
        let header = Header::decode(head.first_chunk().unwrap(), LIMIT).unwrap();
        let header = header.covering(&bytes).unwrap();
        if let Ok(meta) = Meta::decode(&header, &bytes, LIMIT) {
            let again = meta.encode(header.id, header.trace, false).unwrap();
            prop_assert_eq!(decode(&again).unwrap().1, meta);
        }
    }
}
