//! Defines errors as data: a kind and, where known, the argument, the row and the column.
//!
//! Python writes the message, with cell names, gene ids and hints.

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
    /// `indices` and `data` differ in length, a dense buffer is not rows x columns long, or a matrix has another number
    /// of columns than the kernel.
    LengthsDiffer,
    /// A column index is negative or not below the number of columns.
    ColumnOutOfRange,
    /// The data has NaN or infinity.
    NotFinite,
    /// A value is negative, where only values from 0 on have a meaning.
    NegativeValue,
    /// The values of a pass are not those of the passes before.
    ValuesChanged,
    /// The sum of a row's absolute values overflows float64, so the row cannot be normalised by it.
    TotalNotFinite,
    /// Normalising produced NaN or infinity.
    NormalizedNotFinite,
    /// A selected value is too large for float32, the type of the output.
    TooLargeForFloat32,
    /// The sum over the columns of one gene overflows the type of the data.
    GeneSumOverflow,
    /// The call would produce more than 2^31 - 1 tokens.
    TooManyTokens,
    /// A token id does not fit the integer type of the output.
    TokenDoesNotFit,
    /// The argument of this name is not valid, or contradicts another one.
    Argument(&'static str),
}

impl ErrorKind {
    /// Returns the kind's name in Python's error catalogue.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::IndptrStart => "indptr_start",
            Self::IndptrDecreases => "indptr_decreases",
            Self::IndptrEnd => "indptr_end",
            Self::LengthsDiffer => "lengths_differ",
            Self::ColumnOutOfRange => "column_out_of_range",
            Self::NotFinite => "not_finite",
            Self::NegativeValue => "negative_value",
            Self::ValuesChanged => "values_changed",
            Self::TotalNotFinite => "total_not_finite",
            Self::NormalizedNotFinite => "normalized_not_finite",
            Self::TooLargeForFloat32 => "too_large_for_float32",
            Self::GeneSumOverflow => "gene_sum_overflow",
            Self::TooManyTokens => "too_many_tokens",
            Self::TokenDoesNotFit => "token_does_not_fit",
            Self::Argument(_) => "kernel_argument",
        }
    }

    /// Returns the name of the argument that is not valid, if the kind has one.
    #[must_use]
    pub const fn argument(self) -> Option<&'static str> {
        match self {
            Self::Argument(name) => Some(name),
            _ => None,
        }
    }
}

/// An [`ErrorKind`] with its row and column, if it has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error {
    /// What went wrong.
    pub kind: ErrorKind,
    /// The row, counted from the first row of the source; for `indptr`, from the first row of the matrix.
    pub row: Option<u64>,
    /// The column of `var`.
    pub column: Option<u64>,
}

impl Error {
    /// Makes an error without row and column.
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

    /// Adds the row.
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
        if let Some(argument) = self.kind.argument() {
            write!(f, ", argument {argument}")?;
        }
        if let Some(row) = self.row {
            write!(f, ", row {row}")?;
        }
        if let Some(column) = self.column {
            write!(f, ", column {column}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
mod tests {
    use super::{Error, ErrorKind};

    #[test]
    fn display_names_the_kind_and_all_that_is_known() {
        let error = Error::new(ErrorKind::NotFinite).at_column(3).at_row(7);
        assert_eq!(error.to_string(), "not_finite, row 7, column 3");
        assert_eq!(Error::new(ErrorKind::Argument("n_bins")).to_string(), "kernel_argument, argument n_bins");
    }
}
