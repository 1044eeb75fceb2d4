//! Elementwise work over arrays of any layout, block by block.
//!
//! A block is small enough for its output to lie in the fastest cache. Memory that will be read is
//! asked for ahead, a few lines at a time, and large outputs are moved past the caches, a block at a
//! time: that is what it takes for simple loops to run as fast as memory does.

use ndarray::{ArrayRef, Dimension};

use crate::{
    element::{BLOCK, Number},
    groups::{Groups, Span, Spans},
    parallel::{PIECE, over_pieces},
    simd::{Loops, OnLine, Streaming, wide},
};

/// Elements of one array from those of another.
pub(crate) trait Map<A, B>: Sync {
    /// The output of the elements of a span, at most [`BLOCK`]; to be marked `#[inline(always)]`.
    fn map(&self, span: &Span, input: &[A], output: &mut [B]);
}

/// Elements of an array.
pub(crate) trait Fill<B>: Sync {
    /// Whether rows are filled some at a time where each column has a parameter: where no less is
    /// read from memory than written. Rows that are mostly written take longer by turns.
    const BY_TURNS: bool = false;

    /// The elements of a span, at most [`BLOCK`]; to be marked `#[inline(always)]`.
    fn fill(&self, span: &Span, output: &mut [B]);
}

/// Maps one array to another, with the elements of both in row-major order; on several threads where
/// both lie in that order.
pub(crate) fn map_blocks<A: Number, B: Number, D: Dimension>(
    input: &ArrayRef<A, D>,
    output: &mut ArrayRef<B, D>,
    groups: &Groups,
    map: &impl Map<A, B>,
) {
    if let (Some(input), Some(output)) = (input.as_slice(), output.as_slice_mut()) {
        let bytes = size_of_val(input) + size_of_val(output);
        let start = 0;
        return over_blocks(output, bytes, groups, &Mapped { start, input, map });
    }
    let mut buffer = [A::default(); BUFFER];
    let mut from = input.iter();
    by_buffers(output, |start, output| {
        let input = &mut buffer[..output.len()];
        for (slot, &value) in input.iter_mut().zip(&mut from) {
            *slot = value;
        }
        wide(Piece {
            start,
            output,
            groups,
            streaming: None,
            fill: &Mapped { start, input, map },
        });
    });
}

/// Fills an array, as [`map_blocks`] does; `bytes` are moved altogether.
pub(crate) fn fill_blocks<B: Number, D: Dimension>(
    output: &mut ArrayRef<B, D>,
    bytes: usize,
    groups: &Groups,
    fill: &impl Fill<B>,
) {
    if let Some(output) = output.as_slice_mut() {
        return over_blocks(output, bytes, groups, fill);
    }
    by_buffers(output, |start, output| {
        wide(Piece {
            start,
            output,
            groups,
            streaming: None,
            fill,
        });
    });
}

fn over_blocks<B: Number>(output: &mut [B], bytes: usize, groups: &Groups, fill: &impl Fill<B>) {
    let streaming = Streaming::of(bytes);
    // Each piece ends with a wait for what it has moved past the caches.
    let size = if streaming.is_some() {
        8 * PIECE
    } else {
        PIECE
    };
    over_pieces(output, size, |start, output| {
        wide(Piece {
            start,
            output,
            groups,
            streaming,
            fill,
        });
    });
}

/// Elements that are copied at a time where an array does not lie in row-major order.
const BUFFER: usize = 2 * BLOCK;

/// Calls `work(start, output)` for parts of an array, in row-major order, to fill.
fn by_buffers<B: Number, D: Dimension>(
    output: &mut ArrayRef<B, D>,
    mut work: impl FnMut(usize, &mut [B]),
) {
    let mut buffer = [B::default(); BUFFER];
    let len = output.len();
    let mut to = output.iter_mut();
    for start in (0..len).step_by(BUFFER) {
        let part = &mut buffer[..BUFFER.min(len - start)];
        work(start, part);
        for (&mut value, slot) in part.iter_mut().zip(&mut to) {
            *slot = value;
        }
    }
}

/// The input of a [`Map`], from element `start` on.
pub(crate) struct Mapped<'a, A, M> {
    pub(crate) start: usize,
    pub(crate) input: &'a [A],
    pub(crate) map: &'a M,
}

impl<A: Number, B, M: Map<A, B>> Fill<B> for Mapped<'_, A, M> {
    const BY_TURNS: bool = size_of::<A>() >= size_of::<B>();

    #[inline(always)]
    fn fill(&self, span: &Span, output: &mut [B]) {
        let at = span.start - self.start;
        let input = &self.input[at..at + output.len()];
        self.map.map(span, input, output);
    }
}

