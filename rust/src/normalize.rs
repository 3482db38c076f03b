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

    /// Takes the steps, in place, for values of one row, whose absolute values sum to `total`.
    ///
    /// `columns` are those of the values' genes. Each value comes out as a float32, which may be NaN or infinite.
    pub fn apply(&self, values: &mut [f64], columns: impl Iterator<Item = u32>, total: f64, log1p: &Log1p) {
        // A step at a time for all values: one value's steps wait for one another, those of many do not.
        if let Some(target_sum) = self.target_sum
            && total > 0.0
        {
            // One rounding from the stored type, so that a float64 layer is not rounded before it is divided.
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
                // Not `f64::ln_1p`, which is whatever the platform's C library makes of it.
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
