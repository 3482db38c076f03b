//! Matrices as others store them, borrowed and checked: one row comes out sorted by column and free of duplicates.

use crate::error::{Error, ErrorKind, Result};
use crate::order::Value;

/// An integer type that column indices are stored in.
pub trait Index: Copy + Send + Sync + 'static {
    /// The column, or `None` where it is negative or beyond `u32`.
    fn column(self) -> Option<u32>;
}

impl Index for i32 {
    #[inline]
    fn column(self) -> Option<u32> {
        u32::try_from(self).ok()
    }
}

impl Index for i64 {
    #[inline]
    fn column(self) -> Option<u32> {
        u32::try_from(self).ok()
    }
}

/// Rows that can be read one at a time, from any thread.
pub trait Rows: Sync {
    /// The number type of the entries.
    type Value: Value;

    /// The number of rows.
    fn n_rows(&self) -> usize;

    /// The number of columns.
    fn n_columns(&self) -> usize;

    /// Fills `entries` with the row's stored (column, value), columns strictly ascending, duplicates summed.
    ///
    /// Zeros may be among them.
    ///
    /// # Errors
    /// [`ErrorKind::ColumnOutOfRange`] where an index is negative or not below the number of columns.
    fn read(&self, row: usize, entries: &mut Vec<(u32, Self::Value)>) -> Result<()>;
}

/// A CSR matrix. Rows may be unsorted and hold a column more than once.
#[derive(Debug, Clone, Copy)]
pub struct CsrRows<'a, I, T> {
    indptr: &'a [i64],
    indices: &'a [I],
    data: &'a [T],
    n_columns: usize,
}

impl<'a, I: Index, T: Value> CsrRows<'a, I, T> {
    /// Borrows the three buffers after checking that `indptr` cuts the other two.
    ///
    /// The column indices are checked as each row is read, in the pass that uses them.
    ///
    /// # Errors
    /// - [`ErrorKind::LengthsDiffer`] where `indices` and `data` differ in length, or there are more columns than `u32`
    ///   counts;
    /// - [`ErrorKind::IndptrStart`] where `indptr` is empty or starts elsewhere than at 0;
    /// - [`ErrorKind::IndptrDecreases`] where an entry is smaller than the one before it;
    /// - [`ErrorKind::IndptrEnd`] where the last entry is not the number of stored entries.
    pub fn new(indptr: &'a [i64], indices: &'a [I], data: &'a [T], n_columns: usize) -> Result<Self> {
        if indices.len() != data.len() || u32::try_from(n_columns).is_err() {
            return Err(ErrorKind::LengthsDiffer.into());
        }
        if indptr.first() != Some(&0) {
            return Err(ErrorKind::IndptrStart.into());
        }
        if let Some(row) = indptr.windows(2).position(|pair| pair[1] < pair[0]) {
            return Err(Error::new(ErrorKind::IndptrDecreases).at_row(row as u64));
        }
        if indptr.last().and_then(|&end| usize::try_from(end).ok()) != Some(data.len()) {
            return Err(ErrorKind::IndptrEnd.into());
        }
        Ok(Self { indptr, indices, data, n_columns })
    }
}

impl<I: Index, T: Value> Rows for CsrRows<'_, I, T> {
    type Value = T;

    fn n_rows(&self) -> usize {
        self.indptr.len() - 1
    }

    fn n_columns(&self) -> usize {
        self.n_columns
    }

    fn read(&self, row: usize, entries: &mut Vec<(u32, T)>) -> Result<()> {
        // `new` showed these to be in order and within both buffers.
        let (start, end) = (self.indptr[row] as usize, self.indptr[row + 1] as usize);
        entries.clear();
        let mut last = -1;
        let mut sorted = true;
        for (&index, &value) in self.indices[start..end].iter().zip(&self.data[start..end]) {
            let column = match index.column() {
                Some(column) if (column as usize) < self.n_columns => column,
                _ => return Err(ErrorKind::ColumnOutOfRange.into()),
            };
            sorted &= i64::from(column) > last;
            last = i64::from(column);
            entries.push((column, value));
        }
        if !sorted {
            // Stable, so that floats are summed in storage order, as SciPy's `toarray` does.
            entries.sort_by_key(|&(column, _)| column);
            entries.dedup_by(|later, kept| {
                let same = later.0 == kept.0;
                if same {
                    kept.1 = kept.1.add(later.1);
                }
                same
            });
        }
        Ok(())
    }
}

/// A dense matrix in row-major order.
#[derive(Debug, Clone, Copy)]
pub struct DenseRows<'a, T> {
    x: &'a [T],
    n_rows: usize,
    n_columns: usize,
}

