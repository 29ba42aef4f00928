//! Blurs a frame by a Gaussian, first along its rows and then along its columns.
//!
//! The environment variable `SIGMA` sets how far, in pixels: 1 to 16, by default 4.

use frame::{Frame, PIXEL, setting};
use roadrunner_guest::{Buffer, Error};

fn blur(input: Buffer) -> Result<Frame, Error> {
    let sigma = setting("SIGMA", 4, 1..=16)?;
    gaussian(Frame::parse(input)?, &kernel(sigma))
}

/// What the weights of a kernel add up to: with 8-bit pixels a weighted sum fits in 16 bits.
const UNIT: u16 = 256;

/// The weights of a Gaussian at -r..=r pixels, where r is three times `sigma`.
fn kernel(sigma: u16) -> Vec<u16> {
    let radius = 3 * i32::from(sigma);
    let sigma = f32::from(sigma);
    let density = |x: i32| (-0.5 * (x as f32 / sigma).powi(2)).exp();
    let total: f32 = (-radius..=radius).map(density).sum();
    let mut weights: Vec<u16> =
        (-radius..=radius).map(|x| (f32::from(UNIT) * density(x) / total).round() as u16).collect();
    // What rounding lost or won goes to the middle, so that brightness is kept.
    let sum: u16 = weights.iter().sum();
    let middle = &mut weights[radius as usize];
    *middle = (*middle + UNIT).saturating_sub(sum);
    weights
}

fn gaussian(mut source: Frame, kernel: &[u16]) -> Result<Frame, Error> {
    let radius = kernel.len() / 2;
    let mut target = Frame::new(source.width(), source.height())?;
    let mut sums = vec![0u16; source.row_bytes()];

    let mut padded = vec![0u8; source.row_bytes() + 2 * radius * PIXEL];
    for row in source.rows_mut() {
        pad(row, &mut padded);
        let shifted = (0..kernel.len()).map(|tap| &padded[tap * PIXEL..]);
        weigh(shifted.zip(kernel), &mut sums, row);
    }
    for (y, output) in target.rows_mut().enumerate() {
        let around = (0..kernel.len()).map(|tap| source.row((y + tap).saturating_sub(radius)));
        weigh(around.zip(kernel), &mut sums, output);
    }
    Ok(target)
}

/// Copies a row into the middle of `padded` and repeats its end pixels to both sides.
fn pad(row: &[u8], padded: &mut [u8]) {
    let margin = (padded.len() - row.len()) / 2;
    let (before, rest) = padded.split_at_mut(margin);
    let (middle, after) = rest.split_at_mut(row.len());
    middle.copy_from_slice(row);
    before.chunks_exact_mut(PIXEL).for_each(|pixel| pixel.copy_from_slice(&row[..PIXEL]));
    after
        .chunks_exact_mut(PIXEL)
        .for_each(|pixel| pixel.copy_from_slice(&row[row.len() - PIXEL..]));
}

/// Writes the weighted mean of several rows.
fn weigh<'a>(rows: impl Iterator<Item = (&'a [u8], &'a u16)>, sums: &mut [u16], output: &mut [u8]) {
    sums.fill(UNIT / 2);
    for (row, weight) in rows {
        for (sum, byte) in sums.iter_mut().zip(row) {
            *sum = sum.wrapping_add(weight.wrapping_mul((*byte).into()));
        }
    }
    for (byte, sum) in output.iter_mut().zip(sums) {
        *byte = (*sum / UNIT) as u8;
    }
}

roadrunner_guest::handler!(blur);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_symmetric_and_keep_brightness() {
        for sigma in 1..=16 {
            let kernel = kernel(sigma);
            assert_eq!(kernel.iter().sum::<u16>(), UNIT);
            assert!(kernel.iter().eq(kernel.iter().rev()));
        }
    }

    #[test]
    fn flat_pictures_stay_as_they_are() {
        for value in [0, 1, 127, 255] {
            let mut frame = Frame::new(7, 3).unwrap();
            frame.pixels_mut().fill(value);
            let blurred = gaussian(frame, &kernel(4)).unwrap();
            assert!(blurred.pixels().iter().all(|byte| *byte == value));
        }
    }

    #[test]
    fn a_point_becomes_the_kernel() {
        let kernel = kernel(1);
        let mut frame = Frame::new(9, 9).unwrap();
        frame.pixels_mut().fill(0);
        frame.pixels_mut()[(4 * 9 + 4) * PIXEL] = 255;
        let blurred = gaussian(frame, &kernel).unwrap();
        let centre = f32::from(blurred.row(4)[4 * PIXEL]);
        let expected = 255.0 * (f32::from(kernel[3]) / f32::from(UNIT)).powi(2);
        assert!((centre - expected).abs() <= 1.0, "{centre} is not {expected}");
        assert_eq!(blurred.row(4)[3 * PIXEL], blurred.row(3)[4 * PIXEL]);
        assert_eq!(blurred.row(0)[0], 0);
    }
}
