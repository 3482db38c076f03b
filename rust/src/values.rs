//! Writes the value of each token: the expression, the bin id or the rank in the sequence.

use crate::bins::{BinBuffers, bin_ids};
use crate::error::{Error, ErrorKind, Result};
use crate::genes::GeneIndex;
use crate::order::Value;
use crate::output::{Values, fill};

/// The kind of the values of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueMode {
    /// The expression value, as float32.
    Expression,
    /// The bin id, for this number of bins.
    Bins(usize),
    /// The rank, from 1 for the first gene of a sequence to -1 for the last.
    Ranks,
    /// No values.
    None,
}

impl ValueMode {
    /// Makes an array of values in the type of the mode.
    pub(crate) fn array<F, I>(self, floats: impl FnOnce() -> F, ids: impl FnOnce() -> I) -> Values<F, I> {
        match self {
            Self::Expression | Self::Ranks => Values::Floats(floats()),
            Self::Bins(_) => Values::Ids(ids()),
            Self::None => Values::None,
        }
    }
}

/// Writes the values of a sequence: 1 for CLS, if it has one, those of the selected genes, and 0 for EOS, if it has one.
///
/// `to` is an array in the type of the mode, with the length of the sequence.
///
/// # Errors
/// [`ErrorKind::TooLargeForFloat32`] with the column of the gene whose expression value is too large.
#[inline(never)] // inlined, it runs out of registers
pub(crate) fn write_values<V: Value>(
    selected: &[V::Key],
    mode: ValueMode,
    has_cls: bool,
    has_eos: bool,
    genes: &GeneIndex,
    bins: &mut BinBuffers,
    to: Values<&mut [f32], &mut [i32]>,
) -> Result<()> {
    match (mode, to) {
        (ValueMode::Expression, Values::Floats(to)) => {
            let values = selected.iter().map(|&key| V::value_of(key).to_f32());
            fill(to, has_cls.then_some(1.0), values, has_eos.then_some(0.0));
            // The largest magnitude is that of the first or the last value.
            for &key in selected.first().into_iter().chain(selected.last()) {
                if !V::value_of(key).to_f32().is_finite() {
                    return Err(Error::new(ErrorKind::TooLargeForFloat32).at_column(genes.column(V::position_of(key))));
                }
            }
        }
        (ValueMode::Ranks, Values::Floats(to)) => {
            let ranks = (0..selected.len()).map(|i| rank(i, selected.len()));
            fill(to, has_cls.then_some(1.0), ranks, has_eos.then_some(0.0));
        }
        (ValueMode::Bins(n_bins), Values::Ids(to)) => {
            let values = selected.iter().map(|&key| V::value_of(key).to_f64());
            fill(to, has_cls.then_some(1), bin_ids(values, n_bins, bins), has_eos.then_some(0));
        }
        _ => {} // no values; `Kernel::tokenize_into` refused an array of another type
    }
    Ok(())
}

/// Computes the rank of gene `i` of `n_genes` in a sequence, 1 - 2 i / (`n_genes` - 1): in float64, then float32.
#[inline]
fn rank(i: usize, n_genes: usize) -> f32 {
    if n_genes == 1 { 1.0 } else { (1.0 - (2 * i) as f64 / (n_genes - 1) as f64) as f32 }
}

#[cfg(test)]
mod tests {
    use super::rank;

    #[test]
    fn ranks_descend_from_one_to_minus_one() {
        let ranks: Vec<f32> = (0..7).map(|i| rank(i, 7)).collect();
        assert_eq!(ranks, [1.0, 2.0 / 3.0, 1.0 / 3.0, 0.0, -1.0 / 3.0, -2.0 / 3.0, -1.0]);
        assert_eq!(rank(0, 1).to_bits(), 1.0f32.to_bits());
    }
}
