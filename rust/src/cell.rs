//! One cell from row to tokens: the kernel's table of contents.

use crate::bins::bin_ids;
use crate::error::{Error, ErrorKind, Result};
use crate::genes::GeneIndex;
use crate::matrix::Rows;
use crate::normalize::Normalization;
use crate::order::Value;
use crate::random::{RandomGenes, draw_genes};
use crate::ranks::rank;
use crate::select::{Candidates, Positions, select};

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

/// The tokens of some cells, side by side.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    /// Sequence length of each cell.
    pub lengths: Vec<usize>,
    pub gene_ids: Vec<i32>,
    /// Expression values or ranks.
    pub floats: Vec<f32>,
    pub bin_ids: Vec<i32>,
    /// Each cell's sum of absolute values over all columns, then over those of kept genes.
    pub totals: Vec<f64>,
}

/// Buffers that one thread reuses from cell to cell.
#[derive(Debug)]
pub(crate) struct Scratch<T: Value> {
    entries: Vec<(u32, T)>,
    stored: Candidates<T>,
    processed: Candidates<f32>,
    subset: Option<(u64, Positions, usize)>,
    ascending: Vec<f64>,
    edges: Vec<f64>,
}

impl<T: Value> Default for Scratch<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            stored: Candidates::default(),
            processed: Candidates::default(),
            subset: None,
            ascending: Vec::new(),
            edges: Vec::new(),
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

    /// Appends the tokens of one row to `out`. `source_row` is its place in the whole source.
    pub(crate) fn tokenize_row<R: Rows>(
        &self,
        rows: &R,
        row: usize,
        source_row: u64,
        scratch: &mut Scratch<R::Value>,
        out: &mut Cells,
    ) -> Result<()> {
        self.row(rows, row, source_row, scratch, out).map_err(|error| error.at_row(source_row))
    }

    fn row<R: Rows>(
        &self,
        rows: &R,
        row: usize,
        source_row: u64,
        scratch: &mut Scratch<R::Value>,
        out: &mut Cells,
    ) -> Result<()> {
        let Scratch { entries, stored, processed, subset, ascending, edges } = scratch;
        rows.read(row, entries)?;
        let (total, kept) = self.totals(entries)?;
        out.totals.extend([total, kept]);
        if self.genes.is_shared() {
            self.sum_shared(entries)?;
        }
        self.draw(source_row, subset);
        let subset = subset.as_ref().map(|(_, positions, count)| (positions, *count));
        let start = out.gene_ids.len();
        if self.options.normalization.is_on() {
            let steps = &self.options.normalization;
            self.gather(entries, subset, processed, |value, column| {
                let value = steps.apply(value.to_f64(), column, total);
                if value.is_finite() {
                    Ok(value)
                } else {
                    Err(Error::new(ErrorKind::NormalizedNotFinite).at_column(column))
                }
            })?;
            self.write(processed, subset, ascending, edges, out)?;
        } else {
            self.gather(entries, subset, stored, |value, _| Ok(value))?;
            self.write(stored, subset, ascending, edges, out)?;
        }
        out.lengths.push(out.gene_ids.len() - start);
        Ok(())
    }

    /// Sums the absolute values over all columns and over those of kept genes, in column order.
    ///
    /// NaN and infinity in a kept gene are errors; in a dropped one only where they would reach the kept ones
    /// through the total.
    fn totals<T: Value>(&self, entries: &[(u32, T)]) -> Result<(f64, f64)> {
        let sum = |ignore: bool| {
            entries.iter().filter(|(_, value)| !ignore || value.is_finite()).fold((0.0, 0.0), |(total, kept), entry| {
                let value = entry.1.to_f64().abs();
                (total + value, kept + if self.genes.position(entry.0).is_some() { value } else { 0.0 })
            })
        };
        let sums: (f64, f64) = sum(false);
        if sums.0.is_finite() {
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

    /// Draws the subset of the row's block, unless it is the one already drawn.
    fn draw(&self, source_row: u64, subset: &mut Option<(u64, Positions, usize)>) {
        if let Some(random) = self.options.random {
            let block = source_row / random.block_rows;
            if subset.as_ref().is_none_or(|drawn| drawn.0 != block) {
                let n_genes = self.genes.n_genes();
                // A GeneIndex holds at most u32::MAX genes.
                let positions = draw_genes(random.seed, block, n_genes as u32, random.count);
                *subset = Some((block, Positions::of(&positions, n_genes), positions.len()));
            }
        }
    }

    /// Sorts the entries of kept genes into those above and those below zero.
    fn gather<T: Value, V: Value>(
        &self,
        entries: &[(u32, T)],
        subset: Option<(&Positions, usize)>,
        cell: &mut Candidates<V>,
        convert: impl Fn(T, u32) -> Result<V>,
    ) -> Result<()> {
        cell.positive.clear();
        cell.negative.clear();
        if self.options.include_zero_genes {
            cell.nonzero.clear(self.genes.n_genes());
        }
        for &(column, value) in entries {
            if value == T::ZERO {
                continue; // as if it were not stored: no factor, not even infinity, may make it anything else
            }
            let Some(position) = self.genes.position(column) else { continue };
            let value = convert(value, column)?;
            if value == V::ZERO || subset.is_some_and(|(positions, _)| !positions.contains(position)) {
                continue;
            }
            if self.options.include_zero_genes {
                cell.nonzero.insert(position);
            }
            if value > V::ZERO { &mut cell.positive } else { &mut cell.negative }.push(value.key(position));
        }
        Ok(())
    }

    /// Selects, then appends tokens and values.
    fn write<V: Value>(
        &self,
        cell: &mut Candidates<V>,
        subset: Option<(&Positions, usize)>,
        ascending: &mut Vec<f64>,
        edges: &mut Vec<f64>,
        out: &mut Cells,
    ) -> Result<()> {
        let (candidates, n_candidates) = subset.unwrap_or((&self.all, self.genes.n_genes()));
        let n = self.options.max_seq_len - usize::from(self.options.cls_token.is_some());
        select(cell, n, candidates, n_candidates, self.options.include_zero_genes);
        let selected = &cell.positive;

        out.gene_ids.extend(self.options.cls_token);
        out.gene_ids.extend(selected.iter().map(|&key| self.genes.token(V::position_of(key))));
        let cls = self.options.cls_token.is_some();
        match self.options.values {
            ValueMode::Expression => {
                out.floats.extend(cls.then_some(1.0));
                out.floats.extend(selected.iter().map(|&key| V::value_of(key).to_f32()));
                // The largest magnitudes stand at the two ends of the order.
                for &key in selected.first().into_iter().chain(selected.last()) {
                    if !V::value_of(key).to_f32().is_finite() {
                        let column = self.genes.column(V::position_of(key));
                        return Err(Error::new(ErrorKind::TooLargeForFloat32).at_column(column));
                    }
                }
            }
            ValueMode::Bins(n_bins) => {
                out.bin_ids.extend(cls.then_some(1));
                let values = selected.iter().map(|&key| V::value_of(key).to_f64());
                bin_ids(values, n_bins, ascending, edges, &mut out.bin_ids);
            }
            ValueMode::Ranks => {
                out.floats.extend(cls.then_some(1.0));
                out.floats.extend((0..selected.len()).map(|i| rank(i, selected.len())));
            }
            ValueMode::None => {}
        }
        Ok(())
    }
}
