//! What opening a file allocates: at most four times the file and a megabyte, whatever it says.
//!
//! One test only, as the allocator counts for the whole process.
#![cfg(all(feature = "gguf", feature = "safetensors"))]
#![expect(
    clippy::cast_possible_truncation,
    reason = "helpers of tests, with small numbers"
)]

#[path = "io/gguf_file.rs"]
mod gguf_file;

use std::io::Cursor;

use gguf_file::{ARRAY, BOOL, GgufFile, STRING, U32, array, small, string, tensor};
use lowbit::{
    Result,
    io::{LlamaConfig, PackedLayout, SafetensorsCheckpoint, gguf::Gguf, safetensors::Safetensors},
};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Bytes of the larger files.
const LARGE: usize = 2 << 20;

/// Runs `work` on a file and checks the most it had allocated at a time, beside the file.
fn within_limits<R>(
    what: &str,
    file: Vec<u8>,
    work: impl FnOnce(Vec<u8>) -> Result<R>,
) -> Result<R> {
    let (len, before) = (file.len(), MEMORY.current_usage());
    MEMORY.reset_peak_usage();
    let result = work(file);
    let peak = MEMORY.peak_usage() - before;
    let limit = 4 * len + (1 << 20);
    assert!(peak <= limit, "{what}: {peak} bytes for a file of {len}");
    result
}

fn gguf(file: Vec<u8>) -> Result<Gguf> {
    Gguf::from_reader(Cursor::new(file))
}

fn safetensors(file: Vec<u8>) -> Result<Safetensors> {
    Safetensors::from_reader(Cursor::new(file))
}

fn with_header(header: &str) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes
}

fn large_gguf_files() -> Vec<(&'static str, bool, GgufFile)> {
    let mut names = GgufFile::new();
    for index in 0..LARGE / 17 {
        names = names.with(&format!("{index:x}"), BOOL, vec![1]);
    }
    let mut tensors = GgufFile::new();
    for index in 0..LARGE / 36 {
        tensors = tensors.with_tensor(tensor(&format!("{index:x}"), &[0], 0, vec![]));
    }
    let mut outside = GgufFile::new();
    for index in 0..LARGE / 28 {
        let mut tensor = tensor(&format!("{index:x}"), &[], 0, vec![]);
        tensor.offset = Some(0);
        outside = outside.with_tensor(tensor);
    }
    let strings = array(STRING, (LARGE / 8) as u64, &vec![0; LARGE]);
    let flags = array(BOOL, LARGE as u64, &vec![1; LARGE]);
    let claims = |tensors, metadata| {
        let mut file = GgufFile::new().with(
            "numbers",
            ARRAY,
            array(U32, (LARGE / 4) as u64, &vec![0; LARGE]),
        );
        file.counts = Some((tensors, metadata));
        file
    };
    let long = "x".repeat(LARGE);
    // Escaped where it is shown.
    let combining = "\u{300}".repeat(LARGE / 2);
    vec![
        ("many names", true, names),
        ("many tensors", true, tensors),
        ("tensors outside the file", false, outside),
        (
            "empty strings",
            true,
            GgufFile::new().with("strings", ARRAY, strings),
        ),
        ("flags", true, GgufFile::new().with("flags", ARRAY, flags)),
        (
            "a long text",
            true,
            GgufFile::new().with("text", STRING, string(&long)),
        ),
        ("a long name", true, GgufFile::new().with_u32(&long, 1)),
        (
            "a long text as alignment",
            false,
            GgufFile::new().with_text("general.alignment", &combining),
        ),
        (
            "a long name twice",
            false,
            GgufFile::new().with_u32(&long, 1).with_u32(&long, 1),
        ),
        ("claimed metadata", false, claims(0, 145_000)),
        ("claimed tensors", false, claims(80_000, 1)),
        ("claims of everything", false, claims(u64::MAX, u64::MAX)),
    ]
}

