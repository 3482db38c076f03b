//! Chunks of an array as HDF5 stores them, side by side, in; the bytes that were written, side by side, out.
//!
//! A chunk has passed through filters, in order: perhaps the byte shuffle, then perhaps one compressor. Its mask says
//! which of them were left out for this one chunk. Unpacked, every chunk is of the same, known size; one that gives
//! more or less, or whose checksum differs, is damaged. Which filters a file may name, and all reading, is Python's.

use crate::error::{Error, ErrorKind};

/// A filter, by the number that HDF5 knows it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// 1: zlib streams, h5py's "gzip".
    Deflate,
    /// 2: all first bytes of the items, all second ones, and so on.
    Shuffle,
    /// 32000: h5py's "lzf".
    Lzf,
    /// 32015: the registered Zstandard filter.
    Zstd,
}

impl Filter {
    /// Finds a filter by its number.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Argument`] for any other number.
    pub const fn from_number(number: u32) -> Result<Self, Error> {
        Ok(match number {
            1 => Self::Deflate,
            2 => Self::Shuffle,
            32_000 => Self::Lzf,
            32_015 => Self::Zstd,
            _ => return Err(Error::new(ErrorKind::Argument)),
        })
    }
}

/// Unpacks chunks into `out`, which is cut evenly among them; gives the first that is damaged, if one is.
///
/// `sizes` are the stored bytes of each chunk in `stored`; bit `i` of its mask is set if `filters[i]` was left out.
///
/// # Errors
///
/// [`ErrorKind::Argument`] if the lengths do not go together, or the filters are not a shuffle at most, then a
/// compressor at most.
pub fn unpack_chunks(
    stored: &[u8],
    sizes: &[i64],
    masks: &[u32],
    filters: &[Filter],
    item_bytes: usize,
    out: &mut [u8],
) -> Result<Option<usize>, Error> {
    let argument = || Error::new(ErrorKind::Argument);
    let (shuffle, compressor) = match filters {
        [] => (None, None),
        [Filter::Shuffle] => (Some(0), None),
        [Filter::Shuffle, Filter::Shuffle] | [_, _, _, ..] => return Err(argument()),
        [Filter::Shuffle, compressor] => (Some(0), Some((1, *compressor))),
        [compressor] => (None, Some((0, *compressor))),
        [_, _] => return Err(argument()),
    };
    if sizes.is_empty() || masks.len() != sizes.len() || !out.len().is_multiple_of(sizes.len()) {
        return Err(argument());
    }
    let chunk_bytes = out.len() / sizes.len();
    if chunk_bytes == 0 || item_bytes == 0 || !chunk_bytes.is_multiple_of(item_bytes) {
        return Err(argument());
    }
    let mut unpacker = Unpacker { inflater: libdeflater::Decompressor::new(), zstd: None, shuffled: Vec::new() };
    let mut rest = stored;
    for (i, (out, (&size, &mask))) in out.chunks_exact_mut(chunk_bytes).zip(sizes.iter().zip(masks)).enumerate() {
        let size = usize::try_from(size).map_err(|_| argument())?;
        let (chunk, after) = rest.split_at_checked(size).ok_or_else(argument)?;
        rest = after;
        let used = |bit: &u32| mask & (1 << bit) == 0;
        let compressor = compressor.filter(|(bit, _)| used(bit)).map(|(_, filter)| filter);
        let item_bytes = shuffle.filter(used).map(|_| item_bytes);
        if unpacker.unpack(chunk, compressor, item_bytes, out).is_none() {
            return Ok(Some(i));
        }
    }
    if rest.is_empty() { Ok(None) } else { Err(argument()) }
}

/// What chunks can share.
struct Unpacker {
    inflater: libdeflater::Decompressor,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    shuffled: Vec<u8>,
}

impl Unpacker {
    /// Unpacks one chunk; None if it is damaged.
    fn unpack(
        &mut self,
        chunk: &[u8],
        compressor: Option<Filter>,
        shuffle: Option<usize>,
        out: &mut [u8],
    ) -> Option<()> {
        let Some(item_bytes) = shuffle else { return self.decompress(chunk, compressor, out) };
        let mut shuffled = std::mem::take(&mut self.shuffled);
        shuffled.resize(out.len(), 0);
        let done = self.decompress(chunk, compressor, &mut shuffled);
        if done.is_some() {
            unshuffle(&shuffled, item_bytes, out);
        }
        self.shuffled = shuffled;
        done
    }

