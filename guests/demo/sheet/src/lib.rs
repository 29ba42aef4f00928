//! Joins frames into a contact sheet: rows of equal cells, each picture in the middle of its own.

use frame::{Frame, PIXEL};
use roadrunner_guest::{Buffer, Error};

/// Colour of the sheet.
const PAPER: [u8; PIXEL] = [24, 24, 28, 255];
/// Pixels around each cell.
const MARGIN: usize = 32;
/// Cells in a row, at most.
const COLUMNS: usize = 4;

fn sheet(inputs: Vec<Buffer>) -> Result<Frame, Error> {
    let pictures = inputs.into_iter().map(Frame::parse).collect::<Result<Vec<_>, _>>()?;
    let layout =
        Layout::of(&pictures).ok_or_else(|| Error::new("no pictures to put on the sheet"))?;
    let (width, height) = layout.size();
    let mut sheet = Frame::new(width, height)?;
    sheet.pixels_mut().as_chunks_mut::<PIXEL>().0.fill(PAPER);
    for (index, picture) in pictures.iter().enumerate() {
        let (left, top) = layout.place(index, picture);
        let rows = sheet.rows_mut().skip(top);
        for (y, row) in rows.take(picture.height()).enumerate() {
            row[left * PIXEL..][..picture.row_bytes()].copy_from_slice(picture.row(y));
        }
    }
    Ok(sheet)
}

struct Layout {
    columns: usize,
    rows: usize,
    cell_width: usize,
    cell_height: usize,
}

impl Layout {
    /// A layout with cells as large as the largest picture; `None` without pictures.
    fn of(pictures: &[Frame]) -> Option<Self> {
        let columns = pictures.len().min(COLUMNS);
        Some(Self {
            columns,
            rows: pictures.len().div_ceil(COLUMNS),
            cell_width: pictures.iter().map(Frame::width).max()?,
            cell_height: pictures.iter().map(Frame::height).max()?,
        })
    }

    /// Width and height of the sheet.
    fn size(&self) -> (usize, usize) {
        let edge = |cells: usize, cell: usize| {
            cells.saturating_mul(cell.saturating_add(MARGIN)).saturating_add(MARGIN)
        };
        (edge(self.columns, self.cell_width), edge(self.rows, self.cell_height))
    }

    /// Where a picture's left upper corner goes.
    fn place(&self, index: usize, picture: &Frame) -> (usize, usize) {
        let start = |cell: usize, edge: usize| MARGIN + cell * (edge + MARGIN);
        let left =
            start(index % COLUMNS, self.cell_width) + (self.cell_width - picture.width()) / 2;
        let top =
            start(index / COLUMNS, self.cell_height) + (self.cell_height - picture.height()) / 2;
        (left, top)
    }
}

roadrunner_guest::fan_in!(sheet);

#[cfg(test)]
mod tests {
    use super::*;
    use roadrunner_guest::{IntoResponse, Response};

    fn picture(width: usize, height: usize, value: u8) -> Buffer {
        let mut frame = Frame::new(width, height).unwrap();
        frame.pixels_mut().fill(value);
        match frame.into_response() {
            Ok(Response::Buffer(buffer)) => buffer,
            other => panic!("a frame is a buffer, not {other:?}"),
        }
    }

    #[test]
    fn pictures_stand_side_by_side() {
        let sheet = sheet(vec![picture(10, 6, 1), picture(4, 2, 2), picture(10, 6, 3)]).unwrap();
        assert_eq!((sheet.width(), sheet.height()), (4 * MARGIN + 30, 2 * MARGIN + 6));
        let at = |x: usize, y: usize| sheet.row(y)[x * PIXEL];
        assert_eq!(at(0, 0), PAPER[0]);
        assert_eq!(at(MARGIN, MARGIN), 1);
        assert_eq!(at(2 * MARGIN + 10, MARGIN), PAPER[0]);
        assert_eq!(at(2 * MARGIN + 13, MARGIN + 2), 2);
        assert_eq!(at(3 * MARGIN + 29, MARGIN + 5), 3);
    }

    #[test]
    fn a_fifth_picture_starts_a_row() {
        let sheet = sheet((0..5).map(|value| picture(1, 1, value)).collect()).unwrap();
        assert_eq!((sheet.width(), sheet.height()), (5 * MARGIN + 4, 3 * MARGIN + 2));
        assert_eq!(sheet.row(2 * MARGIN + 1)[MARGIN * PIXEL], 4);
    }

    #[test]
    fn a_sheet_needs_pictures() {
        assert!(sheet(vec![]).is_err());
        assert!(sheet(vec![Buffer::empty()]).is_err());
    }
}
