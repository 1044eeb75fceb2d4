//! Accuracy of each method against bits, and what stabilisers do, as an SVG picture.

use std::error::Error;

use plotters::prelude::*;

use crate::{
    methods::{Bits, WeightMethod},
    stabilised::Stabiliser,
    tables::Results,
};

pub fn draw(path: &str, results: &Results<'_>) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, (1200, 520)).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(780);
    methods(&left, results)?;
    stabilisers(&right, results)?;
    root.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// The names of columns at whole numbers.
fn column(x: f64, names: &[&str]) -> String {
    let at = (0..names.len()).find(|&at| (x - at as f64).abs() < 0.1);
    at.map_or(String::new(), |at| names[at].to_owned())
}

fn methods(area: &Area<'_>, results: &Results<'_>) -> Result<(), Box<dyn Error>> {
    let cells = WeightMethod::ALL.into_iter();
    let cells = cells.flat_map(|method| Bits::ALL.map(|bits| results.weights(method, bits)));
    let lowest = cells.flatten().map(|spread| spread.mean - spread.deviation);
    let lowest = lowest.fold(99.0, f64::min).floor() - 1.0;
    let mut chart = ChartBuilder::on(area)
        .caption("weights by each method", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(44)
        .build_cartesian_2d(-0.4..5.2_f64, lowest..100.0_f64)?;
    let names = Bits::ALL.map(Bits::name);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_labels(8)
        .x_label_formatter(&|&x| column(x, &names))
        .y_desc("accuracy, % (mean and deviation of three seeds)")
        .draw()?;
    let float = [(-0.4, results.float.mean), (3.5, results.float.mean)];
    chart
        .draw_series(LineSeries::new(float, BLACK.mix(0.5)))?
        .label("float")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLACK.mix(0.5)));
    let count = WeightMethod::ALL.len() as f64;
    for (index, method) in WeightMethod::ALL.into_iter().enumerate() {
        let color = HSLColor(
            index as f64 / count,
            0.75,
            if index % 2 == 0 { 0.42 } else { 0.6 },
        );
        let points = Bits::ALL.into_iter().enumerate().filter_map(|(x, bits)| {
            let spread = results.weights(method, bits)?;
            // Beside each other, in the order of the legend.
            let x = x as f64 + 0.055 * (index as f64 - count / 2.0);
            Some((x, spread.mean, spread.deviation))
        });
        let points: Vec<(f64, f64, f64)> = points.collect();
        let bars = points.iter().map(|&(x, y, deviation)| {
            PathElement::new(
                [(x, y - deviation), (x, y + deviation)],
                color.stroke_width(2),
            )
        });
        chart.draw_series(bars)?;
        chart
            .draw_series(
                points
                    .iter()
                    .map(|&(x, y, _)| Circle::new((x, y), 4, color.filled())),
            )?
            .label(method.name())
            .legend(move |(x, y)| Circle::new((x + 9, y), 4, color.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

fn stabilisers(area: &Area<'_>, results: &Results<'_>) -> Result<(), Box<dyn Error>> {
    let low = [Bits::Three, Bits::Two, Bits::Ternary];
    let colors = [
        RGBColor(0xd5, 0x5e, 0x00),
        RGBColor(0xe6, 0x9f, 0x00),
        RGBColor(0x00, 0x72, 0xb2),
    ];
    let shares = |stabiliser: Stabiliser| {
        low.map(|bits| {
            results
                .stabilised(stabiliser, bits)
                .map_or(0.0, |(_, s)| s.oscillating)
        })
    };
    let greatest = Stabiliser::ALL
        .into_iter()
        .flat_map(shares)
        .fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption("oscillating weights at the end", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(44)
        .build_cartesian_2d(-0.5..2.5_f64, 0.0..1.3 * greatest)?;
    let names = low.map(Bits::name);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_labels(4)
        .x_label_formatter(&|&x| column(x, &names))
        .y_desc("% of the weights")
        .draw()?;
    for (index, (stabiliser, color)) in Stabiliser::ALL.into_iter().zip(colors).enumerate() {
        let bars = shares(stabiliser)
            .into_iter()
            .enumerate()
            .map(|(x, share)| {
                let left = x as f64 + 0.25 * (index as f64 - 1.5);
                Rectangle::new([(left, 0.0), (left + 0.22, share)], color.filled())
            });
        chart
            .draw_series(bars)?
            .label(stabiliser.name())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 18, y + 5)], color.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}
