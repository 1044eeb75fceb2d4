//! Work on several threads that gives the same bits as on one: pieces are cut by size alone, and
//! results are combined in the order of the pieces.

use std::ops::Range;

/// Elements in a piece: enough that starting a task costs nothing beside it, and a multiple of 8,
/// so that packed codes of any width start on a byte.
pub(crate) const PIECE: usize = 1 << 15;

/// Calls `work(start, piece)` for each piece of `out` of `size` elements.
pub(crate) fn over_pieces<T: Send>(
    out: &mut [T],
    size: usize,
    work: impl Fn(usize, &mut [T]) + Send + Sync,
) {
    #[cfg(feature = "rayon")]
    if out.len() > size {
        use rayon::prelude::*;
        out.par_chunks_mut(size)
            .enumerate()
            .for_each(|(index, piece)| work(index * size, piece));
        return;
    }
    for (index, piece) in out.chunks_mut(size).enumerate() {
        work(index * size, piece);
    }
}

/// What `work` returns for each piece of `0..len` of `size` elements, in order.
pub(crate) fn map_pieces<R: Send>(
    len: usize,
    size: usize,
    work: impl Fn(Range<usize>) -> R + Send + Sync,
) -> Vec<R> {
    let piece = |index: usize| index * size..((index + 1) * size).min(len);
    let pieces = len.div_ceil(size);
    #[cfg(feature = "rayon")]
    if pieces > 1 {
        use rayon::prelude::*;
        return (0..pieces)
            .into_par_iter()
            .map(|index| work(piece(index)))
            .collect();
    }
    (0..pieces).map(|index| work(piece(index))).collect()
}

/// As [`over_pieces`], with what `work` returns for each piece, in order.
pub(crate) fn map_over_pieces<T: Send, R: Send>(
    out: &mut [T],
    size: usize,
    work: impl Fn(usize, &mut [T]) -> R + Send + Sync,
) -> Vec<R> {
    #[cfg(feature = "rayon")]
    if out.len() > size {
        use rayon::prelude::*;
        return out
            .par_chunks_mut(size)
            .enumerate()
            .map(|(index, piece)| work(index * size, piece))
            .collect();
    }
    out.chunks_mut(size)
        .enumerate()
        .map(|(index, piece)| work(index * size, piece))
        .collect()
}

/// Calls `work` for each task; the tasks must not depend on each other.
pub(crate) fn for_each<T: Send>(tasks: Vec<T>, work: impl Fn(T) + Send + Sync) {
    #[cfg(feature = "rayon")]
    if tasks.len() > 1 {
        use rayon::prelude::*;
        tasks.into_par_iter().for_each(work);
        return;
    }
    tasks.into_iter().for_each(work);
}

/// Threads that tasks are shared among.
pub(crate) fn threads() -> usize {
    #[cfg(feature = "rayon")]
    {
        rayon::current_num_threads()
    }
    #[cfg(not(feature = "rayon"))]
    1
}

/// Both, perhaps at the same time; they must not depend on each other.
pub(crate) fn join(a: impl FnOnce() + Send, b: impl FnOnce() + Send) {
    #[cfg(feature = "rayon")]
    rayon::join(a, b);
    #[cfg(not(feature = "rayon"))]
    {
        a();
        b();
    }
}