/// Fills a block, the next one of some spans.
#[inline(always)]
pub(crate) fn fill_block<B>(spans: &mut Spans, fill: &impl Fill<B>, block: &mut [B]) {
    let mut at = 0;
    while at < block.len()
        && let Some(span) = spans.next_within(block.len() - at)
    {
        fill.fill(&span, &mut block[at..at + span.len]);
        at += span.len;
    }
}

/// Output from element `start` on, to be filled.
struct Piece<'a, B, F> {
    start: usize,
    output: &'a mut [B],
    groups: &'a Groups,
    streaming: Option<Streaming>,
    fill: &'a F,
}

impl<B: Number, F: Fill<B>> Loops for Piece<'_, B, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { start, output, .. } = self;
        let elements = start..start + output.len();
        let mut spans = if F::BY_TURNS {
            self.groups.tiles(elements)
        } else {
            self.groups.spans(elements)
        };
        // A block is moved on after the next one is computed: loads that come soon after stores of
        // another width would wait for all stores before them, those past the caches too.
        let mut buffers = OnLine([[B::default(); BLOCK]; 2]);
        let (mut turn, mut waiting) = (0, 0..0);
        // Blocks after the first one start where vectors past the caches may; mostly the first one
        // does too, so that no block cuts a group whose size divides its own.
        let mut size = match output.as_ptr().align_offset(16) {
            head @ 1..BLOCK => head,
            _ => BLOCK,
        };
        while let Some(block) = spans.next_block(size) {
            let block = block.start - start..block.end - start;
            let target = match self.streaming {
                Some(_) => &mut buffers.0[turn][..block.len()],
                None => &mut output[block.clone()],
            };
            fill_block(&mut spans, self.fill, target);
            if let Some(streaming) = self.streaming {
                let from = &buffers.0[1 - turn][..waiting.len()];
                streaming.copy(from, &mut output[waiting]);
                (turn, waiting) = (1 - turn, block);
            }
            size = BLOCK;
        }
        if let Some(streaming) = self.streaming {
            let from = &buffers.0[1 - turn][..waiting.len()];
            streaming.copy(from, &mut output[waiting]);
            streaming.fence();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{scheme::Granularity, simd::on_each};

    fn small(number: usize) -> i32 {
        i32::try_from(number).unwrap()
    }

    /// Writes the input itself, with what a span says of each element.
    struct Told;

    impl Map<i32, i32> for Told {
        #[inline(always)]
        fn map(&self, span: &Span, input: &[i32], output: &mut [i32]) {
            for (at, (x, out)) in input.iter().zip(output).enumerate() {
                *out = x * 1_000 + small(span.parameter + (span.skip + at) / span.share);
            }
        }
    }

    /// A piece over arrays of its own, so that it can be run again.
    struct Whole<'a> {
        groups: &'a Groups,
        streaming: Option<Streaming>,
        /// Elements by which the output lies off a cache line.
        offset: usize,
    }

    impl Loops for Whole<'_> {
        type Output = Vec<i32>;

        #[inline(always)]
        fn run(self) -> Vec<i32> {
            let len = self.groups.len();
            let input: Vec<i32> = (0..small(len)).collect();
            let mut output = vec![-1; len + 32];
            let from = output.as_ptr().align_offset(64) + self.offset;
            Piece {
                start: 0,
                output: &mut output[from..from + len],
                groups: self.groups,
                streaming: self.streaming,
                fill: &Mapped {
                    start: 0,
                    input: &input,
                    map: &Told,
                },
            }
            .run();
            let written = output[from..from + len].to_vec();
            output.drain(from..from + len);
            assert!(output.iter().all(|&untouched| untouched == -1));
            written
        }
    }

    #[test]
    fn every_element_is_written_once_whatever_the_stores_and_the_alignment() {
        for shape in [
            [1, 1],
            [3, 100],
            [5, 257],
            [2, 2 * BLOCK],
            [7, 331],
            [10, 1_040],
        ] {
            for granularity in [
                Granularity::PerTensor,
                Granularity::PerAxis(0),
                Granularity::PerAxis(1),
                Granularity::PerGroup(7),
                Granularity::PerGroup(128),
                Granularity::PerBlock {
                    rows: 2,
                    columns: 30,
                },
            ] {
                let groups = &Groups::new(&shape, granularity).unwrap();
                let expected: Vec<i32> = (0..groups.len())
                    .map(|at| small(at * 1_000 + groups.parameter_of(at)))
                    .collect();
                for streaming in [None, Streaming::of(usize::MAX)] {
                    for offset in [0, 1, 4, 15] {
                        let outputs = on_each(|| Whole {
                            groups,
                            streaming,
                            offset,
                        });
                        for output in outputs {
                            assert_eq!(output, expected, "{shape:?} {granularity:?}");
                        }
                    }
                }
            }
        }
    }
}
