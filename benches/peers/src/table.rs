//! Tables as text.

use std::fmt::Write;

use crate::clock::{Measured, Result, Role, median};

/// The rates, then what ours are of each peer's and of each limit.
pub(crate) fn show(result: &Result) -> String {
    let mut text = format!("\n{}\n", result.title);
    let width = result.rows.iter().map(|row| row.name.len()).max();
    let width = 2 * width.unwrap_or(0).max(20) + 4;
    let mut line = |name: &str, cells: &[String]| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>9}")).collect();
        writeln!(text, "{name:<width$}{cells}").expect("text grows");
    };
    line("", &result.columns);
    for row in &result.rows {
        let rates: Vec<f64> = row.rates.iter().map(|rates| median(rates)).collect();
        line(&row.name, &cells(&rates, |rate| format!("{rate:.1}")));
    }
    let ours = || result.rows.iter().filter(|row| row.role == Role::Ours);
    for mine in ours() {
        for other in result.rows.iter().filter(|row| row.role != Role::Ours) {
            let share = other.role == Role::Limit;
            // A limit is that of the instruction set that it names.
            if share && !limits(&other.name, &mine.name) {
                continue;
            }
            let cells = cells(&ratios(mine, other), |ratio| {
                if share {
                    format!("{:.0} %", 100.0 * ratio)
                } else {
                    format!("{ratio:.2}x")
                }
            });
            if cells.iter().any(|cell| cell != "-") {
                let mine = mine.name.trim_start_matches("lowbit ");
                line(&format!("  {mine} / {}", other.name), &cells);
            }
        }
    }
    text
}

/// What stands before the first comma.
fn short(name: &str) -> &str {
    name.split(',').next().unwrap_or(name)
}

/// Whether a limit is of the instruction set of one of our rows, or of any.
fn limits(limit: &str, ours: &str) -> bool {
    let isa = short(ours).rsplit(' ').next().unwrap_or_default();
    !limit.contains('(') || limit.contains(&format!("({isa})"))
}

fn ratios(ours: &Measured, other: &Measured) -> Vec<f64> {
    let columns = ours.rates.iter().zip(&other.rates);
    columns
        .map(|(a, b)| median(&a.iter().zip(b).map(|(a, b)| a / b).collect::<Vec<_>>()))
        .collect()
}

fn cells(values: &[f64], show: impl Fn(f64) -> String) -> Vec<String> {
    let cell = |&value: &f64| {
        if value.is_nan() {
            "-".into()
        } else {
            show(value)
        }
    };
    values.iter().map(cell).collect()
}
