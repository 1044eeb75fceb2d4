//! Hadamard matrices whose order is not a power of two, by construction: Paley's two (1933),
//! Williamson's (1944), and Cooper and Wallis' (1972) over the last.

use std::collections::HashMap;

/// A square matrix of ±1, row after row.
pub(super) struct Signs {
    pub(super) order: usize,
    pub(super) entries: Vec<i8>,
}

/// The greatest order that is constructed; beyond it, the dense product with the matrix would cost
/// more than the transform gains.
const LARGEST: usize = 1024;

/// The least order `m` with a construction here such that `size` is `m · 2^k`, and its matrix; the
/// order is 1 for powers of two. None if there is no construction.
pub(super) fn for_size(size: usize) -> Option<Signs> {
    if size.is_power_of_two() {
        return Some(Signs {
            order: 1,
            entries: vec![1],
        });
    }
    let odd = size.checked_shr(size.trailing_zeros())?;
    // There is no Hadamard matrix of an order above 2 that 4 does not divide.
    (2..=size.trailing_zeros())
        .map_while(|twos| odd.checked_shl(twos).filter(|&order| order <= LARGEST))
        .find_map(of_order)
}

fn of_order(order: usize) -> Option<Signs> {
    let entries = if is_prime(order - 1) && order.is_multiple_of(4) {
        paley_skew(order - 1)
    } else if is_prime(order / 2 - 1) && order % 8 == 4 {
        paley_symmetric(order / 2 - 1)
    } else if let Some(blocks) = williamson(order / 4) {
        goethals_seidel(1, &blocks)
    } else if order.is_multiple_of(12) {
        goethals_seidel(3, &williamson(order / 12)?)
    } else {
        return None;
    };
    Some(Signs { order, entries })
}

fn is_prime(number: usize) -> bool {
    number >= 2
        && (2..)
            .take_while(|d| d * d <= number)
            .all(|d| !number.is_multiple_of(d))
}

/// The quadratic character of the integers modulo an odd prime: 0, 1 for squares, −1.
fn character(prime: usize) -> Vec<i8> {
    let mut character = vec![-1; prime];
    for x in 1..prime {
        character[x * x % prime] = 1;
    }
    character[0] = 0;
    character
}

/// Paley's first construction, of order `q + 1` for a prime `q ≡ 3 (mod 4)`: `I + S`, where
/// `S = [0 1; −1 Q]` is skew and `Q[i][j] = χ(i − j)`.
fn paley_skew(q: usize) -> Vec<i8> {
    let character = character(q);
    let order = q + 1;
    let mut entries = vec![1; order * order];
    for i in 1..order {
        entries[i * order] = -1;
        for j in 1..order {
            let difference = (i + q - j) % q;
            entries[i * order + j] = if i == j { 1 } else { character[difference] };
        }
    }
    entries
}

/// Paley's second construction, of order `2(q + 1)` for a prime `q ≡ 1 (mod 4)`: in the symmetric
/// conference matrix `[0 1; 1 Q]`, 0 becomes `[1 −1; −1 −1]` and ±1 becomes `±[1 1; 1 −1]`.
fn paley_symmetric(q: usize) -> Vec<i8> {
    let character = character(q);
    let order = 2 * (q + 1);
    let mut entries = vec![0; order * order];
    for i in 0..=q {
        for j in 0..=q {
            let conference = match (i, j) {
                (0, 0) => 0,
                (0, _) | (_, 0) => 1,
                _ => character[(i + q - j) % q],
            };
            let block = match conference {
                0 => [1, -1, -1, -1],
                sign => [sign, sign, sign, -sign],
            };
            for (at, entry) in block.into_iter().enumerate() {
                entries[(2 * i + at / 2) * order + 2 * j + at % 2] = entry;
            }
        }
    }
    entries
}

/// Sequences of a prime length, symmetric about 0, whose periodic autocorrelations sum to 0 at
/// every shift but 0: the first rows of Williamson's four circulant matrices.
///
/// Found as Williamson found those of length 43: each is constant on the cosets of a subgroup of
/// the multiplicative group, so that few candidates are left. Pairs whose autocorrelations cancel
/// are met in a table.
fn williamson(length: usize) -> Option<[Vec<i8>; 4]> {
    /// Cosets, at most: 2^7 candidates, some 8,000 pairs.
    const COSETS: usize = 7;
    if length < 3 || !is_prime(length) {
        return None;
    }
    let order_of = |g: usize| {
        let (mut power, mut order) = (g, 1);
        while power != 1 {
            power = power * g % length;
            order += 1;
        }
        order
    };
    let generator = (2..length).find(|&g| order_of(g) == length - 1)?;
    let mut logarithm = vec![0; length];
    let mut power = 1;
    for exponent in 0..length - 1 {
        logarithm[power] = exponent;
        power = power * generator % length;
    }
    // The number of cosets divides half the order of the group, so that −1 is in the subgroup.
    let cosets = (1..=COSETS)
        .rev()
        .filter(|cosets| ((length - 1) / 2).is_multiple_of(*cosets));
    cosets
        .filter_map(|cosets| cancelling(length, cosets, &logarithm))
        .next()
}

