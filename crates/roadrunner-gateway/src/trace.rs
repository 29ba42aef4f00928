//! The trace of a request: the one that its `traceparent` names, or a new one.

use hyper::HeaderMap;
use roadrunner_runtime::Trace;

/// The header's name.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// The caller's span, none where there is no header, several, or one that is not to the letter of the
/// specification; and a span of the request's own, in the same trace or in a new one.
pub(crate) fn of(headers: &HeaderMap) -> (Trace, Trace) {
    let mut all = headers.get_all(TRACEPARENT).iter();
    let only = match (all.next(), all.next()) {
        (Some(value), None) => Trace::parse(value.as_bytes()),
        _ => None,
    };
    only.map_or_else(|| (Trace::default(), Trace::begin()), |caller| (caller, caller.child()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(values: &[&[u8]]) -> (Trace, Trace) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, hyper::header::HeaderValue::from_bytes(value).unwrap());
        }
        super::of(&headers)
    }

    #[test]
    fn a_request_has_a_span_of_its_own() {
        let (caller, own) = of(&[GOOD]);
        assert_eq!(Some(caller), Trace::parse(GOOD));
        assert_eq!((own.trace_id, own.flags), (caller.trace_id, 1));
        assert_ne!(own.span_id, caller.span_id);
        for unusable in [&[][..], &[&b"00-"[..]], &[GOOD, GOOD]] {
            let (caller, own) = of(unusable);
            assert!(caller.is_none() && !own.is_none() && own.flags == 0);
        }
    }
}
