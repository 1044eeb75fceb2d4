//! Layers as other programs pack them, against cases and against packing by hand.

use lowbit::{
    Error, Mapping, Result, ScaleKind,
    io::packed::{Awq, CompressedTensors, Gptq, GptqVersion, PackedWeight},
};
use ndarray::{Array1, Array2, array};
use safetensors::Dtype;

use super::cases::{self, Case, assert_same_bits};

/// A tensor of I32 with two axes.
fn words(case: &Case, name: &str) -> Array2<i32> {
    let (shape, dtype, bytes) = case.raw(name);
    assert_eq!(dtype, Dtype::I32);
    let words = bytes
        .as_chunks()
        .0
        .iter()
        .map(|&word| i32::from_le_bytes(word))
        .collect();
    Array2::from_shape_vec((shape[0], shape[1]), words).unwrap()
}

fn scales(case: &Case, name: &str) -> Array2<f32> {
    let (shape, floats) = case.floats(name);
    Array2::from_shape_vec((shape[0], shape[1]), floats).unwrap()
}

fn column_groups(case: &Case, name: &str) -> Option<Array1<i32>> {
    case.has(name).then(|| {
        let (_, _, bytes) = case.raw(name);
        bytes
            .as_chunks()
            .0
            .iter()
            .map(|&group| i32::from_le_bytes(group))
            .collect()
    })
}

/// A case of the operator `ReadPacked`.
fn read(case: &Case) -> Result<PackedWeight> {
    let bits = u32::try_from(case.attributes["bits"].as_u64().unwrap()).unwrap();
    // −1 is one group of all.
    let group_size = case.attributes["group_size"]
        .as_i64()
        .and_then(|size| usize::try_from(size).ok());
    match case.text("format") {
        format @ ("gptq" | "gptq_v2") => {
            let version = if format == "gptq" {
                GptqVersion::V1
            } else {
                GptqVersion::V2
            };
            Gptq::new(bits, group_size, version)?.read(
                &words(case, "qweight"),
                &words(case, "qzeros"),
                &scales(case, "scales"),
                column_groups(case, "g_idx").as_deref(),
            )
        }
        "awq" => {
            let zeros = case.has("qzeros").then(|| words(case, "qzeros"));
            Awq::new(group_size)?.read(
                &words(case, "qweight"),
                zeros.as_deref(),
                &scales(case, "scales"),
            )
        }
        "compressed-tensors" => {
            let (_, _, shape) = case.raw("weight_shape");
            let shape: Vec<usize> = shape
                .as_chunks()
                .0
                .iter()
                .map(|&s| i64::from_le_bytes(s) as usize)
                .collect();
            let zeros = case
                .has("weight_zero_point")
                .then(|| words(case, "weight_zero_point"));
            CompressedTensors::new(bits, group_size)?.read(
                &words(case, "weight_packed"),
                &scales(case, "weight_scale"),
                zeros.as_deref(),
                [shape[0], shape[1]],
                column_groups(case, "weight_g_idx").as_deref(),
            )
        }
        other => panic!("format {other}"),
    }
}

#[test]
fn layers_are_read_as_the_programs_that_pack_them_mean_them() {
    for (name, case) in cases::of("ReadPacked") {
        let weight = read(&case).unwrap();
        let (shape, expected) = case.floats("expected.weight");
        let got = weight.dequantize();
        assert_eq!(got.shape(), shape);
        let got: Vec<f32> = got.iter().copied().collect();
        assert_same_bits(&name, &expected, &got);
        // The tensor is the weight with its columns in the order given.
        let tensor = weight.tensor().dequantize::<f32>();
        for (at, &value) in tensor.indexed_iter() {
            let column = weight.order().map_or(at[1], |order| order[at[1]]);
            assert_eq!(value, expected[at[0] * shape[1] + column], "{name} {at:?}");
        }
        assert_eq!(
            weight.order().is_some(),
            case.attributes["desc_act"] == true
        );
        assert_eq!(weight.tensor().scheme().scale_kind(), ScaleKind::F16);
    }
}

/// Codes packed one after the other.
fn pack(codes: &[u32], bits: usize) -> Vec<i32> {
    let mut words = vec![0_u32; (codes.len() * bits).div_ceil(32)];
    for (index, code) in codes.iter().enumerate() {
        for bit in 0..bits {
            let at = index * bits + bit;
            words[at / 32] |= (code >> bit & 1) << (at % 32);
        }
    }
    words.into_iter().map(u32::cast_signed).collect()
}

