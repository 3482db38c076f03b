//! Collects the candidates of a cell from its row, and sums the row.
//!
//! Most rows are plain: columns ascending, no negative value, all finite. `sweep` reads a plain row in one pass. Any
//! other row is read in steps: merge duplicate columns, sum, add up the columns of each gene, pack keys.

use std::hint::black_box;

use crate::error::{Error, ErrorKind, Result};
use crate::genes::GeneIndex;
use crate::matrix::{Entry, Index, Row};
use crate::order::Value;
use crate::random::Subset;
use crate::select::Candidates;

/// A cell's sums of absolute values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sums {
    /// Over all columns.
    pub total: f64,
    /// Over the columns of kept genes.
    pub kept: f64,
}

/// Packs the row's candidates above and below zero into `cell`, each sorted by position, and returns the row's sums.
///
/// `needs_total` is set if the cell is normalised by its total. Then NaN or infinity in any column is an error;
/// otherwise only in a kept gene.
pub(crate) fn gather<I: Index, T: Value>(
    row: Row<'_, I, T>,
    genes: &GeneIndex,
    subset: Option<&Subset>,
    needs_total: bool,
    entries: &mut Vec<Entry<T>>,
    cell: &mut Candidates<T>,
) -> Result<Sums> {
    cell.negative.clear();
    if !genes.shares_positions() {
        let candidates = subset.map(|subset| subset.position_of_column.as_slice());
        if let Some(sums) = sweep(row, genes.positions(), candidates, &mut cell.positive) {
            return Ok(sums);
        }
    }
    row.merge(genes.n_columns(), entries)?;
    let sums = sum(entries, genes, needs_total)?;
    if genes.shares_positions() {
        sum_columns_of_genes(entries, genes)?;
    }
    cell.positive.clear();
    for &Entry { column, value } in entries.iter().filter(|entry| entry.value != T::ZERO) {
        let position = genes.position(column);
        if let Some(position) = position.filter(|&at| subset.is_none_or(|subset| subset.genes.positions.contains(at))) {
            if value > T::ZERO { &mut cell.positive } else { &mut cell.negative }.push(value.key(position));
        }
    }
    Ok(sums)
}

// ---- plain rows, in one pass

/// Fills `keys` with the candidates above zero, sorted by position, and sums the values in column order.
///
/// `kept` holds the position of each column, -1 if its gene is dropped; `candidates` the same for a random subset.
/// Returns `None` if the row is not plain, valid or not; the content of `keys` is then undefined.
///
/// A processor cannot predict which columns are kept, so the pass has no branch on it: each entry is written, and
/// overwritten by the next one if it is not a candidate. This is three times as fast.
fn sweep<I: Index, T: Value>(
    row: Row<'_, I, T>,
    kept: &[i32],
    candidates: Option<&[i32]>,
    keys: &mut Vec<T::Key>,
) -> Option<Sums> {
    let lowest = lowest(row.values);
    let has_zeros = lowest == T::ZERO;
    match candidates {
        _ if lowest < T::ZERO => None,
        None if has_zeros => pass::<I, T, false, true>(row, kept, kept, keys),
        None => pass::<I, T, false, false>(row, kept, kept, keys),
        Some(candidates) if has_zeros => pass::<I, T, true, true>(row, kept, candidates, keys),
        Some(candidates) => pass::<I, T, true, false>(row, kept, candidates, keys),
    }
}

/// Returns the smallest value that is not NaN; zero if there are no values.
fn lowest<T: Value>(values: &[T]) -> T {
    let Some(&first) = values.first() else { return T::ZERO };
    // Eight at a time, so that the compiler uses vector instructions.
    let mut lows = [first; 8];
    let (chunks, rest) = values.as_chunks::<8>();
    let lower = |low, value| if value < low { value } else { low };
    for chunk in chunks {
        for (low, &value) in lows.iter_mut().zip(chunk) {
            *low = lower(*low, value);
        }
    }
    lows.iter().chain(rest).fold(first, |low, &value| lower(low, value))
}

