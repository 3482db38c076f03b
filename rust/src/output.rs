//! Defines the output arrays, the types of their numbers, and their layout: the sequences of all cells, concatenated.

use std::ops::Range;

use crate::error::{ErrorKind, Result};
use crate::gather::Sums;
use crate::genes::GeneIndex;
use crate::order::Value;

mod sealed {
    pub trait Sealed {}
}

/// An integer type of token ids: `i32`, `u16` or `i64`.
pub trait Token: Copy + Default + Send + TryFrom<i32> + sealed::Sealed + 'static {
    /// Converts an id that is known to fit.
    fn from_id(id: i32) -> Self;
}

macro_rules! token {
    ($($type:ty),*) => { $(
        impl sealed::Sealed for $type {}
        impl Token for $type {
            #[inline]
            #[allow(clippy::cast_lossless)]
            fn from_id(id: i32) -> Self {
                id as $type // fits: `Output::check` checked all ids
            }
        }
    )* };
}
token!(i32, u16, i64);

/// The values of tokens, in the type of the kernel's [`ValueMode`](crate::ValueMode): an array of floats or integers,
/// or none.
#[derive(Debug, Clone, PartialEq)]
pub enum Values<Floats = Vec<f32>, Ids = Vec<i32>> {
    /// Expression values or ranks: float32.
    Floats(Floats),
    /// Bin ids: int32.
    Ids(Ids),
    /// No values.
    None,
}

/// The arrays that tokens and values are written to, from their start.
#[derive(Debug)]
pub struct Output<'a, T> {
    /// The tokens of all cells.
    pub gene_ids: &'a mut [T],
    /// The values of all cells.
    pub values: Values<&'a mut [f32], &'a mut [i32]>,
}

impl<T: Token> Output<'_, T> {
    /// Returns a part of each array.
    pub(crate) fn part(&mut self, range: Range<usize>) -> Output<'_, T> {
        let values = match &mut self.values {
            Values::Floats(values) => Values::Floats(&mut values[range.clone()]),
            Values::Ids(ids) => Values::Ids(&mut ids[range.clone()]),
            Values::None => Values::None,
        };
        Output { gene_ids: &mut self.gene_ids[range], values }
    }

    /// Checks that each array has space for `n_tokens`, and that every one of `ids` fits the type of tokens.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] names the array that is too short; [`ErrorKind::TokenDoesNotFit`].
    pub(crate) fn check(&self, n_tokens: usize, mut ids: impl Iterator<Item = i32>) -> Result<()> {
        if self.gene_ids.len() < n_tokens {
            return Err(ErrorKind::Argument("gene_ids").into());
        }
        let n_values = match &self.values {
            Values::Floats(values) => values.len(),
            Values::Ids(ids) => ids.len(),
            Values::None => n_tokens,
        };
        if n_values < n_tokens {
            return Err(ErrorKind::Argument("values").into());
        }
        if !ids.all(|id| T::try_from(id).is_ok()) {
            return Err(ErrorKind::TokenDoesNotFit.into());
        }
        Ok(())
    }
}

/// The ranges of the cells' sequences in the output arrays, and the sums of each cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// Cell i's sequence is `offsets[i]..offsets[i + 1]`; one more entry than there are cells.
    pub offsets: Vec<i32>,
    /// Two numbers per cell: its sum of absolute values over all columns, then over the columns of kept genes.
    pub totals: Vec<f64>,
}

/// The counts of a tokenized cell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CellCounts {
    pub n_tokens: usize,
    pub sums: Sums,
}

impl Layout {
    /// Makes an empty layout, with capacity for `n_cells`.
    pub(crate) fn with_capacity(n_cells: usize) -> Self {
        let mut offsets = Vec::with_capacity(n_cells + 1);
        offsets.push(0);
        Self { offsets, totals: Vec::with_capacity(2 * n_cells) }
    }

    /// Appends a cell.
    pub(crate) fn push(&mut self, cell: CellCounts) {
        self.offsets.push((self.n_tokens() + cell.n_tokens) as i32); // fits: at most `Kernel::max_tokens`
        self.totals.extend([cell.sums.total, cell.sums.kept]);
    }

    /// Returns the total number of tokens.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.offsets.last().map_or(0, |&end| end as usize) // not negative
    }
}

/// The sequences of some cells.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequences<T> {
    /// The ranges of the cells' sequences.
    pub layout: Layout,
    /// The tokens of all cells.
    pub gene_ids: Vec<T>,
    /// The values of all cells.
    pub values: Values,
}

/// Writes the tokens of a sequence: `cls`, if there is one, those of the selected genes, and `eos`, if there is one.
///
/// `to` has the length of the sequence.
#[inline(never)] // inlined, it runs out of registers
pub(crate) fn write_tokens<V: Value, T: Token>(
    selected: &[V::Key],
    cls: Option<i32>,
    eos: Option<i32>,
    genes: &GeneIndex,
    to: &mut [T],
) {
    let tokens = selected.iter().map(|&key| T::from_id(genes.token(V::position_of(key))));
    fill(to, cls.map(T::from_id), tokens, eos.map(T::from_id));
}

/// Fills `to` with `first`, if there is one, the items between, and `last`, if there is one.
pub(crate) fn fill<D>(to: &mut [D], first: Option<D>, between: impl Iterator<Item = D>, last: Option<D>) {
    let (head, rest) = to.split_at_mut(usize::from(first.is_some()));
    let (middle, tail) = rest.split_at_mut(rest.len() - usize::from(last.is_some()));
    for (to, item) in head.iter_mut().zip(first) {
        *to = item;
    }
    for (to, item) in middle.iter_mut().zip(between) {
        *to = item;
    }
    for (to, item) in tail.iter_mut().zip(last) {
        *to = item;
    }
}
