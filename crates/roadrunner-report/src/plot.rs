//! Figures as SVG that follow the reader's light or dark mode.
//!
//! Plotters draws with a few stand-in colours; [`themed`] puts variables of the style sheet in their place. So the same
//! drawing is a file of its own and a part of the page.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;

use crate::names::System;

/// Sizes in the drawing's own units: at this width its text is readable on a phone, where it is scaled down.
const WIDTH: u32 = 480;
const PLOT_HEIGHT: u32 = 280;
const LEGEND_ROW: u32 = 18;
const BAR_ROW: u32 = 36;
/// Plotters writes text at a height of 1/1.24 of what it is told.
const TEXT: u32 = 16;

/// Text and axes, and the lines behind the curves.
const INK: RGBColor = RGBColor(1, 1, 1);
const GRID: RGBColor = RGBColor(1, 1, 2);

/// A colour of the style sheet: `--s0` and up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tone(u8);

const TONES: u8 = 12;

impl Tone {
    pub(crate) const TRANSFER: Self = Self(0);
    pub(crate) const SERIALIZATION: Self = Self(3);
    pub(crate) const WASM_IO: Self = Self(5);

    /// Those that stand in one figure differ.
    pub(crate) fn of(system: System) -> Self {
        Self(match system {
            System::RoadrunnerUser | System::RoadrunnerSandbox | System::Roadrunner => 0,
            System::RoadrunnerKernel | System::RoadrunnerProcess => 1,
            System::RoadrunnerNetwork => 2,
            System::WasmtimeHttpJson | System::ProcessPerFunction => 3,
            System::NativeHttpJson | System::Runc | System::NativeGcc => 4,
            System::NativeHttpRaw | System::NativeClang => 5,
            System::Redis => 6,
            System::UnixSocket => 7,
            System::Tcp => 8,
            System::Iceoryx2 | System::NodeWasi => 9,
            System::PaperCopy => 10,
            System::PaperHose => 11,
        })
    }

    fn stand_in(self) -> RGBColor {
        RGBColor(1, 0, self.0)
    }
}

/// A curve.
pub(crate) struct Line {
    pub(crate) label: String,
    pub(crate) tone: Tone,
    pub(crate) kind: LineKind,
    pub(crate) points: Vec<(f64, f64)>,
}

/// How it is drawn, so that it is told without its colour.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineKind {
    /// Thick, with full circles.
    Ours,
    /// Thin, with empty circles.
    Peer,
    /// Dashed, without circles.
    Paper,
}

/// What the axes of curves are.
pub(crate) struct Axes {
    pub(crate) x: &'static str,
    pub(crate) x_log: bool,
    pub(crate) y: &'static str,
    pub(crate) tick: fn(f64) -> String,
}

/// Curves over a logarithmic `y`; values of zero have no place there and are left out.
pub(crate) fn lines(alt: &str, axes: &Axes, lines: &[Line]) -> Result<String> {
    let points = || lines.iter().flat_map(|line| &line.points).filter(|(_, y)| *y > 0.0);
    let (x_least, x_most) = bounds(points().map(|(x, _)| *x));
    let (y_least, y_most) = bounds(points().map(|(_, y)| *y));
    let y = (10f64.powf(y_least.log10().floor())..10f64.powf(above(y_most))).log_scale();
    let legend = u32::try_from(lines.len().div_ceil(2))? * LEGEND_ROW + 8;
    draw(alt, PLOT_HEIGHT + legend, |area| {
        let (plot, below) = area.split_vertically(PLOT_HEIGHT);
        if axes.x_log {
            curves(&plot, axes, (x_least..x_most * 1.1).log_scale(), y, lines)?;
        } else {
            curves(&plot, axes, 0.0..x_most * 1.03, y, lines)?;
        }
        let entries: Vec<_> =
            lines.iter().map(|line| (line.label.as_str(), line.tone, line.kind)).collect();
        line_legend(&below, &entries)
    })
}

/// The smallest and the largest; of none, what an axis can begin with.
fn bounds(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let least = values.clone().reduce(f64::min).unwrap_or(1.0);
    (least, values.reduce(f64::max).unwrap_or(10.0))
}

