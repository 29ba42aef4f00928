//! Reads a PNG or JPEG image into a frame: the codecs write straight into the response.

mod jpeg;
mod png_image;

use frame::Frame;
use roadrunner_guest::Error;

/// A picture on disk may be small and its pixels many: 64 million of them are 256 MiB.
const MOST_PIXELS: usize = 64 << 20;

fn decode(input: &[u8]) -> Result<Frame, Error> {
    match input {
        [0x89, b'P', b'N', b'G', ..] => png_image::decode(input),
        [0xff, 0xd8, 0xff, ..] => jpeg::decode(input),
        [] => Err(Error::new("not a PNG or JPEG image: the payload is empty")),
        other => {
            let start = &other[..other.len().min(4)];
            Err(Error::new(format_args!(
                "not a PNG or JPEG image: it starts with bytes {start:02x?}"
            )))
        }
    }
}

/// A frame for a picture that says it has this size.
fn frame(width: usize, height: usize) -> Result<Frame, Error> {
    match width.checked_mul(height) {
        Some(pixels) if pixels <= MOST_PIXELS => Frame::new(width, height),
        _ => Err(Error::new(format_args!(
            "a picture of {width} x {height} pixels is too large; at most {MOST_PIXELS} pixels are taken"
        ))),
    }
}

roadrunner_guest::handler!(decode);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_payloads_are_refused() {
        let refusal = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
        assert_eq!(refusal(b""), "not a PNG or JPEG image: the payload is empty");
        assert_eq!(
            refusal(b"GIF89a"),
            "not a PNG or JPEG image: it starts with bytes [47, 49, 46, 38]"
        );
        assert!(refusal(b"\x89PNG\r\n\x1a\n").starts_with("damaged PNG image: "));
        assert!(refusal(b"\xff\xd8\xff\xe0").starts_with("damaged JPEG image: "));
    }
}
