//! Makes a payload.
//!
//! ```text
//! offset 0         8
//!        len: u64  flags: u8 (may be left out)
//! ```
//!
//! | flag | meaning |
//! |---|---|
//! | 1 | plain heap memory instead of a buffer: the host has to copy it |
//! | 2 | a zeroed buffer instead of one with unspecified contents |
//! | 4 | the bytes are left as they are, instead of `pattern::fill` |
//! | 8 | the bytes are `pattern::fill_text` |

use roadrunner_guest::{Buffer, Error, IntoResponse, Response};

const PLAIN: u8 = 1;
const ZEROED: u8 = 2;
const UNTOUCHED: u8 = 4;
const TEXT: u8 = 8;

fn produce(input: &[u8]) -> Result<Response, Error> {
    let (len, flags) = parse(input)?;
    let mut payload = allocate(len, flags)?;
    if flags & UNTOUCHED == 0 {
        let bytes = match &mut payload {
            Payload::Plain(bytes) => bytes.as_mut_slice(),
            Payload::Buffer(buffer) => buffer,
        };
        if flags & TEXT == 0 {
            pattern::fill(bytes);
        } else {
            pattern::fill_text(bytes);
        }
    }
    match payload {
        Payload::Plain(bytes) => bytes.into_response(),
        Payload::Buffer(buffer) => buffer.into_response(),
    }
    .map_err(Error::Message)
}

fn parse(input: &[u8]) -> Result<(usize, u8), Error> {
    let (len, flags) = match input.split_first_chunk::<8>() {
        Some((len, [])) => (*len, 0),
        Some((len, [flags])) if *flags <= PLAIN | ZEROED | UNTOUCHED | TEXT => (*len, *flags),
        _ => {
            return Err(Error::new(
                "the payload must be 8 bytes of length and at most one of flags",
            ));
        }
    };
    let len = u64::from_le_bytes(len);
    let len = usize::try_from(len).map_err(|_| {
        Error::new(format_args!("{len} bytes are more than a function can address"))
    })?;
    Ok((len, flags))
}

enum Payload {
    Plain(Vec<u8>),
    Buffer(Buffer),
}

fn allocate(len: usize, flags: u8) -> Result<Payload, Error> {
    if flags & PLAIN != 0 {
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(len)
            .map_err(|error| Error::new(format_args!("no room for {len} bytes: {error}")))?;
        bytes.resize(len, 0);
        return Ok(Payload::Plain(bytes));
    }
    let buffer = if flags & ZEROED != 0 { Buffer::zeroed(len) } else { Buffer::recycled(len) };
    buffer
        .map(Payload::Buffer)
        .map_err(|error| Error::new(format_args!("no room for {len} bytes: {error}")))
}

roadrunner_guest::handler!(produce);

#[cfg(test)]
mod tests {
    use super::*;

    fn run(input: &[u8]) -> Vec<u8> {
        match produce(input).unwrap() {
            Response::Buffer(buffer) => buffer.to_vec(),
            Response::Bytes(bytes) => bytes.into_owned(),
            _ => unreachable!(),
        }
    }

    #[test]
    fn every_kind_of_payload_is_made() {
        let mut expected = vec![0; 1000];
        pattern::fill(&mut expected);
        assert_eq!(run(&1000u64.to_le_bytes()), expected);
        for flags in [PLAIN, ZEROED] {
            let input = [&1000u64.to_le_bytes()[..], &[flags]].concat();
            assert_eq!(run(&input), expected);
        }
        let input = [&1000u64.to_le_bytes()[..], &[ZEROED | UNTOUCHED]].concat();
        assert_eq!(run(&input), [0; 1000]);
        assert_eq!(run(&0u64.to_le_bytes()), []);
        pattern::fill_text(&mut expected);
        let input = [&1000u64.to_le_bytes()[..], &[TEXT]].concat();
        assert_eq!(run(&input), expected);
    }

    #[test]
    fn bad_requests_are_refused() {
        for input in [&[][..], &[1; 7], &[0, 0, 0, 0, 0, 0, 0, 0, 16], &[0; 10]] {
            assert!(produce(input).is_err());
        }
    }
}
