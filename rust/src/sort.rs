//! Sorts the keys of one cell, and keeps the first n.
//!
//! Optimised for cells: a few thousand keys that are already sorted by position, most of which are selected.

use crate::order::Key;

/// Buffers for sorting, reused for every cell.
#[derive(Debug)]
pub(crate) struct SortBuffers<K> {
    keys: Vec<K>,
    counts: [Counts; 2],
}

impl<K> Default for SortBuffers<K> {
    fn default() -> Self {
        Self { keys: Vec::new(), counts: [[0; N_DIGITS]; 2] }
    }
}

/// Number of keys below which a comparison sort is faster.
const FEW_KEYS: usize = 128;
/// Bits of a value that one pass reads: few, so that it takes little time to clear and add up the counters.
const DIGIT_BITS: u32 = 8;
const N_DIGITS: usize = 1 << DIGIT_BITS;
/// The number of keys with each digit; later, the index of the next key with that digit.
type Counts = [u32; N_DIGITS];

/// Sorts `keys` and keeps the first `n`.
///
/// The keys must be sorted by position, or sorted already: the sort is stable and reads only the values.
pub(crate) fn first_n<K: Key>(keys: &mut Vec<K>, n: usize, buffers: &mut SortBuffers<K>) {
    if n == 0 {
        keys.clear();
        return;
    }
    if keys.len() / 2 > n && keys.len() >= FEW_KEYS {
        drop_last(keys, n, buffers);
    }
    sort(keys, buffers);
    keys.truncate(n);
}

/// Sorts all keys.
///
/// They must be sorted by position, or sorted already.
pub(crate) fn sort<K: Key>(keys: &mut Vec<K>, buffers: &mut SortBuffers<K>) {
    if keys.is_sorted() {
        // Done. For unsorted keys, this check ends after a few.
    } else if keys.len() < FEW_KEYS {
        keys.sort_unstable();
    } else {
        radix_sort(keys, buffers);
    }
}

/// Drops keys that cannot be among the first `n`, by the leading bits in which the values differ.
fn drop_last<K: Key>(keys: &mut Vec<K>, n: usize, buffers: &mut SortBuffers<K>) {
    let (lowest, bits) = value_range(keys);
    let digit = |key| digit(key, lowest, bits.saturating_sub(DIGIT_BITS));
    let counts = &mut buffers.counts[0];
    counts.fill(0);
    for &key in &*keys {
        counts[digit(key)] += 1;
    }
    let mut left = n;
    let last = counts.iter().position(|&count| {
        let enough = count as usize >= left;
        left = left.saturating_sub(count as usize);
        enough
    });
    let last = last.unwrap_or(N_DIGITS);
    let mut n_kept = 0;
    for i in 0..keys.len() {
        let key = keys[i];
        keys[n_kept] = key; // without a branch: a processor cannot predict which keys stay
        n_kept += usize::from(digit(key) <= last);
    }
    keys.truncate(n_kept);
}

/// Sorts by digits of the value, lowest first (LSD radix sort), using only the bits in which the values differ.
fn radix_sort<K: Key>(keys: &mut Vec<K>, buffers: &mut SortBuffers<K>) {
    let (lowest, bits) = value_range(keys);
    buffers.keys.resize(keys.len(), K::default());
    // The leading digits distinguish most values: one digit if values repeat, as counts of molecules do, otherwise two.
    // Few moves remain for the insertion sort.
    let n_leading = if has_repeats(keys) { 1 } else { 2 };
    if bits > n_leading * DIGIT_BITS {
        for digit in (0..n_leading).rev() {
            sort_by_digit(keys, buffers, lowest, bits - (digit + 1) * DIGIT_BITS);
        }
        if insertion_sort(keys) {
            return;
        }
    }
    for digit in 0..bits.div_ceil(DIGIT_BITS) {
        sort_by_digit(keys, buffers, lowest, digit * DIGIT_BITS);
    }
}

/// Returns the smallest value, and the number of low bits that hold every difference from it.
fn value_range<K: Key>(keys: &[K]) -> (u64, u32) {
    let Some(&first) = keys.first() else { return (0, 0) };
    // Four at a time, because they do not depend on each other.
    let mut ends = [(first, first); 4];
    let (chunks, rest) = keys.as_chunks::<4>();
    for chunk in chunks {
        for (&key, (low, high)) in chunk.iter().zip(&mut ends) {
            (*low, *high) = (key.min(*low), key.max(*high));
        }
    }
    let ends = ends.into_iter().chain(rest.iter().map(|&key| (key, key)));
    let (low, high) = ends.fold((first, first), |(low, high), end| (low.min(end.0), high.max(end.1)));
    let lowest = low.value_bits();
    (lowest, u64::BITS - (high.value_bits() - lowest).leading_zeros())
}

