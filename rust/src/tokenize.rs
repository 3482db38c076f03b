//! Many cells at once: units of rows in parallel, then their tokens side by side in the final buffers.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use crate::cell::{Cells, Kernel, Scratch, ValueMode};
use crate::error::{ErrorKind, Result};
use crate::matrix::Rows;

/// Rows that a thread takes at a time: enough to make taking them cheap, few enough to spread evenly.
const UNIT_ROWS: usize = 64;

/// The integer type of the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenDtype {
    /// 32-bit signed, the default.
    Int32,
    /// 16-bit unsigned.
    UInt16,
    /// 64-bit signed.
    Int64,
}

/// Token ids, in the type asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tokens {
    /// 32-bit signed.
    Int32(Vec<i32>),
    /// 16-bit unsigned.
    UInt16(Vec<u16>),
    /// 64-bit signed.
    Int64(Vec<i64>),
}

/// The values beside the tokens.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Expression values or ranks.
    Float32(Vec<f32>),
    /// Bin ids.
    Int32(Vec<i32>),
    /// None were asked for.
    None,
}

/// The sequences of a run of cells.
#[derive(Debug, Clone, PartialEq)]
pub struct Tokenized {
    /// Cell i's sequence is `offsets[i]..offsets[i + 1]`; one more entry than cells.
    pub offsets: Vec<i32>,
    /// The tokens of all cells, side by side.
    pub gene_ids: Tokens,
    /// The values of all cells, side by side.
    pub values: Values,
    /// Two numbers a cell: its sum of absolute values over all columns, then over those of kept genes.
    pub totals: Vec<f64>,
}

impl Kernel {
    /// Tokenizes all rows; `places` are the rows' places in the whole source.
    ///
    /// The result is the same for any number of threads. No thread outlives the call.
    ///
    /// # Errors
    /// The first row's, in row order, of: [`ErrorKind::ColumnOutOfRange`], [`ErrorKind::NotFinite`],
    /// [`ErrorKind::TotalNotFinite`], [`ErrorKind::NormalizedNotFinite`], [`ErrorKind::TooLargeForFloat32`],
    /// [`ErrorKind::GeneSumOverflow`]. Of the whole: [`ErrorKind::LengthsDiffer`] where the matrix has other columns
    /// than the kernel's genes or other rows than `places`, [`ErrorKind::TooManyTokens`], [`ErrorKind::TokenDoesNotFit`].
    pub fn tokenize<R: Rows>(&self, rows: &R, places: &[i64], dtype: TokenDtype, threads: usize) -> Result<Tokenized> {
        if rows.n_columns() != self.n_columns() || rows.n_rows() != places.len() {
            return Err(ErrorKind::LengthsDiffer.into());
        }
        if places.iter().any(|&place| place < 0) {
            return Err(ErrorKind::Argument.into());
        }
        // The number is the caller's, but each thread costs buffers and a place in the queue. More than there are units
        // or than the machine can run would only wait for one another.
        let most = 4 * std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = threads.min(rows.n_rows().div_ceil(UNIT_ROWS)).min(most);
        let inline = || {
            let mut scratch = Scratch::default();
            let starts = (0..rows.n_rows()).step_by(UNIT_ROWS);
            let units = starts.map(|start| self.unit(rows, start, places, &mut scratch)).collect::<Result<Vec<_>>>()?;
            self.join(&units, dtype)
        };
        if threads <= 1 {
            return inline();
        }
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_scoped(rayon::ThreadBuilder::run, |pool| {
                pool.install(|| {
                    let scratches: Vec<Mutex<Scratch<R::Value>>> = (0..threads).map(|_| Mutex::default()).collect();
                    let units: Vec<Result<Cells>> = (0..rows.n_rows().div_ceil(UNIT_ROWS))
                        .into_par_iter()
                        .map(|unit| {
                            // One thread an entry, so nobody ever waits for this lock.
                            let own = &scratches[rayon::current_thread_index().unwrap_or(0)];
                            let mut scratch = own.lock().unwrap_or_else(PoisonError::into_inner);
                            self.unit(rows, unit * UNIT_ROWS, places, &mut scratch)
                        })
                        .collect();
                    // Collected whole, then searched in order: rayon's own collect would give any unit's error.
                    self.join(&units.into_iter().collect::<Result<Vec<_>>>()?, dtype)
                })
            })
            .unwrap_or_else(|_| inline()) // the system grants no threads: slower, and the same bytes
    }

    fn unit<R: Rows>(&self, rows: &R, start: usize, places: &[i64], scratch: &mut Scratch<R::Value>) -> Result<Cells> {
        let mut cells = Cells::default();
        for (row, &place) in (start..).zip(&places[start..rows.n_rows().min(start + UNIT_ROWS)]) {
            self.tokenize_row(rows, row, place as u64, scratch, &mut cells)?; // not negative: checked
        }
        Ok(cells)
    }

    /// Puts the units' tokens into buffers of their final size. Runs on the current pool, if there is one.
    fn join(&self, units: &[Cells], dtype: TokenDtype) -> Result<Tokenized> {
        let mut offsets = vec![0i32];
        let mut end = 0usize;
        for length in units.iter().flat_map(|cells| &cells.lengths) {
            end += length;
            offsets.push(i32::try_from(end).map_err(|_| ErrorKind::TooManyTokens)?);
        }
        let ids = || units.iter().map(|cells| cells.gene_ids.as_slice());
        let gene_ids = match dtype {
            TokenDtype::Int32 => Tokens::Int32(side_by_side(ids(), end, |token| token)),
            TokenDtype::Int64 => Tokens::Int64(side_by_side(ids(), end, i64::from)),
            TokenDtype::UInt16 => {
                if ids().flatten().any(|&token| u16::try_from(token).is_err()) {
                    return Err(ErrorKind::TokenDoesNotFit.into());
                }
                Tokens::UInt16(side_by_side(ids(), end, |token| token as u16)) // fits: checked above
            }
        };
        let values = match self.values() {
            ValueMode::Expression | ValueMode::Ranks => {
                Values::Float32(side_by_side(units.iter().map(|cells| cells.floats.as_slice()), end, |value| value))
            }
            ValueMode::Bins(_) => {
                Values::Int32(side_by_side(units.iter().map(|cells| cells.bin_ids.as_slice()), end, |value| value))
            }
            ValueMode::None => Values::None,
        };
        let totals = units.iter().flat_map(|cells| cells.totals.iter().copied()).collect();
        Ok(Tokenized { offsets, gene_ids, values, totals })
    }
}

/// Copies the parts, which hold `length` items in all, into one buffer; in parallel on a pool.
fn side_by_side<'a, S, D>(
    parts: impl Iterator<Item = &'a [S]>,
    length: usize,
    convert: impl Fn(S) -> D + Sync,
) -> Vec<D>
where
    S: Copy + Sync + 'a,
    D: Copy + Default + Send,
{
    let mut whole = vec![D::default(); length];
    let mut rest = whole.as_mut_slice();
    let mut places = Vec::new();
    for part in parts {
        let (place, after) = rest.split_at_mut(part.len());
        places.push((place, part));
        rest = after;
    }
    let copy = |(place, part): (&mut [D], &[S])| {
        for (to, &from) in place.iter_mut().zip(part) {
            *to = convert(from);
        }
    };
    if rayon::current_thread_index().is_some() {
        places.into_par_iter().for_each(copy);
    } else {
        places.into_iter().for_each(copy);
    }
    whole
}
