//! Maps genes: column of `var` -> position -> token.
//!
//! Positions number the kept genes in `var` order. Ties between equal values are decided by position.

use crate::error::{ErrorKind, Result};

/// The kept genes of a source.
#[derive(Debug, Clone)]
pub struct GeneIndex {
    position_of_column: Vec<i32>,
    token_of_position: Vec<i32>,
    /// The first column of each position.
    column_of_position: Vec<u32>,
    shares_positions: bool,
}

impl GeneIndex {
    /// Builds the index from the position of each column (-1: the gene is dropped) and the token of each position.
    ///
    /// Several columns may share a position; their values are then summed.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] if the positions, in the order of their first columns, are not 0, 1, 2 and so on, or if
    /// the number of tokens is not that of positions.
    pub fn new(position_of_column: Vec<i32>, token_of_position: Vec<i32>) -> Result<Self> {
        let bad_positions = || ErrorKind::Argument("position_of_column").into();
        if u32::try_from(position_of_column.len()).is_err() {
            return Err(bad_positions());
        }
        let mut column_of_position = Vec::with_capacity(token_of_position.len());
        let mut shares_positions = false;
        for (column, &position) in (0u32..).zip(&position_of_column) {
            match usize::try_from(position) {
                Ok(position) if position == column_of_position.len() => column_of_position.push(column),
                Ok(position) if position < column_of_position.len() => shares_positions = true,
                Err(_) if position == -1 => {}
                _ => return Err(bad_positions()),
            }
        }
        if column_of_position.len() != token_of_position.len() {
            return Err(ErrorKind::Argument("token_of_position").into());
        }
        Ok(Self { position_of_column, token_of_position, column_of_position, shares_positions })
    }

    /// Returns the number of kept genes, G.
    #[must_use]
    pub fn n_genes(&self) -> usize {
        self.token_of_position.len()
    }

    /// Returns the number of columns of `var`.
    #[must_use]
    pub fn n_columns(&self) -> usize {
        self.position_of_column.len()
    }

    /// Returns the position of a column, `None` if its gene is dropped.
    #[inline]
    pub(crate) fn position(&self, column: u32) -> Option<u32> {
        u32::try_from(self.position_of_column[column as usize]).ok()
    }

    /// Returns the position of each column, -1 if its gene is dropped.
    pub(crate) fn positions(&self) -> &[i32] {
        &self.position_of_column
    }

    /// Returns the token of a position.
    #[inline]
    pub(crate) fn token(&self, position: u32) -> i32 {
        self.token_of_position[position as usize]
    }

    /// Returns the token of each position.
    pub(crate) fn tokens(&self) -> &[i32] {
        &self.token_of_position
    }

    /// Returns the first column of a position.
    #[inline]
    pub(crate) fn column(&self, position: u32) -> u32 {
        self.column_of_position[position as usize]
    }

    /// Returns whether some columns share a position.
    pub(crate) fn shares_positions(&self) -> bool {
        self.shares_positions
    }
}

#[cfg(test)]
mod tests {
    use super::GeneIndex;

    #[test]
    fn contradicting_tables_are_refused() {
        assert!(GeneIndex::new(vec![0, -1, 1], vec![5, 6]).is_ok());
        assert!(GeneIndex::new(vec![0, 0, 1], vec![5, 6]).is_ok_and(|genes| genes.shares_positions()));
        for (columns, tokens, argument) in [
            (vec![0, 2], vec![5, 6], "position_of_column"),
            (vec![1, 0], vec![5, 6], "position_of_column"),
            (vec![-2], vec![], "position_of_column"),
            (vec![0], vec![5, 6], "token_of_position"),
        ] {
            let error = GeneIndex::new(columns, tokens).err();
            assert_eq!(error.and_then(|error| error.kind.argument()), Some(argument));
        }
    }
}