/// Returns one digit of a value's difference from the smallest value.
#[inline]
fn digit<K: Key>(key: K, lowest: u64, shift: u32) -> usize {
    ((key.value_bits() - lowest) >> shift) as usize % N_DIGITS
}

/// Sorts keys by one digit; keys with the same digit keep their order.
///
/// The two halves are read in parallel, each with its own counters: many keys of a cell may share a digit, and the
/// processor waits if the same counter is used twice in a row.
fn sort_by_digit<K: Key>(keys: &mut Vec<K>, buffers: &mut SortBuffers<K>, lowest: u64, shift: u32) {
    let digit = |key| digit(key, lowest, shift);
    let (front, back) = keys.split_at(keys.len() / 2);
    let last = &back[front.len()..]; // one key if their number is odd
    let [of_front, of_back] = &mut buffers.counts;
    of_front.fill(0);
    of_back.fill(0);
    for (&front, &back) in front.iter().zip(back) {
        of_front[digit(front)] += 1;
        of_back[digit(back)] += 1;
    }
    for &key in last {
        of_back[digit(key)] += 1;
    }
    let mut start = 0;
    for (front, back) in of_front.iter_mut().zip(of_back.iter_mut()) {
        start += std::mem::replace(front, start);
        start += std::mem::replace(back, start);
    }
    let mut put = |key, places: &mut Counts| {
        let place = &mut places[digit(key)];
        buffers.keys[*place as usize] = key;
        *place += 1;
    };
    for (&front, &back) in front.iter().zip(back) {
        put(front, of_front);
        put(back, of_back);
    }
    for &key in last {
        put(key, of_back);
    }
    std::mem::swap(keys, &mut buffers.keys);
}

/// Returns whether values repeat, judged by the first keys. Only the speed depends on it.
fn has_repeats<K: Key>(keys: &[K]) -> bool {
    const SAMPLE: usize = 64;
    let equal = keys.windows(2).take(SAMPLE).filter(|pair| pair[0].value_bits() == pair[1].value_bits());
    equal.count() > SAMPLE / 8
}

/// Sorts nearly sorted keys by insertion; stops and returns `false` if it needs too many moves.
///
/// In both cases equal values stay in the order of their positions.
fn insertion_sort<K: Key>(keys: &mut [K]) -> bool {
    let (mut sorted, mut moves) = (0, 0);
    while let Some(ahead) = keys[sorted..].windows(2).position(|pair| pair[0] > pair[1]) {
        sorted += ahead + 1;
        let key = keys[sorted];
        let mut place = sorted;
        while place > 0 && keys[place - 1] > key {
            keys[place] = keys[place - 1];
            place -= 1;
        }
        keys[place] = key;
        moves += sorted - place;
        if moves > 2 * keys.len() {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::{SortBuffers, first_n};
    use crate::order::Value;
    use proptest::prelude::*;

    fn check_first_n<T: Value>(values: &[T], n: usize) -> Result<(), TestCaseError> {
        let mut keys: Vec<T::Key> = values.iter().enumerate().map(|(p, &v)| v.key(p as u32)).collect();
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        sorted.truncate(n);
        first_n(&mut keys, n, &mut SortBuffers::default());
        prop_assert_eq!(keys, sorted);
        Ok(())
    }

    proptest! {
        #[test]
        fn first_n_is_the_head_of_the_full_sort(values in prop::collection::vec(-1e6f32..1e6, 0..600), n in 0usize..700) {
            check_first_n(&values, n)?;
        }

        #[test]
        fn first_n_is_the_head_of_the_full_sort_for_wide_values(values in prop::collection::vec(-1e6f64..1e6, 0..300), n in 0usize..400) {
            check_first_n(&values, n)?;
        }

        #[test]
        fn first_n_is_the_head_of_the_full_sort_with_many_ties(values in prop::collection::vec(-3i32..9, 0..900), n in 0usize..900) {
            check_first_n(&values, n)?;
        }

        #[test]
        fn first_n_is_the_head_of_the_full_sort_for_log_normalized_counts(
            counts in prop::collection::vec(prop_oneof![3 => 1u16..3, 2 => 1u16..40, 1 => any::<u16>()], 100..900),
            n in 0usize..900,
        ) {
            let values: Vec<f32> = counts.into_iter().map(|count| (f32::from(count) * 0.37).ln_1p()).collect();
            check_first_n(&values, n)?;
        }
    }
}
