//! Finds the edges in a frame: how fast its brightness changes, by Sobel's operator.

use frame::{Frame, PIXEL, luma};
use roadrunner_guest::{Buffer, Error};

fn edges(input: Buffer) -> Result<Frame, Error> {
    sobel(&Frame::parse(input)?)
}

/// Brightness of one row, with the first and last pixel repeated once beyond its ends.
type Row = Vec<i16>;

fn sobel(source: &Frame) -> Result<Frame, Error> {
    let mut target = Frame::new(source.width(), source.height())?;
    let row = || vec![0i16; source.width() + 2];
    // The rows around the current one; the picture's first and last row repeat beyond its ends.
    let (mut above, mut here, mut below) = (row(), row(), row());
    brightness(source.row(0), &mut here);
    above.copy_from_slice(&here);
    for (y, output) in target.rows_mut().enumerate() {
        brightness(source.row(y + 1), &mut below);
        gradient([&above, &here, &below], output);
        std::mem::swap(&mut above, &mut here);
        std::mem::swap(&mut here, &mut below);
    }
    Ok(target)
}

fn brightness(pixels: &[u8], row: &mut Row) {
    let (pixels, _) = pixels.as_chunks::<PIXEL>();
    for (value, pixel) in row[1..].iter_mut().zip(pixels) {
        *value = luma(*pixel).into();
    }
    row[0] = row[1];
    row[pixels.len() + 1] = row[pixels.len()];
}

/// Writes the strength of the gradient in the middle row, as grey pixels.
fn gradient(rows: [&Row; 3], output: &mut [u8]) {
    let [above, here, below] = rows.map(|row| row.windows(3));
    let (output, _) = output.as_chunks_mut::<PIXEL>();
    for (((a, h), b), pixel) in above.zip(here).zip(below).zip(output) {
        let across = (a[2] - a[0]) + 2 * (h[2] - h[0]) + (b[2] - b[0]);
        let down = (b[0] - a[0]) + 2 * (b[1] - a[1]) + (b[2] - a[2]);
        // Each is within +-1020; their sum stands for the root of their squares.
        let strength = ((across.abs() + down.abs()) / 2).min(255) as u8;
        *pixel = [strength, strength, strength, 255];
    }
}

roadrunner_guest::handler!(edges);

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: usize, height: usize, grey: impl Fn(usize, usize) -> u8) -> Frame {
        let mut frame = Frame::new(width, height).unwrap();
        for (y, row) in frame.rows_mut().enumerate() {
            for (x, pixel) in row.chunks_exact_mut(PIXEL).enumerate() {
                pixel.fill(grey(x, y));
            }
        }
        frame
    }

    #[test]
    fn a_flat_picture_has_no_edges() {
        let edges = sobel(&picture(5, 4, |_, _| 200)).unwrap();
        assert!(edges.pixels().chunks(PIXEL).all(|pixel| pixel == [0, 0, 0, 255]));
        sobel(&picture(1, 1, |_, _| 200)).unwrap();
    }

    #[test]
    fn steps_are_found_in_both_directions() {
        let across = sobel(&picture(6, 4, |x, _| if x < 3 { 0 } else { 20 })).unwrap();
        let strengths: Vec<u8> = across.row(2).iter().step_by(PIXEL).copied().collect();
        assert_eq!(strengths, [0, 0, 40, 40, 0, 0]);
        let down = sobel(&picture(4, 6, |_, y| if y < 3 { 0 } else { 20 })).unwrap();
        let strengths: Vec<u8> = (0..6).map(|y| down.row(y)[0]).collect();
        assert_eq!(strengths, [0, 0, 40, 40, 0, 0]);
    }
}
