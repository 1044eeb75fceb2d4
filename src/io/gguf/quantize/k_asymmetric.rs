//! Q2_K, Q4_K and Q5_K: 256 elements under two f16, in groups of 16 or 32 with a small scale and
//! minimum.

use super::{
    all_finite, important, over_blocks,
    search::{Ladder, make_qkx, make_qp, nearest_byte, nearest_code},
    square_sum, write_half, write_halves, write_two_bit_planes,
};
use crate::io::gguf::dequantize::k_types::scales_and_minimums;

/// Small scales and minimums of groups, the scales of those, and the codes of all elements.
struct Asymmetric<const N: usize> {
    d: f32,
    dmin: f32,
    scales: [u8; N],
    minimums: [u8; N],
    codes: [u8; 256],
}

/// What tells Q2_K, Q4_K and Q5_K apart.
struct Kind {
    /// The greatest code.
    nmax: u8,
    /// The greatest small scale.
    most: u8,
    /// What is tried without importance.
    plain: Ladder,
    /// The share of the block's mean square that goes into the weights with importance.
    sigma: f32,
    /// The weight of an element without importance, by its magnitude and its group's root mean
    /// square.
    weight: fn(f32, f32) -> f32,
}

const Q2_K: Kind = Kind {
    nmax: 3,
    most: 15,
    plain: Ladder {
        rmin: -0.5,
        rdelta: 0.1,
        nstep: 15,
        use_mad: true,
    },
    sigma: 1.0,
    weight: |magnitude, _| magnitude,
};

const Q4_K: Kind = Kind {
    nmax: 15,
    most: 63,
    plain: Ladder {
        rmin: -1.0,
        rdelta: 0.1,
        nstep: 20,
        use_mad: false,
    },
    sigma: 2.0,
    weight: |magnitude, root| root + magnitude,
};

const Q5_K: Kind = Kind {
    nmax: 31,
    most: 63,
    plain: Ladder {
        rmin: -0.5,
        rdelta: 0.1,
        nstep: 15,
        use_mad: false,
    },
    sigma: 2.0,
    weight: |magnitude, root| root + magnitude,
};

/// Searches each of `N` groups of `G` elements, then their scales and minimums.
fn asymmetric<const G: usize, const N: usize>(
    x: &[f32; 256],
    importance: Option<&[f32]>,
    kind: &Kind,
) -> Option<Asymmetric<N>> {
    let mut codes = [0; 256];
    let (mut scales, mut minimums, mut sums) = ([0.0; N], [0.0; N], [0.0; N]);
    let sigma2 = kind.sigma * square_sum(x) / 256.0;
    for (j, (x, codes)) in x.chunks_exact(G).zip(codes.chunks_exact_mut(G)).enumerate() {
        let (weights, ladder): ([f32; G], _) = match importance {
            Some(importance) => (
                important(x, sigma2, &importance[j * G..]),
                Ladder::IMPORTANCE,
            ),
            None => {
                #[expect(clippy::cast_precision_loss, reason = "16 or 32")]
                let root = (square_sum(x) / G as f32).sqrt();
                (
                    std::array::from_fn(|l| (kind.weight)(x[l].abs(), root)),
                    kind.plain,
                )
            }
        };
        sums[j] = weights.iter().fold(0.0, |sum, w| sum + w);
        (scales[j], minimums[j]) = make_qkx(kind.nmax, x, &weights, codes, ladder);
    }
    all_finite(&scales)?;
    all_finite(&minimums)?;
    let (mut small_scales, mut small_minimums) = ([0; N], [0; N]);
    let (d, dmin) = if importance.is_some() {
        (
            make_qp(kind.most, &scales, &sums, &mut small_scales),
            make_qp(kind.most, &minimums, &sums, &mut small_minimums),
        )
    } else {
        (
            by_greatest(kind.most, &scales, &mut small_scales),
            by_greatest(kind.most, &minimums, &mut small_minimums),
        )
    };
    Some(Asymmetric {
        d,
        dmin,
        scales: small_scales,
        minimums: small_minimums,
        codes,
    })
}

