//! One cell from row to tokens: the kernel's table of contents.

use crate::bins::{BinScratch, bin_ids};
use crate::error::{Error, ErrorKind, Result};
use crate::gather::{Sums, sweep};
use crate::genes::GeneIndex;
use crate::log1p::Log1p;
use crate::matrix::{Index, Row, RowBuffer, Rows};
use crate::normalize::Normalization;
use crate::order::{Key, Value};
use crate::random::{RandomGenes, draw_genes};
use crate::ranks::rank;
use crate::select::{Candidates, Positions, select};
use crate::tokenize::{Output, TokensMut, ValuesMut};

/// What the values beside the tokens are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueMode {
    /// The expression value, as float32.
    Expression,
    /// Bin ids for this many bins.
    Bins(usize),
    /// 1 for the first gene to -1 for the last.
    Ranks,
    /// No values at all.
    None,
}

/// How to tokenize a cell.
#[derive(Debug, Clone)]
pub struct Options {
    /// The longest sequence, CLS included.
    pub max_seq_len: usize,
    /// The token to put first, with value 1.
    pub cls_token: Option<i32>,
    /// Keeps selected genes of value 0.
    pub include_zero_genes: bool,
    /// What the values are.
    pub values: ValueMode,
    /// Draws a random subset of genes for each block of rows.
    pub random: Option<RandomGenes>,
    /// Turns raw counts into processed values first.
    pub normalization: Normalization,
}

/// The tokenizer: genes and options, checked against each other. Frozen; any number of threads may share it.
#[derive(Debug, Clone)]
pub struct Kernel {
    genes: GeneIndex,
    options: Options,
    all: Positions,
}

/// The random subset of a block.
#[derive(Debug)]
struct Subset {
    block: u64,
    positions: Positions,
    n_positions: usize,
    /// Each column's position, -1 where its gene is not in the subset.
    position_of_column: Vec<i32>,
}

/// Buffers that are used again from cell to cell.
#[derive(Debug)]
pub(crate) struct Scratch<T: Value> {
    row: RowBuffer<T>,
    entries: Vec<(u32, T)>,
    stored: Candidates<T>,
    processed: Candidates<f32>,
    normalized: Vec<f64>,
    log1p: Log1p,
    subset: Option<Subset>,
    bins: BinScratch,
}

impl<T: Value> Scratch<T> {
    pub fn new() -> Self {
        Self {
            row: RowBuffer::default(),
            entries: Vec::new(),
            stored: Candidates::default(),
            processed: Candidates::default(),
            normalized: Vec::new(),
            log1p: Log1p::default(),
            subset: None,
            bins: BinScratch::default(),
        }
    }
}

impl Kernel {
    /// Builds a kernel.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] where `max_seq_len` is 0, there are fewer than two bins, a random block holds no
    /// rows, or there is not one inverse median a column.
    pub fn new(genes: GeneIndex, options: Options) -> Result<Self> {
        let medians = options.normalization.inverse_medians.as_ref().is_none_or(|m| m.len() == genes.n_columns());
        let bins = !matches!(options.values, ValueMode::Bins(n) if n < 2 || i32::try_from(n).is_err());
        let blocks = options.random.is_none_or(|random| random.block_rows > 0);
        if options.max_seq_len == 0 || !bins || !blocks || !medians {
            return Err(ErrorKind::Argument.into());
        }
        let all = Positions::all(genes.n_genes());
        Ok(Self { genes, options, all })
    }

    /// What the values are.
    #[must_use]
    pub fn values(&self) -> ValueMode {
        self.options.values
    }

    /// The number of columns that matrices must have.
    #[must_use]
    pub fn n_columns(&self) -> usize {
        self.genes.n_columns()
    }

