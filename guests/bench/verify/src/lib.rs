//! Reads every byte of its payload, which must be `pattern`, and returns it: its pages go back as they came.

use roadrunner_guest::{Buffer, Error};

fn verify(input: Buffer) -> Result<Buffer, Error> {
    let (got, expected) = (pattern::sum(&input), pattern::expected_sum(input.len()));
    if got == expected {
        return Ok(input);
    }
    Err(Error::new(format_args!(
        "{} bytes have a sum of {got:#x} where the pattern has {expected:#x}: the payload was damaged",
        input.len()
    )))
}

roadrunner_guest::handler!(verify);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_comes_back() {
        for len in [0, 1, 5000] {
            let mut payload = Buffer::zeroed(len).unwrap();
            pattern::fill(&mut payload);
            let copy = payload.to_vec();
            assert_eq!(*verify(payload).unwrap(), copy);
        }
    }

    #[test]
    fn other_bytes_are_an_error() {
        let mut payload = Buffer::zeroed(5000).unwrap();
        pattern::fill(&mut payload);
        payload[4999] ^= 1;
        let error = verify(payload).unwrap_err().to_string();
        assert!(error.ends_with("the payload was damaged"), "{error}");
    }
}
