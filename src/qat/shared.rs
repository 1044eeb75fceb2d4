//! A fake-quant that a layer shares with the graphs that go through it: what adapters for frameworks
//! have in common.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ndarray::{ArrayD, ArrayViewD};

use super::{FakeQuant, FakeQuantExt};
use crate::error::Result;

/// One fake-quant of all clones. What it learns belongs to the framework, and is set before each use.
#[derive(Debug, Clone)]
pub(crate) struct SharedFakeQuant(Arc<Mutex<Box<dyn FakeQuant>>>);

/// The gradients of a pass, in row-major order.
pub(crate) struct FlatGradients {
    pub(crate) input: Vec<f32>,
    /// Those of what is learned.
    pub(crate) learned: Vec<f32>,
}

impl SharedFakeQuant {
    pub(crate) fn new(fake: impl FakeQuant + 'static) -> Self {
        Self(Arc::new(Mutex::new(Box::new(fake))))
    }

    /// A panic elsewhere leaves a fake-quant whole: its parameters are set all at once, and set anew
    /// before each use.
    fn lock(&self) -> MutexGuard<'_, Box<dyn FakeQuant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `change` returns, and what is learned after it: brought back to where scales are positive.
    ///
    /// `change` runs with the fake-quant locked, so that it must not wait for one who waits for this.
    pub(crate) fn change<T>(
        &self,
        learned: &[f32],
        change: impl FnOnce(&mut dyn FakeQuant) -> Result<T>,
    ) -> Result<(T, Vec<f32>)> {
        let mut fake = self.lock();
        if !same_bits(&fake.parameters(), learned) {
            fake.set_parameters(learned)?;
        }
        Ok((change(&mut **fake)?, fake.parameters()))
    }

    /// The fake-quantized input in row-major order.
    pub(crate) fn forward(&self, learned: &[f32], input: &ArrayViewD<'_, f32>) -> Result<Vec<f32>> {
        let (output, _) = self.change(learned, |fake| fake.forward(input))?;
        Ok(row_major(output))
    }

    pub(crate) fn backward(
        &self,
        learned: &[f32],
        input: &ArrayViewD<'_, f32>,
        gradient: &ArrayViewD<'_, f32>,
    ) -> Result<FlatGradients> {
        let (gradients, _) = self.change(learned, |fake| {
            let gradients = fake.backward(input, gradient)?;
            let learned = if learned.is_empty() {
                vec![]
            } else {
                fake.parameter_gradients(&gradients.scale, &gradients.zero_point)?
            };
            Ok((gradients.input, learned))
        })?;
        Ok(FlatGradients {
            input: row_major(gradients.0),
            learned: gradients.1,
        })
    }
}

pub(crate) fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.iter()
        .map(|v| v.to_bits())
        .eq(b.iter().map(|v| v.to_bits()))
}

fn row_major(array: ArrayD<f32>) -> Vec<f32> {
    if !array.is_standard_layout() {
        return array.iter().copied().collect();
    }
    let len = array.len();
    match array.into_raw_vec_and_offset() {
        (values, None | Some(0)) if values.len() == len => values,
        (values, offset) => values
            .into_iter()
            .skip(offset.unwrap_or(0))
            .take(len)
            .collect(),
    }
}
