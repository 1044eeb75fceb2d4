//! The methods of the crate, made into quantizers of one layer.

use lowbit::{
    Affine, Granularity, Result, Scheme,
    calibrate::{MeanSquaredError, ranges_of},
    prelude::*,
    qat::{
        BitNet, Clipped, Dorefa, ElasticBits, Ends, Ewgs, FixedParameters, LearnedFakeQuant, Lsq,
        Pact, Plain, Proximal, ProximalFakeQuant, ProximalMap, StepAndOffset, StepSize,
        StretchedElastic, Threshold, TrustMask,
    },
};
use ndarray::Array2;

/// Bits of weights.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    Four,
    Three,
    Two,
    Ternary,
}

impl Bits {
    pub const ALL: [Self; 4] = [Self::Four, Self::Three, Self::Two, Self::Ternary];

    pub fn name(self) -> &'static str {
        match self {
            Self::Four => "4 bits",
            Self::Three => "3 bits",
            Self::Two => "2 bits",
            Self::Ternary => "ternary",
        }
    }

    fn count(self) -> u32 {
        match self {
            Self::Four => 4,
            Self::Three => 3,
            Self::Two | Self::Ternary => 2,
        }
    }
}

/// A scale for each output channel.
const CHANNELS: Granularity = Granularity::PerAxis(0);

/// How weights are quantized.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum WeightMethod {
    Rounded,
    Clipped,
    Plain,
    Ewgs,
    Lsq,
    LsqPlus,
    Ranges,
    Dorefa,
    Trust,
    Elastic,
    BitNet,
    BinaryRelax,
    Parq,
}

impl WeightMethod {
    pub const ALL: [Self; 13] = [
        Self::Rounded,
        Self::Clipped,
        Self::Plain,
        Self::Ewgs,
        Self::Lsq,
        Self::LsqPlus,
        Self::Ranges,
        Self::Dorefa,
        Self::Trust,
        Self::Elastic,
        Self::BitNet,
        Self::BinaryRelax,
        Self::Parq,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Rounded => "rounded, not trained",
            Self::Clipped => "clipped STE",
            Self::Plain => "plain STE",
            Self::Ewgs => "EWGS",
            Self::Lsq => "LSQ",
            Self::LsqPlus => "LSQ+",
            Self::Ranges => "learned ranges",
            Self::Dorefa => "DoReFa",
            Self::Trust => "QuEST trust mask",
            Self::Elastic => "ParetoQ elastic",
            Self::BitNet => "BitNet b1.58",
            Self::BinaryRelax => "BinaryRelax",
            Self::Parq => "PARQ",
        }
    }

    /// Whether the method has such bits.
    pub fn has(self, bits: Bits) -> bool {
        match self {
            Self::Elastic => matches!(bits, Bits::Two | Bits::Ternary),
            Self::BitNet => bits == Bits::Ternary,
            // Grids of an even number of levels.
            Self::Dorefa | Self::Trust => bits != Bits::Ternary,
            _ => true,
        }
    }

    pub fn trains(self) -> bool {
        self != Self::Rounded
    }

    fn scheme(self, bits: Bits) -> Result<Scheme> {
        let builder = Scheme::int(bits.count()).granularity(CHANNELS);
        let builder = match bits {
            Bits::Ternary => builder.narrow_range(),
            _ => builder,
        };
        match self {
            Self::LsqPlus => builder.asymmetric_float().build(),
            Self::Ranges => builder.asymmetric().build(),
            _ => builder.build(),
        }
    }

    /// The quantizer of these weights, for a training of so many steps.
    pub fn fake(self, weights: &Array2<f32>, bits: Bits, steps: u64) -> Result<Box<dyn FakeQuant>> {
        let scheme = self.scheme(bits)?;
        let ranges = ranges_of(&MeanSquaredError::default(), weights, &scheme, None)?;
        let start = Affine::from_ranges(&scheme, &ranges)?;
        let proximal = |map| -> Result<Box<dyn FakeQuant>> {
            let hardening = Proximal::new(map, steps / 10, steps * 8 / 10)?;
            let ranges = MeanSquaredError::default();
            Ok(Box::new(ProximalFakeQuant::new(scheme, hardening, ranges)))
        };
        Ok(match self {
            Self::Rounded | Self::Clipped => {
                Box::new(LearnedFakeQuant::new(start, FixedParameters, Clipped)?)
            }
            Self::Plain => Box::new(LearnedFakeQuant::new(start, FixedParameters, Plain)?),
            Self::Ewgs => Box::new(LearnedFakeQuant::new(start, StepSize, Ewgs::new(0.2)?)?),
            Self::Lsq => Box::new(LearnedFakeQuant::new(start, StepSize, Lsq)?),
            Self::LsqPlus => Box::new(LearnedFakeQuant::new(start, StepAndOffset, Lsq)?),
            Self::Ranges => Box::new(LearnedFakeQuant::new(start, Ends, Lsq)?),
            Self::Dorefa => Box::new(Dorefa::fitted(bits.count(), weights, CHANNELS)?),
            Self::Trust => Box::new(TrustMask::fake_quant(bits.count(), CHANNELS)?),
            Self::Elastic => {
                let bits = match bits {
                    Bits::Ternary => ElasticBits::Ternary,
                    _ => ElasticBits::Two,
                };
                Box::new(StretchedElastic::fake_quant(bits, weights, CHANNELS)?)
            }
            Self::BitNet => Box::new(BitNet::weights(CHANNELS)?),
            Self::BinaryRelax => proximal(ProximalMap::BinaryRelax)?,
            Self::Parq => proximal(ProximalMap::Parq { steepness: 10.0 })?,
        })
    }
}

