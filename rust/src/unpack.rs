//! Decompresses concatenated chunks of an array, as HDF5 stores them, into the original bytes.
//!
//! Filters were applied to a chunk in order: an optional byte shuffle, then an optional compressor. The mask of a chunk
//! marks the filters that were skipped. All chunks unpack to the same, known size; a chunk with more or fewer bytes, or
//! with another checksum, is damaged. Python reads the files and decides which filters a file may use.

use crate::error::{Error, ErrorKind, Result};

/// A filter of HDF5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// 1: zlib streams, h5py's "gzip".
    Deflate,
    /// 2: the first bytes of all items, then the second bytes of all items, and so on.
    Shuffle,
    /// 32000: h5py's "lzf".
    Lzf,
    /// 32015: the registered Zstandard filter.
    Zstd,
}

impl Filter {
    /// Returns the filter with this number in HDF5.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] (`filters`) if the number is unknown.
    pub const fn from_number(number: u32) -> Result<Self> {
        Ok(match number {
            1 => Self::Deflate,
            2 => Self::Shuffle,
            32_000 => Self::Lzf,
            32_015 => Self::Zstd,
            _ => return Err(Error::new(ErrorKind::Argument("filters"))),
        })
    }
}

/// Stored chunks.
#[derive(Debug, Clone, Copy)]
pub struct Chunks<'a> {
    /// The bytes of all chunks, concatenated.
    pub stored: &'a [u8],
    /// The number of stored bytes of each chunk.
    pub sizes: &'a [i64],
    /// The mask of each chunk: bit `i` is set if `filters[i]` was skipped.
    pub masks: &'a [u32],
    /// The filters, in the order in which they were applied.
    pub filters: &'a [Filter],
    /// The number of bytes of an array item.
    pub item_bytes: usize,
}

/// The filters of all chunks, each with its bit in the masks.
#[derive(Debug, Clone, Copy, Default)]
struct Pipeline {
    shuffle: Option<u32>,
    compressor: Option<(u32, Filter)>,
}

impl Pipeline {
    fn new(filters: &[Filter]) -> Result<Self> {
        match *filters {
            [] => Ok(Self::default()),
            [Filter::Shuffle] => Ok(Self { shuffle: Some(0), compressor: None }),
            [compressor] => Ok(Self { shuffle: None, compressor: Some((0, compressor)) }),
            [Filter::Shuffle, compressor] if compressor != Filter::Shuffle => {
                Ok(Self { shuffle: Some(0), compressor: Some((1, compressor)) })
            }
            _ => Err(ErrorKind::Argument("filters").into()),
        }
    }

    /// Returns the filters that were applied to a chunk with this mask.
    fn applied(self, mask: u32) -> Self {
        let is_applied = |bit: u32| mask & (1 << bit) == 0;
        Self {
            shuffle: self.shuffle.filter(|&bit| is_applied(bit)),
            compressor: self.compressor.filter(|&(bit, _)| is_applied(bit)),
        }
    }
}

/// Unpacks chunks into equal parts of `out`; returns the number of the first damaged chunk, if there is one.
///
/// # Errors
/// [`ErrorKind::Argument`] names the argument that contradicts the others, or `filters` if they are not an optional
/// shuffle followed by an optional compressor.
pub fn unpack_chunks(chunks: Chunks<'_>, out: &mut [u8]) -> Result<Option<usize>> {
    let Chunks { stored, sizes, masks, filters, item_bytes } = chunks;
    let argument = |name| Err(ErrorKind::Argument(name).into());
    let pipeline = Pipeline::new(filters)?;
    let cuts = sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(usize::try_from(size).ok()?));
    if sizes.is_empty() || cuts != Some(stored.len()) {
        return argument("sizes");
    }
    if masks.len() != sizes.len() {
        return argument("masks");
    }
    if out.is_empty() || !out.len().is_multiple_of(sizes.len()) {
        return argument("out");
    }
    let chunk_bytes = out.len() / sizes.len();
    if item_bytes == 0 || !chunk_bytes.is_multiple_of(item_bytes) {
        return argument("item_bytes");
    }
    let mut unpacker = Unpacker { inflater: libdeflater::Decompressor::new(), zstd: None, shuffled: Vec::new() };
    let mut rest = stored;
    for (i, (out, (&size, &mask))) in out.chunks_exact_mut(chunk_bytes).zip(sizes.iter().zip(masks)).enumerate() {
        let (chunk, after) = rest.split_at(size as usize); // checked: the sizes cut `stored`
        rest = after;
        if unpacker.unpack(chunk, pipeline.applied(mask), item_bytes, out).is_none() {
            return Ok(Some(i));
        }
    }
    Ok(None)
}

/// Decompressors and a buffer, reused for every chunk.
struct Unpacker {
    inflater: libdeflater::Decompressor,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    shuffled: Vec<u8>,
}

