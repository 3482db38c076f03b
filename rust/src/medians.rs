//! Finds the exact median of each gene's nonzero values, in a few passes over all cells, in bounded memory.
//!
//! The bits of positive float32 numbers are ordered as the numbers are. So the lower of the two middle values is found
//! digit by digit: a pass counts the values of each gene by their next digit, which narrows the range in which the
//! value is. As soon as all values in the ranges fit into memory, a last pass keeps them. The upper middle value is in
//! the same range, or is the smallest value above it.
//!
//! Counts do not depend on the order of cells, so neither do the medians: not on threads, chunks or sources.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::gather::gather;
use crate::genes::GeneIndex;
use crate::log1p::Log1p;
use crate::matrix::{Entry, RowBuffer, Rows};
use crate::normalize::Normalization;
use crate::order::Value;
use crate::select::Candidates;

/// Bits of a positive float32 number, without its sign.
const VALUE_BITS: u32 = 31;
/// The largest digit, in bits: a larger one only spreads the counts over more memory.
const MAX_DIGIT: u32 = 16;
/// Values that a thread collects before it counts them, as only one thread can count at a time.
const BATCH: usize = 1 << 15;
/// Numbers of a gene in a state.
const STATE_PER_GENE: usize = 4;

/// Counts the values of genes in passes, until the median of each gene is known. Threads can share it.
#[derive(Debug)]
pub struct MedianCounter {
    n_genes: usize,
    max_bytes: usize,
    pass: Mutex<Pass>,
}

/// What is known of one gene.
#[derive(Debug, Clone, Copy, Default)]
struct Gene {
    /// Number of its values.
    n: u64,
    /// Start of the range of bits in which its lower middle value is.
    low: u32,
    /// Number of its values in that range.
    n_inside: u64,
    /// Rank of the lower middle value among these, from 0.
    rank: u64,
}

/// The current pass.
#[derive(Debug)]
struct Pass {
    /// Bits of the size of all ranges.
    width: u32,
    genes: Vec<Gene>,
    /// The smallest bits above the range of each gene; `u32::MAX` if there are none.
    above: Vec<u32>,
    table: Table,
}

#[derive(Debug)]
enum Table {
    /// Number of the values of each digit and gene, those of one digit next to each other: most values of a cell are
    /// a few equal numbers, and its genes come in order, so that the memory of a few digits is read in order too.
    Counts { digit: u32, counts: Vec<u64> },
    /// All values in the ranges: those of gene g from `starts[g]` on, of which `filled[g]` were seen.
    Values { starts: Vec<usize>, filled: Vec<u64>, values: Vec<u32> },
    /// The medians are known; NaN for a gene without values.
    Medians(Vec<f32>),
}

/// Buffers for the rows of one call.
struct Buffers<T: Value> {
    row: RowBuffer<T>,
    entries: Vec<Entry<T>>,
    cell: Candidates<T>,
    values: Vec<f64>,
    log1p: Log1p,
    /// Number of the gene and bits of each value.
    batch: Vec<(u32, u32)>,
}

impl MedianCounter {
    /// Starts the first pass over `n_genes` genes, or the pass after the one whose [`MedianCounter::state`] is given.
    ///
    /// `max_bytes` limits the memory for counts and values; the medians do not depend on it. Less than 16 bytes per
    /// gene are not enough for any pass.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] if there are more than 2^31 genes, or `state` is not that of so many genes.
    pub fn new(n_genes: usize, max_bytes: usize, state: Option<&[u64]>) -> Result<Self> {
        if i32::try_from(n_genes).is_err() {
            return Err(ErrorKind::Argument("n_genes").into());
        }
        let (width, genes) = match state {
            None => (VALUE_BITS, vec![Gene::default(); n_genes]),
            Some(state) => read_state(n_genes, state).ok_or(ErrorKind::Argument("state"))?,
        };
        Ok(Self { n_genes, max_bytes, pass: Mutex::new(Pass::new(width, genes, max_bytes)) })
    }

