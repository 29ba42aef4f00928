//! A WASI command that makes a picture smaller: reads a frame of `WIDTH` x `HEIGHT` pixels of three bytes from stdin, and
//! writes a quarter of the width and height to stdout, each pixel the mean of sixteen.

use std::io::{self, Read as _, Write as _};

/// The picture of an eight-megapixel camera.
const WIDTH: usize = 3264;
const HEIGHT: usize = 2448;
const CHANNELS: usize = 3;
const FACTOR: usize = 4;

fn shrink(frame: &[u8]) -> Vec<u8> {
    let mut small = Vec::with_capacity(frame.len() / FACTOR / FACTOR);
    for rows in frame.chunks_exact(WIDTH * CHANNELS * FACTOR) {
        for column in 0..WIDTH / FACTOR {
            for channel in 0..CHANNELS {
                let first = column * FACTOR * CHANNELS + channel;
                let mut sum = 0;
                for row in 0..FACTOR {
                    for pixel in 0..FACTOR {
                        sum += u32::from(rows[row * WIDTH * CHANNELS + first + pixel * CHANNELS]);
                    }
                }
                small.push(u8::try_from(sum / 16).unwrap_or(u8::MAX));
            }
        }
    }
    small
}

fn main() -> io::Result<()> {
    let mut frame = vec![0; WIDTH * HEIGHT * CHANNELS];
    io::stdin().read_exact(&mut frame)?;
    io::stdout().write_all(&shrink(&frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_means() {
        let mut frame = vec![0; WIDTH * HEIGHT * CHANNELS];
        // A red square of four by four pixels in the corner, then the same with half of it.
        for row in 0..FACTOR {
            for pixel in 0..FACTOR {
                frame[(row * WIDTH + pixel) * CHANNELS] = 200;
                frame[(row * WIDTH + FACTOR + pixel) * CHANNELS + 2] =
                    if row < 2 { 100 } else { 0 };
            }
        }
        let small = shrink(&frame);
        assert_eq!(small.len(), frame.len() / 16);
        assert_eq!(small[..9], [200, 0, 0, 0, 0, 50, 0, 0, 0]);
    }
}
