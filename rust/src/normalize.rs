//! Raw counts to processed values: four steps, each computed in float64 and stored as float32, as TEDDY's
//! preprocessing does.

use crate::log1p::Log1p;

/// Which of the steps to take. The default takes none.
#[derive(Debug, Clone, Default)]
pub struct Normalization {
    /// Steps 1 and 2: divide by the row's sum of absolute values, then multiply by this (TEDDY: 10,000).
    pub target_sum: Option<f64>,
    /// Step 3: multiply by 1 / the gene's median, one number a column.
    pub inverse_medians: Option<Vec<f64>>,
    /// Step 4: ln(1 + value).
    pub log1p: bool,
}

impl Normalization {
    /// Tells whether any step is taken; if not, values keep their stored type.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.target_sum.is_some() || self.inverse_medians.is_some() || self.log1p
    }

    /// Prepares for the values of one row, whose absolute values sum to `total`.
    #[must_use]
    pub fn row<'a>(&'a self, total: f64, memo: &'a mut Memo) -> RowSteps<'a> {
        memo.processed.fill(f32::NAN);
        RowSteps { steps: self, total, memo }
    }
}

/// What became of a row's small whole numbers, as most counts are (NaN where nothing did yet), and logarithms.
#[derive(Debug)]
pub struct Memo {
    processed: [f32; 256],
    log1p: Log1p,
}

impl Default for Memo {
    fn default() -> Self {
        Self { processed: [f32::NAN; 256], log1p: Log1p::default() }
    }
}

/// The steps, for the values of one row.
#[derive(Debug)]
pub struct RowSteps<'a> {
    steps: &'a Normalization,
    total: f64,
    memo: &'a mut Memo,
}

impl RowSteps<'_> {
    /// Normalises one value. NaN or infinity may come out.
    #[inline]
    #[must_use]
    pub fn apply(&mut self, value: f64, column: u32) -> f32 {
        if self.steps.inverse_medians.is_some() {
            return self.compute(value, column); // the gene decides too
        }
        let whole = value as u8; // saturates
        if f64::from(whole).to_bits() != value.to_bits() {
            return self.compute(value, column);
        }
        let known = self.memo.processed[usize::from(whole)];
        if !known.is_nan() {
            return known;
        }
        let processed = self.compute(value, column);
        self.memo.processed[usize::from(whole)] = processed;
        processed
    }

    fn compute(&self, value: f64, column: u32) -> f32 {
        // One rounding from the stored type, so that a float64 layer is not rounded before it is divided.
        let mut x = value;
        if let Some(target_sum) = self.steps.target_sum
            && self.total > 0.0
        {
            x = f64::from((x / self.total) as f32);
            x = f64::from((x * target_sum) as f32);
        }
        if let Some(inverse_medians) = &self.steps.inverse_medians {
            x = f64::from((x * inverse_medians[column as usize]) as f32);
        }
        if self.steps.log1p {
            // Not `f64::ln_1p`, which is whatever the platform's C library makes of it.
            return self.memo.log1p.of(x);
        }
        x as f32
    }
}

#[cfg(test)]
mod tests {
    use super::{Memo, Normalization};

    #[test]
    fn every_step_is_rounded_to_float32() {
        let steps = Normalization { target_sum: Some(1e4), inverse_medians: Some(vec![1.0 / 3.0]), log1p: true };
        let (value, total) = (3.0f64, 7.0f64);
        let one = (value / total) as f32;
        let two = (f64::from(one) * 1e4) as f32;
        let three = (f64::from(two) * (1.0 / 3.0)) as f32;
        let four = f64::from(three).ln_1p() as f32;
        assert_eq!(steps.row(total, &mut Memo::default()).apply(value, 0).to_bits(), four.to_bits());
    }

    #[test]
    fn a_row_whose_sum_is_zero_stays_zero() {
        let steps = Normalization { target_sum: Some(1e4), inverse_medians: None, log1p: true };
        assert_eq!(steps.row(0.0, &mut Memo::default()).apply(0.0, 0).to_bits(), 0);
    }
}
