//! The percentile plot: latency over the share of messages that were at least as fast, the share on
//! a scale of nines, so that the tail has the room that it deserves.

use std::path::Path;

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::report::Report;

/// Right end of the plot: 99.999 %.
const NINES_MAX: f64 = 5.0;
const STEPS: u32 = 200;
const SIZE: (u32, u32) = (1200, 760);

/// Writes the plot of all rows that have latencies.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn write_svg(report: &Report, path: &Path) -> Result<()> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    draw(report, &root).map_err(|error| anyhow!("draw {}: {error}", path.display()))
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(report: &Report, root: &DrawingArea<SVGBackend<'_>, Shift>) -> Drawn {
    let series: Vec<(String, Vec<(f64, f64)>)> = report
        .rows
        .iter()
        .zip(&report.merged)
        .filter(|(row, _)| !row.case.starts_with("ring/publish"))
        .filter_map(|(row, samples)| {
            let points = points(samples.as_ref()?, |ticks| report.clock.to_ns(ticks));
            Some((format!("{} {}", row.case, row.class.name()), points))
        })
        .collect();
    let all = || series.iter().flat_map(|(_, points)| points.iter().map(|point| point.1));
    let top = all().fold(1_000.0, f64::max);
    let bottom = all().fold(top, f64::min).max(1.0);
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(root)
        .caption(report.host.line(), ("sans-serif", 14))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..NINES_MAX, (bottom..top).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("percentile")
        .y_desc("latency, ns")
        .x_labels(NINES_MAX as usize + 1)
        .x_label_formatter(&|nines| percentile_label(*nines))
        .y_label_formatter(&|ns| format!("{ns:.0}"))
        .draw()?;
    for (index, (name, points)) in series.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        let line = LineSeries::new(points.iter().copied(), color.stroke_width(2));
        chart
            .draw_series(line)?
            .label(name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
    }
    if !series.is_empty() {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font(("sans-serif", 11))
            .background_style(WHITE.mix(0.8))
            .draw()?;
    }
    root.present()?;
    Ok(())
}

/// Latency in ns at steps of nines, no further than there are samples for.
fn points(samples: &Histogram<u64>, to_ns: impl Fn(u64) -> f64) -> Vec<(f64, f64)> {
    let nines_known = (samples.len().max(1) as f64).log10();
    (0..=STEPS)
        .map(|step| f64::from(step) * NINES_MAX / f64::from(STEPS))
        .take_while(|&nines| nines <= nines_known)
        .map(|nines| {
            let ticks = samples.value_at_quantile(1.0 - 10f64.powf(-nines));
            (nines, to_ns(ticks).max(1.0))
        })
        .collect()
}

/// 1 is 90 %, 2 is 99 %, 3 is 99.9 %.
fn percentile_label(nines: f64) -> String {
    let decimals = (nines - 2.0).max(0.0).ceil() as usize;
    format!("{:.decimals$} %", 100.0 * (1.0 - 10f64.powf(-nines)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::histogram;

    #[test]
    fn percentiles_are_named_by_their_nines() {
        let names: Vec<_> = (0..=5).map(|n| percentile_label(f64::from(n))).collect();
        assert_eq!(names, ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"]);
    }

    #[test]
    fn the_line_ends_where_the_samples_do() {
        let mut samples = histogram();
        (1..=1000).for_each(|n| samples.record(n).unwrap());
        let points = points(&samples, |ticks| ticks as f64);
        assert_eq!(points.last().map(|point| point.0), Some(3.0));
        assert_eq!(points[40], (1.0, 900.0));
    }
}
