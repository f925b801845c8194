//! Plots over time: a panel for each figure, one above the other, minutes along the bottom.

use std::path::Path;

use plotters::prelude::*;

const WIDTH: u32 = 860;
const TITLE: u32 = 40;
const PANEL: u32 = 190;
const LINE: RGBColor = RGBColor(0xb4, 0x53, 0x09);

/// A figure's name with its unit, and its values by minute.
pub(crate) type Panel<'a> = (&'a str, Vec<(f64, f64)>);

/// Draws `panels` into `file`, each from 0 up.
pub(crate) fn draw(file: &Path, title: &str, panels: &[Panel<'_>]) -> Result<(), String> {
    drawn(file, title, panels).map_err(|error| format!("{}: {error}", file.display()))
}

fn drawn(file: &Path, title: &str, panels: &[Panel<'_>]) -> Result<(), Box<dyn std::error::Error>> {
    let height = TITLE + PANEL * u32::try_from(panels.len()).unwrap_or(0);
    let root = SVGBackend::new(file, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let areas = root
        .titled(title, ("sans-serif", 20))?
        .split_evenly((panels.len(), 1));
    for (area, (name, points)) in areas.iter().zip(panels) {
        let last = points.iter().map(|(minute, _)| *minute).fold(1.0, f64::max);
        let most = points.iter().map(|(_, value)| *value).fold(0.0, f64::max) * 1.2;
        let mut chart = ChartBuilder::on(area)
            .margin_right(20)
            .caption(name, ("sans-serif", 15))
            .x_label_area_size(36)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..last, 0.0..most.max(f64::MIN_POSITIVE))?;
        let mut mesh = chart.configure_mesh();
        mesh.max_light_lines(1)
            .x_desc("minutes")
            .x_labels(11)
            .y_labels(5);
        mesh.x_label_formatter(&|minute| format!("{minute:.0}"))
            .draw()?;
        chart.draw_series(LineSeries::new(
            points.iter().copied(),
            LINE.stroke_width(2),
        ))?;
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_panel_has_its_name_and_its_axis() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lines.svg");
        let points = vec![(0.0, 1.0), (1.0, 2.0)];
        draw(
            &file,
            "a soak",
            &[
                ("resident MB", points.clone()),
                ("p99.9 in ms", points),
                ("nothing", Vec::new()),
            ],
        )
        .unwrap();
        let text = std::fs::read_to_string(file).unwrap();
        for expected in ["a soak", "resident MB", "p99.9 in ms", "nothing", "minutes"] {
            assert!(text.contains(expected), "{expected} is missing in {text}");
        }
    }
}