/// The next power of ten, as its exponent.
fn above(value: f64) -> f64 {
    value.log10().floor() + 1.0
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn curves<X, Y>(plot: &Area<'_>, axes: &Axes, x: X, y: Y, lines: &[Line]) -> Result<()>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
{
    let mut builder = ChartBuilder::on(plot);
    builder.margin_top(8).margin_right(12).x_label_area_size(44).y_label_area_size(74);
    let mut chart = builder.build_cartesian_2d(x, y).map_err(drawn)?;
    let mut mesh = chart.configure_mesh();
    mesh.axis_style(INK).bold_line_style(GRID).light_line_style(GRID.mix(0.0));
    mesh.label_style(text()).x_desc(axes.x);
    if !axes.y.is_empty() {
        mesh.y_desc(axes.y);
    }
    mesh.x_labels(6)
        .y_labels(6)
        .x_label_formatter(&|x| crate::units::tick(&crate::units::plain(*x)));
    mesh.y_label_formatter(&|y| (axes.tick)(*y)).draw().map_err(drawn)?;
    for line in lines {
        let colour = line.tone.stand_in();
        let points: Vec<_> = line.points.iter().copied().filter(|(_, y)| *y > 0.0).collect();
        if line.kind == LineKind::Paper {
            let dashed = DashedLineSeries::new(points, 5, 4, colour.stroke_width(1));
            chart.draw_series(dashed).map_err(drawn)?;
            continue;
        }
        let (width, circle) = style(line.kind, colour);
        let circles: Vec<_> = points.iter().map(|point| Circle::new(*point, 3, circle)).collect();
        chart.draw_series(LineSeries::new(points, colour.stroke_width(width))).map_err(drawn)?;
        chart.draw_series(circles).map_err(drawn)?;
    }
    Ok(())
}

fn style(kind: LineKind, colour: RGBColor) -> (u32, ShapeStyle) {
    match kind {
        LineKind::Ours => (3, colour.filled()),
        LineKind::Peer | LineKind::Paper => (1, colour.stroke_width(1)),
    }
}

/// Two entries in each row, under the curves.
fn line_legend(area: &Area<'_>, entries: &[(&str, Tone, LineKind)]) -> Result<()> {
    for (index, (label, tone, kind)) in entries.iter().enumerate() {
        let (x, y) = legend_place(index)?;
        let colour = tone.stand_in();
        if *kind == LineKind::Paper {
            for dash in [x, x + 9, x + 18] {
                let dash = PathElement::new([(dash, y), (dash + 5, y)], colour.stroke_width(1));
                area.draw(&dash).map_err(drawn)?;
            }
        } else {
            let (width, circle) = style(*kind, colour);
            let line = PathElement::new([(x, y), (x + 23, y)], colour.stroke_width(width));
            area.draw(&line).map_err(drawn)?;
            area.draw(&Circle::new((x + 11, y), 3, circle)).map_err(drawn)?;
        }
        area.draw(&Text::new((*label).to_owned(), (x + 29, y - 6), text())).map_err(drawn)?;
    }
    Ok(())
}

fn legend_place(index: usize) -> Result<(i32, i32)> {
    let (row, column) = (i32::try_from(index / 2)?, i32::try_from(index % 2)?);
    let (width, height) = (i32::try_from(WIDTH)?, i32::try_from(LEGEND_ROW)?);
    Ok((10 + column * width / 2, 10 + row * height))
}

/// One row of a bar chart, its label above the bar.
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) parts: Vec<(Tone, f64)>,
}

/// Bars from zero, of one or several parts; a legend names the parts if there are several.
pub(crate) fn bars(
    alt: &str,
    tick: fn(f64) -> String,
    bars: &[Bar],
    legend: &[(&str, Tone)],
) -> Result<String> {
    let sum = |bar: &Bar| bar.parts.iter().map(|(_, value)| value).sum::<f64>();
    let (_, most) = bounds(bars.iter().map(sum));
    let rows = u32::try_from(bars.len())?;
    let plot_height = rows * BAR_ROW + 32;
    let below_height = if legend.is_empty() { 0 } else { 2 * LEGEND_ROW };
    draw(alt, plot_height + below_height, |area| {
        let (plot, below) = area.split_vertically(plot_height);
        let mut builder = ChartBuilder::on(&plot);
        builder.margin_left(16).margin_right(28).x_label_area_size(28);
        let (across, down) = (0.0..most.max(f64::MIN_POSITIVE) * 1.02, f64::from(rows)..0.0);
        let mut chart = builder.build_cartesian_2d(across, down).map_err(drawn)?;
        let mut mesh = chart.configure_mesh();
        mesh.axis_style(INK).bold_line_style(GRID).light_line_style(GRID.mix(0.0));
        mesh.disable_y_mesh().disable_y_axis().label_style(text()).x_labels(5);
        let tick = |x: &f64| if *x == 0.0 { "0".to_owned() } else { tick(*x) };
        mesh.x_label_formatter(&tick).draw().map_err(drawn)?;
        for (row, bar) in (0u32..).map(f64::from).zip(bars) {
            let mut from = 0.0;
            for (tone, value) in &bar.parts {
                let corners = [(from, row + 0.52), (from + value, row + 0.88)];
                let part = Rectangle::new(corners, tone.stand_in().filled());
                chart.draw_series([part]).map_err(drawn)?;
                from += value;
            }
            let label = Text::new(bar.label.clone(), (0.0, row + 0.1), text());
            chart.draw_series([label]).map_err(drawn)?;
        }
        for (index, (label, tone)) in legend.iter().enumerate() {
            let (x, y) = legend_place(index)?;
            let sample = Rectangle::new([(x, y - 5), (x + 14, y + 5)], tone.stand_in().filled());
            below.draw(&sample).map_err(drawn)?;
            let label = Text::new((*label).to_owned(), (x + 20, y - 6), text());
            below.draw(&label).map_err(drawn)?;
        }
        Ok(())
    })
}

fn draw(alt: &str, height: u32, paint: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        paint(&area)?;
        area.present().map_err(drawn)?;
    }
    Ok(themed(alt, height, &svg))
}

fn text() -> TextStyle<'static> {
    ("sans-serif", TEXT).into_font().color(&INK)
}

fn drawn(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("could not draw a figure: {error}")
}

/// Puts variables in the place of the stand-in colours, and a size that follows the page's in that of the fixed one.
fn themed(alt: &str, height: u32, svg: &str) -> String {
    let body = svg.split_once('>').map_or("", |(_, body)| body);
    let mut body = body.replace("#010101", "currentColor").replace("#010102", "var(--grid)");
    for tone in 0..TONES {
        body = body.replace(&format!("#0100{tone:02X}"), &format!("var(--s{tone})"));
    }
    let alt =
        alt.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"{alt}\">{body}"
    )
}

/// The drawing as a file of its own, with the colours of the page.
pub(crate) fn standalone(svg: &str) -> String {
    let style = "svg { color: var(--ink); background: var(--paper); }";
    let (open, body) = svg.split_once('>').unwrap_or((svg, ""));
    format!("{open}><style>{}{style}</style>{body}", crate::page::COLOURS)
}
