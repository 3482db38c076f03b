//! Matrices whose structure lies: any `indptr`, `indices`, `data`, shape and gene table must give a result that holds
//! together or an error, never a panic, a hang, or an allocation that a number in the input asked for.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use teddytok_rs::matrix::{Index, RowBuffer, Rows};
use teddytok_rs::normalize::Normalization;
use teddytok_rs::order::Value;
use teddytok_rs::{CsrRows, DenseRows, GeneIndex, Kernel, Options, RandomGenes, TokenDtype, Tokens, ValueMode, Values};

#[derive(Debug, Arbitrary)]
enum Indices {
    I32(Vec<i32>),
    Small(Vec<u8>),
    I64(Vec<i64>),
}

#[derive(Debug, Arbitrary)]
enum Data {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    U8(Vec<u8>),
}

#[derive(Debug, Arbitrary)]
enum Modes {
    Expression,
    Bins(u32),
    Ranks,
    None,
}

#[derive(Debug, Arbitrary)]
struct Input {
    /// Differences, small, so that some are sound; or the numbers themselves.
    steps: Vec<u8>,
    indptr: Option<Vec<i64>>,
    indices: Indices,
    data: Data,
    n_columns: u64,
    n_rows: u64,
    small_columns: Option<u8>,
    position_of_column: Option<Vec<i32>>,
    token_of_position: Option<Vec<i32>>,
    max_seq_len: usize,
    cls_token: Option<i32>,
    include_zero_genes: bool,
    mode: Modes,
    random: Option<(u64, u64, u64)>,
    target_sum: Option<f64>,
    inverse_medians: Option<Vec<f64>>,
    log1p: bool,
    places: Option<Vec<i64>>,
    dtype: u8,
}

fuzz_target!(|input: Input| {
    match &input.data {
        Data::F32(data) => with(&input, data),
        Data::F64(data) => with(&input, data),
        Data::I64(data) => with(&input, data),
        Data::U8(data) => with(&input, data),
    }
});

fn with<T: Value>(input: &Input, data: &[T]) {
    match &input.indices {
        Indices::I32(indices) => run(input, indices, data),
        Indices::Small(indices) => run(input, &indices.iter().map(|&i| i32::from(i) - 1).collect::<Vec<_>>(), data),
        Indices::I64(indices) => run(input, indices, data),
    }
}

fn run<I: Index, T: Value>(input: &Input, indices: &[I], data: &[T]) {
    let mut ends = vec![0i64];
    for &step in &input.steps {
        ends.push(ends[ends.len() - 1] + i64::from(step % 8));
    }
    let indptr = input.indptr.as_ref().unwrap_or(&ends);
    let n_columns = input.small_columns.map_or(input.n_columns, u64::from) as usize;
    let csr = CsrRows::new(indptr, indices, data, n_columns);
    let dense = DenseRows::new(data, input.n_rows as usize, n_columns);
    if let Ok(rows) = &csr {
        let (mut buffer, mut entries) = (RowBuffer::default(), Vec::new());
        for row in 0..rows.n_rows() {
            if rows.row(row, &mut buffer).merge(n_columns, &mut entries).is_ok() {
                assert!(entries.windows(2).all(|pair| pair[0].0 < pair[1].0));
                assert!(entries.iter().all(|entry| (entry.0 as usize) < n_columns));
            }
        }
    }
    let all: Vec<i32> = (0..n_columns.min(256) as i32).collect();
    let positions = input.position_of_column.clone().unwrap_or_else(|| all.clone());
    let Ok(genes) = GeneIndex::new(positions, input.token_of_position.clone().unwrap_or(all)) else { return };
    let options = Options {
        max_seq_len: input.max_seq_len,
        cls_token: input.cls_token,
        include_zero_genes: input.include_zero_genes,
        values: match input.mode {
            Modes::Expression => ValueMode::Expression,
            Modes::Bins(n) => ValueMode::Bins(n as usize),
            Modes::Ranks => ValueMode::Ranks,
            Modes::None => ValueMode::None,
        },
        random: input.random.map(|(seed, block_rows, count)| RandomGenes { seed, block_rows, count: count as usize }),
        normalization: Normalization {
            target_sum: input.target_sum,
            inverse_medians: input.inverse_medians.clone(),
            log1p: input.log1p,
        },
    };
    let Ok(kernel) = Kernel::new(genes, options) else { return };
    if let Ok(rows) = csr {
        tokenize(&kernel, &rows, input);
    }
    if let Ok(rows) = dense {
        tokenize(&kernel, &rows, input);
    }
}

fn tokenize<R: Rows>(kernel: &Kernel, rows: &R, input: &Input) {
    if rows.n_rows() > 1 << 16 {
        return; // no places for as many: refused before anything else
    }
    let places = input.places.clone().unwrap_or_else(|| (0..rows.n_rows() as i64).collect());
    let dtype = [TokenDtype::Int32, TokenDtype::UInt16, TokenDtype::Int64][usize::from(input.dtype % 3)];
    let Ok(done) = kernel.tokenize(rows, &places, dtype) else { return };
    assert_eq!(done.layout.offsets.len(), rows.n_rows() + 1);
    assert!(done.layout.offsets[0] == 0 && done.layout.offsets.windows(2).all(|pair| pair[0] <= pair[1]));
    let end = done.layout.offsets[done.layout.offsets.len() - 1] as usize;
    let n_tokens = match &done.gene_ids {
        Tokens::Int32(ids) => ids.len(),
        Tokens::UInt16(ids) => ids.len(),
        Tokens::Int64(ids) => ids.len(),
    };
    assert_eq!(n_tokens, end);
    match &done.values {
        Values::Float32(values) => assert_eq!(values.len(), end),
        Values::Int32(ids) => assert_eq!(ids.len(), end),
        Values::None => {}
    }
    assert_eq!(done.layout.totals.len(), 2 * rows.n_rows());
}
