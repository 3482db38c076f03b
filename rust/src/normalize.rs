//! Normalises raw counts in four steps, each computed in float64 and stored as float32, as TEDDY's preprocessing does.

use crate::error::{Error, ErrorKind, Result};
use crate::genes::GeneIndex;
use crate::log1p::Log1p;
use crate::order::{Key, Value};
use crate::select::Candidates;

/// The steps to apply; none by default.
#[derive(Debug, Clone, Default)]
pub struct Normalization {
    /// Steps 1 and 2: divide by the row's sum of absolute values, then multiply by this (TEDDY: 10,000).
    pub target_sum: Option<f64>,
    /// Step 3: multiply by 1 / the gene's median; one number per column.
    pub inverse_medians: Option<Vec<f64>>,
    /// Step 4: ln(1 + value).
    pub log1p: bool,
}

/// Buffers for normalising, reused for every cell.
#[derive(Debug, Default)]
pub(crate) struct NormalizeBuffers {
    values: Vec<f64>,
    log1p: Log1p,
}

impl Normalization {
    /// Returns whether any step is applied; if not, values keep their stored type.
    pub(crate) fn is_on(&self) -> bool {
        self.target_sum.is_some() || self.inverse_medians.is_some() || self.log1p
    }

    /// Fills `processed` with the normalised candidates of a cell; candidates that become 0 are left out.
    ///
    /// `total` is the row's sum of absolute values. Unless each gene has its own factor, equal values stay equal: the
    /// keys are sorted first, and each distinct value is computed once.
    pub(crate) fn normalize<T: Value>(
        &self,
        raw: &mut Candidates<T>,
        total: f64,
        genes: &GeneIndex,
        buffers: &mut NormalizeBuffers,
        processed: &mut Candidates<f32>,
    ) -> Result<()> {
        let NormalizeBuffers { values, log1p } = buffers;
        let by_gene = self.inverse_medians.is_some();
        if !by_gene {
            raw.sort();
        }
        for (raw, processed) in [(&raw.positive, &mut processed.positive), (&raw.negative, &mut processed.negative)] {
            values.clear();
            processed.clear();
            let value_of = |&key: &T::Key| T::value_of(key).to_f64();
            let processed_key = |&key: &T::Key, value: f64| (value as f32).key(T::position_of(key));
            if by_gene {
                values.extend(raw.iter().map(value_of));
                let columns = raw.iter().map(|&key| genes.column(T::position_of(key)));
                self.apply(values, columns, total, log1p);
                processed.extend(raw.iter().zip(&*values).map(|(key, &value)| processed_key(key, value)));
            } else {
                let runs = || raw.chunk_by(|before, after| before.value_bits() == after.value_bits());
                values.extend(runs().map(|run| value_of(&run[0])));
                self.apply(values, std::iter::empty(), total, log1p);
                for (run, &value) in runs().zip(&*values) {
                    processed.extend(run.iter().map(|key| processed_key(key, value)));
                }
            }
            if !values.iter().all(|value| value.is_finite()) {
                let bad = processed.iter().filter(|&&key| !f32::value_of(key).is_finite());
                let first = bad.map(|&key| f32::position_of(key)).min();
                let error = Error::new(ErrorKind::NormalizedNotFinite);
                return Err(first.map_or(error, |position| error.at_column(genes.column(position))));
            }
            if values.contains(&0.0) {
                processed.retain(|&key| f32::value_of(key) != 0.0);
            }
            if !by_gene && !processed.is_sorted() {
                processed.sort_unstable(); // rounding made some different values equal
            }
        }
        Ok(())
    }

    /// Applies the steps, in place, to values of one row.
    ///
    /// `columns` are those of the values' genes. Each result is a float32, which may be NaN or infinite.
    pub(crate) fn apply(&self, values: &mut [f64], columns: impl Iterator<Item = u32>, total: f64, log1p: &Log1p) {
        // One step at a time for all values: the steps of one value depend on each other, different values do not.
        if let Some(target_sum) = self.target_sum
            && total > 0.0
        {
            // Rounded once from the stored type: a float64 layer is not rounded before the division.
            for x in &mut *values {
                *x = round(round(*x / total) * target_sum);
            }
        }
        if let Some(inverse_medians) = &self.inverse_medians {
            for (x, column) in values.iter_mut().zip(columns) {
                *x = round(*x * inverse_medians[column as usize]);
            }
        }
        if self.log1p {
            for x in values {
                // Not `f64::ln_1p`, whose bits depend on the platform's C library.
                *x = f64::from(log1p.of(*x));
            }
        }
    }
}

/// Rounds to float32.
fn round(x: f64) -> f64 {
    f64::from(x as f32)
}

#[cfg(test)]
mod tests {
    use super::Normalization;
    use crate::log1p::Log1p;

    fn processed(steps: &Normalization, value: f64, total: f64) -> f64 {
        let mut values = [value];
        steps.apply(&mut values, std::iter::once(0), total, &Log1p::default());
        values[0]
    }

    #[test]
    fn every_step_is_rounded_to_float32() {
        let steps = Normalization { target_sum: Some(1e4), inverse_medians: Some(vec![1.0 / 3.0]), log1p: true };
        let (value, total) = (3.0f64, 7.0f64);
        let one = (value / total) as f32;
        let two = (f64::from(one) * 1e4) as f32;
        let three = (f64::from(two) * (1.0 / 3.0)) as f32;
        let four = f64::from(three).ln_1p() as f32;
        assert_eq!(processed(&steps, value, total).to_bits(), f64::from(four).to_bits());
    }

    #[test]
    fn a_row_whose_sum_is_zero_stays_zero() {
        let steps = Normalization { target_sum: Some(1e4), inverse_medians: None, log1p: true };
        assert_eq!(processed(&steps, 0.0, 0.0).to_bits(), 0);
    }
}
