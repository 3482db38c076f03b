//! What can be wrong, as facts: a kind, and where known the row and the column.
//!
//! No cell names, gene ids or advice here; Python knows those and writes the sentence.

use std::fmt;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// `indptr` is empty or does not start at 0.
    IndptrStart,
    /// `indptr` decreases at `row`.
    IndptrDecreases,
    /// The last entry of `indptr` is not the number of stored entries.
    IndptrEnd,
    /// `indices` and `data` differ in length, or a dense buffer is not rows x columns long.
    LengthsDiffer,
    /// A column index is negative or not below the number of columns.
    ColumnOutOfRange,
    /// NaN or infinity in the data.
    NotFinite,
    /// The sum of a row's absolute values overflows float64, so it cannot be normalised by it.
    TotalNotFinite,
    /// Normalising gave NaN or infinity.
    NormalizedNotFinite,
    /// A selected value is too large for float32, the type of the output.
    TooLargeForFloat32,
    /// Summing the columns of one gene overflows the type of the data.
    GeneSumOverflow,
    /// The call would give more than 2^31 - 1 tokens.
    TooManyTokens,
    /// A token id does not fit the requested token dtype.
    TokenDoesNotFit,
    /// The kernel was built from arguments that contradict one another.
    Argument,
}

impl ErrorKind {
    /// Names the kind as Python's table of errors does.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::IndptrStart => "indptr_start",
            Self::IndptrDecreases => "indptr_decreases",
            Self::IndptrEnd => "indptr_end",
            Self::LengthsDiffer => "lengths_differ",
            Self::ColumnOutOfRange => "column_out_of_range",
            Self::NotFinite => "not_finite",
            Self::TotalNotFinite => "total_not_finite",
            Self::NormalizedNotFinite => "normalized_not_finite",
            Self::TooLargeForFloat32 => "too_large_for_float32",
            Self::GeneSumOverflow => "gene_sum_overflow",
            Self::TooManyTokens => "too_many_tokens",
            Self::TokenDoesNotFit => "token_does_not_fit",
            Self::Argument => "kernel_argument",
        }
    }
}

/// An [`ErrorKind`] with the place it was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// What went wrong.
    pub kind: ErrorKind,
    /// The row of the source, counted from its first row, where the error belongs to one.
    pub row: Option<u64>,
    /// The column of `var`, where the error belongs to one.
    pub column: Option<u64>,
}

impl Error {
    /// Makes an error that belongs to no row yet.
    #[must_use]
    pub const fn new(kind: ErrorKind) -> Self {
        Self { kind, row: None, column: None }
    }

    /// Adds the column.
    #[must_use]
    pub const fn at_column(mut self, column: u32) -> Self {
        self.column = Some(column as u64);
        self
    }

    /// Adds the row, counted in the source.
    #[must_use]
    pub const fn at_row(mut self, row: u64) -> Self {
        self.row = Some(row);
        self
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.slug())?;
        if let Some(row) = self.row {
            write!(f, ", row {row}")?;
        }
        if let Some(column) = self.column {
            write!(f, ", column {column}")?;
        }
        Ok(())
    }
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