fn large_headers() -> Vec<(&'static str, bool, String)> {
    let repeat = |text: &str| text.repeat(LARGE / text.len());
    let tensors = |entry: &dyn Fn(usize) -> String| {
        let entries: Vec<String> = (0..LARGE / 64).map(entry).collect();
        format!("{{{}}}", entries.join(","))
    };
    let empty = tensors(&|index| {
        format!(r#""{index:x}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#)
    });
    let axes = tensors(&|index| {
        format!(r#""{index:x}":{{"dtype":"U8","shape":[0,1,1,1,1,1,1,1],"data_offsets":[0,0]}}"#)
    });
    let twice = tensors(&|_| r#""a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#.into());
    // Escapes that grow when they are shown.
    let combining = repeat("\u{300}");
    vec![
        ("many tensors", true, empty),
        ("many axes", true, axes),
        ("one name", false, twice),
        (
            "metadata",
            true,
            format!(r#"{{"__metadata__":{{{}"a":""}}}}"#, repeat(r#""":"","#)),
        ),
        ("a long text", false, format!(r#"{{"a":"{combining}"}}"#)),
        ("a long name", false, format!(r#"{{"{combining}":1}}"#)),
        (
            "a long type",
            false,
            format!(r#"{{"a":{{"dtype":"{combining}"}}}}"#),
        ),
        (
            "a long key",
            false,
            format!(r#"{{"a":{{"{combining}":1}}}}"#),
        ),
        (
            "a long shape",
            false,
            format!(r#"{{"a":{{"shape":[{}1]}}}}"#, repeat("1,")),
        ),
        (
            "a text in a shape",
            false,
            format!(r#"{{"a":{{"shape":["{combining}"]}}}}"#),
        ),
        (
            "offsets",
            false,
            format!(r#"{{"a":{{"data_offsets":[{}1]}}}}"#, repeat("1,")),
        ),
        ("deep", false, repeat("{\"a\":")),
        ("brackets", false, repeat("[")),
    ]
}

fn large_documents() -> Vec<(&'static str, String)> {
    let repeat = |text: &str| text.repeat(LARGE / text.len());
    let combining = repeat("\u{300}");
    vec![
        ("a long text", format!(r#"{{"hidden_size":"{combining}"}}"#)),
        ("a long key", format!(r#"{{"{combining}":1}}"#)),
        ("many keys", format!(r#"{{{}"a":1}}"#, repeat(r#""a":1,"#))),
        (
            "a list",
            format!(r#"{{"hidden_size":[{}1]}}"#, repeat("1,")),
        ),
        ("a text for all", format!("\"{combining}\"")),
        ("deep", repeat("{\"rope_scaling\":")),
        (
            "many files",
            format!(r#"{{"weight_map":{{{}"a":""}}}}"#, repeat(r#""a":"b","#)),
        ),
        (
            "a long file name",
            format!(r#"{{"weight_map":{{"a":"{combining}"}}}}"#),
        ),
        (
            "a text as map",
            format!(r#"{{"weight_map":"{combining}"}}"#),
        ),
    ]
}

#[test]
fn opening_a_file_allocates_at_most_four_times_the_file_and_a_megabyte() {
    for (what, good, file) in large_gguf_files() {
        let bytes = file.bytes();
        drop(file);
        let result = within_limits(what, bytes, gguf);
        assert_eq!(result.is_ok(), good, "{what}: {:?}", result.err());
    }
    for (what, good, header) in large_headers() {
        let bytes = with_header(&header);
        drop(header);
        let result = within_limits(what, bytes, safetensors);
        assert_eq!(result.is_ok(), good, "{what}: {:?}", result.err());
    }
    let directory = std::env::temp_dir().join(format!("lowbit-memory-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    for (what, document) in large_documents() {
        let bytes = document.into_bytes();
        std::fs::write(directory.join("model.safetensors.index.json"), &bytes).unwrap();
        let open = |_| SafetensorsCheckpoint::open(&directory);
        within_limits(what, bytes.clone(), open).unwrap_err();
        let layout = |bytes: Vec<u8>| PackedLayout::from_json(&bytes);
        let _ = within_limits(what, bytes.clone(), layout);
        within_limits(what, bytes, |bytes| LlamaConfig::from_json(&bytes)).unwrap_err();
    }
    std::fs::remove_dir_all(&directory).unwrap();

    let text = "\u{300}".repeat(LARGE / 2);
    let file = GgufFile::new().with_text("general.architecture", &text);
    let config = |bytes| LlamaConfig::from_gguf(&gguf(bytes)?);
    within_limits("a long architecture", file.bytes(), config).unwrap_err();

    // Every number of a small file, as large as it can be.
    let bytes = small().bytes();
    for place in 0..bytes.len() - 8 {
        for value in [u64::MAX, 1 << 62, 1 << 40, 1 << 32, 1 << 31] {
            let mut changed = bytes.clone();
            changed[place..place + 8].copy_from_slice(&value.to_le_bytes());
            let read = |bytes| {
                let gguf = gguf(bytes)?;
                gguf.names()
                    .try_for_each(|name| gguf.tensor(name).map(drop))
            };
            let _ = within_limits("a changed file", changed, read);
        }
    }
}
