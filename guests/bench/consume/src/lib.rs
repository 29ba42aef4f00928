//! Reads every byte of its payload and returns `pattern::sum` of it: 8 bytes, little-endian.

use roadrunner_guest::Buffer;

fn consume(input: &[u8]) -> Result<Buffer, roadrunner_guest::Error> {
    Buffer::copy_of(&pattern::sum(input).to_le_bytes())
}

roadrunner_guest::handler!(consume);