    /// Counts the values of all rows of a matrix; `source_rows` are the numbers of these rows in the source.
    ///
    /// `genes` maps columns to positions, and positions to the numbers of genes in this counter, as tokens. With
    /// `target_sum`, values are normalised as [`crate::Kernel`] does; values that become 0 are not counted.
    ///
    /// # Errors
    /// - [`ErrorKind::LengthsDiffer`] if the matrix has another number of columns than `genes`;
    /// - [`ErrorKind::Argument`] if the length of `rows` is not the number of rows or one of them is negative, or if
    ///   `gene_of_position` holds a number that is not one of a gene;
    /// - the error of the first row that is not valid: [`ErrorKind::ColumnOutOfRange`], [`ErrorKind::NotFinite`],
    ///   [`ErrorKind::NegativeValue`], [`ErrorKind::TotalNotFinite`], [`ErrorKind::NormalizedNotFinite`],
    ///   [`ErrorKind::TooLargeForFloat32`], [`ErrorKind::GeneSumOverflow`].
    pub fn count<R: Rows>(
        &self,
        matrix: &R,
        source_rows: &[i64],
        genes: &GeneIndex,
        target_sum: Option<f64>,
    ) -> Result<()> {
        if matrix.n_columns() != genes.n_columns() {
            return Err(ErrorKind::LengthsDiffer.into());
        }
        if matrix.n_rows() != source_rows.len() || source_rows.iter().any(|&row| row < 0) {
            return Err(ErrorKind::Argument("rows").into());
        }
        if genes.tokens().iter().any(|&gene| usize::try_from(gene).map_or(true, |gene| gene >= self.n_genes)) {
            return Err(ErrorKind::Argument("gene_of_position").into());
        }
        let steps = Normalization { target_sum, ..Normalization::default() };
        let mut buffers = Buffers {
            row: RowBuffer::default(),
            entries: Vec::new(),
            cell: Candidates::default(),
            values: Vec::new(),
            log1p: Log1p::default(),
            batch: Vec::new(),
        };
        for (row, &source_row) in source_rows.iter().enumerate() {
            let collected = collect(matrix, row, genes, &steps, &mut buffers);
            collected.map_err(|error| error.at_row(source_row as u64))?; // not negative: checked
            if buffers.batch.len() >= BATCH {
                self.lock().add(&mut buffers.batch);
            }
        }
        self.lock().add(&mut buffers.batch);
        Ok(())
    }

    /// Ends a pass over all cells; returns whether another one is needed.
    ///
    /// # Errors
    /// [`ErrorKind::ValuesChanged`] if the values were not those of the passes before.
    pub fn finish_pass(&self) -> Result<bool> {
        self.lock().finish(self.max_bytes)
    }

    /// Returns the number of values of each gene, known after the first pass, and the medians, known after the last.
    #[must_use]
    pub fn medians(&self) -> (Vec<u64>, Option<Vec<f32>>) {
        let pass = self.lock();
        let medians = if let Table::Medians(medians) = &pass.table { Some(medians.clone()) } else { None };
        (pass.genes.iter().map(|gene| gene.n).collect(), medians)
    }

