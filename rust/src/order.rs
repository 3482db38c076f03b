//! Orders genes: largest value first, equal values by position. Only this file defines the order.
//!
//! A value and its position are packed into one unsigned number, the key. Ascending keys are the order of the genes:
//!
//! ```text
//!   high bits: the value, mapped so that a larger value gives a smaller number      low 32 bits: the position
//! ```
//!
//! Values of up to 32 bits are packed into a `u64`, 64-bit values into a `u128`. No value is rounded, so the order is
//! that of the stored precision. Two candidates of a cell never share a position, so all keys are different and every
//! sort gives the same result.

use std::fmt::Debug;

/// A value and a position, packed.
pub trait Key: Copy + Debug + Default + Ord + Send + Sync {
    /// Returns the value's part of the key.
    fn value_bits(self) -> u64;
}

impl Key for u64 {
    #[inline]
    fn value_bits(self) -> u64 {
        self >> 32
    }
}

impl Key for u128 {
    #[inline]
    fn value_bits(self) -> u64 {
        (self >> 32) as u64 // the value has 64 bits
    }
}

/// A number type of stored values.
pub trait Value: Copy + Debug + PartialEq + PartialOrd + Send + Sync + 'static {
    /// The type of a packed value and position.
    type Key: Key;
    /// Zero. Negative zero equals it.
    const ZERO: Self;

    /// Packs a value, which is not NaN, and its position.
    fn key(self, position: u32) -> Self::Key;
    /// Unpacks the value.
    fn value_of(key: Self::Key) -> Self;
    /// Unpacks the position.
    fn position_of(key: Self::Key) -> u32;
    /// Returns whether the value is neither NaN nor infinite.
    fn is_finite(self) -> bool;
    /// Adds as `SciPy` sums duplicate entries: integers wrap.
    #[must_use]
    fn add(self, other: Self) -> Self;
    /// Adds; `None` if an integer sum overflows or a float sum is not finite.
    fn checked_add(self, other: Self) -> Option<Self>;
    /// Converts, rounding to nearest.
    fn to_f64(self) -> f64;
    /// Converts, rounding to nearest.
    fn to_f32(self) -> f32;
}

macro_rules! value {
    ($type:ty, $bits:ty, $key:ty, |$v:ident| $to_bits:expr, |$b:ident| $from_bits:expr, $finite:expr, $add:expr, $checked:expr) => {
        impl Value for $type {
            type Key = $key;
            const ZERO: Self = 0 as $type;

            #[inline]
            fn key(self, position: u32) -> $key {
                let $v = self;
                let ascending: $bits = $to_bits;
                (<$key>::from(!ascending) << 32) | <$key>::from(position)
            }
            #[inline]
            fn value_of(key: $key) -> Self {
                let $b = !((key >> 32) as $bits);
                $from_bits
            }
            #[inline]
            fn position_of(key: $key) -> u32 {
                key as u32 // the low 32 bits
            }
            #[inline]
            fn is_finite(self) -> bool {
                $finite(self)
            }
            #[inline]
            fn add(self, other: Self) -> Self {
                $add(self, other)
            }
            #[inline]
            fn checked_add(self, other: Self) -> Option<Self> {
                $checked(self, other)
            }
            #[inline]
            #[allow(clippy::cast_lossless)]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline]
            #[allow(clippy::cast_lossless)]
            fn to_f32(self) -> f32 {
                self as f32
            }
        }
    };
}

