//! GGUF files, good and hostile.

use std::io::Cursor;

use lowbit::{
    Error, Result,
    io::gguf::{Gguf, TensorType, Value},
};
use ndarray::array;
use proptest::prelude::*;

use super::gguf_file::{
    ARRAY, BOOL, GgufFile, STRING, U32, array as values, floats, small, string, tensor,
};

fn open(bytes: Vec<u8>) -> Result<Gguf> {
    Gguf::from_reader(Cursor::new(bytes))
}

/// Opens a file and reads all that it has.
fn read_all(bytes: Vec<u8>) -> Result<()> {
    let gguf = open(bytes)?;
    for (name, value) in gguf.metadata() {
        if let Some(array) = value.as_array() {
            assert_eq!(array.iter().count(), array.len());
        }
        // A NaN is not equal to itself.
        assert!(
            gguf.value(name) == Some(value)
                || value.as_f64().is_some()
                || value.as_array().is_some()
        );
    }
    for name in gguf.names() {
        let kind = gguf.tensor_type(name)?;
        assert_eq!(gguf.blocks(name)?.len(), kind.byte_len(&gguf.shape(name)?)?);
        match gguf.tensor(name) {
            Ok(tensor) => assert_eq!(tensor.shape(), gguf.shape(name)?),
            Err(Error::Unsupported { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[test]
fn a_file_is_read_as_it_was_written() {
    for version in [2, 3] {
        for alignment in [8, 32, 4096] {
            let mut file = small().with_u32("general.alignment", alignment);
            (file.version, file.alignment) = (version, alignment as usize);
            let gguf = open(file.bytes()).unwrap();
            assert_eq!(
                gguf.value("general.architecture"),
                Some(Value::String("llama"))
            );
            assert_eq!(gguf.value("half").unwrap().as_f64(), Some(0.5));
            assert_eq!(gguf.value("flag").unwrap().as_bool(), Some(true));
            assert_eq!(gguf.value("count").unwrap().as_u64(), Some(7));
            assert_eq!(gguf.value("coun"), None);
            let strings = gguf.value("strings").unwrap().as_array().unwrap();
            let strings: Vec<_> = strings.iter().filter_map(Value::as_str).collect();
            assert_eq!(strings, ["a", "", "ä"]);
            let numbers = gguf.value("numbers").unwrap().as_array().unwrap();
            assert_eq!(numbers.iter().filter_map(Value::as_u64).sum::<u64>(), 3);
            assert_eq!(gguf.metadata().count(), 8);

            let names: Vec<&str> = gguf.names().collect();
            assert_eq!(names, ["floats", "blocks", "scalar", "nothing"]);
            let expected = array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]].into_dyn();
            assert_eq!(gguf.tensor("floats").unwrap(), expected);
            assert_eq!(gguf.tensor_type("blocks").unwrap(), TensorType::Q4_0);
            let blocks = gguf.tensor("blocks").unwrap();
            assert_eq!(blocks.shape(), [2, 32]);
            assert_eq!((blocks[[1, 0]], blocks[[1, 31]]), (0.0, 1.0));
            assert_eq!(gguf.tensor("scalar").unwrap().shape(), [] as [usize; 0]);
            assert_eq!(gguf.tensor("nothing").unwrap().shape(), [3, 0]);
            assert!(matches!(
                gguf.tensor("none"),
                Err(Error::NoSuchTensor { .. })
            ));
        }
    }
}

#[test]
fn text_that_is_not_utf_8_is_given_as_bytes() {
    let mut bytes = string("x");
    bytes[8] = 0xff;
    let gguf = open(GgufFile::new().with("name", STRING, bytes).bytes()).unwrap();
    assert_eq!(gguf.value("name"), Some(Value::Bytes(&[0xff])));
}

#[test]
fn a_type_that_is_not_read_can_be_had_as_bytes() {
    let file = GgufFile::new().with_tensor(tensor("codebook", &[256], 16, vec![1; 66]));
    let gguf = open(file.bytes()).unwrap();
    assert_eq!(gguf.blocks("codebook").unwrap(), vec![1; 66]);
    assert!(matches!(
        gguf.tensor("codebook"),
        Err(Error::Unsupported { .. })
    ));
}

/// Files that must be refused, with a word of the reason.
fn hostile() -> Vec<(&'static str, GgufFile)> {
    let one = |extents: &[u64], kind| {
        GgufFile::new().with_tensor(tensor("t", extents, kind, vec![0; 64]))
    };
    let offset = |offset| {
        let mut file = one(&[4], 0);
        file.tensors[0].offset = Some(offset);
        file
    };
    let counts = |tensors, metadata| {
        let mut file = small();
        file.counts = Some((tensors, metadata));
        file
    };
    let version = |version| {
        let mut file = small();
        file.version = version;
        file
    };
    let long = |len: u64| [len.to_le_bytes().to_vec(), vec![b'x'; 8]].concat();
    let alignment =
        |kind, value: u32| small().with("general.alignment", kind, value.to_le_bytes().to_vec());
    vec![
        ("version", version(0)),
        ("version", version(1)),
        ("version", version(4)),
        ("big-endian", version(3_u32.swap_bytes())),
        ("number of tensors", counts(u64::MAX, 0)),
        ("number of tensors", counts(1 << 40, 0)),
        ("number of metadata", counts(0, u64::MAX)),
        ("number of metadata", counts(0, 1 << 62)),
        ("number of metadata", counts(0, 1 << 30)),
        ("bytes", counts(4, 8)),
        ("data within", one(&[1 << 20], 0)),
        ("counted", one(&[1 << 32, 1 << 32], 0)),
        ("counted", one(&[1 << 62, 4], 0)),
        ("counted", one(&[u64::MAX, 1], 0)),
        ("counted", one(&[1 << 62], 28)),
        ("counted", one(&[0, 1 << 32, 1 << 32], 0)),
        ("axes", one(&[1, 1, 1, 1, 1], 0)),
        ("whole blocks", one(&[33], 2)),
        ("whole blocks", one(&[], 2)),
        ("known type", one(&[1], 4)),
        ("known type", one(&[1], u32::MAX)),
        ("data within", offset(1 << 20)),
        ("data within", offset(64)),
        ("counted", offset(u64::MAX)),
        ("multiple of", offset(4)),
        (
            "overlap",
            one(&[16], 0).with_tensor({
                let mut other = tensor("u", &[1], 0, vec![]);
                other.offset = Some(32);
                other
            }),
        ),
        ("a name", GgufFile::new().with_text("", "x")),
        (
            "a name",
            GgufFile::new().with_tensor(tensor("", &[1], 0, floats(&[0.0]))),
        ),
        ("twice", small().with_u32("count", 8)),
        (
            "twice",
            small().with_tensor(tensor("blocks", &[1], 0, floats(&[0.0]))),
        ),
        ("type from", GgufFile::new().with("x", 13, vec![0; 8])),
        (
            "type from",
            GgufFile::new().with("x", ARRAY, values(99, 1, &[0; 8])),
        ),
        (
            "array of arrays",
            GgufFile::new().with("x", ARRAY, values(ARRAY, 1, &values(U32, 0, &[]))),
        ),
        ("0 or 1", GgufFile::new().with("x", BOOL, vec![2])),
        (
            "0 or 1",
            GgufFile::new().with("x", ARRAY, values(BOOL, 3, &[0, 1, 2])),
        ),
        (
            "at most",
            GgufFile::new().with("x", ARRAY, values(U32, 1 << 62, &[0; 8])),
        ),
        (
            "at most",
            GgufFile::new().with("x", ARRAY, values(STRING, u64::MAX, &[0; 8])),
        ),
        ("bytes", GgufFile::new().with("x", STRING, long(u64::MAX))),
        ("bytes", GgufFile::new().with("x", STRING, long(1 << 40))),
        ("power of two", alignment(U32, 0)),
        ("power of two", alignment(U32, 24)),
        ("power of two", alignment(5, 32)),
    ]
}

#[test]
fn hostile_files_are_refused_with_the_place_and_the_reason() {
    for (reason, file) in hostile() {
        let error = read_all(file.bytes()).unwrap_err();
        let Error::Format {
            offset: Some(offset),
            ..
        } = &error
        else {
            panic!("expected {reason}, got {error}");
        };
        assert!(
            error.to_string().contains(reason),
            "expected {reason}, got {error}"
        );
        assert!(*offset <= file.bytes().len() as u64);
    }
}

#[test]
fn names_in_errors_are_cut() {
    let long = "x".repeat(100_000);
    let file = GgufFile::new().with_tensor(tensor(&long, &[1 << 40], 0, vec![]));
    assert!(open(file.bytes()).unwrap_err().to_string().len() < 300);
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = small().bytes();
    read_all(bytes.clone()).unwrap();
    // What is last is a scalar; the tensor without elements takes nothing.
    let end = bytes.len();
    for len in 0..end {
        let error = read_all(bytes[..len].to_vec()).unwrap_err();
        assert!(
            matches!(error, Error::Format { .. }),
            "{len} bytes: {error}"
        );
    }
}

#[test]
fn every_byte_can_be_anything_without_a_panic() {
    let bytes = small().bytes();
    for place in 0..bytes.len() {
        for value in [
            0x00,
            0x01,
            0x7f,
            0x80,
            0xff,
            bytes[place] ^ 0x10,
            bytes[place].wrapping_add(1),
        ] {
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
    fn any_change_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 1..4),
    ) {
        let mut bytes = small().bytes();
        for (place, value) in changes {
            let place = place.index(bytes.len() - 8);
            bytes[place..place + 8].copy_from_slice(&value.to_le_bytes());
        }
        if let Err(error) = read_all(bytes) {
            let refused = matches!(error, Error::Format { .. });
            prop_assert!(refused, "{}", error);
        }
    }

    #[test]
    fn noise_after_the_magic_number_is_refused_or_read(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = [b"GGUF\x03\0\0\0".to_vec(), noise].concat();
        if let Err(error) = read_all(bytes) {
            let refused = matches!(error, Error::Format { .. });
            prop_assert!(refused, "{}", error);
        }
    }
}

#[test]
fn a_reader_that_fails_is_an_error_of_reading() {
    struct Broken;
    impl std::io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("broken"))
        }
    }
    impl std::io::Seek for Broken {
        fn seek(&mut self, _: std::io::SeekFrom) -> std::io::Result<u64> {
            Ok(1000)
        }
    }
    let error = Gguf::from_reader(Broken).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert!(matches!(Gguf::open("no/such/file"), Err(Error::Io { .. })));
}
