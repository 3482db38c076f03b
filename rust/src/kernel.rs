//! Tokenizes one cell: calls all stages of the kernel in order.

use crate::bins::BinBuffers;
use crate::error::{ErrorKind, Result};
use crate::gather::gather;
use crate::genes::GeneIndex;
use crate::matrix::{Entry, RowBuffer, Rows};
use crate::normalize::{Normalization, NormalizeBuffers};
use crate::order::Value;
use crate::output::{CellCounts, Output, Token, write_tokens};
use crate::random::{RandomGenes, Subset};
use crate::select::{Candidates, GeneSet, select};
use crate::values::{ValueMode, write_values};

/// How to tokenize a cell.
#[derive(Debug, Clone)]
pub struct Options {
    /// The longest sequence, CLS and EOS included.
    pub max_seq_len: usize,
    /// The token that starts each sequence, with value 1.
    pub cls_token: Option<i32>,
    /// The token that ends each sequence, with value 0.
    pub eos_token: Option<i32>,
    /// Keeps selected genes of value 0.
    pub include_zero_genes: bool,
    /// The kind of the values of tokens.
    pub values: ValueMode,
    /// Draws a random subset of genes for each block of rows.
    pub random: Option<RandomGenes>,
    /// Normalises raw counts first.
    pub normalization: Normalization,
}

impl Options {
    /// Returns the number of special tokens in a sequence.
    fn n_special(&self) -> usize {
        usize::from(self.cls_token.is_some()) + usize::from(self.eos_token.is_some())
    }
}

/// The tokenizer: genes and options, checked against each other. Immutable, so that threads can share it.
#[derive(Debug, Clone)]
pub struct Kernel {
    genes: GeneIndex,
    options: Options,
    all_genes: GeneSet,
}

/// Buffers of one thread, one for each stage, reused for every cell.
#[derive(Debug)]
pub(crate) struct Buffers<T: Value> {
    subset: Option<Subset>,
    row: RowBuffer<T>,
    entries: Vec<Entry<T>>,
    candidates: Candidates<T>,
    normalize: NormalizeBuffers,
    processed: Candidates<f32>,
    bins: BinBuffers,
}

impl<T: Value> Default for Buffers<T> {
    fn default() -> Self {
        Self {
            subset: None,
            row: RowBuffer::default(),
            entries: Vec::new(),
            candidates: Candidates::default(),
            normalize: NormalizeBuffers::default(),
            processed: Candidates::default(),
            bins: BinBuffers::default(),
        }
    }
}

impl Kernel {
    /// Builds a kernel.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] names the first argument that is not valid: `max_seq_len` is 0 or has no place for CLS and
    /// EOS, `n_bins` is below 2 or above 2^31 - 1, `block_rows` is 0, or the length of `inverse_medians` is not the
    /// number of columns.
    pub fn new(genes: GeneIndex, options: Options) -> Result<Self> {
        let medians = options.normalization.inverse_medians.as_ref();
        let is_valid = [
            ("max_seq_len", options.max_seq_len >= options.n_special().max(1)),
            ("n_bins", !matches!(options.values, ValueMode::Bins(n) if n < 2 || i32::try_from(n).is_err())),
            ("block_rows", options.random.is_none_or(|random| random.block_rows > 0)),
            ("inverse_medians", medians.is_none_or(|medians| medians.len() == genes.n_columns())),
        ];
        if let Some((argument, _)) = is_valid.into_iter().find(|(_, is_valid)| !is_valid) {
            return Err(ErrorKind::Argument(argument).into());
        }
        let all_genes = GeneSet::all(genes.n_genes());
        Ok(Self { genes, options, all_genes })
    }

    /// Returns the kind of the values of tokens.
    #[must_use]
    pub fn values(&self) -> ValueMode {
        self.options.values
    }

    /// Returns the number of columns that matrices must have.
    #[must_use]
    pub fn n_columns(&self) -> usize {
        self.genes.n_columns()
    }

    /// Iterates over all token ids that the kernel may write.
    pub(crate) fn ids(&self) -> impl Iterator<Item = i32> {
        let Options { cls_token, eos_token, .. } = self.options;
        cls_token.into_iter().chain(eos_token).chain(self.genes.tokens().iter().copied())
    }

    /// Returns the maximum length of the sequence of a row with `n_entries` entries.
    pub(crate) fn max_tokens_of_row(&self, n_entries: usize) -> usize {
        let n_genes = if self.options.include_zero_genes { usize::MAX } else { n_entries };
        self.max_genes().min(n_genes).min(self.genes.n_genes()) + self.options.n_special()
    }

    /// Returns the maximum number of genes in a sequence.
    fn max_genes(&self) -> usize {
        self.options.max_seq_len - self.options.n_special()
    }

    /// Tokenizes one row of a matrix and writes its sequence to the front of `out`.
    ///
    /// The result depends only on the arguments: cells can be tokenized in any order, on any thread with its `buffers`.
    pub(crate) fn tokenize_cell<R: Rows, T: Token>(
        &self,
        matrix: &R,
        row: usize,
        source_row: u64,
        buffers: &mut Buffers<R::Value>,
        out: Output<'_, T>,
    ) -> Result<CellCounts> {
        let Buffers { subset, row: row_buffer, entries, candidates, normalize, processed, bins } = buffers;
        let Options { random, normalization, .. } = &self.options;

        let subset = random.map(|random| random.subset_of(source_row, &self.genes, subset));
        let row = matrix.row(row, row_buffer);
        let needs_total = normalization.target_sum.is_some();
        let sums = gather(row, &self.genes, subset, needs_total, entries, candidates)?;
        let n_tokens = if normalization.is_on() {
            normalization.normalize(candidates, sums.total, &self.genes, normalize, processed)?;
            self.write_sequence(processed, subset, bins, out)?
        } else {
            self.write_sequence(candidates, subset, bins, out)?
        };
        Ok(CellCounts { n_tokens, sums })
    }

    /// Selects genes, then writes their tokens and values; returns the number of tokens.
    fn write_sequence<V: Value, T: Token>(
        &self,
        cell: &mut Candidates<V>,
        subset: Option<&Subset>,
        bins: &mut BinBuffers,
        mut out: Output<'_, T>,
    ) -> Result<usize> {
        let Options { cls_token, eos_token, include_zero_genes, values, .. } = self.options;

        select(cell, self.max_genes(), subset.map_or(&self.all_genes, |subset| &subset.genes), include_zero_genes);
        let selected = &cell.positive;
        let n_tokens = selected.len() + self.options.n_special();
        let Output { gene_ids, values: to } = out.part(0..n_tokens);
        write_tokens::<V, T>(selected, cls_token, eos_token, &self.genes, gene_ids);
        write_values::<V>(selected, values, cls_token.is_some(), eos_token.is_some(), &self.genes, bins, to)?;
        Ok(n_tokens)
    }
}