/// How activations are quantized.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ActivationMethod {
    Fixed,
    Ewgs,
    Lsq,
    LsqPlus,
    Ranges,
    Pact,
    Dorefa,
}

impl ActivationMethod {
    pub const ALL: [Self; 7] = [
        Self::Fixed,
        Self::Ewgs,
        Self::Lsq,
        Self::LsqPlus,
        Self::Ranges,
        Self::Pact,
        Self::Dorefa,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Fixed => "clipped STE",
            Self::Ewgs => "EWGS",
            Self::Lsq => "LSQ",
            Self::LsqPlus => "LSQ+",
            Self::Ranges => "learned ranges",
            Self::Pact => "PACT",
            Self::Dorefa => "DoReFa (0 to 1)",
        }
    }

    /// Whether packed layers take such activations: with an integer zero point.
    pub fn packs(self) -> bool {
        self != Self::LsqPlus
    }

    pub fn scheme(self, bits: u32, is_signed: bool) -> Result<Scheme> {
        let builder = Scheme::int(bits).unsigned();
        match self {
            Self::LsqPlus if !is_signed => builder.asymmetric_float().build(),
            _ => builder.asymmetric().build(),
        }
    }

    /// The quantizer, from the range of least squared error.
    pub fn fake(self, start: Affine) -> Result<Box<dyn FakeQuant>> {
        let scheme = *start.scheme();
        Ok(match self {
            Self::Fixed => Box::new(LearnedFakeQuant::new(start, FixedParameters, Clipped)?),
            Self::Ewgs => Box::new(LearnedFakeQuant::new(start, StepSize, Ewgs::new(0.2)?)?),
            Self::Lsq => Box::new(LearnedFakeQuant::new(start, StepSize, Lsq)?),
            Self::LsqPlus => Box::new(LearnedFakeQuant::new(start, StepAndOffset, Lsq)?),
            Self::Ranges => Box::new(LearnedFakeQuant::new(start, Ends, Lsq)?),
            Self::Pact => {
                let steps = Threshold::new(scheme.quant_max() as f32)?;
                let affine = Affine::per_tensor(scheme, start.scale()[0], 0.0)?;
                Box::new(LearnedFakeQuant::new(affine, steps, Pact)?)
            }
            Self::Dorefa => Box::new(Dorefa::activations(scheme.bits())?),
        })
    }
}
