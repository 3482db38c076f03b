//! Borrows matrices, checks their structure and reads them row by row.

use crate::error::{Error, ErrorKind, Result};
use crate::order::Value;

/// An integer type of stored column indices.
pub trait Index: Copy + Send + Sync + 'static {
    /// Converts to a column; a negative index becomes a column beyond the maximum of any matrix.
    fn column(self) -> usize;
}

impl Index for i32 {
    #[inline]
    fn column(self) -> usize {
        self as u32 as usize
    }
}

impl Index for u32 {
    #[inline]
    fn column(self) -> usize {
        self as usize
    }
}

impl Index for i64 {
    #[inline]
    fn column(self) -> usize {
        usize::try_from(self as u64).unwrap_or(usize::MAX)
    }
}

/// The stored entries of one row, in storage order.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a, I, T> {
    /// The column of each entry, unchecked.
    pub(crate) columns: &'a [I],
    /// The value of each entry; it may be zero.
    pub(crate) values: &'a [T],
}

/// One entry of a row, with a checked column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Entry<T> {
    pub column: u32,
    pub value: T,
}

impl<I: Index, T: Value> Row<'_, I, T> {
    /// Fills `entries` with the row's entries: columns strictly ascending, duplicates summed.
    ///
    /// # Errors
    /// [`ErrorKind::ColumnOutOfRange`] if an index is negative or not below `n_columns`.
    pub(crate) fn merge(self, n_columns: usize, entries: &mut Vec<Entry<T>>) -> Result<()> {
        entries.clear();
        for (&index, &value) in self.columns.iter().zip(self.values) {
            if index.column() >= n_columns {
                return Err(ErrorKind::ColumnOutOfRange.into());
            }
            entries.push(Entry { column: index.column() as u32, value }); // fits: no matrix has more columns
        }
        if !entries.is_sorted_by(|before, after| before.column < after.column) {
            // Stable, so that floats are summed in storage order, as SciPy's `toarray` does.
            entries.sort_by_key(|entry| entry.column);
            entries.dedup_by(|later, first| {
                let is_same = later.column == first.column;
                if is_same {
                    first.value = first.value.add(later.value);
                }
                is_same
            });
        }
        Ok(())
    }
}

/// A buffer for a row that is not stored as entries, reused for every row.
#[derive(Debug)]
pub struct RowBuffer<T> {
    columns: Vec<u32>,
    values: Vec<T>,
}

impl<T> Default for RowBuffer<T> {
    fn default() -> Self {
        Self { columns: Vec::new(), values: Vec::new() }
    }
}

/// A matrix that is read row by row.
pub trait Rows {
    /// The number type of the columns.
    type Index: Index;
    /// The number type of the values.
    type Value: Value;

    /// Returns the number of rows.
    fn n_rows(&self) -> usize;

    /// Returns the number of columns, at most `u32::MAX`.
    fn n_columns(&self) -> usize;

    /// Returns the maximum number of entries of a row.
    fn max_entries(&self, row: usize) -> usize;

    /// Returns the entries of a row.
    fn row<'a>(&'a self, row: usize, buffer: &'a mut RowBuffer<Self::Value>) -> Row<'a, Self::Index, Self::Value>;
}

/// A CSR matrix. Its rows may be unsorted and may store a column more than once.
#[derive(Debug, Clone, Copy)]
pub struct CsrRows<'a, I, T> {
    indptr: &'a [i64],
    indices: &'a [I],
    data: &'a [T],
    n_columns: usize,
}

impl<'a, I: Index, T: Value> CsrRows<'a, I, T> {
    /// Borrows the three arrays after checking that `indptr` divides the other two into rows.
    ///
    /// The column indices are checked when a row is read.
    ///
    /// # Errors
    /// - [`ErrorKind::LengthsDiffer`] if `indices` and `data` differ in length, or `n_columns` is above `u32::MAX`;
    /// - [`ErrorKind::IndptrStart`] if `indptr` is empty or does not start at 0;
    /// - [`ErrorKind::IndptrDecreases`] if an entry is smaller than the one before it;
    /// - [`ErrorKind::IndptrEnd`] if the last entry is not the number of stored entries.
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
    type Index = I;
    type Value = T;

    fn n_rows(&self) -> usize {
        self.indptr.len() - 1
    }

    fn n_columns(&self) -> usize {
        self.n_columns
    }

    fn max_entries(&self, row: usize) -> usize {
        (self.indptr[row + 1] - self.indptr[row]) as usize // not negative: `new` checked it
    }

    fn row<'a>(&'a self, row: usize, _: &'a mut RowBuffer<T>) -> Row<'a, I, T> {
        // `new` checked that these ascend and are within both arrays.
        let (start, end) = (self.indptr[row] as usize, self.indptr[row + 1] as usize);
        Row { columns: &self.indices[start..end], values: &self.data[start..end] }
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
    /// Borrows the array after checking its length.
    ///
    /// # Errors
    /// [`ErrorKind::LengthsDiffer`] if the array is not `n_rows * n_columns` long, or `n_columns` is above `u32::MAX`.
    pub fn new(x: &'a [T], n_rows: usize, n_columns: usize) -> Result<Self> {
        if u32::try_from(n_columns).is_err() || n_rows.checked_mul(n_columns) != Some(x.len()) {
            return Err(ErrorKind::LengthsDiffer.into());
        }
        Ok(Self { x, n_rows, n_columns })
    }
}

impl<T: Value> Rows for DenseRows<'_, T> {
    type Index = u32;
    type Value = T;

