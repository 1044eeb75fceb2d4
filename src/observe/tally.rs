//! What observers keep: a state for each parameter, in a shape that the first batch fixes.

use ndarray::{ArrayViewD, CowArray, IxDyn};

use crate::{
    affine::extent,
    error::{Error, Result},
    groups::Groups,
    scheme::Granularity,
};

/// Elements of a group at most, over all batches and shards, so that counts are exact in f64 too.
/// No process observes as many, but merging doubles.
pub(super) const MOST_ELEMENTS: u64 = 1 << 53;

/// What a tally keeps for a parameter.
pub(super) trait State: Clone + Default {
    /// Elements taken into account.
    fn count(&self) -> u64;
}

/// A state for each parameter.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Tally<S> {
    granularity: Granularity,
    shape: Option<Vec<usize>>,
    states: Vec<S>,
}

/// A finite batch, its elements in row-major order.
pub(super) struct Batch<'a> {
    pub(super) groups: Groups,
    values: CowArray<'a, f32, IxDyn>,
}

impl Batch<'_> {
    pub(super) fn values(&self) -> &[f32] {
        self.values.as_slice().unwrap_or_default()
    }

    /// Calls `take` with the values of each run and the state of their parameter; at least one
    /// value each time.
    pub(super) fn for_each_state<S>(&self, states: &mut [S], take: impl Fn(&mut S, &[f32])) {
        for run in self.groups.runs(0..self.groups.len()) {
            let values = &self.values()[run.start..run.start + run.len];
            if run.each {
                for (state, value) in states[run.parameter..].iter_mut().zip(values) {
                    take(state, std::slice::from_ref(value));
                }
            } else {
                take(&mut states[run.parameter], values);
            }
        }
    }
}

impl<S: State> Tally<S> {
    pub(super) fn new(granularity: Granularity) -> Self {
        Self {
            granularity,
            shape: None,
            states: vec![],
        }
    }

    pub(super) fn granularity(&self) -> Granularity {
        self.granularity
    }

    pub(super) fn shape(&self) -> Option<&[usize]> {
        self.shape.as_deref()
    }

    pub(super) fn reset(&mut self) {
        *self = Self::new(self.granularity);
    }

    /// Checks a batch; one that is refused changes nothing.
    pub(super) fn admit<'a>(&self, batch: ArrayViewD<'a, f32>) -> Result<Batch<'a>> {
        let groups = Groups::new(batch.shape(), self.granularity)?;
        if let Some(shape) = &self.shape
            && !groups.has_parameter_shape(shape)
        {
            return Err(Error::ShapeMismatch {
                what: "parameters of the batch",
                expected: shape.clone(),
                got: groups.parameter_shape(),
            });
        }
        let values = if batch.is_standard_layout() {
            CowArray::from(batch)
        } else {
            CowArray::from(batch.as_standard_layout().into_owned())
        };
        let batch = Batch { groups, values };
        match extent(batch.values()) {
            (.., true) => Ok(batch),
            (.., false) => {
                let index = batch.values().iter().position(|x| !x.is_finite());
                let index = index.unwrap_or_default();
                Err(Error::NonFinite {
                    what: "batch",
                    expected: "finite numbers",
                    position: batch.groups.position(index),
                    value: batch.values()[index].into(),
                })
            }
        }
    }

    /// The states of the parameters of an admitted batch, in their order.
    pub(super) fn states_mut(&mut self, groups: &Groups) -> &mut [S] {
        if self.shape.is_none() {
            self.shape = Some(groups.parameter_shape());
            self.states = vec![S::default(); groups.parameters()];
        }
        &mut self.states
    }

    /// Calls `take` with the values of a batch and the state of their parameter; at least one value
    /// each time.
    pub(super) fn observe(
        &mut self,
        batch: ArrayViewD<'_, f32>,
        take: impl Fn(&mut S, &[f32]),
    ) -> Result<()> {
        let batch = self.admit(batch)?;
        batch.for_each_state(self.states_mut(&batch.groups), take);
        Ok(())
    }

    /// Takes into account what another tally has seen: calls `merge(ours, theirs)` for each
    /// parameter.
    pub(super) fn merge(&mut self, other: &Self, merge: impl Fn(&mut S, &S)) -> Result<()> {
        if self.granularity != other.granularity {
            return Err(Error::Mismatch {
                what: "granularity of the observers",
                expected: self.granularity.to_string(),
                got: other.granularity.to_string(),
            });
        }
        match (&self.shape, &other.shape) {
            (_, None) => {}
            (None, Some(_)) => self.clone_from(other),
            (Some(ours), Some(theirs)) if ours == theirs => {
                let pairs = self.states.iter().zip(&other.states);
                let counts = pairs.map(|(a, b)| a.count().saturating_add(b.count()));
                if let Some(count) = counts.max().filter(|&count| count > MOST_ELEMENTS) {
                    return Err(Error::TooLarge {
                        what: "elements of a group",
                        got: count.to_string(),
                    });
                }
                for (ours, theirs) in self.states.iter_mut().zip(&other.states) {
                    merge(ours, theirs);
                }
            }
            (Some(ours), Some(theirs)) => {
                return Err(Error::ShapeMismatch {
                    what: "parameters of the other observer",
                    expected: ours.clone(),
                    got: theirs.clone(),
                });
            }
        }
        Ok(())
    }

    /// The state of a parameter.
    pub(super) fn state(&self, parameter: usize) -> Result<&S> {
        self.states.get(parameter).ok_or_else(|| {
            Error::option(
                "parameter of the observer",
                format!("less than {}", self.states.len()),
                parameter,
            )
        })
    }

    pub(super) fn states(&self) -> &[S] {
        &self.states
    }

    /// Checks a tally that was stored; `is_valid` says whether a state can have come from values.
    #[cfg(feature = "serde")]
    pub(super) fn check(&self, is_valid: impl Fn(&S) -> bool) -> Result<()> {
        self.granularity.validate()?;
        let shape = self.shape.as_deref();
        let expected = match shape {
            None => 0,
            Some(shape) => crate::groups::element_count("parameters", shape)?,
        };
        if self.states.len() != expected {
            return Err(Error::ShapeMismatch {
                what: "states of the observer",
                expected: shape.unwrap_or(&[0]).to_vec(),
                got: vec![self.states.len()],
            });
        }
        let is_valid = |state: &S| state.count() <= MOST_ELEMENTS && is_valid(state);
        match self.states.iter().position(|state| !is_valid(state)) {
            None => Ok(()),
            Some(index) => Err(Error::Mismatch {
                what: "state of the observer",
                expected: "counts and sums that values can have".into(),
                got: format!("a state that contradicts itself, for parameter {index}"),
            }),
        }
    }
}

/// The other observer, where it is of this type.
pub(super) fn same_kind<O: super::Observer>(other: &dyn super::Observer) -> Result<&O> {
    let any: &dyn std::any::Any = other;
    any.downcast_ref().ok_or_else(|| Error::Mismatch {
        what: "observers to merge",
        expected: std::any::type_name::<O>().into(),
        got: format!("{other:?}").chars().take(60).collect(),
    })
}

/// The error of a parameter that has seen no element.
pub(super) fn nothing_seen(observer: &'static str) -> Error {
    Error::Empty {
        what: observer.into(),
    }
}
