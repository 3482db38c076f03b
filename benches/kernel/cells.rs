//! Simulates cells as `data.py` does, in several number types, and defines the kernel options for them.

use teddytok_rs::{CsrRows, GeneIndex, Normalization, Options, Value, ValueMode};

pub const MAX_SEQ_LEN: usize = 2048;
/// See `data.py` for the model of the cells.
pub const N_GENES: usize = 36_601;
pub const N_CELLS: usize = 1000;
const TOTAL_MEAN: f64 = 10_000.0;
const TOTAL_SIGMA: f64 = 0.5;
const POPULARITY_SIGMA: f64 = 2.585;
const IN_VOCABULARY: f64 = 0.7;
const SPECIAL_TOKENS: i32 = 4;

/// A CSR matrix that owns its arrays.
pub struct Csr<T> {
    pub indptr: Vec<i64>,
    pub indices: Vec<i32>,
    pub data: Vec<T>,
}

impl<T: Value> Csr<T> {
    pub fn n_rows(&self) -> usize {
        self.indptr.len() - 1
    }

    pub fn rows(&self, n_columns: usize) -> CsrRows<'_, i32, T> {
        CsrRows::new(&self.indptr, &self.indices, &self.data, n_columns).unwrap()
    }

    /// Maps each value with its row and column.
    pub fn map<U>(&self, change: impl Fn(T, usize, i32) -> U) -> Csr<U> {
        let rows = self.indptr.windows(2).enumerate();
        let rows = rows.flat_map(|(row, ends)| std::iter::repeat_n(row, (ends[1] - ends[0]) as usize));
        let data =
            self.data.iter().zip(&self.indices).zip(rows).map(|((&value, &column), row)| change(value, row, column));
        Csr { indptr: self.indptr.clone(), indices: self.indices.clone(), data: data.collect() }
    }
}

/// The `SplitMix64` generator (Steele et al. 2014).
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Draws a number above 0 and below 1.
    fn uniform(&mut self) -> f64 {
        ((self.bits() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    fn poisson(&mut self, mean: f64) -> i32 {
        if mean > 50.0 {
            return (mean + mean.sqrt() * self.normal()).round() as i32;
        }
        let (mut count, mut term, mut rest) = (0, (-mean).exp(), self.uniform());
        while rest > term && count < 200 {
            rest -= term;
            count += 1;
            term *= mean / f64::from(count);
        }
        count
    }
}

/// The same cells in several number types.
pub struct Cells {
    pub counts: Csr<i32>,
    /// Log-normalised: equal counts in a cell are equal values.
    pub ties: Csr<f32>,
    /// Log-normalised after division by a median per gene: almost no two values of a cell are equal.
    pub distinct: Csr<f32>,
    pub distinct64: Csr<f64>,
    /// As `ties`, with a minus sign for every fourth gene.
    pub negative: Csr<f32>,
    pub raw: Csr<f32>,
    pub token_of_column: Vec<i32>,
}

pub fn make_cells() -> Cells {
    let mut random = Random(0);
    let mut popularity: Vec<f64> = (0..N_GENES).map(|_| (POPULARITY_SIGMA * random.normal()).exp()).collect();
    let sum: f64 = popularity.iter().sum();
    for gene in &mut popularity {
        *gene /= sum;
    }
    let factors: Vec<f64> = (0..N_GENES).map(|_| (0.5 * random.normal()).exp()).collect();
    let mut next_token = SPECIAL_TOKENS - 1;
    let mut token = || {
        next_token += 1;
        next_token
    };
    let token_of_column = (0..N_GENES).map(|_| if random.uniform() < IN_VOCABULARY { token() } else { -1 }).collect();

    let mut counts = Csr { indptr: vec![0], indices: Vec::new(), data: Vec::new() };
    let mut totals = Vec::new();
    for _ in 0..N_CELLS {
        let depth = TOTAL_MEAN * (TOTAL_SIGMA * random.normal() - TOTAL_SIGMA * TOTAL_SIGMA / 2.0).exp();
        let row: Vec<i32> = popularity.iter().map(|gene| random.poisson(depth * gene)).collect();
        totals.push(row.iter().copied().map(f64::from).sum::<f64>());
        let nonzero = (0..).zip(row).filter(|&(_, count)| count > 0);
        nonzero.for_each(|(column, count)| {
            counts.indices.push(column);
            counts.data.push(count);
        });
        counts.indptr.push(counts.indices.len() as i64);
    }
    let distinct64 =
        counts.map(|count, row, column| (f64::from(count) * 10_000.0 / totals[row] * factors[column as usize]).ln_1p());
    let ties = counts.map(|count, row, _| (f64::from(count) * 10_000.0 / totals[row]).ln_1p() as f32);
    Cells {
        distinct: distinct64.map(|value, _, _| value as f32),
        negative: ties.map(|value, _, column| if column % 4 == 0 { -value } else { value }),
        ties,
        raw: counts.map(|count, _, _| count as f32),
        distinct64,
        counts,
        token_of_column,
    }
}

pub fn gene_index(token_of_column: &[i32]) -> GeneIndex {
    let tokens: Vec<i32> = token_of_column.iter().copied().filter(|&token| token >= 0).collect();
    let mut positions = 0..;
    let position = |&token: &i32| if token < 0 { -1 } else { positions.next().unwrap() };
    GeneIndex::new(token_of_column.iter().map(position).collect(), tokens).unwrap()
}

pub fn options() -> Options {
    Options {
        max_seq_len: MAX_SEQ_LEN,
        cls_token: None,
        eos_token: None,
        include_zero_genes: false,
        values: ValueMode::Expression,
        random: None,
        normalization: Normalization::default(),
    }
}