    /// All tokens that it may write.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = i32> {
        self.options.cls_token.into_iter().chain(self.genes.tokens().iter().copied())
    }

    /// The longest sequence that a row of so many entries can give.
    #[must_use]
    pub fn most_tokens(&self, n_entries: usize) -> usize {
        let genes = if self.options.include_zero_genes { usize::MAX } else { n_entries };
        self.n_selected().min(genes).min(self.genes.n_genes()) + usize::from(self.options.cls_token.is_some())
    }

    /// The most genes of a sequence.
    fn n_selected(&self) -> usize {
        self.options.max_seq_len - usize::from(self.options.cls_token.is_some())
    }

    /// Writes the tokens of one row. `source_row` is its place in the whole source.
    pub(crate) fn tokenize_row<R: Rows>(
        &self,
        rows: &R,
        row: usize,
        source_row: u64,
        scratch: &mut Scratch<R::Value>,
        out: &mut Output<'_>,
    ) -> Result<()> {
        self.row(rows, row, source_row, scratch, out).map_err(|error| error.at_row(source_row))
    }

    fn row<R: Rows>(
        &self,
        rows: &R,
        row: usize,
        source_row: u64,
        scratch: &mut Scratch<R::Value>,
        out: &mut Output<'_>,
    ) -> Result<()> {
        let Scratch { row: buffer, entries, stored, processed, normalized, log1p, subset, bins } = scratch;
        self.draw(source_row, subset);
        let subset = subset.as_ref();
        let sums = self.gather(rows.row(row, buffer), subset, entries, stored)?;
        if self.options.normalization.is_on() {
            self.normalize(stored, sums.total, (normalized, log1p), processed)?;
            self.write(processed, subset, bins, out)?;
        } else {
            self.write(stored, subset, bins, out)?;
        }
        out.totals.extend([sums.total, sums.kept]);
        Ok(())
    }

    /// Draws the subset of the row's block, unless it is the one already drawn.
    fn draw(&self, source_row: u64, subset: &mut Option<Subset>) {
        if let Some(random) = self.options.random {
            let block = source_row / random.block_rows;
            if subset.as_ref().is_none_or(|drawn| drawn.block != block) {
                let n_genes = self.genes.n_genes();
                // A GeneIndex holds at most u32::MAX genes.
                let drawn = draw_genes(random.seed, block, n_genes as u32, random.count);
                let positions = Positions::of(&drawn, n_genes);
                let in_subset = |&position: &i32| match u32::try_from(position) {
                    Ok(at) if positions.contains(at) => position,
                    _ => -1,
                };
                let position_of_column = self.genes.position_of_column().iter().map(in_subset).collect();
                *subset = Some(Subset { block, positions, n_positions: drawn.len(), position_of_column });
            }
        }
    }

    /// Sorts the entries of candidates into those above and those below zero, each by position; sums all entries.
    fn gather<I: Index, T: Value>(
        &self,
        row: Row<'_, I, T>,
        subset: Option<&Subset>,
        entries: &mut Vec<(u32, T)>,
        cell: &mut Candidates<T>,
    ) -> Result<Sums> {
        cell.negative.clear();
        if !self.genes.is_shared() {
            let candidates = subset.map(|subset| subset.position_of_column.as_slice());
            if let Some(sums) = sweep(row, self.genes.position_of_column(), candidates, &mut cell.positive) {
                return Ok(sums);
            }
        }
        row.merge(self.genes.n_columns(), entries)?;
        let sums = self.sums(entries)?;
        if self.genes.is_shared() {
            self.sum_shared(entries)?;
        }
        cell.positive.clear();
        for &(column, value) in entries.iter().filter(|&&(_, value)| value != T::ZERO) {
            let position = self.genes.position(column);
            if let Some(position) = position.filter(|&at| subset.is_none_or(|subset| subset.positions.contains(at))) {
                if value > T::ZERO { &mut cell.positive } else { &mut cell.negative }.push(value.key(position));
            }
        }
        Ok(sums)
    }

    /// Sums the absolute values over all columns and over those of kept genes, in column order.
    ///
    /// NaN and infinity in a kept gene are errors; in a dropped one only where they would reach the kept ones
    /// through the total.
    fn sums<T: Value>(&self, entries: &[(u32, T)]) -> Result<Sums> {
        let sum = |ignore: bool| {
            let mut sums = Sums { total: 0.0, kept: 0.0 };
            for (column, value) in entries.iter().filter(|(_, value)| !ignore || value.is_finite()) {
                let value = value.to_f64().abs();
                sums.total += value;
                sums.kept += if self.genes.position(*column).is_some() { value } else { 0.0 };
            }
            sums
        };
        let sums = sum(false);
        if sums.total.is_finite() {
            return Ok(sums);
        }
        let uses_total = self.options.normalization.target_sum.is_some();
        for &(column, value) in entries {
            if !value.is_finite() && (uses_total || self.genes.position(column).is_some()) {
                return Err(Error::new(ErrorKind::NotFinite).at_column(column));
            }
        }
        if uses_total { Err(ErrorKind::TotalNotFinite.into()) } else { Ok(sum(true)) }
    }

    /// Sums the columns of each gene into its first column, in column order; drops the columns of dropped genes.
    fn sum_shared<T: Value>(&self, entries: &mut Vec<(u32, T)>) -> Result<()> {
        entries.retain_mut(|(column, _)| match self.genes.position(*column) {
            Some(position) => {
                *column = self.genes.column(position);
                true
            }
            None => false,
        });
        entries.sort_by_key(|&(column, _)| column);
        let mut overflow = None;
        entries.dedup_by(|later, first| {
            let same = later.0 == first.0;
            if same {
                match first.1.checked_add(later.1).filter(|sum| sum.is_finite()) {
                    Some(sum) => first.1 = sum,
                    None => overflow = overflow.or(Some(first.0)),
                }
            }
            same
        });
        overflow.map_or(Ok(()), |column| Err(Error::new(ErrorKind::GeneSumOverflow).at_column(column)))
    }

    /// Turns a cell's raw candidates into processed ones. Values that become 0 are candidates no more.
    ///
    /// Where no gene decides, equal values stay equal: put in order first, each of them is taken through the steps once.
    fn normalize<T: Value>(
        &self,
        raw: &mut Candidates<T>,
        total: f64,
        (values, log1p): (&mut Vec<f64>, &Log1p),
        processed: &mut Candidates<f32>,
    ) -> Result<()> {
        let by_gene = self.options.normalization.inverse_medians.is_some();
        if !by_gene {
            raw.order();
        }
        for (raw, processed) in [(&raw.positive, &mut processed.positive), (&raw.negative, &mut processed.negative)] {
            values.clear();
            processed.clear();
            let value_of = |&key: &T::Key| T::value_of(key).to_f64();
            let processed_key = |&key: &T::Key, value: f64| (value as f32).key(T::position_of(key));
            if by_gene {
                values.extend(raw.iter().map(value_of));
                let columns = raw.iter().map(|&key| self.genes.column(T::position_of(key)));
                self.options.normalization.apply(values, columns, total, log1p);
                processed.extend(raw.iter().zip(&*values).map(|(key, &value)| processed_key(key, value)));
            } else {
                let runs = || raw.chunk_by(|before, after| before.value_bits() == after.value_bits());
                values.extend(runs().map(|run| value_of(&run[0])));
                self.options.normalization.apply(values, std::iter::empty(), total, log1p);
                for (run, &value) in runs().zip(&*values) {
                    processed.extend(run.iter().map(|key| processed_key(key, value)));
                }
            }
            if !values.iter().all(|value| value.is_finite()) {
                let bad = processed.iter().filter(|&&key| !f32::value_of(key).is_finite());
                let first = bad.map(|&key| f32::position_of(key)).min();
                let error = Error::new(ErrorKind::NormalizedNotFinite);
                return Err(first.map_or(error, |position| error.at_column(self.genes.column(position))));
            }
            if values.contains(&0.0) {
                processed.retain(|&key| f32::value_of(key) != 0.0);
            }
            if !by_gene && !processed.is_sorted() {
                processed.sort_unstable(); // rounding made some equal that were not
            }
        }
        Ok(())
    }

    /// Selects, then writes tokens and values.
    fn write<V: Value>(
        &self,
        cell: &mut Candidates<V>,
        subset: Option<&Subset>,
        bins: &mut BinScratch,
        out: &mut Output<'_>,
    ) -> Result<()> {
        let all = (&self.all, self.genes.n_genes());
        let candidates = subset.map_or(all, |subset| (&subset.positions, subset.n_positions));
        select(cell, self.n_selected(), candidates, self.options.include_zero_genes);
        let selected = &cell.positive;

        let (start, cls) = (out.n_tokens, self.options.cls_token);
        let end = start + usize::from(cls.is_some()) + selected.len();
        let tokens = selected.iter().map(|&key| self.genes.token(V::position_of(key)));
        match &mut out.gene_ids {
            TokensMut::Int32(ids) => put(&mut ids[start..end], cls, tokens),
            // They fit: `tokenize_into` looked.
            TokensMut::UInt16(ids) => put(&mut ids[start..end], cls.map(|cls| cls as u16), tokens.map(|id| id as u16)),
            TokensMut::Int64(ids) => put(&mut ids[start..end], cls.map(i64::from), tokens.map(i64::from)),
        }
        match (self.options.values, &mut out.values) {
            (ValueMode::Expression, ValuesMut::Float32(floats)) => {
                let values = selected.iter().map(|&key| V::value_of(key).to_f32());
                put(&mut floats[start..end], cls.map(|_| 1.0), values);
                // The largest magnitudes stand at the two ends of the order.
                for &key in selected.first().into_iter().chain(selected.last()) {
                    if !V::value_of(key).to_f32().is_finite() {
                        let column = self.genes.column(V::position_of(key));
                        return Err(Error::new(ErrorKind::TooLargeForFloat32).at_column(column));
                    }
                }
            }
            (ValueMode::Ranks, ValuesMut::Float32(floats)) => {
                let ranks = (0..selected.len()).map(|i| rank(i, selected.len()));
                put(&mut floats[start..end], cls.map(|_| 1.0), ranks);
            }
            (ValueMode::Bins(n_bins), ValuesMut::Int32(ids)) => {
                let values = selected.iter().map(|&key| V::value_of(key).to_f64());
                put(&mut ids[start..end], cls.map(|_| 1), bin_ids(values, n_bins, bins));
            }
            _ => {}
        }
        out.n_tokens = end;
        Ok(())
    }
}

/// Fills `to` with the first item, if there is one, and the rest.
fn put<D>(to: &mut [D], first: Option<D>, rest: impl Iterator<Item = D>) {
    let (head, tail) = to.split_at_mut(usize::from(first.is_some()));
    for (to, item) in head.iter_mut().zip(first) {
        *to = item;
    }
    for (to, item) in tail.iter_mut().zip(rest) {
        *to = item;
    }
}