/// Four sequences, constant on so many cosets, whose autocorrelations cancel.
fn cancelling(length: usize, cosets: usize, logarithm: &[usize]) -> Option<[Vec<i8>; 4]> {
    let sequence = |signs: usize| -> Vec<i8> {
        let sign = |t: usize| signs >> (logarithm[t] % cosets) & 1;
        (0..length)
            .map(|t| if t > 0 && sign(t) == 1 { -1 } else { 1 })
            .collect()
    };
    let candidates: Vec<Vec<i8>> = (0..1 << cosets).map(sequence).collect();
    // Shifts in the same coset have the same autocorrelation.
    let shifts = (0..cosets)
        .filter_map(|coset| (1..length).find(|&shift| logarithm[shift] % cosets == coset));
    let shifts: Vec<usize> = shifts.collect();
    let correlations: Vec<Vec<i32>> = candidates
        .iter()
        .map(|s| {
            let at = |shift: usize| {
                (0..length).map(move |t| i32::from(s[t]) * i32::from(s[(t + shift) % length]))
            };
            shifts.iter().map(|&shift| at(shift).sum()).collect()
        })
        .collect();
    let mut pairs = HashMap::new();
    for first in 0..candidates.len() {
        for second in first..candidates.len() {
            let sum = |sign: i32| -> Vec<i32> {
                let both = correlations[first].iter().zip(&correlations[second]);
                both.map(|(a, b)| sign * (a + b)).collect()
            };
            pairs.entry(sum(1)).or_insert((first, second));
            if let Some(&(third, fourth)) = pairs.get(&sum(-1)) {
                return Some([first, second, third, fourth].map(|index| candidates[index].clone()));
            }
        }
    }
    None
}

/// The matrix of order `4 · t · n` from four symmetric sequences of length `n`, for `t` 1 or 3.
///
/// The T-matrices of order `t` are the shifts `T₁ = I, T₂, … T_t`, and 0 up to `T₄`. Over them,
/// `X₁ = ΣTᵢ⊗Wᵢ` and its three companions go into the array of Goethals and Seidel,
/// `[X₁ X₂R X₃R X₄R; −X₂R X₁ X₄ᵀR −X₃ᵀR; −X₃R −X₄ᵀR X₁ X₂ᵀR; −X₄R X₃ᵀR −X₂ᵀR X₁]`, where `R`
/// reverses the order of the columns of a circulant matrix.
fn goethals_seidel(t: usize, blocks: &[Vec<i8>; 4]) -> Vec<i8> {
    /// Which block, with which sign, `T₁, T₂, T₃` carry in `X₁ … X₄`.
    const CARRIED: [[(usize, i8); 3]; 4] = [
        [(0, 1), (1, 1), (2, 1)],
        [(1, -1), (0, 1), (3, 1)],
        [(2, -1), (3, -1), (0, 1)],
        [(3, -1), (2, 1), (1, -1)],
    ];
    /// Which of `X₁ … X₄` stands in the array, with which sign, and whether transposed.
    const ARRAY: [[(usize, i8, bool); 4]; 4] = [
        [(0, 1, false), (1, 1, false), (2, 1, false), (3, 1, false)],
        [(1, -1, false), (0, 1, false), (3, 1, true), (2, -1, true)],
        [(2, -1, false), (3, -1, true), (0, 1, false), (1, 1, true)],
        [(3, -1, false), (2, 1, true), (1, -1, true), (0, 1, false)],
    ];
    let n = blocks[0].len();
    let side = t * n;
    let order = 4 * side;
    // Entry of X at (row, column): circulant over the group of pairs (shift of t, shift of n).
    let entry = |x: usize, row: usize, column: usize| {
        let shift = (column / n + t - row / n) % t;
        let (block, sign) = CARRIED[x][shift];
        sign * blocks[block][(column + n - row % n) % n]
    };
    let reversed = |index: usize| (t - index / n % t) % t * n + (n - index % n) % n;
    let mut entries = vec![0; order * order];
    for (i, array_row) in ARRAY.iter().enumerate() {
        for (j, &(x, sign, transposed)) in array_row.iter().enumerate() {
            for row in 0..side {
                for column in 0..side {
                    let from = if i == j { column } else { reversed(column) };
                    let value = if transposed {
                        entry(x, from, row)
                    } else {
                        entry(x, row, from)
                    };
                    entries[(i * side + row) * order + j * side + column] = sign * value;
                }
            }
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_constructed_matrix_is_orthogonal() {
        let named = [12, 20, 28, 36, 40, 44, 52, 60, 108, 140, 156, 172];
        let others = (1..300).filter(|&size| for_size(size).is_some());
        for size in named.into_iter().chain(others) {
            let Signs { order, entries } = for_size(size).unwrap();
            assert_eq!(size % order, 0);
            assert!((size / order).is_power_of_two());
            assert!(entries.iter().all(|&entry| entry.abs() == 1));
            for (i, row) in entries.chunks(order).enumerate() {
                for (j, other) in entries.chunks(order).enumerate() {
                    let products = row.iter().zip(other).map(|(a, b)| i32::from(a * b));
                    let expected = if i == j {
                        i32::try_from(order).unwrap()
                    } else {
                        0
                    };
                    assert_eq!(products.sum::<i32>(), expected, "{size}: rows {i} and {j}");
                }
            }
        }
    }

    #[test]
    fn sizes_of_which_there_is_none_are_refused() {
        for size in [0, 3, 5, 6, 7, 10, 9 * 17, 2 * 11, usize::MAX, 4 * 99_991] {
            assert!(for_size(size).is_none(), "{size}");
        }
    }
}
