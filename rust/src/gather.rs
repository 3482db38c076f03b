//! A row as most are, in one pass: columns ascending, nothing negative. Its candidates come out as keys, beside its sums.
//!
//! Which columns are kept is as good as random, so a branch on it would be guessed wrong a thousand times a cell: each
//! entry is written, and overwritten by the next where it is no candidate. That makes the pass three times as fast.

use std::hint::black_box;

use crate::matrix::{Index, Row};
use crate::order::Value;

/// A cell's sums of absolute values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sums {
    /// Over all columns.
    pub total: f64,
    /// Over those of kept genes.
    pub kept: f64,
}

/// Fills `keys` with the candidates above zero, by position, and sums the values in column order.
///
/// `kept` gives each column's position, -1 where its gene was dropped; `candidates` the same for a random subset.
/// `None` where the row is another than most, good or bad; `keys` then holds nothing of use.
pub fn sweep<I: Index, T: Value>(
    row: Row<'_, I, T>,
    kept: &[i32],
    candidates: Option<&[i32]>,
    keys: &mut Vec<T::Key>,
) -> Option<Sums> {
    let lowest = lowest(row.values);
    let zeros = lowest == T::ZERO;
    match candidates {
        _ if lowest < T::ZERO => None,
        None if zeros => pass::<I, T, false, true>(row, kept, kept, keys),
        None => pass::<I, T, false, false>(row, kept, kept, keys),
        Some(candidates) if zeros => pass::<I, T, true, true>(row, kept, candidates, keys),
        Some(candidates) => pass::<I, T, true, false>(row, kept, candidates, keys),
    }
}

/// The lowest of the values that are not NaN; zero of none.
fn lowest<T: Value>(values: &[T]) -> T {
    let Some(&first) = values.first() else { return T::ZERO };
    // Eight at a time, for which processors have instructions.
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

/// `ZEROS`: there may be some among the values, which are all at least that, or NaN.
#[inline(never)] // among the code around it, it runs out of registers
fn pass<I: Index, T: Value, const SUBSET: bool, const ZEROS: bool>(
    row: Row<'_, I, T>,
    kept: &[i32],
    candidates: &[i32],
    keys: &mut Vec<T::Key>,
) -> Option<Sums> {
    keys.resize(row.values.len(), T::Key::default());
    let (mut n_keys, mut next, mut odd) = (0, 0, false);
    let mut sums = Sums { total: 0.0, kept: 0.0 };
    for (&index, &value) in row.columns.iter().zip(row.values) {
        let column = index.place();
        odd |= column < next;
        let &position = kept.get(column)?;
        next = column + 1;
        let magnitude = value.to_f64();
        sums.total += magnitude;
        // Of all ways to say so, this is the one that no compiler has made a branch of.
        sums.kept += [magnitude, 0.0][is_none(position)];
        let position = if SUBSET { candidates[column] } else { position };
        keys[n_keys] = value.key(position as u32); // of -1 nothing remains: the next key takes its place
        let is_zero = if ZEROS { black_box(usize::from(value == T::ZERO)) } else { 0 };
        n_keys += 1 - (is_none(position) | is_zero);
    }
    keys.truncate(n_keys);
    (!odd && sums.total.is_finite()).then_some(sums)
}

/// 1 for a position below zero, else 0.
#[inline]
fn is_none(position: i32) -> usize {
    (position as u32 >> 31) as usize
}