    fn n_rows(&self) -> usize {
        self.n_rows
    }

    fn n_columns(&self) -> usize {
        self.n_columns
    }

    fn max_entries(&self, _: usize) -> usize {
        self.n_columns
    }

    /// Collects the entries that are not zero.
    fn row<'a>(&'a self, row: usize, buffer: &'a mut RowBuffer<T>) -> Row<'a, u32, T> {
        let RowBuffer { columns, values } = buffer;
        columns.resize(self.n_columns, 0);
        values.resize(self.n_columns, T::ZERO);
        let mut n_entries = 0;
        for (column, &value) in (0..).zip(&self.x[row * self.n_columns..(row + 1) * self.n_columns]) {
            // Without a branch: each entry is written, and a zero is overwritten by the next entry.
            columns[n_entries] = column;
            values[n_entries] = value;
            n_entries += usize::from(value != T::ZERO);
        }
        Row { columns: &columns[..n_entries], values: &values[..n_entries] }
    }
}

#[cfg(test)]
mod tests {
    use super::{CsrRows, DenseRows, Entry, Row, RowBuffer, Rows};
    use crate::error::ErrorKind;
    use proptest::prelude::*;

    fn kind<T>(result: crate::error::Result<T>) -> Option<ErrorKind> {
        result.err().map(|error| error.kind)
    }

    fn pairs<T: Copy>(entries: &[Entry<T>]) -> Vec<(u32, T)> {
        entries.iter().map(|entry| (entry.column, entry.value)).collect()
    }

    #[test]
    fn a_malformed_matrix_is_refused() {
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
            let row = Row { columns: &[bad], values: &[1f32] };
            assert_eq!(kind(row.merge(2, &mut Vec::new())), Some(ErrorKind::ColumnOutOfRange), "{bad}");
        }
    }

    #[test]
    fn an_unsorted_row_with_duplicates_is_sorted_and_summed() {
        let mut entries = Vec::new();
        let row = Row { columns: &[3i32, 1, 3, 0, 1], values: &[1f64, 2.0, 3.0, 4.0, -2.0] };
        assert_eq!(row.merge(4, &mut entries), Ok(()));
        assert_eq!(pairs(&entries), [(0, 4.0), (1, 0.0), (3, 4.0)]);
    }

    #[test]
    fn the_last_column_that_fits_u32_is_read_like_any_other() {
        let (indices, mut entries) = ([i64::from(u32::MAX) - 1; 2], Vec::new());
        let row = Row { columns: &indices, values: &[1f32, 2.0] };
        assert_eq!(row.merge(u32::MAX as usize, &mut entries), Ok(()));
        assert_eq!(pairs(&entries), [(u32::MAX - 1, 3.0)]);
        assert_eq!(kind(CsrRows::new(&[0, 2], &indices, &[1f32, 2.0], usize::MAX)), Some(ErrorKind::LengthsDiffer));
    }

    #[test]
    fn integer_duplicates_wrap_as_scipy_sums_them() {
        let mut entries = Vec::new();
        assert_eq!(Row { columns: &[0i32, 0], values: &[200u8, 100] }.merge(1, &mut entries), Ok(()));
        assert_eq!(pairs(&entries), [(0, 44)]);
    }

    #[test]
    fn a_dense_row_gives_its_nonzero_entries() {
        let x = [0f32, 3.0, -0.0, f32::NAN, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let mut buffer = RowBuffer::default();
        let rows = DenseRows::new(&x, 2, 5);
        let Ok(rows) = rows else { unreachable!("2 x 5 are 10") };
        let row = rows.row(0, &mut buffer);
        assert_eq!((row.columns, row.values[0], row.values[2]), (&[1u32, 3, 4][..], 3.0, -1.0));
        assert!(rows.row(1, &mut buffer).values.is_empty());
    }

    proptest! {
        #[test]
        fn a_merged_row_is_the_sum_at_each_column(
            (n_columns, row) in (1usize..12).prop_flat_map(|n| {
                let column = prop_oneof![98 => 0..n as i64, 1 => Just(-1), 1 => Just(n as i64)];
                (Just(n), prop::collection::vec((column, any::<u8>()), 0..40))
            }),
        ) {
            let (columns, values): (Vec<i64>, Vec<u8>) = row.iter().copied().unzip();
            let mut entries = Vec::new();
            let merged = Row { columns: &columns, values: &values }.merge(n_columns, &mut entries);
            let is_in_range = |&column: &i64| (0..n_columns as i64).contains(&column);
            prop_assert_eq!(merged.is_ok(), columns.iter().all(is_in_range));
            if merged.is_ok() {
                let mut sums = std::collections::BTreeMap::<u32, u8>::new();
                for (column, value) in row {
                    let sum = sums.entry(column as u32).or_default();
                    *sum = sum.wrapping_add(value);
                }
                prop_assert_eq!(pairs(&entries), sums.into_iter().collect::<Vec<_>>());
            }
        }
    }
}
