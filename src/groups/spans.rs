//! Long stretches of a tensor whose parameters follow each other.

use std::ops::Range;

use super::Groups;
use crate::parallel::PIECE;

/// Consecutive elements whose parameters follow each other, each shared by `share` elements: the
/// element `at` uses the parameter `parameter + (skip + at) / share`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// The first element.
    pub(crate) start: usize,
    /// How many elements; at least 1.
    pub(crate) len: usize,
    /// The parameter of the first element.
    pub(crate) parameter: usize,
    /// Elements of a parameter; at least 1. The last one of the span may have less.
    pub(crate) share: usize,
    /// Elements of the first parameter that lie before the span; less than `share`.
    pub(crate) skip: usize,
}

impl Span {
    /// How many parameters it uses.
    #[inline]
    pub(crate) fn parameters(&self) -> usize {
        match self.skip + self.len {
            end if end <= self.share => 1,
            end if self.share == 1 => end,
            end => end.div_ceil(self.share),
        }
    }

    /// The elements of each parameter, counted from the start of the span.
    #[inline(always)]
    pub(crate) fn groups(&self) -> SpanGroups {
        SpanGroups {
            next: 0,
            size: self.share - self.skip,
            span: *self,
        }
    }
}

/// Iterator over [`Span::groups`].
#[derive(Debug, Clone)]
pub(crate) struct SpanGroups {
    next: usize,
    size: usize,
    span: Span,
}

impl Iterator for SpanGroups {
    type Item = Range<usize>;

    #[inline(always)]
    fn next(&mut self) -> Option<Range<usize>> {
        let start = self.next;
        if start == self.span.len {
            return None;
        }
        self.next += self.size.min(self.span.len - start);
        self.size = self.span.share;
        Some(start..self.next)
    }
}

/// The spans of some elements, in order.
#[derive(Debug, Clone)]
pub(crate) struct Spans {
    /// As in [`Groups`], but that an axis which one block spans is part of the next one out.
    extent: [usize; 3],
    block: [usize; 3],
    end: usize,
    /// What is left of the span at hand; of no elements where the next one is to be found.
    rest: Span,
    /// Where each column has a parameter: the tile at hand.
    tile: Option<Tile>,
}

/// Some rows that are taken together, a few columns at a time, so that the parameters of those, and
/// what is kept for each, are fetched once.
#[derive(Debug, Clone)]
struct Tile {
    /// Elements of a row.
    width: usize,
    /// The first element.
    start: usize,
    /// The next elements: a row of the tile, from a column on. Beyond the last column there is no
    /// tile at hand.
    row: usize,
    column: usize,
}

impl Tile {
    /// Rows that are taken together.
    const ROWS: usize = 4;

    /// Columns at a time.
    const COLUMNS: usize = 512;
}

impl Groups {
    /// The spans that make up `elements`, in order.
    pub(crate) fn spans(&self, elements: Range<usize>) -> Spans {
        let mut extent = self.extent.map(|extent| extent.max(1));
        let mut block: [usize; 3] = std::array::from_fn(|axis| self.block[axis].min(extent[axis]));
        for _ in 0..2 {
            if block[2] == extent[2] {
                extent = [1, extent[0], extent[1] * extent[2]];
                block = [1, block[0], block[1] * block[2]];
            }
        }
        Spans {
            extent,
            block,
            end: elements.end.min(self.len()),
            rest: Span {
                start: elements.start,
                len: 0,
                parameter: 0,
                share: 1,
                skip: 0,
            },
            tile: None,
        }
    }

    /// The spans that make up `elements`, for [`Spans::next_block`]: where each column has a
    /// parameter, those of some rows by turns.
    pub(crate) fn tiles(&self, elements: Range<usize>) -> Spans {
        let mut spans = self.spans(elements);
        let Spans { extent, block, .. } = &spans;
        let (width, by_columns) = (extent[2], block[2] == 1 && block[..2] == extent[..2]);
        // Rows of other lengths begin anywhere on a cache line, and so would each part of them.
        spans.tile = (by_columns && width.is_multiple_of(16)).then_some(Tile {
            width,
            start: 0,
            row: 0,
            column: width,
        });
        spans
    }
}

impl Groups {
    /// [`parameter_of`](Self::parameter_of) each element, in order, without a division for each.
    pub(crate) fn parameters_of_elements(&self) -> impl Iterator<Item = usize> + use<> {
        self.runs(0..self.len()).flat_map(|run| {
            let stride = usize::from(run.each);
            (0..run.len).map(move |at| run.parameter + stride * at)
        })
    }