impl<const N: usize> Asymmetric<N> {
    /// Writes the common scales, and finds the codes anew with what they and the small scales are
    /// read as; groups whose scale became 0 keep theirs.
    fn write(
        &mut self,
        x: &[f32; 256],
        nmax: u8,
        small: [(u8, u8); N],
        bytes: &mut [u8],
    ) -> Option<()> {
        let d = write_half(bytes, 0, self.d)?;
        let dmin = write_half(bytes, 2, self.dmin)?;
        let size = 256 / N;
        let groups = x.chunks_exact(size).zip(self.codes.chunks_exact_mut(size));
        for ((scale, minimum), (x, codes)) in small.into_iter().zip(groups) {
            let (scale, minimum) = (d * f32::from(scale), dmin * f32::from(minimum));
            if scale != 0.0 {
                for (code, x) in codes.iter_mut().zip(x) {
                    *code = nearest_code((x + minimum) / scale, nmax);
                }
            }
        }
        Some(())
    }
}

/// Small scales by the greatest, which becomes `most`; gives the common scale.
fn by_greatest(most: u8, x: &[f32], small: &mut [u8]) -> f32 {
    let max = x
        .iter()
        .fold(0.0, |max: f32, &x| if x > max { x } else { max });
    let inverse = if max > 0.0 {
        f32::from(most) / max
    } else {
        0.0
    };
    for (small, x) in small.iter_mut().zip(x) {
        *small = nearest_byte(inverse * x, most.into());
    }
    max / f32::from(most)
}

pub(super) fn q2_k(row: &[f32], importance: Option<&[f32]>, bytes: &mut [u8]) -> Option<()> {
    over_blocks(
        row,
        importance,
        bytes,
        |x, importance, bytes: &mut [u8; 84]| {
            let mut found = asymmetric::<16, 16>(x, importance, &Q2_K)?;
            for (byte, (scale, minimum)) in bytes
                .iter_mut()
                .zip(found.scales.iter().zip(found.minimums))
            {
                *byte = scale | minimum << 4;
            }
            let small = std::array::from_fn(|j| (bytes[j] & 15, bytes[j] >> 4));
            found.write(x, Q2_K.nmax, small, &mut bytes[80..])?;
            write_two_bit_planes(|element| found.codes[element], &mut bytes[16..80]);
            Some(())
        },
    )
}

/// The 6-bit scale and minimum of each of eight groups, in 12 bytes.
fn write_scales_and_minimums(scales: &[u8; 8], minimums: &[u8; 8], bytes: &mut [u8]) {
    for j in 0..4 {
        bytes[j] = scales[j] | scales[j + 4] >> 4 << 6;
        bytes[j + 4] = minimums[j] | minimums[j + 4] >> 4 << 6;
        bytes[j + 8] = scales[j + 4] & 15 | (minimums[j + 4] & 15) << 4;
    }
}

/// Low halves of pairs of groups of 32.
fn write_pairs(codes: &[u8; 256], bytes: &mut [u8]) {
    for (codes, bytes) in codes.chunks_exact(64).zip(bytes.chunks_exact_mut(32)) {
        let low: [u8; 64] = std::array::from_fn(|l| codes[l] & 15);
        write_halves(&low, bytes);
    }
}

pub(super) fn q4_k(row: &[f32], importance: Option<&[f32]>, bytes: &mut [u8]) -> Option<()> {
    over_blocks(
        row,
        importance,
        bytes,
        |x, importance, bytes: &mut [u8; 144]| {
            let mut found = asymmetric::<32, 8>(x, importance, &Q4_K)?;
            if importance.is_none() {
                found.scales = found.scales.map(|scale| scale.min(63));
            }
            write_scales_and_minimums(&found.scales, &found.minimums, &mut bytes[4..16]);
            let small = scales_and_minimums(&bytes[4..16]);
            found.write(x, Q4_K.nmax, small, bytes)?;
            write_pairs(&found.codes, &mut bytes[16..]);
            Some(())
        },
    )
}

pub(super) fn q5_k(row: &[f32], importance: Option<&[f32]>, bytes: &mut [u8]) -> Option<()> {
    over_blocks(
        row,
        importance,
        bytes,
        |x, importance, bytes: &mut [u8; 176]| {
            let mut found = asymmetric::<32, 8>(x, importance, &Q5_K)?;
            found.scales = found.scales.map(|scale| scale.min(63));
            write_scales_and_minimums(&found.scales, &found.minimums, &mut bytes[4..16]);
            let small = scales_and_minimums(&bytes[4..16]);
            found.write(x, Q5_K.nmax, small, bytes)?;
            for (l, byte) in bytes[16..48].iter_mut().enumerate() {
                let high = |group: usize| found.codes[group * 32 + l] >> 4 << group;
                *byte = (0..8).fold(0, |byte, group| byte | high(group));
            }
            write_pairs(&found.codes, &mut bytes[48..]);
            Some(())
        },
    )
}