    /// Returns all that is known at the start of a pass, from which [`MedianCounter::new`] continues.
    #[must_use]
    pub fn state(&self) -> Vec<u64> {
        let pass = self.lock();
        let numbers = pass.genes.iter().flat_map(|gene| [gene.n, u64::from(gene.low), gene.n_inside, gene.rank]);
        std::iter::once(u64::from(pass.width)).chain(numbers).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Pass> {
        self.pass.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds the normalised nonzero values of one row to the batch.
fn collect<R: Rows>(
    matrix: &R,
    row: usize,
    genes: &GeneIndex,
    steps: &Normalization,
    buffers: &mut Buffers<R::Value>,
) -> Result<()> {
    let Buffers { row: row_buffer, entries, cell, values, log1p, batch } = buffers;
    let row = matrix.row(row, row_buffer);
    let sums = gather(row, genes, None, steps.target_sum.is_some(), entries, cell)?;
    let position_of = |&key: &<R::Value as Value>::Key| <R::Value as Value>::position_of(key);
    if let Some(first) = cell.negative.iter().map(position_of).min() {
        return Err(Error::new(ErrorKind::NegativeValue).at_column(genes.column(first)));
    }
    let value_of = |&key: &<R::Value as Value>::Key| <R::Value as Value>::value_of(key);
    values.clear();
    let not_finite = if steps.is_on() {
        values.extend(cell.positive.iter().map(|key| value_of(key).to_f64()));
        steps.apply(values, std::iter::empty(), sums.total, log1p);
        ErrorKind::NormalizedNotFinite
    } else {
        values.extend(cell.positive.iter().map(|key| f64::from(value_of(key).to_f32())));
        ErrorKind::TooLargeForFloat32
    };
    for (key, &value) in cell.positive.iter().zip(&*values) {
        let position = position_of(key);
        if !value.is_finite() {
            return Err(Error::new(not_finite).at_column(genes.column(position)));
        }
        let bits = (value as f32).to_bits(); // exact: both ways above round to float32
        if bits != 0 {
            batch.push((genes.token(position) as u32, bits)); // not negative: `count` checked it
        }
    }
    Ok(())
}

/// Reads a state of so many genes; `None` if it is not valid.
fn read_state(n_genes: usize, state: &[u64]) -> Option<(u32, Vec<Gene>)> {
    let (&width, numbers) = state.split_first()?;
    let width = u32::try_from(width).ok().filter(|width| (1..=VALUE_BITS).contains(width))?;
    let (numbers, rest) = numbers.as_chunks::<STATE_PER_GENE>();
    if numbers.len() != n_genes || !rest.is_empty() {
        return None;
    }
    let gene = |&[n, low, n_inside, rank]: &[u64; STATE_PER_GENE]| {
        let is_valid = n_inside <= n && rank < n_inside.max(1) && low <= (1 << VALUE_BITS) - (1 << width);
        is_valid.then_some(Gene { n, low: low as u32, n_inside, rank }) // fits: below 2^31
    };
    Some((width, numbers.iter().map(gene).collect::<Option<_>>()?))
}

impl Pass {
    fn new(width: u32, genes: Vec<Gene>, max_bytes: usize) -> Self {
        let above = vec![u32::MAX; genes.len()];
        let table = if width == VALUE_BITS { None } else { Table::of_values(&genes, max_bytes) };
        let table = table.unwrap_or_else(|| Table::of_counts(genes.len(), width, max_bytes));
        Self { width, genes, above, table }
    }

    /// Counts the values of a batch, and empties it.
    fn add(&mut self, batch: &mut Vec<(u32, u32)>) {
        let Self { width, genes, above, table } = self;
        for (gene, bits) in batch.drain(..) {
            let gene = gene as usize;
            let Some(offset) = bits.checked_sub(genes[gene].low) else { continue };
            if offset >> *width != 0 {
                above[gene] = above[gene].min(bits);
                continue;
            }
            match table {
                Table::Counts { digit, counts } => {
                    counts[(offset >> (*width - *digit)) as usize * genes.len() + gene] += 1;
                }
                Table::Values { starts, filled, values } => {
                    if filled[gene] < genes[gene].n_inside {
                        values[starts[gene] + filled[gene] as usize] = bits; // fits: it is an index
                    }
                    filled[gene] += 1;
                }
                Table::Medians(_) => {}
            }
        }
    }

    /// Narrows the ranges, or computes the medians; returns whether another pass is needed.
    fn finish(&mut self, max_bytes: usize) -> Result<bool> {
        let is_first = self.width == VALUE_BITS;
        match mem::replace(&mut self.table, Table::Medians(Vec::new())) {
            Table::Medians(medians) => self.table = Table::Medians(medians),
            Table::Values { starts, filled, mut values } => {
                let mut medians = Vec::with_capacity(self.genes.len());
                for (number, gene) in self.genes.iter().enumerate() {
                    if filled[number] != gene.n_inside {
                        return Err(ErrorKind::ValuesChanged.into());
                    }
                    let inside = &mut values[starts[number]..][..gene.n_inside as usize]; // fits: all are in memory
                    medians.push(gene.median_of_values(inside, self.above[number])?);
                }
                self.table = Table::Medians(medians);
            }
            Table::Counts { digit, counts } => {
                self.width -= digit;
                let n_genes = self.genes.len().max(1);
                let mut n_counted = vec![0u64; n_genes];
                for counts in counts.chunks_exact(n_genes) {
                    n_counted.iter_mut().zip(counts).for_each(|(n, count)| *n += count);
                }
                for (gene, &n) in self.genes.iter_mut().zip(&n_counted) {
                    if is_first {
                        (gene.n, gene.n_inside, gene.rank) = (n, n, n.saturating_sub(1) / 2);
                    }
                    if n != gene.n_inside {
                        return Err(ErrorKind::ValuesChanged.into());
                    }
                }
                let mut digits = vec![Digits::default(); self.genes.len()];
                for (digit, counts) in (0u32..).zip(counts.chunks_exact(n_genes)) {
                    for ((gene, digits), &count) in self.genes.iter_mut().zip(&mut digits).zip(counts) {
                        digits.see(digit, count, gene);
                    }
                }
                drop(counts);
                for ((gene, above), digits) in self.genes.iter_mut().zip(&mut self.above).zip(digits) {
                    *above = digits.next.map_or(*above, |digit| gene.low + (digit << self.width));
                    gene.low += digits.lower.unwrap_or(0) << self.width;
                }
                if self.width > 0 {
                    *self = Self::new(self.width, mem::take(&mut self.genes), max_bytes);
                    return Ok(true);
                }
                let medians = self.genes.iter().zip(&self.above).map(|(gene, &above)| gene.median(above));
                self.table = Table::Medians(medians.collect::<Result<_>>()?);
            }
        }
        Ok(false)
    }
}

impl Table {
    /// Makes a table of counts with the largest digit that fits into `max_bytes`.
    fn of_counts(n_genes: usize, width: u32, max_bytes: usize) -> Self {
        let max_counts = (max_bytes / size_of::<u64>() / n_genes.max(1)).max(2);
        let digit = max_counts.ilog2().min(MAX_DIGIT).min(width);
        Self::Counts { digit, counts: vec![0; n_genes << digit] }
    }

    /// Makes a table of all values in the ranges, if they fit into `max_bytes`.
    fn of_values(genes: &[Gene], max_bytes: usize) -> Option<Self> {
        let max_values = max_bytes / size_of::<u32>();
        let mut starts = Vec::with_capacity(genes.len());
        let mut end = 0usize;
        for gene in genes {
            starts.push(end);
            end = usize::try_from(gene.n_inside)
                .ok()
                .and_then(|n| end.checked_add(n))
                .filter(|&end| end <= max_values)?;
        }
        Some(Self::Values { starts, filled: vec![0; genes.len()], values: vec![0; end] })
    }
}

/// The digits of a gene that were found so far, from the smallest on.
#[derive(Debug, Clone, Copy, Default)]
struct Digits {
    /// That of the lower middle value.
    lower: Option<u32>,
    /// The next one that has values.
    next: Option<u32>,
}

impl Digits {
    /// Takes the next digit, and the number of values that have it.
    fn see(&mut self, digit: u32, count: u64, gene: &mut Gene) {
        if count == 0 || self.next.is_some() {
            return;
        }
        if self.lower.is_some() {
            self.next = Some(digit);
        } else if gene.rank < count {
            (self.lower, gene.n_inside) = (Some(digit), count);
        } else {
            gene.rank -= count;
        }
    }
}

impl Gene {
    /// Computes the median from the values in the range and the smallest one above it.
    fn median_of_values(mut self, inside: &mut [u32], above: u32) -> Result<f32> {
        let mut next = above;
        if self.n > 0 {
            let (_, &mut lower, larger) = inside.select_nth_unstable(self.rank as usize); // fits: it is an index
            let upper = larger.iter().copied().min();
            (self.low, self.n_inside, self.rank, next) = (lower, 1, 0, upper.unwrap_or(above));
        }
        self.median(next)
    }

    /// Computes the median where the range is a single number; `next` is the smallest number above it.
    fn median(&self, next: u32) -> Result<f32> {
        if self.n == 0 {
            return Ok(f32::NAN);
        }
        let is_lower = !self.n.is_multiple_of(2) || self.rank + 1 < self.n_inside;
        let upper = if is_lower { self.low } else { next };
        if upper >= f32::INFINITY.to_bits() {
            return Err(ErrorKind::ValuesChanged.into()); // there was a value above
        }
        Ok(f64::midpoint(f32::from_bits(self.low).into(), f32::from_bits(upper).into()) as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::MedianCounter;
    use crate::error::ErrorKind;
    use crate::genes::GeneIndex;
    use crate::matrix::DenseRows;
    use proptest::prelude::*;

    const N_GENES: usize = 3;

    fn genes() -> Option<GeneIndex> {
        GeneIndex::new(vec![0, 1, 2], vec![2, 0, 1]).ok()
    }

    fn add_cells(counter: &MedianCounter, x: &[f32], chunk: usize) {
        let n_rows = x.len() / N_GENES;
        for start in (0..n_rows).step_by(chunk) {
            let stop = (start + chunk).min(n_rows);
            let rows: Vec<i64> = (start as i64..stop as i64).collect();
            let part = &x[start * N_GENES..stop * N_GENES];
            let matrix = DenseRows::new(part, stop - start, N_GENES);
            let result =
                matrix.and_then(|matrix| genes().map_or(Ok(()), |it| counter.count(&matrix, &rows, &it, None)));
            assert_eq!(result, Ok(()));
        }
    }

    /// Computes medians as sorting gives them, in the order of the counter's genes.
    fn sorted_medians(x: &[f32]) -> Vec<u32> {
        [1, 2, 0]
            .map(|column| {
                let mut values: Vec<f32> =
                    x.iter().skip(column).step_by(N_GENES).copied().filter(|&v| v > 0.0).collect();
                values.sort_by(f32::total_cmp);
                let n = values.len();
                if n == 0 {
                    return f32::NAN.to_bits();
                }
                let middle = f64::from(values[(n - 1) / 2]) / 2.0 + f64::from(values[n / 2]) / 2.0;
                (middle as f32).to_bits()
            })
            .to_vec()
    }

    fn values() -> impl Strategy<Value = f32> {
        prop_oneof![
            Just(0.0),
            (1u32..6).prop_map(|n| n as f32),
            (1u32..0x7f80_0000).prop_map(f32::from_bits),
            (0x4100_0000u32..0x4100_0004).prop_map(f32::from_bits),
        ]
    }

    proptest! {
        #[test]
        fn medians_are_those_of_sorting(
            cells in prop::collection::vec([values(), values(), values()], 0..40), chunk in 1usize..9, bytes in 0usize..4000
        ) {
            let x = cells.concat();
            let Ok(mut counter) = MedianCounter::new(N_GENES, bytes, None) else { unreachable!("it is valid") };
            loop {
                add_cells(&counter, &x, chunk);
                match counter.finish_pass() {
                    Ok(true) => {}
                    done => { prop_assert_eq!(done, Ok(false)); break; }
                }
                let resumed = MedianCounter::new(N_GENES, bytes, Some(&counter.state()));
                let Ok(resumed) = resumed else { unreachable!("the state is valid") };
                counter = resumed;
            }
            let (n, medians) = counter.medians();
            let medians: Option<Vec<u32>> = medians.map(|it| it.into_iter().map(f32::to_bits).collect());
            prop_assert_eq!(medians, Some(sorted_medians(&x)));
            let n_positive = |column: usize| x.iter().skip(column).step_by(N_GENES).filter(|&&value| value > 0.0).count() as u64;
            prop_assert_eq!(n, vec![n_positive(1), n_positive(2), n_positive(0)]);
        }
    }

    #[test]
    fn other_values_in_a_later_pass_are_an_error() {
        for bytes in [0, 4000] {
            let Ok(counter) = MedianCounter::new(N_GENES, bytes, None) else { unreachable!("it is valid") };
            add_cells(&counter, &[1.0, 2.0, 3.0, 0.0, 5.0, 6.0], 9);
            assert_eq!(counter.finish_pass(), Ok(true));
            add_cells(&counter, &[1.0, 2.0, 3.0], 9);
            assert_eq!(counter.finish_pass().map_err(|error| error.kind), Err(ErrorKind::ValuesChanged));
        }
    }

    #[test]
    fn a_state_that_is_not_valid_is_refused() {
        let valid = [20, 3, 1 << 20, 2, 1];
        assert!(MedianCounter::new(1, 100, Some(&valid)).is_ok());
        let changes: [(usize, u64); 5] = [(0, 0), (0, 32), (2, 1 << 31), (3, 4), (4, 2)];
        let states = changes.map(|(at, number)| {
            let mut state = valid.to_vec();
            state[at] = number;
            state
        });
        for state in states.iter().map(Vec::as_slice).chain([&valid[..4], &[], &[20, 0, 0, 0, 0, 0]]) {
            let error = MedianCounter::new(1, 100, Some(state)).err();
            assert_eq!(error.and_then(|error| error.kind.argument()), Some("state"), "{state:?}");
        }
    }
}
