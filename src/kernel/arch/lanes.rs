//! What is done with the sums of a group: vectors of 32-bit lanes, one for each column.

use std::fmt::Debug;

/// Vectors of 32-bit integers and floats; a value proves that the machine has their instructions.
///
/// All integers wrap around.
pub(in crate::kernel) trait Lanes: Copy + Debug + Send + Sync + 'static {
    /// Lanes of 32 bits.
    const LANES: usize;
    /// An integer in each lane.
    type Lanes: Copy;
    /// A float in each lane.
    type Floats: Copy;

    /// The first `LANES` integers of a slice.
    fn load_lanes(self, from: &[i32]) -> Self::Lanes;

    /// The first `LANES` bytes of a slice, widened.
    fn widen_to_lanes(self, from: &[u8]) -> Self::Lanes;

    /// Writes the first `LANES` integers of a slice.
    fn store_lanes(self, to: &mut [i32], lanes: Self::Lanes);

    fn add_lanes(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;

    /// The same value for all.
    fn splat(self, value: i32) -> Self::Lanes;

    /// `lanes − factors · value`.
    fn subtract_products(self, lanes: Self::Lanes, factors: Self::Lanes, value: i32)
    -> Self::Lanes;

    /// The first `LANES` floats of a slice.
    fn load_floats(self, from: &[f32]) -> Self::Floats;

    /// `sums + lanes · scale`, each operation rounded, for the first `LANES` floats of a slice.
    fn add_scaled(self, sums: &mut [f32], lanes: Self::Lanes, scale: Self::Floats);

    /// `sums + (lanes − zero · x) · scale`.
    fn add_scaled_from(
        self,
        sums: &mut [f32],
        lanes: Self::Lanes,
        zero_and_x: (Self::Floats, f32),
        scale: Self::Floats,
    );

    /// `lanes · scale`.
    fn scaled(self, lanes: Self::Lanes, scale: Self::Floats) -> Self::Floats;

    /// `(lanes − zero) · scale`.
    fn scaled_from(
        self,
        lanes: Self::Lanes,
        zero: Self::Floats,
        scale: Self::Floats,
    ) -> Self::Floats;

    /// `sums + x · w`, rounded once where the instructions do that.
    fn multiply_add(self, sums: Self::Floats, x: f32, w: Self::Floats) -> Self::Floats;

    /// Writes the first `LANES` floats of a slice.
    fn store_floats(self, to: &mut [f32], floats: Self::Floats);
}
