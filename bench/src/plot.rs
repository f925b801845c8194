//! The plots: bars of processor time per request, a panel for each size of content.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::figures::median;
use crate::rounds::Row;
use crate::tables::size_name;

const WIDTH: u32 = 860;
const TITLE: u32 = 40;
/// Of a panel: each bar, and what stands above and below all of them.
const BAR: u32 = 26;
const MARGINS: u32 = 90;
const OURS: RGBColor = RGBColor(0xb4, 0x53, 0x09);
const OTHERS: RGBColor = RGBColor(0x7c, 0x93, 0xa8);

type Drawn<T> = Result<T, Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws the medians of `rows` into `file`.
pub(crate) fn draw(file: &Path, title: &str, rows: &[Row]) -> Result<(), String> {
    drawn(file, title, rows).map_err(|error| format!("{}: {error}", file.display()))
}

fn drawn(file: &Path, title: &str, rows: &[Row]) -> Drawn<()> {
    let panels: Vec<&[Row]> = rows.chunk_by(|one, other| one.size == other.size).collect();
    let heights: Vec<u32> = panels
        .iter()
        .map(|panel| MARGINS + BAR * u32::try_from(panel.len()).unwrap_or(0))
        .collect();
    let root =
        SVGBackend::new(file, (WIDTH, TITLE + heights.iter().sum::<u32>())).into_drawing_area();
    root.fill(&WHITE)?;
    let mut rest = root.titled(title, ("sans-serif", 20))?;
    for (panel, height) in panels.into_iter().zip(heights) {
        let (here, below) = rest.split_vertically(height);
        bars(&here, panel)?;
        rest = below;
    }
    root.present()?;
    Ok(())
}

/// One bar for each contestant, the first on top.
fn bars(area: &Area<'_>, rows: &[Row]) -> Drawn<()> {
    let values: Vec<f64> = rows.iter().map(|row| median(&row.cpu)).collect();
    let names: Vec<String> = rows.iter().map(|row| row.kind.plain_name()).collect();
    let longest = values.iter().copied().fold(1.0, f64::max) * 1.1;
    let size = rows
        .first()
        .map(|row| size_name(row.size))
        .unwrap_or_default();
    let last = rows.len().saturating_sub(1);
    let mut chart = ChartBuilder::on(area)
        .margin_right(20)
        .caption(size, ("sans-serif", 16))
        .x_label_area_size(44)
        .y_label_area_size(190)
        .build_cartesian_2d(0.0..longest, (0..last).into_segmented())?;
    let name = |at: &SegmentValue<usize>| match at {
        SegmentValue::CenterOf(at) | SegmentValue::Exact(at) => last
            .checked_sub(*at)
            .and_then(|at| names.get(at))
            .cloned()
            .unwrap_or_default(),
        SegmentValue::Last => String::new(),
    };
    let mut mesh = chart.configure_mesh();
    mesh.disable_y_mesh()
        .max_light_lines(1)
        .x_desc("CPU µs per request (less is better)");
    mesh.x_labels(8)
        .x_label_formatter(&|value| format!("{value:.0}"))
        .x_label_style(("sans-serif", 13));
    mesh.y_labels(rows.len())
        .y_label_formatter(&name)
        .y_label_style(("sans-serif", 13))
        .draw()?;
    for (row, (index, value)) in rows.iter().zip(values.iter().enumerate()) {
        let at = last - index;
        let colour = if row.kind.is_larder() { OURS } else { OTHERS };
        let corners = [
            (0.0, SegmentValue::Exact(at)),
            (*value, SegmentValue::Exact(at + 1)),
        ];
        let mut bar = Rectangle::new(corners, colour.filled());
        bar.set_margin(3, 3, 0, 0);
        chart.draw_series(std::iter::once(bar))?;
        let end = EmptyElement::at((*value, SegmentValue::CenterOf(at)));
        chart.draw_series(std::iter::once(
            end + Text::new(format!("{value:.1}"), (5, 0), middle()),
        ))?;
    }
    Ok(())
}

/// Text that begins at its point, half above and half below it.
fn middle<'a>() -> TextStyle<'a> {
    use plotters::style::text_anchor::{HPos, Pos, VPos};
    TextStyle::from(("sans-serif", 13)).pos(Pos::new(HPos::Left, VPos::Center))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contestant::Kind;

    #[test]
    fn a_plot_names_its_contestants_sizes_and_unit() {
        let row = |size, kind, cpu| {
            let (rates, sidecar_cpu) = (Vec::new(), Vec::new());
            Row {
                size,
                kind,
                rates,
                cpu: vec![cpu],
                sidecar_cpu,
                remark: None,
            }
        };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plot.svg");
        let rows = [
            row(1024, Kind::Larder, 20.5),
            row(1024, Kind::Nginx, 15.0),
            row(10_240, Kind::Larder, 30.0),
        ];
        draw(&file, "CPU per hit", &rows).unwrap();
        let text = std::fs::read_to_string(file).unwrap();
        for expected in [
            "CPU per hit",
            "Larder",
            "nginx proxy_cache",
            "20.5",
            "1 KB",
            "10 KB",
            "CPU µs per request",
        ] {
            assert!(text.contains(expected), "{expected} is missing in {text}");
        }
    }
}
