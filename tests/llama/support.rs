//! A tiny model in a file, and its oracle.

use std::{cell::Cell, collections::BTreeMap};

use lowbit::{Result, io};
use ndarray::{Array1, Array2, ArrayD};
use safetensors::tensor::{Dtype, TensorView};

use crate::{
    llama::{LAYERS, Llama},
    oracle::{Oracle, OracleBlock},
};

const VOCABULARY: usize = 11;
const BLOCKS: usize = 2;

#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub heads: usize,
    pub key_heads: usize,
    pub head: usize,
    pub hidden: usize,
    pub inner: usize,
    /// Whether attention has biases.
    pub bias: bool,
    /// Whether the head is the embedding.
    pub tied: bool,
}

/// A model of some size with weights that look random.
pub fn tiny(shape: Shape) -> (Llama, Oracle) {
    let (tensors, oracle) = parts(shape);
    (read(shape, &tensors).unwrap(), oracle)
}

/// The tensors of one shape, read with the configuration of another.
pub fn claimed(shape: Shape, claims: Shape) -> Result<Llama> {
    read(claims, &parts(shape).0)
}

fn parts(shape: Shape) -> (BTreeMap<String, ArrayD<f32>>, Oracle) {
    let Shape {
        heads,
        key_heads,
        head,
        hidden,
        inner,
        bias,
        tied,
    } = shape;
    let mut tensors: BTreeMap<String, ArrayD<f32>> = BTreeMap::new();
    let state = Cell::new(1_u64);
    let random = || {
        state.set(
            state
                .get()
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1),
        );
        (state.get() >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut matrix = |name: String, out: usize, inputs: usize, by: f32| {
        let matrix = Array2::from_shape_simple_fn((out, inputs), || by * random());
        tensors.insert(name, matrix.clone().into_dyn());
        matrix.mapv(f64::from)
    };
    let embedding = matrix("model.embed_tokens.weight".into(), VOCABULARY, hidden, 1.0);
    let own_head = (!tied).then(|| matrix("lm_head.weight".into(), VOCABULARY, hidden, 1.0));
    let shapes = [
        (heads * head, hidden),
        (key_heads * head, hidden),
        (key_heads * head, hidden),
        (hidden, heads * head),
        (inner, hidden),
        (inner, hidden),
        (hidden, inner),
    ];
    let mut blocks = Vec::new();
    for block in 0..BLOCKS {
        let name = |part: &str| format!("model.layers.{block}.{part}");
        let weights = LAYERS.iter().zip(shapes).map(|(layer, (out, inputs))| {
            matrix(name(&format!("{layer}.weight")), out, inputs, 0.4)
        });
        blocks.push(OracleBlock {
            weights: weights.collect(),
            norms: [Array1::zeros(0), Array1::zeros(0)],
            biases: vec![None; LAYERS.len()],
        });
    }
    let mut vector = |name: String, len: usize, around: f32| {
        let vector = Array1::from_shape_simple_fn(len, || around + 0.3 * random());
        tensors.insert(name, vector.clone().into_dyn());
        vector.mapv(f64::from)
    };
    for (index, block) in blocks.iter_mut().enumerate() {
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let norms = ["input_layernorm.weight", "post_attention_layernorm.weight"];
        block.norms = norms.map(|norm| vector(name(norm), hidden, 1.0));
        if bias {
            for layer in 0..4 {
                let bias = name(&format!("{}.bias", LAYERS[layer]));
                block.biases[layer] = Some(vector(bias, shapes[layer].0, 0.0));
            }
        }
    }
    let norm = vector("model.norm.weight".into(), hidden, 1.0);
    let oracle = Oracle {
        shape,
        embedding,
        head: own_head,
        blocks,
        norm,
        shift: Vec::new(),
    };
    (tensors, oracle)
}

/// The model, through the files that users have.
fn read(shape: Shape, tensors: &BTreeMap<String, ArrayD<f32>>) -> Result<Llama> {
    let Shape {
        heads,
        key_heads,
        head,
        hidden,
        inner,
        bias,
        tied,
    } = shape;
    let bytes: BTreeMap<&String, Vec<u8>> = tensors
        .iter()
        .map(|(name, tensor)| (name, tensor.iter().flat_map(|x| x.to_le_bytes()).collect()))
        .collect();
    let views = tensors.iter().map(|(name, tensor)| {
        let view = TensorView::new(Dtype::F32, tensor.shape().to_vec(), &bytes[name]);
        (name.clone(), view.unwrap())
    });
    let config = format!(
        r#"{{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
        "hidden_size": {hidden}, "intermediate_size": {inner}, "num_hidden_layers": {BLOCKS},
        "num_attention_heads": {heads}, "num_key_value_heads": {key_heads}, "head_dim": {head},
        "vocab_size": {VOCABULARY}, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": {tied}, "attention_bias": {bias}}}"#
    );
    let unique = format!(
        "lowbit-llama-{}-{:?}-{hidden}",
        std::process::id(),
        std::thread::current().id()
    );
    let directory = std::env::temp_dir().join(unique);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("config.json"), config).unwrap();
    let file = safetensors::serialize(views, None).unwrap();
    std::fs::write(directory.join("model.safetensors"), file).unwrap();
    let model = Llama::read(&*io::open(&directory).unwrap());
    std::fs::remove_dir_all(&directory).unwrap();
    model
}
