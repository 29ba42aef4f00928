//! The raw pictures that the demo's functions hand to each other.
//!
//! ```text
//! offset 0     4        8         12      16
//!        "RGBA" width:u32 height:u32 0:u32 pixels, 4 bytes each, row by row from the top
//! ```
//!
//! Numbers are little-endian. A frame lives in a [`Buffer`], so it moves between functions without
//! a copy, and work in place stays in place.

use roadrunner_guest::{Buffer, Error, IntoResponse, Response};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// What a frame begins with.
const MAGIC: [u8; 4] = *b"RGBA";
/// Bytes before the pixels: 16, so that pixels are as aligned as the buffer.
const HEADER: usize = 16;
/// Bytes of a pixel.
pub const PIXEL: usize = 4;

/// A picture of 8-bit RGBA pixels in a buffer.
#[derive(Debug)]
pub struct Frame {
    buffer: Buffer,
    width: usize,
    height: usize,
}

impl Frame {
    /// A frame whose pixels are unspecified: the caller writes all of them.
    ///
    /// # Errors
    /// A picture without pixels, or one for which there is no memory.
    pub fn new(width: usize, height: usize) -> Result<Self, Error> {
        let no_room = |why: &dyn Display| {
            Error::new(format_args!("no room for a picture of {width} x {height} pixels: {why}"))
        };
        let len = frame_len(width, height).ok_or_else(|| no_room(&"impossible size"))?;
        let mut buffer = Buffer::recycled(len).map_err(|error| no_room(&error))?;
        let (fields, _) = buffer[..HEADER].as_chunks_mut::<4>();
        fields[0] = MAGIC;
        fields[1] = (width as u32).to_le_bytes();
        fields[2] = (height as u32).to_le_bytes();
        fields[3] = [0; 4];
        Ok(Self { buffer, width, height })
    }

    /// The frame in `buffer`.
    ///
    /// # Errors
    /// The buffer holds something else.
    pub fn parse(buffer: Buffer) -> Result<Self, Error> {
        let Some((header, pixels)) = buffer.split_first_chunk::<HEADER>() else {
            return Err(not_a_frame("it is too short"));
        };
        let (fields, _) = header.as_chunks::<4>();
        if fields[0] != MAGIC {
            return Err(not_a_frame("it does not start with \"RGBA\""));
        }
        let [width, height] =
            [fields[1], fields[2]].map(|field| u32::from_le_bytes(field) as usize);
        if frame_len(width, height) != Some(buffer.len()) {
            let found = pixels.len();
            return Err(not_a_frame(format_args!(
                "{width} x {height} pixels of {PIXEL} bytes do not make {found} bytes"
            )));
        }
        Ok(Self { buffer, width, height })
    }

    /// Pixels in a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// Bytes of a row.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        self.width * PIXEL
    }

    /// All rows, one after the other.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.buffer[HEADER..]
    }

    /// As [`Frame::pixels`], to write.
    #[must_use]
    pub fn pixels_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[HEADER..]
    }

    /// The row `y`, counted from the top; the last one where there are fewer.
    #[must_use]
    pub fn row(&self, y: usize) -> &[u8] {
        let start = y.min(self.height - 1) * self.row_bytes();
        &self.pixels()[start..][..self.row_bytes()]
    }

    /// Every row from the top, to write.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let row_bytes = self.row_bytes();
        self.pixels_mut().chunks_exact_mut(row_bytes)
    }
}

impl IntoResponse for Frame {
    fn into_response(self) -> Result<Response, String> {
        self.buffer.into_response()
    }
}

/// Bytes of a frame with pixels that wasm32 can address.
fn frame_len(width: usize, height: usize) -> Option<usize> {
    u32::try_from(width).ok()?;
    u32::try_from(height).ok()?;
    let pixels = width.checked_mul(height).filter(|pixels| *pixels > 0)?;
    pixels.checked_mul(PIXEL)?.checked_add(HEADER)
}

fn not_a_frame(why: impl Display) -> Error {
    Error::new(format_args!("the payload is not a frame: {why}"))
}

/// The brightness of an RGBA pixel (ITU-R BT.601 in 8-bit fixed point).
#[must_use]
pub fn luma(pixel: [u8; PIXEL]) -> u8 {
    let [red, green, blue, _] = pixel.map(u32::from);
    ((77 * red + 150 * green + 29 * blue + 128) >> 8) as u8
}

/// The number in the environment variable `name`, or `default` where it is not set.
///
/// # Errors
/// It is set to something that is not a number of `range`.
pub fn setting<T>(name: &str, default: T, range: RangeInclusive<T>) -> Result<T, Error>
where
    T: FromStr + PartialOrd + Display,
{
    let Some(text) = std::env::var_os(name) else {
        return Ok(default);
    };
    let number = text.to_str().and_then(|text| text.parse().ok());
    number.filter(|number| range.contains(number)).ok_or_else(|| {
        let (low, high) = (range.start(), range.end());
        Error::new(format_args!("{name} is {text:?}; it must be a number from {low} to {high}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_survives_its_buffer() {
        let mut frame = Frame::new(3, 2).unwrap();
        frame.pixels_mut().fill(9);
        let frame = Frame::parse(frame.buffer).unwrap();
        assert_eq!((frame.width(), frame.height()), (3, 2));
        assert_eq!(frame.pixels(), [9; 24]);
        assert_eq!(frame.row(7).len(), 12);
    }

    #[test]
    fn other_payloads_are_refused() {
        let parse =
            |bytes: &[u8]| Frame::parse(Buffer::copy_of(bytes).unwrap()).unwrap_err().to_string();
        assert!(parse(b"").contains("too short"));
        assert!(parse(b"\x89PNG............").contains("does not start"));
        assert!(parse(b"RGBA\x01\0\0\0\x01\0\0\0\0\0\0\0...").contains("1 x 1 pixels"));
        assert!(parse(b"RGBA\0\0\0\0\0\0\0\0\0\0\0\0").contains("0 x 0 pixels"));
        assert!(parse(b"RGBA\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0").contains("do not make"));
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert!(Frame::new(0, 5).is_err());
        assert!(Frame::new(usize::MAX, 2).is_err());
    }

    #[test]
    fn luma_spans_black_to_white() {
        assert_eq!(luma([0, 0, 0, 255]), 0);
        assert_eq!(luma([255, 255, 255, 0]), 255);
        assert_eq!(luma([0, 255, 0, 255]), 149);
    }
}