/// Reads the row once. No value is below zero; `ZEROS` is set if some may be zero.
#[inline(never)] // inlined, it runs out of registers
fn pass<I: Index, T: Value, const SUBSET: bool, const ZEROS: bool>(
    row: Row<'_, I, T>,
    kept: &[i32],
    candidates: &[i32],
    keys: &mut Vec<T::Key>,
) -> Option<Sums> {
    keys.resize(row.values.len(), T::Key::default());
    let (mut n_keys, mut next, mut is_unsorted) = (0, 0, false);
    let mut sums = Sums { total: 0.0, kept: 0.0 };
    for (&index, &value) in row.columns.iter().zip(row.values) {
        let column = index.column();
        is_unsorted |= column < next;
        let &position = kept.get(column)?;
        next = column + 1;
        let magnitude = value.to_f64();
        sums.total += magnitude;
        // An index, as compilers turn other forms into a branch.
        sums.kept += [magnitude, 0.0][is_negative(position)];
        let position = if SUBSET { candidates[column] } else { position };
        keys[n_keys] = value.key(position as u32); // a key of -1 is overwritten by the next one
        let is_zero = if ZEROS { black_box(usize::from(value == T::ZERO)) } else { 0 };
        n_keys += 1 - (is_negative(position) | is_zero);
    }
    keys.truncate(n_keys);
    (!is_unsorted && sums.total.is_finite()).then_some(sums)
}

/// Returns 1 for a position below zero, else 0.
#[inline]
fn is_negative(position: i32) -> usize {
    (position as u32 >> 31) as usize
}

// ---- any other row, in steps

/// Sums the absolute values over all columns and over those of kept genes, in column order.
fn sum<T: Value>(entries: &[Entry<T>], genes: &GeneIndex, needs_total: bool) -> Result<Sums> {
    let sums_of = |only_finite: bool| {
        let mut sums = Sums { total: 0.0, kept: 0.0 };
        for entry in entries.iter().filter(|entry| !only_finite || entry.value.is_finite()) {
            let magnitude = entry.value.to_f64().abs();
            sums.total += magnitude;
            sums.kept += if genes.position(entry.column).is_some() { magnitude } else { 0.0 };
        }
        sums
    };
    let sums = sums_of(false);
    if sums.total.is_finite() {
        return Ok(sums);
    }
    for &Entry { column, value } in entries {
        if !value.is_finite() && (needs_total || genes.position(column).is_some()) {
            return Err(Error::new(ErrorKind::NotFinite).at_column(column));
        }
    }
    if needs_total { Err(ErrorKind::TotalNotFinite.into()) } else { Ok(sums_of(true)) }
}

/// Sums the columns of each gene into its first column, in column order; removes the columns of dropped genes.
fn sum_columns_of_genes<T: Value>(entries: &mut Vec<Entry<T>>, genes: &GeneIndex) -> Result<()> {
    entries.retain_mut(|entry| match genes.position(entry.column) {
        Some(position) => {
            entry.column = genes.column(position);
            true
        }
        None => false,
    });
    entries.sort_by_key(|entry| entry.column);
    let mut overflow = None;
    entries.dedup_by(|later, first| {
        let is_same = later.column == first.column;
        if is_same {
            match first.value.checked_add(later.value).filter(|sum| sum.is_finite()) {
                Some(sum) => first.value = sum,
                None => overflow = overflow.or(Some(first.column)),
            }
        }
        is_same
    });
    overflow.map_or(Ok(()), |column| Err(Error::new(ErrorKind::GeneSumOverflow).at_column(column)))
}

#[cfg(test)]
mod tests {
    use super::{Sums, sweep};
    use crate::matrix::Row;
    use crate::order::Value;
    use proptest::prelude::*;

    /// Sweeps a row; returns the (position, value) of its keys and its sums.
    fn swept<T: Value>(
        columns: &[i64],
        values: &[T],
        kept: &[i32],
        subset: Option<&[i32]>,
    ) -> Option<(Vec<(u32, T)>, Sums)> {
        let mut keys = vec![T::ZERO.key(9); 3]; // of the previous cell
        let sums = sweep(Row { columns, values }, kept, subset, &mut keys)?;
        Some((keys.iter().map(|&key| (T::position_of(key), T::value_of(key))).collect(), sums))
    }

