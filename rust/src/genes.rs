//! Which column of `var` stands for which gene: column -> position -> token.
//!
//! Positions count the kept genes in `var` order; ties between equal values are decided by them.

use crate::error::{ErrorKind, Result};

/// The kept genes of a source.
#[derive(Debug, Clone)]
pub struct GeneIndex {
    position_of_column: Vec<i32>,
    token_of_position: Vec<i32>,
    column_of_position: Vec<u32>,
    shared: bool,
}

impl GeneIndex {
    /// Checks and keeps the two tables: a column's position (-1: dropped) and a position's token.
    ///
    /// Several columns may share a position; their values are then summed.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] where a position has no column, or a column's position is not below the number of
    /// positions, or a position's first column is not to the right of its predecessor's.
    pub fn new(position_of_column: Vec<i32>, token_of_position: Vec<i32>) -> Result<Self> {
        if u32::try_from(position_of_column.len()).is_err() {
            return Err(ErrorKind::Argument.into());
        }
        let mut column_of_position = Vec::with_capacity(token_of_position.len());
        let mut shared = false;
        for (column, &position) in (0u32..).zip(&position_of_column) {
            match usize::try_from(position) {
                Ok(position) if position == column_of_position.len() => column_of_position.push(column),
                Ok(position) if position < column_of_position.len() => shared = true,
                Err(_) if position == -1 => {}
                _ => return Err(ErrorKind::Argument.into()),
            }
        }
        if column_of_position.len() != token_of_position.len() {
            return Err(ErrorKind::Argument.into());
        }
        Ok(Self { position_of_column, token_of_position, column_of_position, shared })
    }

    /// The number of kept genes, G.
    #[must_use]
    pub fn n_genes(&self) -> usize {
        self.token_of_position.len()
    }

    /// The number of columns of `var`.
    #[must_use]
    pub fn n_columns(&self) -> usize {
        self.position_of_column.len()
    }

    /// The position of a column, `None` where the gene was dropped.
    #[inline]
    #[must_use]
    pub fn position(&self, column: u32) -> Option<u32> {
        u32::try_from(self.position_of_column[column as usize]).ok()
    }

    /// The position of each column, -1 where the gene was dropped.
    #[must_use]
    pub fn position_of_column(&self) -> &[i32] {
        &self.position_of_column
    }

    /// The token of a position.
    #[inline]
    #[must_use]
    pub fn token(&self, position: u32) -> i32 {
        self.token_of_position[position as usize]
    }

    /// The token of each position.
    #[must_use]
    pub fn tokens(&self) -> &[i32] {
        &self.token_of_position
    }

    /// The first column of a position.
    #[inline]
    #[must_use]
    pub fn column(&self, position: u32) -> u32 {
        self.column_of_position[position as usize]
    }

    /// Tells whether some columns share a position.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared
    }
}

#[cfg(test)]
mod tests {
    use super::GeneIndex;

    #[test]
    fn tables_that_contradict_one_another_are_refused() {
        assert!(GeneIndex::new(vec![0, -1, 1], vec![5, 6]).is_ok());
        assert!(GeneIndex::new(vec![0, 0, 1], vec![5, 6]).is_ok_and(|genes| genes.is_shared()));
        for (columns, tokens) in
            [(vec![0, 2], vec![5, 6]), (vec![1, 0], vec![5, 6]), (vec![0], vec![5, 6]), (vec![-2], vec![])]
        {
            assert!(GeneIndex::new(columns, tokens).is_err());
        }
    }
}
