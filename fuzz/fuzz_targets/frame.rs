//! Any bytes either are a frame, which says the same when it is sent again, or a refusal that says why.
//!
//! `cargo xtask test --only fuzz` runs it for seconds; `cargo +nightly fuzz run frame` runs it for as long as wished.

#![no_main]

use libfuzzer_sys::fuzz_target;
use roadrunner_transport::frame::{HEADER_BYTES, Header, Meta, WireFault, WireHop};
use roadrunner_transport::{Fault, Hop};

const LIMIT: u64 = 1 << 30;

fuzz_target!(|bytes: &[u8]| {
    let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return;
    };
    let header = match Header::decode(head, LIMIT) {
        Ok(header) => header,
        Err(error) => return assert!(!error.to_string().is_empty(), "a refusal gives a reason"),
    };
    assert_eq!(header.encode(), *head, "every bit of a header is known");
    let meta = &rest[..rest.len().min(header.meta_len as usize)];
    let as_sent = Meta::decode(&header, meta, LIMIT);
    // No fuzzer finds a checksum, so the right one is put in for what lies behind it.
    let Ok(covering) = header.covering(meta) else {
        return;
    };
    assert!(as_sent.is_err() || covering == header, "the checksum covers header and meta");
    match Meta::decode(&covering, meta, LIMIT) {
        Ok(meta) => survives(&covering, &meta),
        Err(error) => assert!(!error.to_string().is_empty(), "a refusal gives a reason"),
    }
});

/// Sends a meta again, and checks that its faults and hops are those of the rest of the program.
fn survives(header: &Header, meta: &Meta) {
    let Header { id, trace, inline_checksum, .. } = *header;
    let frame = meta.encode(id, trace, inline_checksum).expect("what was read can be sent");
    let (head, again) = frame.split_first_chunk().expect("a frame begins with a header");
    let other = Header::decode(head, LIMIT).expect("what was sent can be read");
    assert_eq!((other.inline_len, other.descriptors), (header.inline_len, header.descriptors));
    assert_eq!(Meta::decode(&other, again, LIMIT).as_ref(), Ok(meta));
    match meta {
        Meta::Call(_) => {}
        Meta::Reply(reply) => {
            for hop in &reply.hops {
                assert_eq!(WireHop::from(&Hop::from(hop.clone())), *hop);
            }
        }
        Meta::Fault(meta) => {
            let fault = Fault::from(meta.fault.clone());
            assert!(!fault.to_string().is_empty(), "a fault says why");
            assert_eq!(WireFault::from(fault), meta.fault);
        }
    }
}
