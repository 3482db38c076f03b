//! Keys in, the first n of them in order out.
//!
//! Written for cells: a few thousand keys, which come in order of their positions, and of which most are wanted.

use crate::order::Key;

/// Room to sort in, used again from cell to cell.
#[derive(Debug)]
pub struct Room<K> {
    keys: Vec<K>,
    counts: [Counts; 2],
}

impl<K> Default for Room<K> {
    fn default() -> Self {
        Self { keys: Vec::new(), counts: [[0; N_DIGITS]; 2] }
    }
}

/// Keys below which comparing beats counting.
const FEW_KEYS: usize = 128;
/// Bits of a value that one pass looks at: few, so that counters are cleared and added up in no time.
const DIGIT_BITS: u32 = 8;
const N_DIGITS: usize = 1 << DIGIT_BITS;
/// How many keys have each digit; later, where the next of them belongs.
type Counts = [u32; N_DIGITS];

/// Puts the `n` first keys in order at the front of `keys` and cuts the rest off.
///
/// The keys must come in order of their positions, or in order already: the sort is stable and looks at values alone.
pub fn first_n<K: Key>(keys: &mut Vec<K>, n: usize, room: &mut Room<K>) {
    if n == 0 {
        keys.clear();
        return;
    }
    if keys.len() / 2 > n && keys.len() >= FEW_KEYS {
        cut(keys, n, room);
    }
    order(keys, room);
    keys.truncate(n);
}

/// Puts all keys in order.
///
/// They must come in order of their positions, or in order already.
pub fn order<K: Key>(keys: &mut Vec<K>, room: &mut Room<K>) {
    if keys.is_sorted() {
        // Found out within a few keys where it is not so.
    } else if keys.len() < FEW_KEYS {
        keys.sort_unstable();
    } else {
        sort(keys, room);
    }
}

/// Drops keys that are surely not among the first `n`, by the leading bits in which the values differ.
fn cut<K: Key>(keys: &mut Vec<K>, n: usize, room: &mut Room<K>) {
    let (lowest, bits) = span(keys);
    let digit = |key| digit(key, lowest, bits.saturating_sub(DIGIT_BITS));
    let counts = &mut room.counts[0];
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
        keys[n_kept] = key; // without a branch: which keys stay is anyone's guess
        n_kept += usize::from(digit(key) <= last);
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
    if bits > n_leading * DIGIT_BITS {
        for digit in (0..n_leading).rev() {
            pass(keys, room, lowest, bits - (digit + 1) * DIGIT_BITS);
        }
        if settle(keys) {
            return;
        }
    }
    for digit in 0..bits.div_ceil(DIGIT_BITS) {
        pass(keys, room, lowest, digit * DIGIT_BITS);
    }
}

/// The lowest value, and the number of low bits that hold all differences from it.
fn span<K: Key>(keys: &[K]) -> (u64, u32) {
    let Some(&first) = keys.first() else { return (0, 0) };
    // Four at a time, which do not wait for one another.
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

/// One digit of a value's distance from the lowest.
#[inline]
fn digit<K: Key>(key: K, lowest: u64, shift: u32) -> usize {
    ((key.value_bits() - lowest) >> shift) as usize % N_DIGITS
}

/// Orders keys by one digit; those with equal ones stay as they are.
///
/// The two halves have counters of their own and are gone through side by side: most keys of a cell may have one digit,
/// and a counter that is needed again at once makes the processor wait.
fn pass<K: Key>(keys: &mut Vec<K>, room: &mut Room<K>, lowest: u64, shift: u32) {
    let digit = |key| digit(key, lowest, shift);
    let (front, back) = keys.split_at(keys.len() / 2);
    let last = &back[front.len()..]; // the one key that is left of an odd number
    let [of_front, of_back] = &mut room.counts;
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
        room.keys[*place as usize] = key;
        *place += 1;
    };
    for (&front, &back) in front.iter().zip(back) {
        put(front, of_front);
        put(back, of_back);
    }
    for &key in last {
        put(key, of_back);
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
