//! Scales a frame so that its long edge is as given, by Catmull-Rom interpolation (Keys 1981,
//! a = -0.5), widened when it shrinks so that every source pixel counts.
//!
//! The environment variable `LONG_EDGE` sets the size in pixels: 16 to 8192, by default 1280.

use frame::{Frame, PIXEL, setting};
use roadrunner_guest::{Buffer, Error};

fn resize(input: Buffer) -> Result<Frame, Error> {
    let long_edge = setting("LONG_EDGE", 1280, 16..=8192)?;
    let source = Frame::parse(input)?;
    let (width, height) = fit(source.width(), source.height(), long_edge);
    if (width, height) == (source.width(), source.height()) {
        return Ok(source);
    }
    scale(&source, width, height)
}

/// Width and height in the same ratio, with the longer of the two `long_edge`.
fn fit(width: usize, height: usize, long_edge: usize) -> (usize, usize) {
    let longer = width.max(height) as u64;
    let scaled =
        |edge: usize| ((edge as u64 * long_edge as u64 + longer / 2) / longer).max(1) as usize;
    (scaled(width), scaled(height))
}

/// The source pixels that make one target pixel: `weights.len()` of them from `start`.
struct Taps {
    start: usize,
    weights: Vec<f32>,
}

/// Taps for every pixel along an edge that becomes `target` pixels long.
fn taps(source: usize, target: usize) -> Vec<Taps> {
    let ratio = source as f32 / target as f32;
    let widening = ratio.max(1.0);
    (0..target)
        .map(|position| {
            let centre = (position as f32 + 0.5) * ratio - 0.5;
            let first = (centre - 2.0 * widening).ceil().max(0.0) as usize;
            let last = ((centre + 2.0 * widening).floor() as usize).min(source - 1);
            let mut weights: Vec<f32> = (first..=last)
                .map(|pixel| catmull_rom((pixel as f32 - centre) / widening))
                .collect();
            let total: f32 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= total);
            Taps { start: first, weights }
        })
        .collect()
}

fn catmull_rom(x: f32) -> f32 {
    match x.abs() {
        x if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        x if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
        _ => 0.0,
    }
}

fn scale(source: &Frame, width: usize, height: usize) -> Result<Frame, Error> {
    let mut target = Frame::new(width, height)?;
    let columns = taps(source.width(), width);
    let rows = taps(source.height(), height);
    // One target row at a time: its source rows are joined here before its columns are.
    let mut joined = vec![0.0; source.row_bytes()];
    for (taps, output) in rows.iter().zip(target.rows_mut()) {
        join_rows(source, taps, &mut joined);
        join_columns(&joined, &columns, output);
    }
    Ok(target)
}

fn join_rows(source: &Frame, taps: &Taps, joined: &mut [f32]) {
    joined.fill(0.0);
    for (offset, weight) in taps.weights.iter().enumerate() {
        for (sum, byte) in joined.iter_mut().zip(source.row(taps.start + offset)) {
            *sum += weight * f32::from(*byte);
        }
    }
}

fn join_columns(joined: &[f32], columns: &[Taps], output: &mut [u8]) {
    let (joined, _) = joined.as_chunks::<PIXEL>();
    let (output, _) = output.as_chunks_mut::<PIXEL>();
    for (taps, pixel) in columns.iter().zip(output) {
        let mut sums = [0.5; PIXEL];
        for (source, weight) in joined[taps.start..].iter().zip(&taps.weights) {
            for (sum, value) in sums.iter_mut().zip(source) {
                *sum += weight * value;
            }
        }
        // `as` keeps to 0..=255, which the filter overshoots at edges.
        *pixel = sums.map(|sum| sum as u8);
    }
}

roadrunner_guest::handler!(resize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_kept() {
        assert_eq!(fit(640, 480, 1280), (1280, 960));
        assert_eq!(fit(480, 640, 64), (48, 64));
        assert_eq!(fit(10_000, 1, 16), (16, 1));
    }

    #[test]
    fn weights_add_up_to_one() {
        for (source, target) in [(1, 7), (512, 1280), (1280, 100), (3, 3)] {
            for taps in taps(source, target) {
                assert!((taps.weights.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                assert!(taps.start + taps.weights.len() <= source);
            }
        }
    }

    #[test]
    fn flat_pictures_stay_flat() {
        let mut source = Frame::new(5, 3).unwrap();
        source.pixels_mut().fill(200);
        for (width, height) in [(50, 30), (2, 1), (1, 1)] {
            let scaled = scale(&source, width, height).unwrap();
            assert!(scaled.pixels().iter().all(|byte| *byte == 200));
        }
    }

    #[test]
    fn ramps_stay_ramps() {
        let mut source = Frame::new(8, 1).unwrap();
        for (x, pixel) in source.pixels_mut().chunks_exact_mut(PIXEL).enumerate() {
            pixel.fill(20 * x as u8);
        }
        let doubled = scale(&source, 16, 1).unwrap();
        let reds: Vec<u8> = doubled.pixels().iter().step_by(PIXEL).copied().collect();
        assert!(reds.is_sorted());
        assert_eq!(reds[7..9], [65, 75]);
    }
}