impl Unpacker {
    /// Unpacks one chunk; `None` if it is damaged.
    fn unpack(&mut self, chunk: &[u8], applied: Pipeline, item_bytes: usize, out: &mut [u8]) -> Option<()> {
        let compressor = applied.compressor.map(|(_, filter)| filter);
        if applied.shuffle.is_none() {
            return self.decompress(chunk, compressor, out);
        }
        let mut shuffled = std::mem::take(&mut self.shuffled);
        shuffled.resize(out.len(), 0);
        let decompressed = self.decompress(chunk, compressor, &mut shuffled);
        if decompressed.is_some() {
            unshuffle(&shuffled, item_bytes, out);
        }
        self.shuffled = shuffled;
        decompressed
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

/// Reverses the byte shuffle: stores the bytes of each item next to each other.
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

/// Reverses the byte shuffle for a constant item size, so that the compiler can use vector instructions.
#[inline(never)] // inlined, the compiler uses none
fn unshuffle_items<const N: usize>(shuffled: &[u8], out: &mut [u8]) {
    let (items, _) = out.as_chunks_mut::<N>();
    let planes: [&[u8]; N] = std::array::from_fn(|byte| &shuffled[byte * items.len()..][..items.len()]);
    for (i, item) in items.iter_mut().enumerate() {
        *item = std::array::from_fn(|byte| planes[byte][i]);
    }
}

/// Decompresses LZF (Marc Lehmann's; version 1 streams, as `lzf_decompress` reads them); returns the number of bytes,
/// or `None` if the chunk is damaged.
///
/// A control byte n below 32 is followed by n + 1 literal bytes. Any other control byte starts a copy of earlier bytes:
/// its upper three bits are the length minus two (7: the next byte is added); its lower five bits and the byte after
/// are the distance minus one.
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
            // The copy overlaps itself: the bytes before it are repeated.
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

    use super::{Chunks, Filter, unlzf, unpack_chunks, unshuffle};
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

    /// Unpacks one chunk of `n_bytes`; `None` if it is damaged.
    fn unpack(stored: &[u8], filters: &[Filter], mask: u32, n_bytes: usize) -> Option<Vec<u8>> {
        let mut out = vec![0; n_bytes];
        let (sizes, masks) = (&[stored.len() as i64], &[mask]);
        let damaged = unpack_chunks(Chunks { stored, sizes, masks, filters, item_bytes: 4 }, &mut out).unwrap();
        damaged.is_none().then_some(out)
    }

    #[test]
    fn skipped_filters_are_not_undone() {
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
    fn the_first_damaged_chunk_is_reported() {
        let (good, mut bad) = (deflate(&[1, 2, 3, 4]), deflate(&[5, 6, 7, 8]));
        *bad.last_mut().unwrap() ^= 1; // the checksum
        let sizes = [good.len() as i64, bad.len() as i64, bad.len() as i64];
        let mut out = [0; 12];
        let stored = &[good, bad.clone(), bad].concat();
        let chunks = Chunks { stored, sizes: &sizes, masks: &[0; 3], filters: &[Filter::Deflate], item_bytes: 4 };
        let damaged = unpack_chunks(chunks, &mut out);
        assert_eq!((damaged, &out[..4]), (Ok(Some(1)), &[1, 2, 3, 4][..]));
    }

    #[test]
    fn contradicting_arguments_are_named() {
        use Filter::{Deflate, Shuffle};
        let stored = &[0; 8][..];
        let valid = Chunks { stored, sizes: &[8], masks: &[0], filters: &[], item_bytes: 4 };
        assert_eq!(unpack_chunks(valid, &mut [1; 8]), Ok(None));
        for (chunks, n_out, argument) in [
            (Chunks { sizes: &[], masks: &[], ..valid }, 8, "sizes"),
            (Chunks { sizes: &[9], ..valid }, 8, "sizes"),
            (Chunks { sizes: &[7], ..valid }, 8, "sizes"),
            (Chunks { sizes: &[-1], ..valid }, 8, "sizes"),
            (Chunks { sizes: &[i64::MAX; 3], masks: &[0; 3], ..valid }, 24, "sizes"),
            (Chunks { masks: &[], ..valid }, 8, "masks"),
            (Chunks { sizes: &[4, 4], masks: &[0, 0], ..valid }, 7, "out"),
            (valid, 0, "out"),
            (Chunks { item_bytes: 0, ..valid }, 8, "item_bytes"),
            (Chunks { item_bytes: 3, ..valid }, 8, "item_bytes"),
            (Chunks { filters: &[Deflate, Deflate], ..valid }, 8, "filters"),
            (Chunks { filters: &[Deflate, Shuffle], ..valid }, 8, "filters"),
            (Chunks { filters: &[Shuffle, Shuffle], ..valid }, 8, "filters"),
            (Chunks { filters: &[Shuffle, Deflate, Deflate], ..valid }, 8, "filters"),
        ] {
            let error = unpack_chunks(chunks, &mut vec![0; n_out]).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Argument(argument), "{chunks:?} {n_out}");
        }
        assert_eq!(Filter::from_number(3).unwrap_err().kind, ErrorKind::Argument("filters"));
    }

    #[test]
    fn lzf_copies_that_overlap_themselves_repeat() {
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
        fn no_bytes_cause_a_panic(stored in prop::collection::vec(any::<u8>(), 0..200), n_items in 1usize..50) {
            for filter in [Filter::Deflate, Filter::Lzf, Filter::Zstd] {
                unpack(&stored, &[Filter::Shuffle, filter], 0, 4 * n_items);
            }
        }
    }
}
