//! The same bits on any number of threads.

use lowbit::{Activations, Scheme};
use ndarray::{Array2, s};

use super::support::{Random, layers, tensor};

#[test]
#[cfg_attr(target_family = "wasm", ignore = "there is one thread")]
fn outputs_have_the_same_bits_on_any_number_of_threads() {
    let mut random = Random(31);
    let dynamic = Scheme::int(8).asymmetric().per_row().build().unwrap();
    // More rows than share a pass over the weights; more weights than one part takes.
    for (rows, outputs, depth) in [(500, 80, 200), (3, 2_000, 1_000)] {
        for bits in [3, 8] {
            let scheme = Scheme::int(bits).per_group(32).build().unwrap();
            let weights = tensor(scheme, (outputs, depth), &mut random);
            let x = Array2::from_shape_simple_fn((rows, depth), || random.float());
            for layer in layers(&weights, None) {
                let integer = layer
                    .clone()
                    .with_activations(Activations::Dynamic(dynamic));
                for layer in [layer, integer.unwrap()] {
                    let forward = |threads: usize| {
                        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                        pool.build().unwrap().install(|| layer.forward(&x).unwrap())
                    };
                    let one = forward(1);
                    let from = rows.saturating_sub(30);
                    let last = layer.forward(&x.slice(s![from.., ..])).unwrap();
                    assert_eq!(one.slice(s![from.., ..]), last, "{}", layer.kernel());
                    for threads in [2, 5] {
                        assert_eq!(forward(threads), one);
                    }
                }
            }
        }
    }
}
