//! Safetensors files, good and hostile.

use std::{collections::HashMap, io::Cursor};

use half::{bf16, f16};
use lowbit::{
    Error, Result,
    io::safetensors::{ElementType, Safetensors},
};
use ndarray::array;
use proptest::prelude::*;
use safetensors::{Dtype, tensor::TensorView};

fn open(bytes: Vec<u8>) -> Result<Safetensors> {
    Safetensors::from_reader(Cursor::new(bytes))
}

/// A file of a header and `data` bytes.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// A file that the reference implementation writes.
fn small() -> Vec<u8> {
    let floats = [1.0_f32, -2.5, 3.25, f32::MIN_POSITIVE, 0.0, -0.0];
    let single: Vec<u8> = floats.iter().flat_map(|x| x.to_le_bytes()).collect();
    let half: Vec<u8> = floats
        .iter()
        .flat_map(|&x| f16::from_f32(x).to_le_bytes())
        .collect();
    let brain: Vec<u8> = floats
        .iter()
        .flat_map(|&x| bf16::from_f32(x).to_le_bytes())
        .collect();
    let words: Vec<u8> = [-1_i32, 7].iter().flat_map(|x| x.to_le_bytes()).collect();
    let long: Vec<u8> = [5_i64, i64::MIN]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let view =
        |dtype, shape: &[usize], bytes| TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
    let tensors = [
        ("single", view(Dtype::F32, &[2, 3], &single)),
        ("half", view(Dtype::F16, &[3, 2], &half)),
        ("brain \"quoted\"", view(Dtype::BF16, &[6], &brain)),
        ("words", view(Dtype::I32, &[2], &words)),
        ("long", view(Dtype::I64, &[2, 1], &long)),
        ("scalar", view(Dtype::F32, &[], &single[..4])),
        ("nothing", view(Dtype::F32, &[0, 3], &[])),
    ];
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(tensors, Some(metadata)).unwrap()
}

