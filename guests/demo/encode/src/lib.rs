//! Writes a frame as PNG.

use frame::Frame;
use png::{BitDepth, ColorType, Compression, Encoder, EncodingError};
use roadrunner_guest::{Buffer, Error};
use std::io::Cursor;

fn encode(input: Buffer) -> Result<Buffer, Error> {
    let frame = Frame::parse(input)?;
    // Compressed data never exceeds this by much, and pages that stay unwritten cost nothing.
    let pixels = frame.pixels().len();
    let mut output = Buffer::recycled(pixels + pixels / 64 + frame.height() + (64 << 10))?;
    let mut cursor = Cursor::new(&mut *output);
    write(&frame, &mut cursor)
        .map_err(|error| Error::new(format_args!("no PNG could be written: {error}")))?;
    let len = cursor.position() as usize;
    output.truncate(len);
    Ok(output)
}

fn write(frame: &Frame, output: &mut Cursor<&mut [u8]>) -> Result<(), EncodingError> {
    let mut encoder = Encoder::new(output, frame.width() as u32, frame.height() as u32);
    encoder.set_color(ColorType::Rgba);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Fastest);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(frame.pixels())?;
    writer.finish()
}

roadrunner_guest::handler!(encode);

#[cfg(test)]
mod tests {
    use super::*;
    use roadrunner_guest::{IntoResponse, Response};

    fn decoded(png: &[u8]) -> Vec<u8> {
        let mut reader = png::Decoder::new(Cursor::new(png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        pixels
    }

    #[test]
    fn pictures_survive() {
        let mut noise = 1u32;
        for (width, height) in [(1, 1), (300, 200)] {
            let mut frame = Frame::new(width, height).unwrap();
            for byte in frame.pixels_mut() {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = (noise >> 24) as u8;
            }
            let pixels = frame.pixels().to_vec();
            let Ok(Response::Buffer(input)) = frame.into_response() else {
                panic!("a frame is a buffer");
            };
            assert_eq!(decoded(&encode(input).unwrap()), pixels);
        }
    }
}
