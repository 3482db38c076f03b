//! Selects the genes of a cell: the first n of its candidates in order, without a dense row.
//!
//! A sorted dense row has three parts. Only the first and the last are stored; the zeros are the positions without a
//! stored value:
//!
//! ```text
//!   candidates  0  1  2  3  4  5  6  7          order:  > 0, largest first | 0, by position | < 0, largest first
//!   stored         3     7        -1 2                  3   1  7           | 0  2  4  5     | 6
//!   values      .  2  .  5  .  .  -1 2                  5   2  2             0  0  0  0       -1
//! ```
//!
//! So zeros come before negatives, and a negative is selected only if there are fewer than n positives and zeros.

use crate::order::Value;
use crate::sort::{SortBuffers, first_n, sort};

/// A set of positions, as a bit set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Positions {
    words: Vec<u64>,
}

impl Positions {
    /// Makes the set of all positions below `n`.
    pub(crate) fn all(n: usize) -> Self {
        let mut words = vec![u64::MAX; n.div_ceil(64)];
        if let (Some(last), 1..) = (words.last_mut(), n % 64) {
            *last = (1 << (n % 64)) - 1;
        }
        Self { words }
    }

    /// Makes the set of the given positions, each below `n`.
    pub(crate) fn of(positions: &[u32], n: usize) -> Self {
        let mut set = Self { words: vec![0; n.div_ceil(64)] };
        for &position in positions {
            set.insert(position);
        }
        set
    }

    /// Adds a position.
    #[inline]
    pub(crate) fn insert(&mut self, position: u32) {
        self.words[position as usize / 64] |= 1 << (position % 64);
    }

    /// Returns whether a position is in the set.
    #[inline]
    pub(crate) fn contains(&self, position: u32) -> bool {
        self.words[position as usize / 64] >> (position % 64) & 1 == 1
    }

    /// Removes all positions, and allocates space for those below `n`.
    pub(crate) fn clear(&mut self, n: usize) {
        self.words.clear();
        self.words.resize(n.div_ceil(64), 0);
    }

    /// Iterates over the positions that are in this set and not in `other`, ascending.
    pub(crate) fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = u32> + 'a {
        (0u32..).zip(self.words.iter().zip(&other.words)).flat_map(|(word, (&mine, &theirs))| {
            let mut left = mine & !theirs;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                left &= left.wrapping_sub(1); // clears the lowest set bit
                (bit < 64).then_some(word * 64 + bit)
            })
        })
    }
}

/// The genes that can be selected: all kept genes, or a random subset of them.
#[derive(Debug, Clone)]
pub(crate) struct GeneSet {
    /// The positions of the genes.
    pub positions: Positions,
    /// The number of positions.
    pub n_genes: usize,
}

impl GeneSet {
    /// Makes the set of all `n_genes` genes.
    pub(crate) fn all(n_genes: usize) -> Self {
        Self { positions: Positions::all(n_genes), n_genes }
    }

    /// Makes the set of the genes at different positions, each below `n`.
    pub(crate) fn of(positions: &[u32], n: usize) -> Self {
        Self { positions: Positions::of(positions, n), n_genes: positions.len() }
    }
}

/// The nonzero candidates of one cell, as keys.
#[derive(Debug)]
pub(crate) struct Candidates<V: Value> {
    /// Keys of the values above zero, sorted by position or in order.
    pub positive: Vec<V::Key>,
    /// Keys of the values below zero, sorted by position or in order.
    pub negative: Vec<V::Key>,
    /// The positions of both, if zeros are selected.
    nonzero: Positions,
    buffers: SortBuffers<V::Key>,
}

impl<V: Value> Default for Candidates<V> {
    fn default() -> Self {
        Self {
            positive: Vec::new(),
            negative: Vec::new(),
            nonzero: Positions::default(),
            buffers: SortBuffers::default(),
        }
    }
}

impl<V: Value> Candidates<V> {
    /// Sorts the keys.
    pub(crate) fn sort(&mut self) {
        sort(&mut self.positive, &mut self.buffers);
        sort(&mut self.negative, &mut self.buffers);
    }
}

/// Selects the first `n` candidates and stores their keys, in order, in `cell.positive`.
///
/// `genes` are those that can be selected; genes without a key in `cell` have the value 0. Zeros count toward the `n`
/// and are then dropped, unless `include_zero_genes` is set.
pub(crate) fn select<V: Value>(cell: &mut Candidates<V>, n: usize, genes: &GeneSet, include_zero_genes: bool) {
    let Candidates { positive, negative, nonzero, buffers } = cell;
    let n_zeros = genes.n_genes - positive.len() - negative.len();
    if include_zero_genes {
        nonzero.clear(genes.positions.words.len() * 64);
        for &key in positive.iter().chain(&*negative) {
            nonzero.insert(V::position_of(key));
        }
    }
    first_n(positive, n, buffers);
    let n_left = n - positive.len();
    let n_zeros = n_zeros.min(n_left);
    if include_zero_genes {
        let zeros = genes.positions.without(nonzero).take(n_zeros);
        positive.extend(zeros.map(|position| V::ZERO.key(position)));
    }
    first_n(negative, n_left - n_zeros, buffers);
    positive.append(negative);
}

#[cfg(test)]
mod tests {
    use super::{Candidates, GeneSet, Positions, select};
    use crate::order::Value;
    use proptest::prelude::*;

    /// Selects by the definition: sort the dense row, take n, drop zeros.
    fn dense(x: &[i32], candidates: &[u32], n: usize, include_zero_genes: bool) -> Vec<u32> {
        let mut order = candidates.to_vec();
        order.sort_by_key(|&position| -i64::from(x[position as usize]));
        order.truncate(n);
        order.retain(|&position| include_zero_genes || x[position as usize] != 0);
        order
    }

    proptest! {
        #[test]
        fn the_sparse_selection_is_the_dense_one(
            (x, candidates) in prop::collection::vec(prop_oneof![2 => Just(0), 3 => -2..3, 1 => any::<i32>()], 1..200)
                .prop_flat_map(|x| { let all: Vec<u32> = (0..x.len() as u32).collect(); let n = x.len(); (Just(x), prop::sample::subsequence(all, 0..=n)) }),
            n in 0usize..210,
            include_zero_genes: bool,
        ) {
            let genes = GeneSet::of(&candidates, x.len());
            let mut cell = Candidates::<i32>::default();
            for &position in &candidates {
                let value = x[position as usize];
                if value != 0 {
                    if value > 0 { &mut cell.positive } else { &mut cell.negative }.push(value.key(position));
                }
            }
            select(&mut cell, n, &genes, include_zero_genes);
            let selected: Vec<u32> = cell.positive.iter().map(|&key| i32::position_of(key)).collect();
            prop_assert_eq!(selected, dense(&x, &candidates, n, include_zero_genes));
        }

        #[test]
        fn the_set_of_all_positions_has_each_of_them(n in 0usize..200) {
            let all: Vec<u32> = (0..n as u32).collect();
            prop_assert_eq!(Positions::all(n), Positions::of(&all, n));
            let mut none = Positions::default();
            none.clear(n);
            prop_assert_eq!(Positions::all(n).without(&none).collect::<Vec<_>>(), all);
        }
    }
}
