//! Models in safetensors files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use lowbit::{
    Error,
    io::{self, Checkpoint, LlamaConfig, PackedLayout, RopeScaling, SafetensorsCheckpoint, packed},
};
use safetensors::{Dtype, tensor::TensorView};

/// A directory that is removed afterwards.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lowbit-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Self {
        fs::write(self.0.join(name), bytes).unwrap();
        self
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn file(names: &[&str]) -> Vec<u8> {
    let bytes = 1_f32.to_le_bytes();
    let view = || TensorView::new(Dtype::F32, vec![1], &bytes).unwrap();
    safetensors::serialize(names.iter().map(|name| (*name, view())), None).unwrap()
}

const CONFIG: &str = r#"{
    "model_type": "llama", "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 172,
    "num_hidden_layers": 5, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 512,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "head_dim": 8,
    "tie_word_embeddings": true
}"#;

/// The configuration with one value in another's place.
fn with(key: &str, value: &str) -> lowbit::Result<LlamaConfig> {
    let mut config: serde_json::Value = serde_json::from_str(CONFIG).unwrap();
    config[key] = serde_json::from_str(value).unwrap();
    LlamaConfig::from_json(config.to_string().as_bytes())
}

#[test]
fn a_real_model_is_read() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models/stories260K");
    if !directory.is_dir() {
        eprintln!("SKIPPED: {} is not there", directory.display());
        return;
    }
    let by_directory = io::open(&directory).unwrap();
    let by_file = io::open(directory.join("model.safetensors")).unwrap();
    assert_eq!(by_directory.config().unwrap(), by_file.config().unwrap());
    let config = by_directory.config().unwrap();
    assert_eq!(config, LlamaConfig::from_json(CONFIG.as_bytes()).unwrap());
    let parameters: usize = by_file
        .names()
        .iter()
        .map(|name| by_file.tensor(name).unwrap().len())
        .sum();
    assert_eq!(parameters, 260_032);
    let down = by_file
        .tensor("model.layers.4.mlp.down_proj.weight")
        .unwrap();
    assert_eq!(down.shape(), [config.hidden_size, config.intermediate_size]);
    let bytes = fs::read(directory.join("model.safetensors")).unwrap();
    let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let reference = reference
        .tensor("model.layers.4.mlp.down_proj.weight")
        .unwrap();
    let expected = reference
        .data()
        .as_chunks()
        .0
        .iter()
        .map(|&x| f32::from_le_bytes(x));
    assert!(down.iter().copied().eq(expected));
}

#[test]
fn a_model_in_several_files_is_one() {
    let directory = Directory::new("shards");
    let index = r#"{"metadata": {"total_size": 12}, "weight_map": {"a": "1.st", "b": "2.st", "c": "1.st"}}"#;
    directory
        .write("model.safetensors.index.json", index)
        .write("1.st", file(&["a", "c"]))
        .write("2.st", file(&["b"]));
    let model = SafetensorsCheckpoint::open(&directory.0).unwrap();
    assert_eq!(model.files().len(), 2);
    assert_eq!(model.names(), ["a", "c", "b"]);
    assert_eq!(io::open(&directory.0).unwrap().names().len(), 3);
    assert_eq!(model.tensor("b").unwrap()[0], 1.0);
    assert!(matches!(
        model.tensor("d"),
        Err(Error::NoSuchTensor { tensors: 3, .. })
    ));
    assert!(matches!(model.config(), Err(Error::Io { .. })));
}