fn read_all(bytes: Vec<u8>) -> Result<()> {
    let file = open(bytes)?;
    for name in file.names() {
        let elements: usize = file.shape(name)?.iter().product();
        assert_eq!(
            file.bytes(name)?.len() * 8,
            elements * file.element_type(name)?.bits()
        );
        let shapes = [
            file.tensor(name).map(|t| t.shape().to_vec()),
            file.integers(name).map(|t| t.shape().to_vec()),
        ];
        for shape in shapes {
            match shape {
                Ok(shape) => assert_eq!(shape, file.shape(name)?),
                Err(Error::Unsupported { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

#[test]
fn a_file_of_the_reference_implementation_is_read() {
    let file = open(small()).unwrap();
    assert_eq!(file.names().len(), 7);
    let expected = array![[1.0, -2.5, 3.25], [f32::MIN_POSITIVE, 0.0, -0.0]].into_dyn();
    assert_eq!(file.tensor("single").unwrap(), expected);
    let expected = array![[1.0, -2.5], [3.25, 0.0], [0.0, -0.0]].into_dyn();
    assert_eq!(file.tensor("half").unwrap(), expected);
    assert_eq!(
        file.element_type("brain \"quoted\"").unwrap(),
        ElementType::Bf16
    );
    assert_eq!(file.tensor("brain \"quoted\"").unwrap()[2], 3.25);
    assert_eq!(file.integers("words").unwrap(), array![-1, 7].into_dyn());
    assert_eq!(
        file.integers("long").unwrap(),
        array![[5], [i64::MIN]].into_dyn()
    );
    assert_eq!(file.tensor("scalar").unwrap().shape(), [] as [usize; 0]);
    assert_eq!(file.shape("nothing").unwrap(), [0, 3]);
    assert!(matches!(
        file.tensor("words"),
        Err(Error::Unsupported { .. })
    ));
    assert!(matches!(
        file.integers("single"),
        Err(Error::Unsupported { .. })
    ));
    assert!(matches!(
        file.tensor("none"),
        Err(Error::NoSuchTensor { .. })
    ));
}

#[test]
fn files_of_the_conformance_cases_are_read_as_the_reference_implementation_reads_them() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance");
    let Ok(entries) = std::fs::read_dir(&directory) else {
        eprintln!("SKIPPED: {} is not there", directory.display());
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_none_or(|extension| extension != "safetensors")
        {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let expected = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let file = Safetensors::open(&path).unwrap();
        assert_eq!(file.names().len(), expected.len());
        for (name, view) in expected.tensors() {
            assert_eq!(file.shape(&name).unwrap(), view.shape());
            assert_eq!(file.bytes(&name).unwrap(), view.data());
        }
    }
}

/// Headers that must be refused, the bytes of data beside them, and a word of the reason.
const HOSTILE: &[(&str, usize, &str)] = &[
    ("", 0, "JSON"),
    ("[]", 0, "JSON"),
    ("7", 0, "JSON"),
    ("\"text\"", 0, "a text"),
    ("{", 0, "JSON"),
    ("{} {}", 0, "JSON"),
    (r#"{"a":1}"#, 0, "object of dtype"),
    (r#"{"a":"text"}"#, 0, "a text"),
    (r#"{"a":{"dtype":"F32","shape":[1]}}"#, 0, "data_offsets"),
    (
        r#"{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}"#,
        4,
        "not known",
    ),
    (
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}"#,
        4,
        "not known",
    ),
    (
        r#"{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
        4,
        "twice",
    ),
    (
        r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#,
        4,
        "whole number",
    ),
    (
        r#"{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}"#,
        4,
        "whole number",
    ),
    (
        r#"{"a":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}}"#,
        4,
        "a text",
    ),
    (
        r#"{"a":{"dtype":"F32","shape":1,"data_offsets":[0,4]}}"#,
        4,
        "array",
    ),
    (
        r#"{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}"#,
        4,
        "at most 8",
    ),
    (
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}"#,
        4,
        "two numbers",
    ),
    (
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#,
        4,
        "bytes of tensor",
    ),
    (
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#,
        4,
        "bytes of tensor",
    ),
    (
        r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}"#,
        1,
        "bytes of tensor",
    ),
    (
        r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#,
        0,
        "bytes of tensor",
    ),
    (
        r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}}"#,
        0,
        "bytes of tensor",
    ),
    (
        r#"{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}}"#,
        0,
        "bytes of tensor",
    ),
    (
        r#"{"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}}"#,
        0,
        "bytes of tensor",
    ),
    (
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[18446744073709551614,18446744073709551615]}}"#,
        0,
        "bytes of tensor",
    ),
    (
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
        3,
        "within",
    ),
    (
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
        5,
        "as the tensors take",
    ),
    (
        r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#,
        3,
        "data from byte",
    ),
    (
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}"#,
        3,
        "data from byte",
    ),
    (
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
        2,
        "twice",
    ),
    (
        r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\u0061":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#,
        0,
        "twice",
    ),
];

#[test]
fn hostile_files_are_refused_with_the_place_and_the_reason() {
    for &(header, data, reason) in HOSTILE {
        let bytes = file(header, data);
        let error = read_all(bytes).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{header}: {error}");
        assert!(
            error.to_string().contains(reason),
            "{header}: expected {reason}, got {error}"
        );
        let is_json = serde_json::from_str::<serde_json::Value>(header).is_ok();
        let blamed = error.to_string().contains("well-formed JSON");
        assert!(!(is_json && blamed), "{header}: {error}");
    }
    for len in [u64::MAX, 1 << 63, 100_000_001, 3] {
        let bytes = [len.to_le_bytes().to_vec(), b"{}".to_vec()].concat();
        assert!(matches!(open(bytes), Err(Error::Format { .. })), "{len}");
    }
    let deep = format!("{{\"a\":{}", "[".repeat(1_000_000));
    assert!(matches!(open(file(&deep, 0)), Err(Error::Format { .. })));
    let deep = format!("{{\"__metadata__\":{}", "{\"a\":".repeat(1_000_000));
    assert!(matches!(open(file(&deep, 0)), Err(Error::Format { .. })));
}

#[test]
fn names_and_texts_in_errors_are_cut() {
    let long = "x".repeat(100_000);
    for header in [
        format!("{{\"{long}\":1}}"),
        format!("{{\"a\":\"{long}\"}}"),
        format!("{{\"a\":{{\"dtype\":\"{long}\"}}}}"),
        format!("{{\"a\":{{\"{long}\":1}}}}"),
        format!("{{\"{long}\":{{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,9]}}}}"),
        format!("\"{long}\""),
    ] {
        let error = open(file(&header, 0)).unwrap_err().to_string();
        assert!(error.len() < 400, "{}", error.len());
    }
}

#[test]
fn the_largest_integers_are_refused_and_not_wrapped() {
    let mut bytes = file(
        r#"{"a":{"dtype":"U64","shape":[1],"data_offsets":[0,8]}}"#,
        0,
    );
    bytes.extend(u64::MAX.to_le_bytes());
    let error = open(bytes).unwrap().integers("a").unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = small();
    read_all(bytes.clone()).unwrap();
    for len in 0..bytes.len() {
        let error = read_all(bytes[..len].to_vec()).unwrap_err();
        assert!(
            matches!(error, Error::Format { .. }),
            "{len} bytes: {error}"
        );
    }
}

#[test]
fn every_byte_can_be_anything_without_a_panic() {
    let bytes = small();
    for place in 0..bytes.len() {
        for value in [0x00, b'"', b'9', b'{', b'\\', 0x80, 0xff, bytes[place] ^ 1] {
            let mut changed = bytes.clone();
            changed[place] = value;
            if let Err(error) = read_all(changed) {
                assert!(
                    matches!(error, Error::Format { .. }),
                    "byte {place}: {error}"
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn what_is_read_is_what_the_reference_implementation_reads(
        changes in prop::collection::vec((any::<prop::sample::Index>(), "[ -~]"), 0..3),
    ) {
        let mut bytes = small();
        for (place, text) in changes {
            let place = place.index(bytes.len());
            bytes[place] = text.as_bytes()[0];
        }
        let reference = safetensors::SafeTensors::deserialize(&bytes);
        match open(bytes.clone()) {
            Err(error) => {
                let refused = matches!(error, Error::Format { .. });
                prop_assert!(refused, "{}", error);
            }
            Ok(file) => {
                // We demand no less.
                let reference = reference.unwrap();
                prop_assert_eq!(file.names().len(), reference.len());
                for name in file.names() {
                    prop_assert_eq!(file.bytes(name).unwrap(), reference.tensor(name).unwrap().data());
                }
            }
        }
    }
}
