//! In which order the columns of a layer are quantized.

use super::Order;
use crate::scheme::Granularity;

/// The order of columns, and where blocks and groups begin in it.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    /// The column at each position.
    pub(super) order: Vec<usize>,
    /// The group along the row that the column at each position belongs to; `None` where rows share
    /// parameters in other ways.
    pub(super) groups: Option<Vec<usize>>,
    /// Where each block ends.
    pub(super) block_ends: Vec<usize>,
    /// Whether the columns of each group are next to each other.
    pub(super) is_contiguous: bool,
    /// Whether each row has parameters that no other row uses.
    pub(super) rows_own_parameters: bool,
}

impl Columns {
    /// For rows of as many columns as the diagonal has entries, in blocks of at most `block`.
    pub(super) fn new(
        order: Order,
        granularity: Granularity,
        diagonal: &[f64],
        block: usize,
    ) -> Self {
        let n = diagonal.len();
        let size = match granularity {
            Granularity::PerGroup(size) | Granularity::PerGroupAlong { axis: 1, size } => {
                Some(size)
            }
            Granularity::PerTensor | Granularity::PerAxis(0) | Granularity::PerRow => Some(n),
            _ => None,
        };
        let largest_first = |values: &[f64]| {
            let mut order: Vec<usize> = (0..values.len()).collect();
            order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
            order
        };
        let order = match (order, size) {
            (Order::Natural, _) => (0..n).collect(),
            (Order::Activation, _) | (Order::GroupAware, None) => largest_first(diagonal),
            (Order::GroupAware, Some(size)) => {
                let groups: Vec<&[f64]> = diagonal.chunks(size).collect();
                let largest = |group: &&[f64]| group.iter().copied().fold(0.0, f64::max);
                let largest: Vec<f64> = groups.iter().map(largest).collect();
                let columns_of = |group: usize| {
                    let columns = largest_first(groups[group]).into_iter();
                    columns.map(move |column| group * size + column)
                };
                largest_first(&largest)
                    .into_iter()
                    .flat_map(columns_of)
                    .collect()
            }
        };
        let groups: Option<Vec<usize>> =
            size.map(|size| order.iter().map(|column| column / size).collect());
        let (is_contiguous, ends) = match (&groups, size) {
            (Some(groups), Some(size)) => {
                let ends = ends_of_runs(groups);
                (ends.len() == n.div_ceil(size), ends)
            }
            _ => (false, vec![]),
        };
        let whole = [n];
        let block_ends = block_ends(if is_contiguous { &ends } else { &whole }, block);
        Self {
            order,
            groups,
            block_ends,
            is_contiguous,
            rows_own_parameters: size.is_some() && granularity != Granularity::PerTensor,
        }
    }

    /// Where the group that begins at a position ends; `None` if none begins there.
    pub(super) fn group_end(&self, position: usize) -> Option<usize> {
        let groups = self.groups.as_ref()?;
        let group = groups[position];
        if position > 0 && groups[position - 1] == group {
            return None;
        }
        let others = groups[position..].iter().position(|&other| other != group);
        Some(others.map_or(groups.len(), |len| position + len))
    }
}

fn ends_of_runs(groups: &[usize]) -> Vec<usize> {
    (1..=groups.len())
        .filter(|&end| groups.get(end) != groups.get(end - 1))
        .collect()
}

/// The ends of blocks of at most `block` columns that cut no group, but for groups that are larger:
/// those begin a block and end one.
fn block_ends(group_ends: &[usize], block: usize) -> Vec<usize> {
    let mut ends = Vec::new();
    let (mut start, mut group_start) = (0, 0);
    for &end in group_ends {
        if end - start > block && group_start > start {
            ends.push(group_start);
            start = group_start;
        }
        if end - start > block {
            ends.extend((start + block..end).step_by(block));
            ends.push(end);
            start = end;
        }
        group_start = end;
    }
    if group_start > start {
        ends.push(group_start);
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cut_no_group_that_fits_one() {
        for (groups, block, expected) in [
            (&[4, 8, 12][..], 8, &[8, 12][..]),
            (&[3, 6, 9, 10], 8, &[6, 10]),
            (&[20], 8, &[8, 16, 20]),
            (&[2, 22, 24], 8, &[2, 10, 18, 22, 24]),
            (&[8, 16], 8, &[8, 16]),
            (&[1], 8, &[1]),
            (&[], 8, &[]),
        ] {
            assert_eq!(block_ends(groups, block), expected, "{groups:?}");
        }
    }

    #[test]
    fn orders_are_those_of_their_names() {
        let diagonal = [1.0, 5.0, 2.0, 2.0, 9.0];
        let columns = |order, granularity| Columns::new(order, granularity, &diagonal, 128);
        let group = Granularity::PerGroup(2);
        let natural = columns(Order::Natural, group);
        assert_eq!(natural.order, [0, 1, 2, 3, 4]);
        assert!(natural.is_contiguous);
        let activation = columns(Order::Activation, group);
        assert_eq!(activation.order, [4, 1, 2, 3, 0]);
        assert!(!activation.is_contiguous);
        let aware = columns(Order::GroupAware, group);
        assert_eq!(aware.order, [4, 1, 0, 2, 3]);
        assert_eq!(aware.groups.as_deref(), Some(&[2, 0, 0, 1, 1][..]));
        assert!(aware.is_contiguous);
        assert_eq!(aware.group_end(1), Some(3));
        assert_eq!(aware.group_end(2), None);
        assert_eq!(aware.group_end(3), Some(5));
        let row = columns(Order::GroupAware, Granularity::PerAxis(0));
        assert_eq!(row.order, activation.order);
        assert!(row.is_contiguous);
        let blocks = columns(Order::GroupAware, Granularity::PerAxis(1));
        assert_eq!((blocks.groups, blocks.is_contiguous), (None, false));
    }
}
