//! Tokenizes malformed matrices: any `indptr`, `indices`, `data`, shape and gene table must give a consistent result or
//! an error, never a panic, a hang, or an allocation whose size a number in the input decides.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use teddytok_rs::{
    CsrRows, DenseRows, GeneIndex, Index, Kernel, Normalization, Options, RandomGenes, Rows, Token, Value, ValueMode,
    Values,
};

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
    /// Small differences, so that some inputs are valid; `indptr` replaces them.
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
    eos_token: Option<i32>,
    include_zero_genes: bool,
    mode: Modes,
    gene_seed: Option<u64>,
    block_rows: u64,
    block_genes: u64,
    target_sum: Option<f64>,
    inverse_medians: Option<Vec<f64>>,
    log1p: bool,
    source_rows: Option<Vec<i64>>,
    token_type: u8,
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
    let all: Vec<i32> = (0..n_columns.min(256) as i32).collect();
    let positions = input.position_of_column.clone().unwrap_or_else(|| all.clone());
    let Ok(genes) = GeneIndex::new(positions, input.token_of_position.clone().unwrap_or(all)) else { return };
    let options = Options {
        max_seq_len: input.max_seq_len,
        cls_token: input.cls_token,
        eos_token: input.eos_token,
        include_zero_genes: input.include_zero_genes,
        values: match input.mode {
            Modes::Expression => ValueMode::Expression,
            Modes::Bins(n) => ValueMode::Bins(n as usize),
            Modes::Ranks => ValueMode::Ranks,
            Modes::None => ValueMode::None,
        },
        random: input.gene_seed.map(|gene_seed| RandomGenes {
            gene_seed,
            block_rows: input.block_rows,
            block_genes: input.block_genes as usize,
        }),
        normalization: Normalization {
            target_sum: input.target_sum,
            inverse_medians: input.inverse_medians.clone(),
            log1p: input.log1p,
        },
    };
    let Ok(kernel) = Kernel::new(genes, options) else { return };
    if let Ok(matrix) = csr {
        tokenize(&kernel, &matrix, input);
    }
    if let Ok(matrix) = dense {
        tokenize(&kernel, &matrix, input);
    }
}

fn tokenize(kernel: &Kernel, matrix: &impl Rows, input: &Input) {
    if matrix.n_rows() > 1 << 16 {
        return; // `source_rows` of this length would only cost time
    }
    let source_rows = input.source_rows.clone().unwrap_or_else(|| (0..matrix.n_rows() as i64).collect());
    match input.token_type % 3 {
        0 => tokenize_as::<i32>(kernel, matrix, &source_rows),
        1 => tokenize_as::<u16>(kernel, matrix, &source_rows),
        _ => tokenize_as::<i64>(kernel, matrix, &source_rows),
    }
}

fn tokenize_as<T: Token>(kernel: &Kernel, matrix: &impl Rows, source_rows: &[i64]) {
    let Ok(cells) = kernel.tokenize::<T>(matrix, source_rows) else { return };
    assert_eq!(cells.layout.offsets.len(), matrix.n_rows() + 1);
    assert!(cells.layout.offsets[0] == 0 && cells.layout.offsets.is_sorted());
    assert_eq!(cells.gene_ids.len(), cells.layout.n_tokens());
    match &cells.values {
        Values::Floats(values) => assert_eq!(values.len(), cells.gene_ids.len()),
        Values::Ids(ids) => assert_eq!(ids.len(), cells.gene_ids.len()),
        Values::None => {}
    }
    assert_eq!(cells.layout.totals.len(), 2 * matrix.n_rows());
}
