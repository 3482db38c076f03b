//! Keys in, the first n of them in order out.
//!
//! Written for cells: a few thousand keys, which come in order of their positions, and of which most are wanted.

use crate::order::Key;

/// Room to sort in, used again from cell to cell.
#[derive(Debug)]
pub struct Room<K> {
    keys: Vec<K>,
    counts: Vec<u32>,
}

impl<K> Default for Room<K> {
    fn default() -> Self {
        Self { keys: Vec::new(), counts: Vec::new() }
    }
}

/// Keys below which comparing beats counting.
const FEW_KEYS: usize = 128;
/// Most bits of a value that one pass counts: more counters than a cell has keys would cost more than they save.
const DIGIT_BITS: u32 = 11;
/// Bits of the one pass that is tried where values repeat.
const BUCKET_BITS: u32 = 10;

/// Puts the `n` first keys in order at the front of `keys` and cuts the rest off.
///
/// The keys must come in order of their positions: the sort is stable and looks at values alone.
pub fn first_n<K: Key>(keys: &mut Vec<K>, n: usize, room: &mut Room<K>) {
    if n == 0 {
        keys.clear();
        return;
    }
    if keys.len() < FEW_KEYS {
        keys.sort_unstable();
    } else {
        if keys.len() / 2 > n {
            cut(keys, n, room);
        }
        sort(keys, room);
    }
    keys.truncate(n);
}

/// Drops keys that are surely not among the first `n`, by the leading bits in which the values differ.
fn cut<K: Key>(keys: &mut Vec<K>, n: usize, room: &mut Room<K>) {
    let (lowest, bits) = span(keys);
    let shift = bits.saturating_sub(DIGIT_BITS);
    let counts = count(keys, &mut room.counts, DIGIT_BITS, |key| digit(key, lowest, shift, DIGIT_BITS));
    let mut left = n;
    let last = counts.iter().position(|&count| {
        let enough = count as usize >= left;
        left = left.saturating_sub(count as usize);
        enough
    });
    let last = last.unwrap_or(counts.len());
    let mut n_kept = 0;
    for i in 0..keys.len() {
        let key = keys[i];
        keys[n_kept] = key; // without a branch: which keys stay is anyone's guess
        n_kept += usize::from(digit(key, lowest, shift, DIGIT_BITS) <= last);
    }
    keys.truncate(n_kept);
}

/// Sorts by counting digits of the value, lowest first (an LSD radix sort), over just the bits in which values differ.
fn sort<K: Key>(keys: &mut Vec<K>, room: &mut Room<K>) {
    let (lowest, bits) = span(keys);
    room.keys.resize(keys.len(), K::default());
    // The leading bits alone tell most values apart, and little is left to do: one digit of them where values repeat, as
    // counts of molecules do, else two.
    let n_leading = if repeats(keys) { 1 } else { 2 };
    if bits > n_leading * BUCKET_BITS {
        for digit in 0..n_leading {
            pass(keys, room, lowest, bits - (n_leading - digit) * BUCKET_BITS, BUCKET_BITS);
        }
        if settle(keys) {
            return;
        }
    }
    let n_passes = bits.div_ceil(DIGIT_BITS).max(1);
    let width = bits.div_ceil(n_passes);
    for pass_number in 0..n_passes {
        pass(keys, room, lowest, pass_number * width, width);
    }
}

/// The lowest value, and the number of low bits that hold all differences from it.
fn span<K: Key>(keys: &[K]) -> (u64, u32) {
    // Four at a time, which do not wait for one another.
    let mut ends = [(u64::MAX, 0); 4];
    for keys in keys.chunks(4) {
        for (key, (low, high)) in keys.iter().zip(&mut ends) {
            let bits = key.value_bits();
            (*low, *high) = (bits.min(*low), bits.max(*high));
        }
    }
    let lowest = ends.iter().fold(u64::MAX, |low, end| low.min(end.0));
    let highest = ends.iter().fold(0, |high, end| high.max(end.1));
    (lowest, u64::BITS - highest.saturating_sub(lowest).leading_zeros())
}

/// Some bits of a value's distance from the lowest.
#[inline]
fn digit<K: Key>(key: K, lowest: u64, shift: u32, width: u32) -> usize {
    ((key.value_bits() - lowest) >> shift) as usize & ((1 << width) - 1)
}

/// Counts the keys of each digit.
fn count<'a, K: Key>(keys: &[K], counts: &'a mut Vec<u32>, width: u32, digit: impl Fn(K) -> usize) -> &'a mut [u32] {
    counts.clear();
    counts.resize(1 << width, 0);
    for &key in keys {
        counts[digit(key)] += 1;
    }
    counts
}

/// Orders keys by one digit; those with equal ones stay as they are.
fn pass<K: Key>(keys: &mut Vec<K>, room: &mut Room<K>, lowest: u64, shift: u32, width: u32) {
    let digit = |key| digit(key, lowest, shift, width);
    let places = count(keys, &mut room.counts, width, digit);
    let mut start = 0;
    for place in places.iter_mut() {
        start += std::mem::replace(place, start);
    }
    for &key in keys.iter() {
        let place = &mut places[digit(key)];
        room.keys[*place as usize] = key;
        *place += 1;
    }
    std::mem::swap(keys, &mut room.keys);
}

/// Tells from the first keys whether values repeat. Speed alone hangs on it.
fn repeats<K: Key>(keys: &[K]) -> bool {
    const SAMPLE: usize = 64;
    let alike = keys.windows(2).take(SAMPLE).filter(|pair| pair[0].value_bits() == pair[1].value_bits());
    alike.count() > SAMPLE / 8
}

/// Sorts what is nearly sorted, by insertion; gives up, `false`, where that takes too many moves.
///
/// Either way equal values stay in the order of their positions.
fn settle<K: Key>(keys: &mut [K]) -> bool {
    let mut moves = 0;
    for i in 1..keys.len() {
        let key = keys[i];
        let mut place = i;
        while place > 0 && keys[place - 1] > key {
            keys[place] = keys[place - 1];
            place -= 1;
        }
        keys[place] = key;
        moves += i - place;
        if moves > 2 * keys.len() {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::{Room, first_n};
    use crate::order::Value;
    use proptest::prelude::*;

    fn check_first_n<T: Value>(values: &[T], n: usize) -> Result<(), TestCaseError> {
        let mut keys: Vec<T::Key> = values.iter().enumerate().map(|(p, &v)| v.key(p as u32)).collect();
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        sorted.truncate(n);
        first_n(&mut keys, n, &mut Room::default());
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
        fn first_n_is_the_head_of_the_full_sort_where_counts_became_floats(
            counts in prop::collection::vec(prop_oneof![3 => 1u16..3, 2 => 1u16..40, 1 => any::<u16>()], 100..900),
            n in 0usize..900,
        ) {
            let values: Vec<f32> = counts.into_iter().map(|count| (f32::from(count) * 0.37).ln_1p()).collect();
            check_first_n(&values, n)?;
        }
    }
}