    /// The parameters that some elements use, and perhaps others between them.
    pub(crate) fn parameters_of(&self, elements: Range<usize>) -> Range<usize> {
        // Spans do not go through the parameters in order where groups lie across rows.
        let (mut first, mut end) = (usize::MAX, 0);
        let mut spans = self.spans(elements);
        while let Some(span) = spans.next_within(usize::MAX) {
            first = first.min(span.parameter);
            end = end.max(span.parameter + span.parameters());
        }
        first.min(end)..end
    }

    /// Elements in a piece of work that keeps something for each parameter: more than usual where a
    /// piece touches many, so that what it keeps takes little memory beside it.
    pub(crate) fn piece(&self) -> usize {
        PIECE.max(64 * self.parameters_of(0..PIECE).len())
    }
}

impl Spans {
    /// Some elements, at most `limit`, whose spans come next: in order, or by turns where
    /// [`tiles`](Groups::tiles) takes rows so. All spans of one block must be taken before the next,
    /// whose limit may be greater, but no less.
    #[inline]
    pub(crate) fn next_block(&mut self, limit: usize) -> Option<Range<usize>> {
        let start = self.rest.start;
        let Some(tile) = &mut self.tile else {
            return (start < self.end).then(|| start..self.end.min(start + limit));
        };
        let width = tile.width;
        if tile.column == width {
            let in_row = start % width;
            if in_row > 0 || limit < Tile::COLUMNS || self.end < start + Tile::ROWS * width {
                let end = self.end.min(start + limit.min(width - in_row));
                return (start < self.end).then_some(start..end);
            }
            (tile.start, tile.column, tile.row) = (start, 0, 0);
        }
        let len = Tile::COLUMNS.min(width - tile.column);
        let start = tile.start + tile.row * width + tile.column;
        self.rest = Span {
            start,
            len,
            parameter: tile.column,
            share: 1,
            skip: 0,
        };
        tile.row += 1;
        if tile.row == Tile::ROWS {
            (tile.row, tile.column) = (0, tile.column + len);
        }
        Some(start..start + len)
    }

    /// The next span of the blocks of [`next_block`](Self::next_block).
    #[inline]
    pub(crate) fn next_by_turns(&mut self, limit: usize) -> Option<Span> {
        let block = self.next_block(limit)?;
        self.next_within(block.len())
    }

    /// The next span, of at most `limit` elements.
    #[inline]
    pub(crate) fn next_within(&mut self, limit: usize) -> Option<Span> {
        if self.rest.len == 0 {
            self.rest = self.find(self.rest.start)?;
        }
        let span = Span {
            len: self.rest.len.min(limit),
            ..self.rest
        };
        let rest = &mut self.rest;
        rest.start += span.len;
        rest.len -= span.len;
        rest.skip += span.len;
        if rest.share == 1 {
            rest.parameter += rest.skip;
            rest.skip = 0;
        } else if rest.skip >= rest.share {
            rest.parameter += rest.skip / rest.share;
            rest.skip %= rest.share;
        }
        Some(span)
    }

    /// The next elements that share a parameter, or that each have one.
    pub(crate) fn next_group(&mut self) -> Option<Span> {
        if self.rest.len == 0 {
            self.rest = self.find(self.rest.start)?;
        }
        self.next_within(match self.rest.share {
            1 => usize::MAX,
            share => share - self.rest.skip,
        })
    }

    /// The longest span from an element on.
    fn find(&self, start: usize) -> Option<Span> {
        if start >= self.end {
            return None;
        }
        let Self { extent, block, .. } = self;
        let blocks: [usize; 3] = std::array::from_fn(|axis| extent[axis].div_ceil(block[axis]));
        let (row, inner) = (start / extent[2], start % extent[2]);
        let (outer, middle) = (row / extent[1], row % extent[1]);
        let row_of_blocks = outer / block[0] * blocks[1] + middle / block[1];
        // Beyond the end of a row, parameters go on in order where no group is cut short there and
        // each row has its own.
        let whole = extent[2].is_multiple_of(block[2]) && block[1] == 1;
        let len = match (whole, block[0]) {
            (false, _) => extent[2] - inner,
            (true, 1) => self.end - start,
            (true, _) => (extent[1] - middle) * extent[2] - inner,
        };
        Some(Span {
            start,
            len: len.min(self.end - start),
            parameter: row_of_blocks * blocks[2] + inner / block[2],
            share: block[2],
            skip: inner % block[2],
        })
    }
}