#[test]
fn gptq_with_a_short_last_group_and_an_order() {
    for bits in [2_usize, 3, 4, 8] {
        let (inputs, outputs, size) = (96, 32, 40);
        let most = (1_u32 << bits) - 1;
        let code = |o: usize, i: usize| (o * 7 + i * 13 + i * i) as u32 & most;
        // Input i has the place 35·i mod 96 in the order in which it was quantized.
        let group = |i: usize| (i * 35 % 96) / size;
        let scale = |o: usize, g: usize| (1 + o + 3 * g) as f32 * 2f32.powi(-20);
        let zero = |o: usize, g: usize| (o * 5 + g) as u32 & most;
        let columns: Vec<Vec<i32>> = (0..outputs)
            .map(|o| pack(&(0..inputs).map(|i| code(o, i)).collect::<Vec<_>>(), bits))
            .collect();
        let qweight = Array2::from_shape_fn((columns[0].len(), outputs), |(w, o)| columns[o][w]);
        let stored = |o, g| zero(o, g).wrapping_sub(1) & most;
        let rows: Vec<Vec<i32>> = (0..3)
            .map(|g| {
                pack(
                    &(0..outputs).map(|o| stored(o, g)).collect::<Vec<_>>(),
                    bits,
                )
            })
            .collect();
        let qzeros = Array2::from_shape_fn((3, rows[0].len()), |(g, w)| rows[g][w]);
        let scales = Array2::from_shape_fn((3, outputs), |(g, o)| scale(o, g));
        let g_idx = Array1::from_shape_fn(inputs, |i| group(i) as i32);
        let layout = Gptq::new(bits as u32, Some(size), GptqVersion::V1).unwrap();
        let weight = layout
            .read(&qweight, &qzeros, &scales, Some(&g_idx))
            .unwrap();
        for ((o, i), &got) in weight.dequantize().indexed_iter() {
            let g = group(i);
            let expected = (code(o, i) as f32 - zero(o, g) as f32) * scale(o, g);
            assert_eq!(got, expected, "{bits} bits, [{o}, {i}]");
        }
        // Below the least normal f16.
        assert_eq!(weight.tensor().scheme().scale_kind(), ScaleKind::F32);

        let uneven = Array1::from_elem(inputs, 0);
        let error = layout
            .read(&qweight, &qzeros, &scales, Some(&uneven))
            .unwrap_err();
        assert!(matches!(error, Error::Mismatch { .. }), "{error}");
        for bad in [-1, 3, i32::MIN, i32::MAX] {
            let mut groups = g_idx.clone();
            groups[5] = bad;
            assert!(
                layout
                    .read(&qweight, &qzeros, &scales, Some(&groups))
                    .is_err()
            );
        }
    }
}

#[test]
fn compressed_tensors_of_old_and_new_releases() {
    for bits in 2..=8_usize {
        let (outputs, inputs, size) = (13, 116, 16);
        let code = |o: usize, i: usize| (o * 11 + i * 5) as u32 & ((1 << bits) - 1);
        let whole = |codes: &[u32]| -> Vec<i32> {
            let word = |codes: &[u32]| {
                codes
                    .iter()
                    .rev()
                    .fold(0_u32, |word, code| word << bits | code)
                    .cast_signed()
            };
            codes.chunks(32 / bits).map(word).collect()
        };
        let half = 1_i32 << (bits - 1);
        let scale = Array2::from_shape_fn((outputs, 8), |(o, g)| (1 + o + g) as f32);
        let layout = CompressedTensors::new(bits as u32, Some(size)).unwrap();
        for old in [false, true] {
            let lay = |codes: &[u32]| if old { whole(codes) } else { pack(codes, bits) };
            let rows: Vec<Vec<i32>> = (0..outputs)
                .map(|o| lay(&(0..inputs).map(|i| code(o, i)).collect::<Vec<_>>()))
                .collect();
            let packed = Array2::from_shape_fn((outputs, rows[0].len()), |(o, w)| rows[o][w]);
            let zeros: Vec<Vec<i32>> = (0..8)
                .map(|g| lay(&(0..outputs).map(|o| code(o + 1, g)).collect::<Vec<_>>()))
                .collect();
            let zeros = Array2::from_shape_fn((zeros[0].len(), 8), |(w, g)| zeros[g][w]);
            let unordered = Array1::from_elem(inputs, -1);
            for zero_point in [None, Some(&*zeros)] {
                let shape = [outputs, inputs];
                let weight = layout
                    .read(&packed, &scale, zero_point, shape, Some(&unordered))
                    .unwrap();
                let symmetric = weight.tensor().scheme().mapping() == Mapping::Symmetric;
                assert_eq!(symmetric, zero_point.is_none());
                for ((o, i), &got) in weight.dequantize().indexed_iter() {
                    let g = i / size;
                    let zero = zero_point.map_or(half, |_| code(o + 1, g) as i32);
                    let expected = (code(o, i) as i32 - zero) as f32 * (1 + o + g) as f32;
                    assert_eq!(got, expected, "{bits} bits, old {old}, [{o}, {i}]");
                }
            }
        }
    }
}

