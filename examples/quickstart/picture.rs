//! Accuracy against the bits of the weights, as an SVG picture.

use std::error::Error;

use plotters::prelude::*;

use crate::table::Average;

const WAYS: [(&str, RGBColor); 3] = [
    ("round to nearest", RGBColor(0xd5, 0x5e, 0x00)),
    ("least squares", RGBColor(0xe6, 0x9f, 0x00)),
    ("QAT", RGBColor(0x00, 0x72, 0xb2)),
];

pub fn draw(path: &str, rows: &[Average]) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, (960, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, activations) in root.split_evenly((1, 2)).iter().zip([8, 4]) {
        let float = rows[0].accuracies[0].0.mean;
        // Bits are names: 2, 3, 4 and 8 at even distances.
        let columns = [2, 3, 4, 8];
        let points = |way: usize| {
            columns.iter().enumerate().filter_map(move |(x, bits)| {
                let name = format!("W{bits}A{activations}");
                let row = rows.iter().find(|row| row.name == name)?;
                let spread = &row.accuracies[way].1;
                Some((x as f64, spread.mean, spread.deviation))
            })
        };
        let mut chart = ChartBuilder::on(area)
            .caption(format!("{activations}-bit activations"), ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(44)
            .build_cartesian_2d(-0.3..3.3_f64, 40.0..100.0_f64)?;
        chart
            .configure_mesh()
            .x_labels(4)
            .x_label_formatter(&|x| {
                let index = x.round();
                let at = (0..columns.len()).find(|&i| i as f64 == index && (x - index).abs() < 0.1);
                at.map_or(String::new(), |i| columns[i].to_string())
            })
            .x_desc("bits of the weights")
            .y_desc("accuracy of the packed network, %")
            .draw()?;
        let line = [(-0.3, float), (3.3, float)];
        chart
            .draw_series(LineSeries::new(line, BLACK.mix(0.5)))?
            .label("float")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLACK.mix(0.5)));
        for (way, (name, color)) in WAYS.into_iter().enumerate() {
            let style = color.stroke_width(2);
            chart
                .draw_series(LineSeries::new(points(way).map(|(x, y, _)| (x, y)), style))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
            chart.draw_series(points(way).map(|(x, y, deviation)| {
                PathElement::new([(x, y - deviation), (x, y + deviation)], style)
            }))?;
            chart
                .draw_series(points(way).map(|(x, y, _)| Circle::new((x, y), 4, color.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
    }
    root.present()?;
    Ok(())
}