    #[test]
    fn a_plain_row_gives_its_candidates_and_sums() {
        let row = swept(&[0, 2, 3, 5], &[1f32, 2.0, 0.0, 4.0], &[0, -1, -1, 1, 2, 3], None);
        assert_eq!(row, Some((vec![(0, 1.0), (3, 4.0)], Sums { total: 7.0, kept: 5.0 })));
        assert_eq!(swept::<f32>(&[], &[], &[0, 1], None), Some((vec![], Sums { total: 0.0, kept: 0.0 })));
    }

    #[test]
    fn a_subset_limits_the_candidates_and_not_the_sums() {
        let row = swept(&[0, 1, 2], &[1u8, 2, 4], &[0, 1, -1], Some(&[-1, 1, -1]));
        assert_eq!(row, Some((vec![(1, 2)], Sums { total: 7.0, kept: 3.0 })));
    }

    #[test]
    fn a_row_that_is_not_plain_is_left_to_the_steps() {
        let kept = [0, 1, -1, 2];
        for (columns, values) in [
            ([1, 0], [1.0, 2.0]),
            ([1, 1], [1.0, 2.0]),
            ([0, 4], [1.0, 2.0]),
            ([-1, 0], [1.0, 2.0]),
            ([0, i64::MAX], [1.0, 2.0]),
            ([0, 1], [1.0, -2.0]),
            ([0, 1], [1.0, f64::NAN]),
            ([0, 1], [f64::NAN, -1.0]),
            ([0, 2], [1.0, f64::INFINITY]),
            ([0, 1], [f64::MAX, f64::MAX]),
        ] {
            assert_eq!(swept(&columns, &values, &kept, None), None, "{columns:?} {values:?}");
            assert_eq!(swept(&columns, &values, &kept, Some(&kept)), None, "{columns:?} {values:?}");
        }
    }

    /// The columns of a gene table, a row over them, and whether each gene is in the subset.
    type Case = (Vec<bool>, Vec<Option<i32>>, Vec<bool>);

    fn cases() -> impl Strategy<Value = Case> {
        (1usize..60).prop_flat_map(|n| {
            let values = prop::option::of(prop_oneof![2 => Just(0), 6 => 1..50, 1 => any::<i32>()]);
            (
                prop::collection::vec(any::<bool>(), n),
                prop::collection::vec(values, n),
                prop::collection::vec(any::<bool>(), n),
            )
        })
    }

    proptest! {
        #[test]
        fn a_sweep_gives_what_the_dense_row_gives((is_kept, row, is_in_subset) in cases(), with_subset: bool) {
            let mut next = 0..;
            let kept: Vec<i32> = is_kept.iter().map(|&is| if is { next.next().unwrap_or(-1) } else { -1 }).collect();
            let subset: Vec<i32> = kept.iter().zip(&is_in_subset).map(|(&at, &is)| if is { at } else { -1 }).collect();
            let (columns, values): (Vec<i64>, Vec<i32>) =
                (0i64..).zip(&row).filter_map(|(column, value)| value.map(|value| (column, value))).unzip();
            let got = swept(&columns, &values, &kept, with_subset.then_some(subset.as_slice()));
            prop_assert_eq!(got.is_some(), values.iter().all(|&value| value >= 0));
            if let Some((keys, sums)) = got {
                let dense: Vec<i32> = row.iter().map(|value| value.unwrap_or(0)).collect();
                let candidates = if with_subset { &subset } else { &kept };
                let wanted: Vec<(u32, i32)> = candidates.iter().zip(&dense)
                    .filter(|&(&at, &value)| at >= 0 && value > 0)
                    .map(|(&at, &value)| (at as u32, value)).collect();
                prop_assert_eq!(keys, wanted);
                let sum = |is_counted: &dyn Fn(usize) -> bool| -> f64 {
                    (0..dense.len()).filter(|&column| is_counted(column)).map(|column| f64::from(dense[column])).sum()
                };
                prop_assert_eq!(sums, Sums { total: sum(&|_| true), kept: sum(&|column| is_kept[column]) });
            }
        }
    }
}
