//! What is measured beside what.

use std::error::Error;

use candle_core::quantized::GgmlDType;
use lowbit::{Scheme, SchemeBuilder};
use ndarray::{Array2, s};

use crate::{
    clock::{Entry, Group, Role},
    limits::{self, Instructions},
    options::Options,
    others, ours,
};

/// A table.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) build: fn(&Options) -> Result<Group, Box<dyn Error>>,
}

/// All tables.
pub(crate) const PARTS: [Part; 6] = [
    Part {
        name: "w8a8",
        build: w8a8,
    },
    Part {
        name: "w4a8",
        build: w4a8,
    },
    Part {
        name: "w2a8",
        build: w2a8,
    },
    Part {
        name: "decode",
        build: decode,
    },
    Part {
        name: "float",
        build: float,
    },
    Part {
        name: "small",
        build: small,
    },
];

/// A matrix of numbers that look random, in −1 .. 1.
fn matrix(rows: usize, columns: usize) -> Array2<f32> {
    let mut state = 1_u64;
    Array2::from_shape_simple_fn((rows, columns), || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    })
}

fn int(bits: u32) -> SchemeBuilder {
    Scheme::int(bits).symmetric()
}

fn columns(rows: &[usize]) -> Vec<String> {
    rows.iter().map(|rows| format!("M={rows}")).collect()
}

/// The weights and the most activations that are wanted.
fn operands(options: &Options) -> (Array2<f32>, Array2<f32>) {
    let most = options.rows.iter().copied().max().unwrap_or(1);
    (
        matrix(options.size, options.size),
        matrix(most, options.size),
    )
}

fn title(options: &Options, what: &str) -> String {
    format!("{what}, weights {0} x {0}", options.size)
}

/// Our rows for some schemes, and the limit of each instruction set.
fn rows_of_ours(
    options: &Options,
    schemes: &[(&str, SchemeBuilder)],
    integer: bool,
    instructions: Instructions,
    (weights, x): (&Array2<f32>, &Array2<f32>),
) -> Vec<Entry> {
    let mut entries = vec![];
    for (what, scheme) in schemes {
        let quantized = ours::quantized(*scheme, weights);
        for isa in ours::instruction_sets(options) {
            entries.push(ours::entry(
                isa,
                what,
                &quantized,
                integer,
                x,
                &options.rows,
            ));
        }
    }
    for isa in ours::instruction_sets(options) {
        entries.extend(limits::of(instructions, isa, options.rows.len()));
    }
    entries
}

fn w8a8(options: &Options) -> Result<Group, Box<dyn Error>> {
    let (weights, x) = operands(options);
    let schemes = [("W8A8", int(8).per_axis(0))];
    let mut entries = rows_of_ours(options, &schemes, true, Instructions::Bytes, (&weights, &x));
    let quantized = ours::quantized(int(8).per_axis(0), &weights);
    for isa in ours::instruction_sets(options) {
        entries.push(ours::exact(isa, &quantized, &options.rows));
    }
    entries.push(others::rten_integer(&weights, &options.rows));
    entries.push(others::candle(GgmlDType::Q8_0, &weights, &x, &options.rows));
    Ok(Group {
        title: title(options, "8-bit weights by 8-bit activations"),
        columns: columns(&options.rows),
        entries,
    })
}

fn w4a8(options: &Options) -> Result<Group, Box<dyn Error>> {
    let (weights, x) = operands(options);
    let schemes = [
        ("W4A8 g32", int(4).per_group(32)),
        ("W4A8 g128", int(4).per_group(128)),
        ("W4A8 g128 asymmetric", int(4).asymmetric().per_group(128)),
    ];
    let rows = &options.rows;
    let mut entries = rows_of_ours(
        options,
        &schemes,
        true,
        Instructions::Nibbles,
        (&weights, &x),
    );
    entries.push(others::candle(GgmlDType::Q4_0, &weights, &x, rows));
    entries.push(others::candle(GgmlDType::Q4K, &weights, &x, rows));
    entries.push(others::rten_nibbles(&weights, 32, true, &x, rows));
    Ok(Group {
        title: title(options, "4-bit weights by 8-bit activations"),
        columns: columns(rows),
        entries,
    })
}

fn w2a8(options: &Options) -> Result<Group, Box<dyn Error>> {
    let (weights, x) = operands(options);
    let schemes = [
        ("W3A8 g128", int(3).per_group(128)),
        ("W2A8 g128", int(2).per_group(128)),
        ("ternary by row", int(2).narrow_range().per_axis(0)),
        ("W4A8 g128", int(4).per_group(128)),
    ];
    let mut entries = rows_of_ours(
        options,
        &schemes,
        true,
        Instructions::Nibbles,
        (&weights, &x),
    );
    entries.push(others::candle(GgmlDType::Q2K, &weights, &x, &options.rows));
    Ok(Group {
        title: title(
            options,
            "3-bit, 2-bit and ternary weights by 8-bit activations",
        ),
        columns: columns(&options.rows),
        entries,
    })
}

