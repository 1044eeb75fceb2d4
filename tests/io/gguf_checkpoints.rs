//! Models in GGUF files under Hugging Face's names.

use std::io::Cursor;

use lowbit::{
    Error,
    io::{Checkpoint, GgufCheckpoint, LlamaConfig, RopeScaling, gguf::Gguf},
};
use ndarray::Array2;

use super::gguf_file::{F32, GgufFile, floats, tensor};

/// Two heads of four elements, one of them of keys, in a hidden size of 8.
fn model() -> GgufFile {
    let numbers = |count: usize| floats(&(0..count).map(|i| i as f32).collect::<Vec<_>>());
    GgufFile::new()
        .with_text("general.architecture", "llama")
        .with_u32("llama.block_count", 1)
        .with_u32("llama.context_length", 128)
        .with_u32("llama.embedding_length", 8)
        .with_u32("llama.feed_forward_length", 16)
        .with_u32("llama.attention.head_count", 2)
        .with_u32("llama.attention.head_count_kv", 1)
        .with(
            "llama.attention.layer_norm_rms_epsilon",
            F32,
            1e-5_f32.to_le_bytes().to_vec(),
        )
        .with_tensor(tensor("token_embd.weight", &[8, 10], 0, numbers(80)))
        .with_tensor(tensor("blk.0.attn_q.weight", &[8, 8], 0, numbers(64)))
        .with_tensor(tensor("blk.0.attn_k.weight", &[8, 4], 0, numbers(32)))
        .with_tensor(tensor("blk.0.attn_k.bias", &[4], 0, numbers(4)))
        .with_tensor(tensor("blk.0.attn_v.weight", &[8, 4], 0, numbers(32)))
        .with_tensor(tensor("something.else", &[2], 0, numbers(2)))
}

fn open(file: &GgufFile) -> GgufCheckpoint {
    GgufCheckpoint::new(Gguf::from_reader(Cursor::new(file.bytes())).unwrap())
}

#[test]
fn sizes_come_from_the_metadata_and_the_tensors() {
    let config = open(&model()).config().unwrap();
    assert_eq!((config.hidden_size, config.intermediate_size), (8, 16));
    assert_eq!(
        (config.num_attention_heads, config.num_key_value_heads),
        (2, 1)
    );
    assert_eq!((config.head_dim, config.num_hidden_layers), (4, 1));
    assert_eq!(
        (config.vocab_size, config.max_position_embeddings),
        (10, 128)
    );
    assert_eq!((config.rms_norm_eps, config.rope_theta), (1e-5, 10_000.0));
    assert_eq!(config.rope_scaling, None);
    assert!(config.tie_word_embeddings);
    assert!(!config.attention_bias && !config.mlp_bias);

    let file = model()
        .with("llama.rope.freq_base", F32, 5e5_f32.to_le_bytes().to_vec())
        .with(
            "llama.rope.scaling.factor",
            F32,
            4_f32.to_le_bytes().to_vec(),
        )
        .with_text("llama.rope.scaling.type", "linear")
        .with_tensor(tensor("output.weight", &[8, 10], 0, floats(&[0.0; 80])));
    let config = open(&file).config().unwrap();
    assert_eq!(config.rope_theta, 5e5);
    assert_eq!(
        config.rope_scaling,
        Some(RopeScaling::Linear { factor: 4.0 })
    );
    assert!(!config.tie_word_embeddings);
    let file = model().with_tensor(tensor("rope_freqs.weight", &[2], 0, floats(&[1.0, 8.0])));
    assert_eq!(
        open(&file).config().unwrap().rope_scaling,
        Some(RopeScaling::Tensor)
    );
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let change = |key: &str, value: u32| {
        let mut file = model();
        file.metadata.retain(|(name, ..)| name != key);
        file.with_u32(key, value)
    };
    for (key, value) in [
        ("llama.attention.head_count", 0),
        ("llama.attention.head_count", 3),
        ("llama.attention.head_count_kv", 3),
        ("llama.attention.head_count_kv", u32::MAX),
        ("llama.attention.key_length", 5),
        ("llama.embedding_length", 0),
        ("llama.block_count", 1 << 31),
        ("llama.rope.freq_base", 10_000),
        ("llama.attention.layer_norm_rms_epsilon", 1),
    ] {
        let error = open(&change(key, value)).config().unwrap_err();
        assert!(
            matches!(error, Error::Format { .. }),
            "{key} {value}: {error}"
        );
    }
    for key in [
        "llama.block_count",
        "llama.embedding_length",
        "llama.attention.layer_norm_rms_epsilon",
    ] {
        let mut file = model();
        file.metadata.retain(|(name, ..)| name != key);
        let error = open(&file).config().unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
    }
    for value in [f32::NAN, 0.0, -1.0, f32::INFINITY] {
        let file = model().with("llama.rope.freq_base", F32, value.to_le_bytes().to_vec());
        assert!(open(&file).config().is_err());
    }
    let mut file = model();
    file.metadata[0] = (
        "general.architecture".into(),
        super::gguf_file::STRING,
        super::gguf_file::string("qwen2"),
    );
    assert!(matches!(
        open(&file).config(),
        Err(Error::Unsupported { .. })
    ));
}

