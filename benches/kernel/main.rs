//! The kernel's parts, timed by criterion on made-up cells: `cargo bench --bench kernel`.
//!
//! `run.py` starts the same program as `kernel rows FOLDER PROGRAM VALUES THREADS`: it then times one pass of `floor` or
//! of `kernel` over the arrays in the folder, which are those that the other programs of that run get.

// A benchmark fails by panicking, and prints what it finds.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod cells;
mod floor;

use std::env;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput};
use teddytok_rs::bins::{BinScratch, bin_ids};
use teddytok_rs::gather::sweep;
use teddytok_rs::matrix::{RowBuffer, Rows};
use teddytok_rs::normalize::Normalization;
use teddytok_rs::order::Value;
use teddytok_rs::sort::{Room, first_n};
use teddytok_rs::{GeneIndex, Kernel, Options, RandomGenes, TokenDtype, ValueMode};

use cells::{Cells, Csr, MAX_SEQ_LEN, N_CELLS, N_GENES, SPECIAL_TOKENS, gene_index, make_cells, options};
use floor::{floor, time_rows};

// ---- what criterion times; one thread, `N_CELLS` cells

fn bench_whole_rows(group: &mut BenchmarkGroup<'_, WallTime>, cells: &Cells) {
    fn bench<T: Value>(
        group: &mut BenchmarkGroup<'_, WallTime>,
        name: &str,
        csr: &Csr<T>,
        genes: &GeneIndex,
        options: Options,
    ) {
        let kernel = Kernel::new(genes.clone(), options).unwrap();
        let places: Vec<i64> = (0..csr.n_rows() as i64).collect();
        let rows = csr.rows(kernel.n_columns());
        group.bench_function(name, |bencher| {
            bencher.iter_with_large_drop(|| kernel.tokenize(&rows, &places, TokenDtype::Int32).unwrap());
        });
    }
    let genes = gene_index(&cells.token_of_column);
    bench(group, "plain/f32 with ties", &cells.ties, &genes, options());
    bench(group, "plain/f32 distinct", &cells.distinct, &genes, options());
    bench(group, "plain/f64 distinct", &cells.distinct64, &genes, options());
    bench(group, "plain/i32 counts", &cells.counts, &genes, options());
    for (name, values) in [("bins", ValueMode::Bins(51)), ("ranks", ValueMode::Ranks), ("no values", ValueMode::None)] {
        bench(group, name, &cells.ties, &genes, Options { values, ..options() });
    }
    bench(group, "include_zero_genes", &cells.ties, &genes, Options { include_zero_genes: true, ..options() });
    let random = Some(RandomGenes { seed: 0, block_rows: 512, count: MAX_SEQ_LEN });
    bench(group, "random_genes", &cells.ties, &genes, Options { random, ..options() });
    let mut normalization = Normalization { target_sum: Some(1e4), inverse_medians: None, log1p: true };
    let normalized = Options { normalization: normalization.clone(), ..options() };
    bench(group, "normalize_total and log1p", &cells.raw, &genes, normalized);
    normalization.inverse_medians = Some((0..N_GENES).map(|column| 1.0 / (1.0 + column as f64 / 1e5)).collect());
    let with_medians = Options { normalization, ..options() };
    bench(group, "normalize_total, median_dict and log1p", &cells.raw, &genes, with_medians);
}

fn bench_parts(group: &mut BenchmarkGroup<'_, WallTime>, cells: &Cells) {
    group.bench_function("floor", |bencher| {
        bencher.iter_with_large_drop(|| floor(&cells.ties, 0, cells.ties.n_rows(), &cells.token_of_column));
    });
    let rows = cells.ties.rows(N_GENES);
    let genes = gene_index(&cells.token_of_column);
    group.bench_function("sweep", |bencher| {
        let (mut buffer, mut keys) = (RowBuffer::default(), Vec::new());
        bencher.iter(|| {
            for row in 0..rows.n_rows() {
                black_box(sweep(rows.row(row, &mut buffer), genes.position_of_column(), None, &mut keys).unwrap());
            }
        });
    });
    bench_first_n(group, "f32 with ties", &cells.ties, &cells.token_of_column);
    bench_first_n(group, "f32 distinct", &cells.distinct, &cells.token_of_column);
    bench_first_n(group, "f64 distinct", &cells.distinct64, &cells.token_of_column);
    group.bench_function("bin_ids", |bencher| {
        let cells = sorted_keys(&cells.ties, &cells.token_of_column);
        let descending: Vec<Vec<f64>> =
            cells.into_iter().map(|keys| keys.into_iter().map(|key| f32::value_of(key).to_f64()).collect()).collect();
        let mut scratch = BinScratch::default();
        bencher.iter(|| {
            for values in &descending {
                black_box(bin_ids(values.iter().copied(), 51, &mut scratch).sum::<i32>());
            }
        });
    });
}

fn bench_first_n<T: Value>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    csr: &Csr<T>,
    token_of_column: &[i32],
) {
    let keys = keys(csr, token_of_column);
    group.bench_function(format!("first_n/{name}"), |bencher| {
        let mut room = Room::default();
        let sort = |mut cells: Vec<Vec<T::Key>>| {
            for keys in &mut cells {
                first_n(keys, MAX_SEQ_LEN, &mut room);
            }
            cells
        };
        bencher.iter_batched(|| keys.clone(), sort, BatchSize::LargeInput);
    });
}

/// Packs each cell's kept entries, in order of their positions.
fn keys<T: Value>(csr: &Csr<T>, token_of_column: &[i32]) -> Vec<Vec<T::Key>> {
    let entries =
        |ends: &[i64]| csr.indices[ends[0] as usize..ends[1] as usize].iter().zip(&csr.data[ends[0] as usize..]);
    let kept = |(&column, &value): (&i32, &T)| {
        let token = token_of_column[column as usize];
        (token >= 0).then(|| value.key((token - SPECIAL_TOKENS) as u32))
    };
    csr.indptr.windows(2).map(|ends| entries(ends).filter_map(kept).collect()).collect()
}

fn sorted_keys<T: Value>(csr: &Csr<T>, token_of_column: &[i32]) -> Vec<Vec<T::Key>> {
    let mut cells = keys(csr, token_of_column);
    for keys in &mut cells {
        first_n(keys, MAX_SEQ_LEN, &mut Room::default());
    }
    cells
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let ["rows", folder, program, values, threads] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        time_rows(Path::new(folder), program, values, threads.parse().unwrap());
        return;
    }
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    let cells = make_cells();
    for (name, bench) in
        [("parts", bench_parts as fn(&mut BenchmarkGroup<'_, WallTime>, &Cells)), ("rows", bench_whole_rows)]
    {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(N_CELLS as u64));
        bench(&mut group, &cells);
        group.finish();
    }
    criterion.final_summary();
}