#[test]
fn one_group_of_all_is_one_scale_a_row() {
    let layout = Awq::new(None).unwrap();
    let qweight = Array2::from_elem((5, 2), 0x7654_3210);
    let weight = layout.read(&qweight, None, &Array2::ones((1, 16))).unwrap();
    assert_eq!(weight.tensor().affine().shape(), [16]);
    assert_eq!(weight.dequantize().dim(), (16, 5));
}

#[test]
fn layers_that_do_not_fit_together_are_refused() {
    assert!(Gptq::new(5, None, GptqVersion::V1).is_err());
    assert!(Gptq::new(0, None, GptqVersion::V1).is_err());
    assert!(Gptq::new(4, Some(0), GptqVersion::V1).is_err());
    assert!(CompressedTensors::new(1, None).is_err());
    assert!(CompressedTensors::new(9, None).is_err());
    assert!(Awq::new(Some(0)).is_err());

    let gptq = Gptq::new(4, Some(8), GptqVersion::V2).unwrap();
    let ints = |rows, columns| Array2::<i32>::zeros((rows, columns));
    let ones = |rows, columns| Array2::<f32>::ones((rows, columns));
    assert!(
        gptq.read(&ints(2, 8), &ints(2, 1), &ones(2, 8), None)
            .is_ok()
    );
    assert!(
        gptq.read(&ints(2, 8), &ints(1, 1), &ones(2, 8), None)
            .is_err()
    );
    assert!(
        gptq.read(&ints(2, 8), &ints(2, 2), &ones(2, 8), None)
            .is_err()
    );
    assert!(
        gptq.read(&ints(2, 8), &ints(2, 1), &ones(8, 2), None)
            .is_err()
    );
    assert!(
        gptq.read(
            &ints(2, 8),
            &ints(2, 1),
            &ones(2, 8),
            Some(&Array1::zeros(15))
        )
        .is_err()
    );
    assert!(
        gptq.read(&ints(2, 8), &ints(2, 1), &(ones(2, 8) * 0.0), None)
            .is_err()
    );
    assert!(
        gptq.read(&ints(2, 8), &ints(2, 1), &(ones(2, 8) * f32::NAN), None)
            .is_err()
    );
    let three = Gptq::new(3, Some(8), GptqVersion::V2).unwrap();
    assert!(
        three
            .read(&ints(2, 8), &ints(2, 1), &ones(2, 8), None)
            .is_err()
    );
    for (rows, columns) in [
        (0, 8),
        (8, 0),
        (0, 0),
        (usize::MAX >> 4, 0),
        (0, usize::MAX >> 4),
        (usize::MAX >> 2, 0),
    ] {
        assert!(
            gptq.read(&ints(rows, columns), &ints(0, 0), &ones(0, 0), None)
                .is_err()
        );
        let awq = Awq::new(Some(8)).unwrap();
        assert!(awq.read(&ints(rows, columns), None, &ones(0, 0)).is_err());
    }

    let tensors = CompressedTensors::new(4, Some(8)).unwrap();
    let read = |packed: &Array2<i32>, scale: &Array2<f32>, shape| {
        tensors.read(packed, scale, None, shape, None)
    };
    assert!(read(&ints(2, 2), &ones(2, 2), [2, 16]).is_ok());
    assert!(read(&ints(2, 2), &ones(2, 2), [2, 17]).is_err());
    assert!(read(&ints(2, 2), &ones(2, 3), [2, 17]).is_err());
    assert!(read(&ints(2, 2), &ones(2, 2), [3, 16]).is_err());
    for shape in [
        [0, 16],
        [2, 0],
        [usize::MAX, usize::MAX],
        [2, usize::MAX],
        [1 << (usize::BITS / 2); 2],
    ] {
        assert!(read(&ints(2, 2), &ones(2, 2), shape).is_err(), "{shape:?}");
    }
    let zeros = array![[0, 0], [0, 0]];
    assert!(
        tensors
            .read(&ints(2, 2), &ones(2, 2), Some(&zeros), [2, 16], None)
            .is_err()
    );
    let g_idx = Array1::zeros(15);
    assert!(
        tensors
            .read(&ints(2, 2), &ones(2, 2), None, [2, 16], Some(&g_idx))
            .is_err()
    );
}
