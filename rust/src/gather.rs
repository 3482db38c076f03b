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
    match candidates {
        None => pass::<I, T, false>(row, kept, kept, keys),
        Some(candidates) => pass::<I, T, true>(row, kept, candidates, keys),
    }
}

#[inline(never)] // among the code around it, it runs out of registers
fn pass<I: Index, T: Value, const SUBSET: bool>(
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
        odd |= value.is_negative_or_nan();
        sums.total += magnitude;
        // Seen through, this would be made a branch again.
        let is_kept = black_box(i32::from(position >= 0));
        sums.kept += magnitude * f64::from(is_kept);
        let position = if SUBSET { candidates[column] } else { position };
        keys[n_keys] = value.key(position as u32); // of -1 nothing remains: the next key takes its place
        n_keys += usize::from(position >= 0) & usize::from(value > T::ZERO);
    }
    keys.truncate(n_keys);
    (!odd && sums.total.is_finite()).then_some(sums)
}