    fn decompress(&mut self, chunk: &[u8], compressor: Option<Filter>, out: &mut [u8]) -> Option<()> {
        let n_bytes = match compressor {
            None | Some(Filter::Shuffle) => {
                out.get_mut(..chunk.len())?.copy_from_slice(chunk);
                chunk.len()
            }
            Some(Filter::Deflate) => self.inflater.zlib_decompress(chunk, out).ok()?,
            Some(Filter::Lzf) => unlzf(chunk, out)?,
            Some(Filter::Zstd) => {
                if self.zstd.is_none() {
                    self.zstd = zstd::bulk::Decompressor::new().ok();
                }
                self.zstd.as_mut()?.decompress_to_buffer(chunk, out).ok()?
            }
        };
        (n_bytes == out.len()).then_some(())
    }
}

/// Puts the bytes of each item together again.
fn unshuffle(shuffled: &[u8], item_bytes: usize, out: &mut [u8]) {
    match item_bytes {
        1 => out.copy_from_slice(shuffled),
        2 => unshuffle_items::<2>(shuffled, out),
        4 => unshuffle_items::<4>(shuffled, out),
        8 => unshuffle_items::<8>(shuffled, out),
        _ => {
            let n_items = out.len() / item_bytes;
            for (i, item) in out.chunks_exact_mut(item_bytes).enumerate() {
                for (byte, place) in item.iter_mut().zip((i..).step_by(n_items)) {
                    *byte = shuffled[place];
                }
            }
        }
    }
}

/// The same for a size the compiler knows, so that it can use vector instructions.
fn unshuffle_items<const N: usize>(shuffled: &[u8], out: &mut [u8]) {
    let n_items = out.len() / N;
    let planes: [&[u8]; N] = std::array::from_fn(|byte| &shuffled[byte * n_items..(byte + 1) * n_items]);
    for (i, item) in out.chunks_exact_mut(N).enumerate() {
        for byte in 0..N {
            item[byte] = planes[byte][i];
        }
    }
}

