//! Places in the sequence as values: `continuous_rank` gives the first gene 1, the last -1, the others even steps.

/// The value of gene `i` of a sequence of `length` genes: 1 - 2 i / (length - 1), in float64, then float32.
#[inline]
#[must_use]
pub fn rank(i: usize, length: usize) -> f32 {
    if length == 1 { 1.0 } else { (1.0 - (2 * i) as f64 / (length - 1) as f64) as f32 }
}

#[cfg(test)]
mod tests {
    use super::rank;

    #[test]
    fn ranks_run_from_one_to_minus_one() {
        let ranks: Vec<f32> = (0..7).map(|i| rank(i, 7)).collect();
        assert_eq!(ranks, [1.0, 2.0 / 3.0, 1.0 / 3.0, 0.0, -1.0 / 3.0, -2.0 / 3.0, -1.0]);
        assert_eq!(rank(0, 1).to_bits(), 1.0f32.to_bits());
    }
}
