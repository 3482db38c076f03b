//! Tokenizes the cells of a matrix in order, into arrays of the caller.
//!
//! A call runs in the caller's thread.

use crate::error::{ErrorKind, Result};
use crate::kernel::{Buffers, Kernel};
use crate::matrix::Rows;
use crate::output::{Layout, Output, Sequences, Token, Values};
use crate::values::ValueMode;

impl Kernel {
    /// Tokenizes all rows of a matrix into new arrays; `source_rows` are the numbers of these rows in the source.
    ///
    /// # Errors
    /// Those of [`Kernel::tokenize_into`].
    pub fn tokenize<T: Token>(&self, matrix: &impl Rows, source_rows: &[i64]) -> Result<Sequences<T>> {
        let n = self.max_tokens(matrix)?;
        let mut gene_ids = vec![T::default(); n];
        let mut values = self.values().array(|| vec![0.0; n], || vec![0; n]);
        let to = match &mut values {
            Values::Floats(values) => Values::Floats(values.as_mut_slice()),
            Values::Ids(ids) => Values::Ids(ids.as_mut_slice()),
            Values::None => Values::None,
        };
        let layout = self.tokenize_into(matrix, source_rows, Output { gene_ids: &mut gene_ids, values: to })?;
        gene_ids.truncate(layout.n_tokens());
        match &mut values {
            Values::Floats(values) => values.truncate(layout.n_tokens()),
            Values::Ids(ids) => ids.truncate(layout.n_tokens()),
            Values::None => {}
        }
        Ok(Sequences { layout, gene_ids, values })
    }

    /// Returns the maximum number of tokens of a matrix: the length of the arrays of [`Kernel::tokenize_into`].
    ///
    /// # Errors
    /// [`ErrorKind::TooManyTokens`] if 32-bit offsets cannot count them.
    pub fn max_tokens(&self, matrix: &impl Rows) -> Result<usize> {
        let n_tokens = (0..matrix.n_rows()).map(|row| self.max_tokens_of_row(matrix.max_entries(row))).sum();
        i32::try_from(n_tokens).map_or(Err(ErrorKind::TooManyTokens.into()), |_| Ok(n_tokens))
    }

    /// Tokenizes all rows of a matrix, in order; `source_rows` are the numbers of these rows in the source.
    ///
    /// # Errors
    /// - [`ErrorKind::LengthsDiffer`] if the matrix has another number of columns than the kernel;
    /// - [`ErrorKind::Argument`]: the length of `rows` is not the number of rows, or one of them is negative;
    ///   `gene_ids` or `values` is shorter than [`Kernel::max_tokens`], or `values` is not of the type of
    ///   [`Kernel::values`];
    /// - [`ErrorKind::TooManyTokens`], [`ErrorKind::TokenDoesNotFit`];
    /// - the error of the first cell that is not valid: [`ErrorKind::ColumnOutOfRange`], [`ErrorKind::NotFinite`],
    ///   [`ErrorKind::TotalNotFinite`], [`ErrorKind::NormalizedNotFinite`], [`ErrorKind::TooLargeForFloat32`],
    ///   [`ErrorKind::GeneSumOverflow`].
    pub fn tokenize_into<T: Token>(
        &self,
        matrix: &impl Rows,
        source_rows: &[i64],
        mut out: Output<'_, T>,
    ) -> Result<Layout> {
        self.check_call(matrix, source_rows, &out)?;
        let mut layout = Layout::with_capacity(source_rows.len());
        let mut buffers = Buffers::default();
        for (row, &source_row) in source_rows.iter().enumerate() {
            let source_row = source_row as u64; // not negative: checked
            let start = layout.n_tokens();
            let out = out.part(start..start + self.max_tokens_of_row(matrix.max_entries(row)));
            let cell = self.tokenize_cell(matrix, row, source_row, &mut buffers, out);
            layout.push(cell.map_err(|error| error.at_row(source_row))?);
        }
        Ok(layout)
    }

    /// Checks the arguments of a call against the kernel and each other.
    fn check_call<T: Token>(&self, matrix: &impl Rows, source_rows: &[i64], out: &Output<'_, T>) -> Result<()> {
        if matrix.n_columns() != self.n_columns() {
            return Err(ErrorKind::LengthsDiffer.into());
        }
        if matrix.n_rows() != source_rows.len() || source_rows.iter().any(|&row| row < 0) {
            return Err(ErrorKind::Argument("rows").into());
        }
        let is_of_mode = match &out.values {
            Values::Floats(_) => matches!(self.values(), ValueMode::Expression | ValueMode::Ranks),
            Values::Ids(_) => matches!(self.values(), ValueMode::Bins(_)),
            Values::None => self.values() == ValueMode::None,
        };
        if !is_of_mode {
            return Err(ErrorKind::Argument("values").into());
        }
        out.check(self.max_tokens(matrix)?, self.ids())
    }
}
