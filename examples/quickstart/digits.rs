//! Handwritten digits, seeded random numbers and the Adam optimizer: nothing about quantization.

use ndarray::{Array2, Axis};

/// Images, a row of 64 pixels each, and their labels.
pub struct Digits {
    pub images: Array2<f32>,
    pub labels: Vec<usize>,
}

impl Digits {
    /// The 1,797 images that ship with the example; pixels from −0.5 to 0.5.
    pub fn load() -> Self {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        let text = include_str!("../data/digits.txt");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (image, label) = line.split_once(' ').expect("an image and a label");
            pixels.extend(image.chars().map(|pixel| {
                pixel.to_digit(17).expect("a pixel from 0 to 16") as f32 / 16.0 - 0.5
            }));
            labels.push(label.parse().expect("a label"));
        }
        let images = Array2::from_shape_vec((labels.len(), 64), pixels).expect("64 pixels a line");
        Self { images, labels }
    }

    pub fn select(&self, rows: &[usize]) -> Self {
        Self {
            images: self.images.select(Axis(0), rows),
            labels: rows.iter().map(|&row| self.labels[row]).collect(),
        }
    }

    pub fn len(&self) -> usize {
        self.labels.len()
    }
}

/// Splitmix64.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In [−1, 1).
    pub fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    }

    pub fn shuffled(&mut self, len: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        for last in (1..len).rev() {
            order.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
        order
    }
}

/// Adam (Kingma and Ba 2015, arXiv:1412.6980), for one group of parameters.
#[derive(Clone, Default)]
pub struct Adam {
    moments: Vec<(f32, f32)>,
    steps: i32,
}

impl Adam {
    pub fn step<'a>(
        &mut self,
        parameters: impl IntoIterator<Item = &'a mut f32>,
        gradients: &[f32],
        rate: f32,
    ) {
        self.moments.resize(gradients.len(), (0.0, 0.0));
        self.steps += 1;
        let unbias = 1.0 - 0.9_f32.powi(self.steps);
        let unbias_square = 1.0 - 0.999_f32.powi(self.steps);
        for (((m, v), parameter), &g) in self.moments.iter_mut().zip(parameters).zip(gradients) {
            *m += 0.1 * (g - *m);
            *v += 0.001 * (g * g - *v);
            *parameter -= rate * (*m / unbias) / ((*v / unbias_square).sqrt() + 1e-8);
        }
    }
}
