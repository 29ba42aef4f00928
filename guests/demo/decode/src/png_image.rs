//! PNG by `png`, which leaves pixels of one to four channels.

use frame::{Frame, PIXEL};
use png::{Decoder, Transformations};
use roadrunner_guest::Error;
use std::fmt::Display;
use std::io::Cursor;

pub(crate) fn decode(image: &[u8]) -> Result<Frame, Error> {
    let mut decoder = Decoder::new(Cursor::new(image));
    decoder.set_transformations(Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(damaged)?;
    let (width, height) = reader.info().size();
    let channels = reader.output_color_type().0.samples();
    let mut frame = crate::frame(width as usize, height as usize)?;
    // Pixels are decoded to the end of the frame and spread out from its beginning, so that one
    // buffer serves both.
    let pixels = frame.pixels_mut();
    let packed = pixels.len() / PIXEL * (PIXEL - channels);
    reader.next_frame(&mut pixels[packed..]).map_err(damaged)?;
    spread(pixels, channels);
    Ok(frame)
}

/// Turns pixels of `channels` bytes, which lie at the end, into RGBA from the beginning. A pixel is
/// read before it or a later one is overwritten, as none moves towards the end.
fn spread(pixels: &mut [u8], channels: usize) {
    match channels {
        1 => spread_each(pixels, |[grey]| [grey, grey, grey, 255]),
        2 => spread_each(pixels, |[grey, alpha]| [grey, grey, grey, alpha]),
        3 => spread_each(pixels, |[red, green, blue]| [red, green, blue, 255]),
        _ => {}
    }
}

fn spread_each<const N: usize>(pixels: &mut [u8], rgba: impl Fn([u8; N]) -> [u8; PIXEL]) {
    let count = pixels.len() / PIXEL;
    let packed = count * (PIXEL - N);
    for index in 0..count {
        let from = packed + index * N;
        let mut pixel = [0; N];
        pixel.copy_from_slice(&pixels[from..from + N]);
        pixels[index * PIXEL..][..PIXEL].copy_from_slice(&rgba(pixel));
    }
}

fn damaged(why: impl Display) -> Error {
    Error::new(format_args!("damaged PNG image: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_spread_in_place() {
        let mut grey = [0, 0, 0, 0, 0, 0, 7, 9];
        spread(&mut grey, 1);
        assert_eq!(grey, [7, 7, 7, 255, 9, 9, 9, 255]);
        let mut faint = [0, 0, 0, 0, 7, 1, 9, 2];
        spread(&mut faint, 2);
        assert_eq!(faint, [7, 7, 7, 1, 9, 9, 9, 2]);
        let mut colour = [0, 0, 1, 2, 3, 4, 5, 6];
        spread(&mut colour, 3);
        assert_eq!(colour, [1, 2, 3, 255, 4, 5, 6, 255]);
    }

    #[test]
    fn every_colour_type_is_read() {
        for (color, bytes, expected) in [
            (png::ColorType::Grayscale, &[7][..], [7, 7, 7, 255]),
            (png::ColorType::GrayscaleAlpha, &[7, 1], [7, 7, 7, 1]),
            (png::ColorType::Rgb, &[1, 2, 3], [1, 2, 3, 255]),
            (png::ColorType::Rgba, &[1, 2, 3, 4], [1, 2, 3, 4]),
        ] {
            let mut file = Vec::new();
            let mut encoder = png::Encoder::new(&mut file, 2, 1);
            encoder.set_color(color);
            let mut writer = encoder.write_header().unwrap();
            writer.write_image_data(&[bytes, bytes].concat()).unwrap();
            writer.finish().unwrap();
            assert_eq!(decode(&file).unwrap().pixels(), [expected, expected].concat());
        }
    }
}