/// Undoes the LZF compression (Marc Lehmann's, version 1 streams as `lzf_decompress` takes them); gives the number of
/// bytes, or None if it is damaged.
///
/// A byte below 32 stands before one more literal bytes than it says. Any other starts a copy of bytes that came
/// before: its upper three bits are the length less two, with 7 to be added to the next byte; its lower five and the
/// byte after are the distance less one.
fn unlzf(chunk: &[u8], out: &mut [u8]) -> Option<usize> {
    let (mut from, mut to) = (0, 0);
    while from < chunk.len() {
        let control = usize::from(chunk[from]);
        from += 1;
        if control < 32 {
            let n = control + 1;
            out.get_mut(to..to + n)?.copy_from_slice(chunk.get(from..from + n)?);
            (from, to) = (from + n, to + n);
            continue;
        }
        let mut n = (control >> 5) + 2;
        if n == 9 {
            n += usize::from(*chunk.get(from)?);
            from += 1;
        }
        let distance = ((control & 31) << 8) + usize::from(*chunk.get(from)?) + 1;
        from += 1;
        let start = to.checked_sub(distance)?;
        let (before, after) = out.split_at_mut(to);
        let (after, before) = (after.get_mut(..n)?, &before[start..]);
        if distance >= n {
            after.copy_from_slice(&before[..n]);
        } else {
            // The copy runs into itself, so what lies before it repeats.
            for part in after.chunks_mut(distance) {
                part.copy_from_slice(&before[..part.len()]);
            }
        }
        to += n;
    }
    Some(to)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test fails by panicking
mod tests {
    use proptest::prelude::*;

    use super::{Filter, unlzf, unpack_chunks, unshuffle};
    use crate::error::ErrorKind;

    fn shuffle(bytes: &[u8], item_bytes: usize) -> Vec<u8> {
        (0..item_bytes).flat_map(|byte| bytes.iter().skip(byte).step_by(item_bytes).copied()).collect()
    }

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
        let mut stored = vec![0; compressor.zlib_compress_bound(bytes.len())];
        let n = compressor.zlib_compress(bytes, &mut stored).unwrap();
        stored.truncate(n);
        stored
    }

    /// Unpacks one chunk of `n_bytes`; None where it is damaged.
    fn unpack(stored: &[u8], filters: &[Filter], mask: u32, n_bytes: usize) -> Option<Vec<u8>> {
        let mut out = vec![0; n_bytes];
        let damaged = unpack_chunks(stored, &[stored.len() as i64], &[mask], filters, 4, &mut out).unwrap();
        damaged.is_none().then_some(out)
    }

    #[test]
    fn filters_left_out_are_not_undone() {
        let bytes: Vec<u8> = (0..=255).collect();
        let filters = [Filter::Shuffle, Filter::Deflate];
        assert_eq!(unpack(&deflate(&shuffle(&bytes, 4)), &filters, 0b00, 256), Some(bytes.clone()));
        assert_eq!(unpack(&deflate(&bytes), &filters, 0b01, 256), Some(bytes.clone()));
        assert_eq!(unpack(&shuffle(&bytes, 4), &filters, 0b10, 256), Some(bytes.clone()));
        assert_eq!(unpack(&bytes, &filters, 0b11, 256), Some(bytes));
    }

    #[test]
    fn a_chunk_of_another_size_is_damaged() {
        let bytes = [7; 64];
        let zstd = zstd::bulk::compress(&bytes, 1).unwrap();
        let lzf = [0, 7, 7 << 5, 54, 0];
        for (filter, stored) in [(Filter::Deflate, deflate(&bytes)), (Filter::Zstd, zstd), (Filter::Lzf, lzf.to_vec())]
        {
            assert_eq!(unpack(&stored, &[filter], 0, 64), Some(bytes.to_vec()), "{filter:?}");
            assert_eq!(unpack(&stored, &[filter], 0, 60), None, "{filter:?}");
            assert_eq!(unpack(&stored, &[filter], 0, 68), None, "{filter:?}");
            assert_eq!(unpack(&stored[..stored.len() - 1], &[filter], 0, 64), None, "{filter:?}");
            assert_eq!(unpack(&[], &[filter], 0, 64), None, "{filter:?}");
        }
        assert_eq!(unpack(&bytes, &[], 0, 68), None);
        assert_eq!(unpack(&bytes, &[], 0, 60), None);
    }

    #[test]
    fn the_first_damaged_chunk_is_told() {
        let (good, mut bad) = (deflate(&[1, 2, 3, 4]), deflate(&[5, 6, 7, 8]));
        *bad.last_mut().unwrap() ^= 1; // the checksum
        let sizes = [good.len() as i64, bad.len() as i64, bad.len() as i64];
        let mut out = [0; 12];
        let damaged =
            unpack_chunks(&[good, bad.clone(), bad].concat(), &sizes, &[0; 3], &[Filter::Deflate], 4, &mut out);
        assert_eq!((damaged, &out[..4]), (Ok(Some(1)), &[1, 2, 3, 4][..]));
    }

    #[test]
    fn lengths_that_do_not_go_together_are_refused() {
        use Filter::{Deflate, Shuffle};
        let bytes = [0; 8];
        let two: &[Filter] = &[Deflate, Deflate];
        for (sizes, masks, filters, item_bytes, n_out) in [
            (&[][..], &[][..], &[][..], 4, 8),
            (&[8], &[], &[], 4, 8),
            (&[9], &[0], &[], 4, 8),
            (&[-1], &[0], &[], 4, 8),
            (&[4, 4], &[0, 0], &[], 4, 7),
            (&[8], &[0], &[], 0, 8),
            (&[8], &[0], &[Shuffle], 3, 8),
            (&[8], &[0], two, 4, 8),
            (&[8], &[0], &[Deflate, Shuffle], 4, 8),
            (&[8], &[0], &[Shuffle, Shuffle], 4, 8),
        ] {
            let result = unpack_chunks(&bytes, sizes, masks, filters, item_bytes, &mut vec![0; n_out]);
            assert_eq!(result.unwrap_err().kind, ErrorKind::Argument, "{sizes:?} {masks:?} {filters:?} {n_out}");
        }
        assert_eq!(Filter::from_number(3).unwrap_err().kind, ErrorKind::Argument);
    }

    #[test]
    fn lzf_copies_that_run_into_themselves_repeat() {
        // "ab", then 5 bytes from 2 before; then 264 + 9 bytes from 1 before.
        let stored = [1, b'a', b'b', 3 << 5, 1, 7 << 5, 255, 0];
        let mut out = [0; 7 + 264];
        assert_eq!(unlzf(&stored, &mut out), Some(out.len()));
        assert_eq!(&out[..7], b"abababa");
        assert!(out[7..].iter().all(|&byte| byte == b'a'));
        assert_eq!(unlzf(&[1, b'a', b'b', 3 << 5, 2], &mut out), None, "it would start before the first byte");
    }

    proptest! {
        #[test]
        fn unshuffle_undoes_shuffle(items in prop::collection::vec(any::<u8>(), 0..100), item_bytes in 1usize..10) {
            let bytes = items.repeat(item_bytes);
            let mut out = vec![0; bytes.len()];
            unshuffle(&shuffle(&bytes, item_bytes), item_bytes, &mut out);
            prop_assert_eq!(out, bytes);
        }

        #[test]
        fn no_bytes_make_it_panic(stored in prop::collection::vec(any::<u8>(), 0..200), n_items in 1usize..50) {
            for filter in [Filter::Deflate, Filter::Lzf, Filter::Zstd] {
                unpack(&stored, &[Filter::Shuffle, filter], 0, 4 * n_items);
            }
        }
    }
}