#[test]
fn an_index_that_does_not_hold_is_refused() {
    let directory = Directory::new("bad-shards");
    directory
        .write("1.st", file(&["a", "b"]))
        .write("2.st", file(&["b"]));
    for (index, reason) in [
        (r#"[]"#, "JSON"),
        (r#"{}"#, "weight_map"),
        (
            r#"{"weight_map": {"a": "1.st"}, "weight_map": {}}"#,
            "twice",
        ),
        (r#"{"weight_map": "text"}"#, "a text"),
        (r#"{"weight_map": {"a": 1}}"#, "a text"),
        (r#"{"weight_map": {"a": "../1.st"}}"#, "beside the index"),
        (r#"{"weight_map": {"a": "/1.st"}}"#, "beside the index"),
        (r#"{"weight_map": {"a": ".."}}"#, "beside the index"),
        (r#"{"weight_map": {"a": ""}}"#, "beside the index"),
        (r#"{"weight_map": {"c": "1.st"}}"#, "a file without it"),
        (
            r#"{"weight_map": {"a": "1.st", "b": "2.st"}}"#,
            "share no tensor",
        ),
    ] {
        directory.write("model.safetensors.index.json", index);
        let error = io::open(&directory.0).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{index}: {error}");
        assert!(error.to_string().contains(reason), "{index}: {error}");
    }
    directory.write(
        "model.safetensors.index.json",
        r#"{"weight_map": {"a": "3.st"}}"#,
    );
    assert!(matches!(io::open(&directory.0), Err(Error::Io { .. })));
}

#[test]
fn a_path_without_a_model_is_refused() {
    let directory = Directory::new("empty");
    assert!(matches!(
        io::open(&directory.0),
        Err(Error::Unsupported { .. })
    ));
    assert!(matches!(
        io::open(directory.0.join("none")),
        Err(Error::Io { .. })
    ));
    assert!(matches!(
        lowbit::io::safetensors::Safetensors::open(&directory.0),
        Err(Error::Io { .. })
    ));
    directory
        .write("empty", "")
        .write("short", "ab")
        .write("text", "not a model, but a text");
    for file in ["empty", "short", "text"] {
        let error = io::open(directory.0.join(file)).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{file}: {error}");
    }
}

#[test]
fn values_that_are_left_out_have_their_defaults() {
    let mut config: serde_json::Value = serde_json::from_str(CONFIG).unwrap();
    let fields = config.as_object_mut().unwrap();
    for key in [
        "head_dim",
        "num_key_value_heads",
        "rope_theta",
        "tie_word_embeddings",
        "hidden_act",
    ] {
        fields.remove(key);
    }
    let config = LlamaConfig::from_json(config.to_string().as_bytes()).unwrap();
    assert_eq!((config.head_dim, config.num_key_value_heads), (8, 8));
    assert_eq!(
        (config.rope_theta, config.tie_word_embeddings),
        (10_000.0, false)
    );
}

#[test]
fn rotary_scaling_is_read_under_both_names() {
    let linear = with("rope_scaling", r#"{"type": "linear", "factor": 2}"#).unwrap();
    assert_eq!(
        linear.rope_scaling,
        Some(RopeScaling::Linear { factor: 2.0 })
    );
    let values = r#""rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192"#;
    let old = with("rope_scaling", &format!("{{{values}}}")).unwrap();
    let new = with(
        "rope_parameters",
        &format!("{{{values}, \"rope_theta\": 5e5}}"),
    )
    .unwrap();
    assert_eq!(old.rope_scaling, new.rope_scaling);
    assert!(matches!(
        old.rope_scaling,
        Some(RopeScaling::Llama3 { factor: 32.0, .. })
    ));
    assert_eq!((old.rope_theta, new.rope_theta), (1e4, 5e5));
    assert_eq!(with("rope_scaling", "null").unwrap().rope_scaling, None);
    let default = with(
        "rope_parameters",
        r#"{"rope_type": "default", "rope_theta": 1e6}"#,
    )
    .unwrap();
    assert_eq!((default.rope_scaling, default.rope_theta), (None, 1e6));
    let yarn = with("rope_scaling", r#"{"rope_type": "yarn", "factor": 2}"#);
    assert!(matches!(yarn, Err(Error::Unsupported { .. })));
    for bad in [
        "7",
        "\"linear\"",
        "{\"type\": \"linear\"}",
        "{\"type\": \"llama3\", \"factor\": 2}",
    ] {
        assert!(
            matches!(with("rope_scaling", bad), Err(Error::Format { .. })),
            "{bad}"
        );
    }
}

#[test]
fn values_that_cannot_be_are_refused() {
    for (key, values) in [
        (
            "hidden_size",
            &[
                "0",
                "-1",
                "1.5",
                "\"64\"",
                "null",
                "[64]",
                "2147483648",
                "1e30",
            ] as &[_],
        ),
        ("num_attention_heads", &["0", "3"]),
        ("num_key_value_heads", &["0", "3", "16"]),
        ("head_dim", &["0", "7"]),
        ("rms_norm_eps", &["0", "-1e-5", "1e-60", "null", "\"x\""]),
        ("rope_theta", &["0", "1e60", "true"]),
        ("tie_word_embeddings", &["1", "\"true\""]),
        ("model_type", &["7"]),
    ] {
        for value in values {
            let error = with(key, value).unwrap_err();
            assert!(
                matches!(error, Error::Format { .. }),
                "{key} {value}: {error}"
            );
        }
    }
    for (key, value) in [("model_type", "\"gpt2\""), ("hidden_act", "\"gelu\"")] {
        assert!(matches!(with(key, value), Err(Error::Unsupported { .. })));
    }
    let mut without_head_dim: serde_json::Value = serde_json::from_str(CONFIG).unwrap();
    without_head_dim["head_dim"] = serde_json::Value::Null;
    without_head_dim["num_attention_heads"] = 12.into();
    assert!(LlamaConfig::from_json(without_head_dim.to_string().as_bytes()).is_err());
}

#[test]
fn a_layout_is_read_from_the_configuration() {
    let read = |text: &str| {
        let json = format!("{{\"quantization_config\": {text}}}");
        PackedLayout::from_json(json.as_bytes())
    };
    let gptq = packed::Gptq::new(3, Some(128), packed::GptqVersion::V1).unwrap();
    assert_eq!(
        read(r#"{"quant_method": "gptq", "bits": 3, "group_size": 128}"#).unwrap(),
        Some(PackedLayout::Gptq(gptq))
    );
    let gptq = packed::Gptq::new(4, None, packed::GptqVersion::V2).unwrap();
    assert_eq!(
        read(r#"{"quant_method": "gptq", "bits": 4, "group_size": -1, "checkpoint_format": "gptq_v2"}"#)
            .unwrap(),
        Some(PackedLayout::Gptq(gptq))
    );
    let tensors = packed::CompressedTensors::new(6, Some(32)).unwrap();
    let groups =
        r#"{"group_0": {"weights": {"num_bits": 6, "group_size": 32, "strategy": "group"}}}"#;
    let text = format!(
        r#"{{"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {groups}}}"#
    );
    assert_eq!(
        read(&text).unwrap(),
        Some(PackedLayout::CompressedTensors(tensors))
    );
    assert_eq!(read("null").unwrap(), None);
    assert_eq!(PackedLayout::from_json(b"{}").unwrap(), None);
    for bad in [
        r#"{}"#,
        r#"{"quant_method": "fp8"}"#,
        r#"{"quant_method": "gptq"}"#,
        r#"{"quant_method": "gptq", "bits": 5, "group_size": 32}"#,
        r#"{"quant_method": "gptq", "bits": 4, "group_size": 0}"#,
        r#"{"quant_method": "gptq", "bits": 4, "group_size": -2}"#,
        r#"{"quant_method": "awq", "bits": 4, "group_size": -0.5}"#,
        r#"{"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "marlin"}"#,
        r#"{"quant_method": "awq", "bits": 3, "group_size": 32}"#,
        r#"{"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemv"}"#,
        r#"{"quant_method": "compressed-tensors", "format": "int-quantized"}"#,
        r#"{"quant_method": "compressed-tensors", "format": "pack-quantized"}"#,
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
}

#[test]
fn packed_layers_are_found_by_their_name() {
    let directory = Directory::new("packed");
    let words =
        |words: &[i32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_le_bytes()).collect() };
    let (weight, zeros) = (words(&[0x7654_3210]), words(&[7]));
    let (scale, groups) = (half::f16::from_f32(0.5).to_le_bytes(), words(&[0; 8]));
    let view =
        |dtype, shape: &[usize], bytes| TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
    let tensors = [
        ("x.qweight", view(Dtype::I32, &[1, 1], weight.as_slice())),
        ("x.qzeros", view(Dtype::I32, &[1, 1], &zeros)),
        ("x.scales", view(Dtype::F16, &[1, 1], &scale)),
        ("x.g_idx", view(Dtype::I32, &[8], &groups)),
        ("y.qweight", view(Dtype::I32, &[1], &weight)),
    ];
    directory
        .write(
            "model.safetensors",
            safetensors::serialize(tensors, None).unwrap(),
        )
        .write(
            "config.json",
            r#"{"quantization_config": {"quant_method": "gptq", "bits": 4}}"#,
        );
    let model = SafetensorsCheckpoint::open(&directory.0).unwrap();
    let layout = model.packed_layout().unwrap().unwrap();
    let weight = model.packed("x", &layout).unwrap().dequantize();
    assert_eq!(
        weight.into_raw_vec_and_offset().0,
        [-4.0, -3.5, -3.0, -2.5, -2.0, -1.5, -1.0, -0.5]
    );
    assert!(matches!(
        model.packed("y", &layout),
        Err(Error::Mismatch { .. })
    ));
    assert!(matches!(
        model.packed("z", &layout),
        Err(Error::NoSuchTensor { .. })
    ));
}