impl<'a, T: Value> DenseRows<'a, T> {
    /// Borrows the buffer after checking its length.
    ///
    /// # Errors
    /// [`ErrorKind::LengthsDiffer`] where the buffer is not `n_rows * n_columns` long.
    pub fn new(x: &'a [T], n_rows: usize, n_columns: usize) -> Result<Self> {
        if n_rows.checked_mul(n_columns) != Some(x.len()) {
            return Err(ErrorKind::LengthsDiffer.into());
        }
        Ok(Self { x, n_rows, n_columns })
    }
}

impl<T: Value> Rows for DenseRows<'_, T> {
    type Value = T;

    fn n_rows(&self) -> usize {
        self.n_rows
    }

    fn n_columns(&self) -> usize {
        self.n_columns
    }

    fn read(&self, row: usize, entries: &mut Vec<(u32, T)>) -> Result<()> {
        entries.clear();
        let cells = &self.x[row * self.n_columns..(row + 1) * self.n_columns];
        entries.extend((0u32..).zip(cells.iter().copied()).filter(|&(_, value)| value != T::ZERO));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{CsrRows, DenseRows, Rows};
    use crate::error::ErrorKind;

    fn kind<T>(result: crate::error::Result<T>) -> Option<ErrorKind> {
        result.err().map(|error| error.kind)
    }

    #[test]
    fn a_matrix_that_lies_about_its_structure_is_refused() {
        let (indices, data) = ([0i32, 1], [1f32, 2.0]);
        let new = |indptr: &[i64]| kind(CsrRows::new(indptr, &indices, &data, 2));
        assert_eq!(new(&[]), Some(ErrorKind::IndptrStart));
        assert_eq!(new(&[1, 2]), Some(ErrorKind::IndptrStart));
        assert_eq!(new(&[0, 2, 1, 2]), Some(ErrorKind::IndptrDecreases));
        assert_eq!(new(&[0, -1, 2]), Some(ErrorKind::IndptrDecreases));
        assert_eq!(new(&[0, 1]), Some(ErrorKind::IndptrEnd));
        assert_eq!(new(&[0, i64::MAX]), Some(ErrorKind::IndptrEnd));
        assert_eq!(new(&[0, 2]), None);
        assert_eq!(kind(CsrRows::new(&[0, 2], &indices, &data[..1], 2)), Some(ErrorKind::LengthsDiffer));
        assert_eq!(kind(DenseRows::new(&data, usize::MAX, 2)), Some(ErrorKind::LengthsDiffer));
    }

    #[test]
    fn a_column_out_of_range_is_refused() {
        for bad in [-1i64, 2, i64::MIN, i64::MAX, i64::from(u32::MAX) + 1] {
            let indices = [bad];
            let rows = CsrRows::new(&[0, 1], &indices, &[1f32], 2).map(|rows| rows.read(0, &mut Vec::new()));
            assert_eq!(rows.map(kind), Ok(Some(ErrorKind::ColumnOutOfRange)), "{bad}");
        }
    }

    #[test]
    fn an_unsorted_row_with_duplicates_comes_out_sorted_and_summed() {
        let mut entries = Vec::new();
        let rows = CsrRows::new(&[0, 5], &[3i32, 1, 3, 0, 1], &[1f64, 2.0, 3.0, 4.0, -2.0], 4);
        assert_eq!(rows.and_then(|rows| rows.read(0, &mut entries)), Ok(()));
        assert_eq!(entries, [(0, 4.0), (1, 0.0), (3, 4.0)]);
    }

    #[test]
    fn the_last_column_that_u32_can_name_is_read_as_any_other() {
        let (indices, mut entries) = ([i64::from(u32::MAX) - 1; 2], Vec::new());
        let rows = CsrRows::new(&[0, 2], &indices, &[1f32, 2.0], u32::MAX as usize);
        assert_eq!(rows.and_then(|rows| rows.read(0, &mut entries)), Ok(()));
        assert_eq!(entries, [(u32::MAX - 1, 3.0)]);
        assert_eq!(kind(CsrRows::new(&[0, 2], &indices, &[1f32, 2.0], usize::MAX)), Some(ErrorKind::LengthsDiffer));
    }

    #[test]
    fn integer_duplicates_wrap_as_scipy_sums_them() {
        let mut entries = Vec::new();
        let rows = CsrRows::new(&[0, 2], &[0i32, 0], &[200u8, 100], 1);
        assert_eq!(rows.and_then(|rows| rows.read(0, &mut entries)), Ok(()));
        assert_eq!(entries, [(0, 44)]);
    }
}
