//! Turns a frame grey, in place: the pages that came in go out again.

use frame::{Frame, PIXEL, luma};
use roadrunner_guest::{Buffer, Error};

fn greyscale(input: Buffer) -> Result<Frame, Error> {
    let mut frame = Frame::parse(input)?;
    let (pixels, _) = frame.pixels_mut().as_chunks_mut::<PIXEL>();
    for pixel in pixels {
        let grey = luma(*pixel);
        *pixel = [grey, grey, grey, pixel[3]];
    }
    Ok(frame)
}

roadrunner_guest::handler!(greyscale);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_become_equally_bright_greys() {
        let mut frame = Frame::new(2, 1).unwrap();
        frame.pixels_mut().copy_from_slice(&[255, 0, 0, 9, 0, 255, 0, 255]);
        frame.rows_mut().for_each(|row| {
            let (pixels, _) = row.as_chunks_mut::<PIXEL>();
            assert_eq!(luma(pixels[0]), 77);
        });
        let Ok(roadrunner_guest::Response::Buffer(input)) =
            roadrunner_guest::IntoResponse::into_response(frame)
        else {
            panic!("a frame is a buffer");
        };
        assert_eq!(greyscale(input).unwrap().pixels(), [77, 77, 77, 9, 149, 149, 149, 255]);
    }
}
