//! JPEG by `zune-jpeg`, which converts to RGBA itself.

use frame::Frame;
use roadrunner_guest::Error;
use std::fmt::Display;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

pub(crate) fn decode(image: &[u8]) -> Result<Frame, Error> {
    let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::RGBA);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(image), options);
    decoder.decode_headers().map_err(damaged)?;
    let (width, height) = decoder.dimensions().ok_or_else(|| damaged("it says no size"))?;
    let mut frame = crate::frame(width, height)?;
    decoder.decode_into(frame.pixels_mut()).map_err(damaged)?;
    Ok(frame)
}

fn damaged(why: impl Display) -> Error {
    Error::new(format_args!("damaged JPEG image: {why}"))
}
