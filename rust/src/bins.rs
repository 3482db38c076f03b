//! Bins expression values as scGPT does, except that a value equal to an edge is always in the bin above it.
//!
//! The edges are the B - 1 quantiles at `linspace(0, 1, B - 1)` of the cell's nonzero selected values, and the id of
//! a value is the number of edges not above it. The operations and their order are those of NumPy (`linspace`, the
//! `linear` method of `quantile`, `digitize`), so the results are bit-identical.

/// Maximum number of bins whose edges are stored: the user may ask for up to 2^31 bins.
const MAX_STORED: usize = 1 << 16;

/// Computes one of the B - 1 edges of sorted, non-empty values. Edges never decrease.
fn edge(ascending: &[f64], n_edges: usize, step: f64, i: usize) -> f64 {
    let last = ascending.len() - 1;
    let quantile = if i > 0 && i == n_edges - 1 { 1.0 } else { i as f64 * step };
    let virtual_index = last as f64 * quantile;
    let below = virtual_index.floor();
    let fraction = virtual_index - below;
    let (a, b) = (ascending[below as usize], ascending[(below as usize + 1).min(last)]);
    // NumPy's _lerp: exact at both ends, monotonic in between.
    if fraction >= 0.5 { b - (b - a) * (1.0 - fraction) } else { a + (b - a) * fraction }
}

/// Returns the difference between two quantiles in sequence.
fn step(n_edges: usize) -> f64 {
    if n_edges > 1 { 1.0 / (n_edges - 1) as f64 } else { 0.0 }
}

/// Fills `edges` with all edges of sorted, non-empty values.
fn fill_edges(ascending: &[f64], n_bins: usize, edges: &mut Vec<f64>) {
    let n_edges = n_bins - 1;
    let step = step(n_edges);
    edges.clear();
    edges.extend((0..n_edges).map(|i| edge(ascending, n_edges, step, i)));
}

/// Counts the edges that are not above `value`, without storing them.
fn count_edges(ascending: &[f64], n_edges: usize, value: f64) -> usize {
    let step = step(n_edges);
    let (mut low, mut high) = (0, n_edges);
    while low < high {
        let middle = low.midpoint(high);
        if edge(ascending, n_edges, step, middle) > value {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// Buffers for binning, reused for every cell.
#[derive(Debug, Default)]
pub(crate) struct BinBuffers {
    ascending: Vec<f64>,
    edges: Vec<f64>,
}

/// Computes the bin id of each value: 0 for zeros, else 1 to B - 1.
///
/// `descending` are the values of the cell's selected genes, largest first, zeros included.
pub(crate) fn bin_ids<'a>(
    descending: impl DoubleEndedIterator<Item = f64> + Clone + 'a,
    n_bins: usize,
    buffers: &'a mut BinBuffers,
) -> impl Iterator<Item = i32> + 'a {
    let BinBuffers { ascending, edges } = buffers;
    ascending.clear();
    ascending.extend(descending.clone().rev().filter(|&value| value != 0.0));
    edges.clear();
    let n_edges = n_bins - 1;
    if n_bins <= MAX_STORED && !ascending.is_empty() {
        fill_edges(ascending, n_bins, edges);
    }
    // The values descend, and so does the number of edges not above them: one pass over the edges is enough.
    let mut id = n_edges;
    descending.map(move |value| {
        if value == 0.0 {
            return 0;
        }
        if n_bins > MAX_STORED {
            return count_edges(ascending, n_edges, value) as i32;
        }
        while id > 0 && edges[id - 1] > value {
            id -= 1;
        }
        id as i32
    })
}

#[cfg(test)]
mod tests {
    use super::{BinBuffers, MAX_STORED, bin_ids, count_edges, fill_edges};
    use proptest::prelude::*;

    fn ids(descending: &[f64], n_bins: usize) -> Vec<i32> {
        bin_ids(descending.iter().copied(), n_bins, &mut BinBuffers::default()).collect()
    }

    #[test]
    fn ids_are_those_of_numpy() {
        assert_eq!(ids(&[1.0; 4], 51), [50; 4]);
        assert_eq!(ids(&[5.0], 51), [50]);
        assert_eq!(ids(&[10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 6), [5, 4, 4, 3, 3, 2, 2, 1, 1, 1]);
        assert_eq!(ids(&[3.0, 0.0, -1.0], 2), [1, 0, 1]);
        assert_eq!(ids(&[0.0, 0.0], 5), [0, 0]);
    }

    #[test]
    fn the_first_and_last_edge_are_the_extremes() {
        let mut out = Vec::new();
        fill_edges(&[0.1, 0.2, 0.7], 51, &mut out);
        assert_eq!((out.len(), out[0].to_bits(), out[49].to_bits()), (50, 0.1f64.to_bits(), 0.7f64.to_bits()));
    }

    #[test]
    fn two_billion_bins_need_no_memory() {
        let most = i32::MAX as usize;
        assert_eq!(ids(&[3.0, 2.0, 0.0, 1.0], most), [i32::MAX - 1, i32::MAX / 2, 0, 1]);
        assert_eq!(ids(&[3.0, 2.0], MAX_STORED + 1), [MAX_STORED as i32, 1]);
    }

    proptest! {
        #[test]
        fn counting_edges_is_the_walk_down_them(
            mut values in prop::collection::vec(prop_oneof![-3.0..3.0, Just(0.1), Just(2.5), any::<f32>().prop_map(f64::from)
                .prop_filter("finite", |v| v.is_finite())], 1..60),
            n_bins in 2usize..300,
        ) {
            values.sort_by(f64::total_cmp);
            let mut edges = Vec::new();
            fill_edges(&values, n_bins, &mut edges);
            for &value in &values {
                let walked = edges.iter().filter(|&&edge| edge <= value).count();
                prop_assert_eq!(count_edges(&values, n_bins - 1, value), walked);
            }
        }
    }
}