/// One row of activations, weights from memory: the share of what reading them takes.
fn decode(options: &Options) -> Result<Group, Box<dyn Error>> {
    let (weights, x) = operands(options);
    let schemes = [
        ("W8A8", int(8).per_axis(0)),
        ("W4A8 g32", int(4).per_group(32)),
        ("W4A8 g128", int(4).per_group(128)),
        ("W3A8 g128", int(3).per_group(128)),
        ("W2A8 g128", int(2).per_group(128)),
    ];
    let x = x.slice(s![..1, ..]);
    let operations = 2.0 * weights.len() as f64;
    let mut entries: Vec<Entry> = vec![];
    for (column, (_, scheme)) in schemes.iter().enumerate() {
        let quantized = ours::quantized(*scheme, &weights);
        let mut cell = |name: String, role, work| {
            let found = entries.iter().position(|entry| entry.name == name);
            let at = found.unwrap_or_else(|| {
                entries.push(Entry {
                    name,
                    role,
                    cells: schemes.iter().map(|_| None).collect(),
                });
                entries.len() - 1
            });
            entries[at].cells[column] = Some(work);
        };
        let mut bytes = 0;
        for isa in ours::instruction_sets(options) {
            let layer = || ours::layer(isa, &quantized, true);
            bytes = layer().memory_bytes();
            let layers = (0..(1_usize << 28).div_ceil(bytes))
                .map(|_| layer())
                .collect();
            cell(
                format!("lowbit {isa}, cold"),
                Role::Ours,
                ours::cold(layers, x),
            );
        }
        cell(
            "limit reading".into(),
            Role::Limit,
            limits::read(bytes, operations),
        );
    }
    Ok(Group {
        title: title(options, "one row of activations, weights from memory"),
        columns: schemes
            .iter()
            .map(|(what, _)| what.replace(' ', "-"))
            .collect(),
        entries,
    })
}

fn float(options: &Options) -> Result<Group, Box<dyn Error>> {
    let (weights, x) = operands(options);
    let schemes = [
        ("W8 by f32", int(8).per_axis(0)),
        ("W4 g32 by f32", int(4).per_group(32)),
        ("W4 g128 by f32", int(4).per_group(128)),
    ];
    let rows = &options.rows;
    let mut entries = rows_of_ours(
        options,
        &schemes,
        false,
        Instructions::Floats,
        (&weights, &x),
    );
    entries.push(others::gemm_floats(&weights, &x, rows, options.threads));
    entries.push(others::ndarray_floats(&weights, &x, rows));
    entries.push(others::rten_nibbles(&weights, 32, false, &x, rows));
    Ok(Group {
        title: title(options, "weights by float activations"),
        columns: columns(rows),
        entries,
    })
}

/// What makes a row of a peer for weights, activations and numbers of rows.
type Build<'a> = &'a dyn Fn(&Array2<f32>, &Array2<f32>, &[usize]) -> Entry;

/// Products so small that anything beside them shows.
fn small(options: &Options) -> Result<Group, Box<dyn Error>> {
    let shapes = [(64, 64), (1, 256)];
    let schemes = [
        ("W8A8", int(8).per_axis(0), true),
        ("W4A8 g32", int(4).per_group(32), true),
        ("W4 g32 by f32", int(4).per_group(32), false),
    ];
    let mut entries = vec![];
    for isa in ours::instruction_sets(options) {
        for (what, scheme, integer) in schemes {
            let cells = shapes.iter().map(|&(rows, size)| {
                let quantized = ours::quantized(scheme, &matrix(size, size));
                let layer = ours::layer(isa, &quantized, integer);
                Some(ours::forward(layer, matrix(rows, size).view()))
            });
            entries.push(Entry {
                name: format!("lowbit {isa}, {what}"),
                role: Role::Ours,
                cells: cells.collect(),
            });
        }
    }
    let mut peers = |build: Build<'_>| {
        let made =
            shapes.map(|(rows, size)| build(&matrix(size, size), &matrix(rows, size), &[rows]));
        let [mut first, second] = made;
        first.cells.extend(second.cells);
        entries.push(first);
    };
    peers(&|w, x, rows| others::ndarray_floats(w, x, rows));
    peers(&|w, x, rows| others::gemm_floats(w, x, rows, options.threads));
    peers(&|w, _, rows| others::rten_integer(w, rows));
    Ok(Group {
        title: "small products".into(),
        columns: vec!["64x64^2".into(), "1x256^2".into()],
        entries,
    })
}