#[test]
fn query_rows_that_are_not_there_are_no_work_and_no_panic() {
    let of = |heads: u32, extents: &[u64], data: &[f32]| {
        let mut file = model();
        let name = "blk.0.attn_q.weight";
        file.tensors.retain(|tensor| tensor.name != name);
        for key in ["embedding_length", "attention.head_count"] {
            let key = format!("llama.{key}");
            file.metadata.retain(|(name, ..)| *name != key);
            file = file.with_u32(&key, heads);
        }
        let file = file
            .with_u32("llama.attention.key_length", 2)
            .with_tensor(tensor(name, extents, 0, floats(data)));
        open(&file).tensor(name)
    };
    assert_eq!(of((1 << 31) - 2, &[4, 0], &[]).unwrap().shape(), [0, 4]);
    let error = of(4, &[], &[1.0]).unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
}

#[test]
fn tensors_have_hugging_faces_names_and_rows() {
    let model = open(&model());
    assert_eq!(
        model.names(),
        [
            "model.embed_tokens.weight",
            "model.layers.0.self_attn.q_proj.weight",
            "model.layers.0.self_attn.k_proj.weight",
            "model.layers.0.self_attn.k_proj.bias",
            "model.layers.0.self_attn.v_proj.weight",
            "something.else",
        ]
    );
    for name in model.names() {
        assert!(model.contains(&name));
        assert_eq!(
            model.tensor(&name).unwrap().shape(),
            model.shape(&name).unwrap()
        );
    }
    let rows = |name: &str| -> Vec<usize> {
        let tensor = model.tensor(name).unwrap().into_dimensionality().unwrap();
        let tensor: Array2<f32> = tensor;
        tensor
            .column(0)
            .iter()
            .map(|&first| first as usize / 8)
            .collect()
    };
    assert_eq!(
        rows("model.layers.0.self_attn.q_proj.weight"),
        [0, 2, 1, 3, 4, 6, 5, 7]
    );
    assert_eq!(rows("model.layers.0.self_attn.k_proj.weight"), [0, 2, 1, 3]);
    assert_eq!(rows("model.layers.0.self_attn.v_proj.weight"), [0, 1, 2, 3]);
    let bias = model
        .tensor("model.layers.0.self_attn.k_proj.bias")
        .unwrap();
    assert_eq!(bias.into_raw_vec_and_offset().0, [0.0, 2.0, 1.0, 3.0]);
    assert!(matches!(
        model.tensor("lm_head.weight"),
        Err(Error::NoSuchTensor { .. })
    ));
    let config: LlamaConfig = model.config().unwrap();
    assert_eq!(config, LlamaConfig::from_gguf(model.gguf()).unwrap());
}