// Flipping the sign bit puts two's complement integers in unsigned order.
macro_rules! signed {
    ($type:ty, $bits:ty, $wide:ty, $key:ty) => {
        value!(
            $type,
            $bits,
            $key,
            |v| (<$wide>::from(v) as $bits) ^ (1 << (<$bits>::BITS - 1)),
            |b| (b ^ (1 << (<$bits>::BITS - 1))) as $type,
            |_| true,
            <$type>::wrapping_add,
            <$type>::checked_add
        );
    };
}
macro_rules! unsigned {
    ($type:ty, $bits:ty, $key:ty) => {
        value!(
            $type,
            $bits,
            $key,
            |v| <$bits>::from(v),
            |b| b as $type,
            |_| true,
            <$type>::wrapping_add,
            <$type>::checked_add
        );
    };
}
// IEEE 754 numbers sort as sign-magnitude integers: flip all bits of a negative one, the sign bit of the others.
macro_rules! float {
    ($type:ty, $bits:ty, $key:ty) => {
        value!(
            $type,
            $bits,
            $key,
            |v| {
                let bits = v.to_bits();
                let sign = bits >> (<$bits>::BITS - 1);
                bits ^ (sign.wrapping_neg() | (1 << (<$bits>::BITS - 1)))
            },
            |b| {
                let positive = b >> (<$bits>::BITS - 1);
                <$type>::from_bits(b ^ (positive.wrapping_sub(1) | (1 << (<$bits>::BITS - 1))))
            },
            <$type>::is_finite,
            |a: $type, b: $type| a + b,
            |a: $type, b: $type| Some(a + b).filter(|sum| sum.is_finite())
        );
    };
}

signed!(i8, u32, i32, u64);
signed!(i16, u32, i32, u64);
signed!(i32, u32, i32, u64);
signed!(i64, u64, i64, u128);
unsigned!(u8, u32, u64);
unsigned!(u16, u32, u64);
unsigned!(u32, u32, u64);
unsigned!(u64, u64, u128);
float!(f32, u32, u64);
float!(f64, u64, u128);

#[cfg(test)]
mod tests {
    use super::Value;
    use proptest::prelude::*;

    fn check<T: Value>(mut values: Vec<T>) -> Result<(), TestCaseError> {
        let mut keys: Vec<T::Key> = values.iter().enumerate().map(|(p, &v)| v.key(p as u32)).collect();
        for (p, &key) in keys.iter().enumerate() {
            prop_assert_eq!(T::value_of(key), values[p]);
            prop_assert_eq!(T::position_of(key) as usize, p);
        }
        keys.sort_unstable();
        let mut expected: Vec<usize> = (0..values.len()).collect();
        expected.sort_by(|&a, &b| values[b].partial_cmp(&values[a]).unwrap_or(std::cmp::Ordering::Equal));
        prop_assert_eq!(keys.iter().map(|&k| T::position_of(k) as usize).collect::<Vec<_>>(), expected);
        values.clear();
        Ok(())
    }

    // -0.0 never becomes a key: it is a zero.
    fn f32s() -> impl Strategy<Value = f32> {
        prop_oneof![
            any::<f32>(),
            (-3i8..4).prop_map(f32::from),
            Just(f32::MIN),
            Just(f32::MAX),
            Just(f32::from_bits(1))
        ]
        .prop_filter("a finite value that is not -0.0", |v| v.is_finite() && v.to_bits() != (-0.0f32).to_bits())
    }
    fn f64s() -> impl Strategy<Value = f64> {
        prop_oneof![any::<f64>(), f32s().prop_map(f64::from), Just(f64::MIN), Just(f64::MAX), Just(f64::from_bits(1))]
            .prop_filter("a finite value that is not -0.0", |v| v.is_finite() && v.to_bits() != (-0.0f64).to_bits())
    }

    macro_rules! ordered {
        ($($name:ident: $strategy:expr;)*) => {
            proptest! { $(
                #[test]
                fn $name(values in prop::collection::vec($strategy, 0..40)) { check(values)?; }
            )* }
        };
    }
    ordered! {
        i8_keys_sort_by_value_then_position: any::<i8>();
        i16_keys_sort_by_value_then_position: any::<i16>();
        i32_keys_sort_by_value_then_position: any::<i32>();
        i64_keys_sort_by_value_then_position: prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), -2i64..3];
        u8_keys_sort_by_value_then_position: any::<u8>();
        u16_keys_sort_by_value_then_position: any::<u16>();
        u32_keys_sort_by_value_then_position: any::<u32>();
        u64_keys_sort_by_value_then_position: prop_oneof![any::<u64>(), Just(u64::MAX), 0u64..3];
        f32_keys_sort_by_value_then_position: f32s();
        f64_keys_sort_by_value_then_position: f64s();
    }
}
