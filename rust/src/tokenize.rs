//! Some rows at once: their tokens side by side, written once, into buffers of the caller's.
//!
//! A call runs in the caller's thread. Who has several threads gives each some rows of its own.

use crate::cell::{Kernel, Scratch, ValueMode};
use crate::error::{ErrorKind, Result};
use crate::matrix::Rows;

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

/// Where to write token ids.
#[derive(Debug)]
pub enum TokensMut<'a> {
    /// 32-bit signed.
    Int32(&'a mut [i32]),
    /// 16-bit unsigned.
    UInt16(&'a mut [u16]),
    /// 64-bit signed.
    Int64(&'a mut [i64]),
}

/// Where to write the values beside the tokens.
#[derive(Debug)]
pub enum ValuesMut<'a> {
    /// Expression values or ranks.
    Float32(&'a mut [f32]),
    /// Bin ids.
    Int32(&'a mut [i32]),
    /// None were asked for.
    None,
}

/// What is written, and how far.
#[derive(Debug)]
pub(crate) struct Output<'a> {
    pub gene_ids: TokensMut<'a>,
    pub values: ValuesMut<'a>,
    pub n_tokens: usize,
    pub totals: Vec<f64>,
}

/// How the tokens of a run of cells lie side by side, and what they stand for.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// Cell i's sequence is `offsets[i]..offsets[i + 1]`; one more entry than cells.
    pub offsets: Vec<i32>,
    /// Two numbers a cell: its sum of absolute values over all columns, then over those of kept genes.
    pub totals: Vec<f64>,
}

impl Layout {
    /// The number of tokens of all cells.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.offsets.last().map_or(0, |&end| end as usize) // not negative
    }
}

/// The sequences of a run of cells.
#[derive(Debug, Clone, PartialEq)]
pub struct Tokenized {
    /// Where each cell's sequence lies.
    pub layout: Layout,
    /// The tokens of all cells, side by side.
    pub gene_ids: Tokens,
    /// The values of all cells, side by side.
    pub values: Values,
}

impl Kernel {
    /// Tokenizes all rows; `places` are the rows' places in the whole source.
    ///
    /// # Errors
    /// Those of [`Kernel::tokenize_into`].
    pub fn tokenize<R: Rows>(&self, rows: &R, places: &[i64], dtype: TokenDtype) -> Result<Tokenized> {
        let room = self.room(rows)?;
        let mut gene_ids = match dtype {
            TokenDtype::Int32 => Tokens::Int32(vec![0; room]),
            TokenDtype::UInt16 => Tokens::UInt16(vec![0; room]),
            TokenDtype::Int64 => Tokens::Int64(vec![0; room]),
        };
        let mut values = match self.values() {
            ValueMode::Expression | ValueMode::Ranks => Values::Float32(vec![0.0; room]),
            ValueMode::Bins(_) => Values::Int32(vec![0; room]),
            ValueMode::None => Values::None,
        };
        let gene_ids_mut = match &mut gene_ids {
            Tokens::Int32(ids) => TokensMut::Int32(ids),
            Tokens::UInt16(ids) => TokensMut::UInt16(ids),
            Tokens::Int64(ids) => TokensMut::Int64(ids),
        };
        let values_mut = match &mut values {
            Values::Float32(floats) => ValuesMut::Float32(floats),
            Values::Int32(ids) => ValuesMut::Int32(ids),
            Values::None => ValuesMut::None,
        };
        let layout = self.tokenize_into(rows, places, gene_ids_mut, values_mut)?;
        let n_tokens = layout.n_tokens();
        match &mut gene_ids {
            Tokens::Int32(ids) => ids.truncate(n_tokens),
            Tokens::UInt16(ids) => ids.truncate(n_tokens),
            Tokens::Int64(ids) => ids.truncate(n_tokens),
        }
        match &mut values {
            Values::Float32(floats) => floats.truncate(n_tokens),
            Values::Int32(ids) => ids.truncate(n_tokens),
            Values::None => {}
        }
        Ok(Tokenized { layout, gene_ids, values })
    }

    /// The most tokens that these rows can give: how long the buffers for [`Kernel::tokenize_into`] must be.
    ///
    /// # Errors
    /// [`ErrorKind::TooManyTokens`] where 32-bit offsets could not count them.
    pub fn room<R: Rows>(&self, rows: &R) -> Result<usize> {
        let room = (0..rows.n_rows()).map(|row| self.most_tokens(rows.most_entries(row))).sum();
        i32::try_from(room).map_or(Err(ErrorKind::TooManyTokens.into()), |_| Ok(room))
    }

    /// Tokenizes all rows, in order, into the front of two buffers.
    ///
    /// # Errors
    /// The first row's of: [`ErrorKind::ColumnOutOfRange`], [`ErrorKind::NotFinite`],
    /// [`ErrorKind::TotalNotFinite`], [`ErrorKind::NormalizedNotFinite`], [`ErrorKind::TooLargeForFloat32`],
    /// [`ErrorKind::GeneSumOverflow`]. Of the whole: [`ErrorKind::LengthsDiffer`] where the matrix has other columns
    /// than the kernel's genes or other rows than `places`, or a buffer is too short; [`ErrorKind::TooManyTokens`];
    /// [`ErrorKind::TokenDoesNotFit`]; [`ErrorKind::Argument`] where a place is negative or the values' buffer is of
    /// another type than the kernel's values.
    pub fn tokenize_into<R: Rows>(
        &self,
        rows: &R,
        places: &[i64],
        gene_ids: TokensMut<'_>,
        values: ValuesMut<'_>,
    ) -> Result<Layout> {
        let room = self.room(rows)?;
        let (gene_ids_room, fits) = match &gene_ids {
            TokensMut::Int32(ids) => (ids.len(), true),
            TokensMut::UInt16(ids) => (ids.len(), self.tokens().all(|token| u16::try_from(token).is_ok())),
            TokensMut::Int64(ids) => (ids.len(), true),
        };
        let (values_room, is_type) = match (&values, self.values()) {
            (ValuesMut::Float32(floats), mode) => {
                (floats.len(), matches!(mode, ValueMode::Expression | ValueMode::Ranks))
            }
            (ValuesMut::Int32(ids), mode) => (ids.len(), matches!(mode, ValueMode::Bins(_))),
            (ValuesMut::None, mode) => (room, mode == ValueMode::None),
        };
        let sizes = rows.n_columns() == self.n_columns() && rows.n_rows() == places.len();
        if !sizes || gene_ids_room < room || values_room < room {
            return Err(ErrorKind::LengthsDiffer.into());
        }
        if !is_type || places.iter().any(|&place| place < 0) {
            return Err(ErrorKind::Argument.into());
        }
        if !fits {
            return Err(ErrorKind::TokenDoesNotFit.into());
        }
        let mut scratch = Scratch::new();
        let mut out = Output { gene_ids, values, n_tokens: 0, totals: Vec::with_capacity(2 * places.len()) };
        let mut offsets = Vec::with_capacity(places.len() + 1);
        offsets.push(0);
        for (row, &place) in places.iter().enumerate() {
            self.tokenize_row(rows, row, place as u64, &mut scratch, &mut out)?; // not negative: checked
            offsets.push(out.n_tokens as i32); // fits: at most `room`
        }
        Ok(Layout { offsets, totals: out.totals })
    }
}
