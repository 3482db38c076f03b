//! Times the kernel with criterion on simulated cells, called as Python calls it: `cargo bench --bench kernel`.
//!
//! `run.py` starts the same program as `kernel rows FOLDER PROGRAM VALUES THREADS`: it then times one pass of `floor`
//! or of `kernel` over the arrays in the folder, the same that the other programs of that run read.

// A benchmark panics if it fails, and prints its results.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod call;
mod cells;
mod floor;

use std::env;
use std::path::Path;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use teddytok_rs::{
    Chunks, DenseRows, Filter, GeneIndex, Kernel, Normalization, Options, RandomGenes, Rows, ValueMode, unpack_chunks,
};

use call::call;
use cells::{Cells, Csr, MAX_SEQ_LEN, N_CELLS, N_GENES, gene_index, make_cells, options};
use floor::{floor, time_rows};

// ---- one thread, `N_CELLS` cells

fn bench_rows(group: &mut BenchmarkGroup<'_, WallTime>, cells: &Cells) {
    fn bench(
        group: &mut BenchmarkGroup<'_, WallTime>,
        name: &str,
        matrix: &impl Rows,
        genes: &GeneIndex,
        options: Options,
    ) {
        let kernel = Kernel::new(genes.clone(), options).unwrap();
        let source_rows: Vec<i64> = (0..matrix.n_rows() as i64).collect();
        group.bench_function(name, |bencher| bencher.iter_with_large_drop(|| call(&kernel, matrix, &source_rows)));
    }
    let genes = gene_index(&cells.token_of_column);
    let ties = cells.ties.rows(N_GENES);
    group.bench_function("floor", |bencher| {
        bencher.iter_with_large_drop(|| floor(&cells.ties, 0, cells.ties.n_rows(), &cells.token_of_column));
    });
    bench(group, "plain/f32 with ties", &ties, &genes, options());
    bench(group, "plain/f32 distinct", &cells.distinct.rows(N_GENES), &genes, options());
    bench(group, "plain/f64 distinct", &cells.distinct64.rows(N_GENES), &genes, options());
    bench(group, "plain/i32 counts", &cells.counts.rows(N_GENES), &genes, options());
    bench(group, "negative", &cells.negative.rows(N_GENES), &genes, options());
    let dense = dense(&cells.ties, 200);
    bench(group, "dense, 200 cells", &DenseRows::new(&dense, 200, N_GENES).unwrap(), &genes, options());
    for (name, values) in [("bins", ValueMode::Bins(51)), ("ranks", ValueMode::Ranks), ("no values", ValueMode::None)] {
        bench(group, name, &ties, &genes, Options { values, ..options() });
    }
    bench(group, "include_zero_genes", &ties, &genes, Options { include_zero_genes: true, ..options() });
    let random = Some(RandomGenes { gene_seed: 0, block_rows: 512, block_genes: MAX_SEQ_LEN });
    bench(group, "random_genes", &ties, &genes, Options { random, ..options() });
    let mut normalization = Normalization { target_sum: Some(1e4), inverse_medians: None, log1p: true };
    let normalized = Options { normalization: normalization.clone(), ..options() };
    let raw = cells.raw.rows(N_GENES);
    bench(group, "normalize_total and log1p", &raw, &genes, normalized);
    normalization.inverse_medians = Some((0..N_GENES).map(|column| 1.0 / (1.0 + column as f64 / 1e5)).collect());
    let with_medians = Options { normalization, ..options() };
    bench(group, "normalize_total, median_dict and log1p", &raw, &genes, with_medians);
}

/// Makes the dense form of the first rows.
fn dense(csr: &Csr<f32>, n_rows: usize) -> Vec<f32> {
    let mut x = vec![0.0; n_rows * N_GENES];
    for (row, ends) in csr.indptr.windows(2).take(n_rows).enumerate() {
        for entry in ends[0] as usize..ends[1] as usize {
            x[row * N_GENES + csr.indices[entry] as usize] = csr.data[entry];
        }
    }
    x
}

/// Unpacks the values of all cells from chunks of 256 KiB, as an h5ad file holds them.
fn bench_unpack(group: &mut BenchmarkGroup<'_, WallTime>, cells: &Cells) {
    const CHUNK_BYTES: usize = 1 << 18;
    let bytes: Vec<u8> = cells.ties.data.iter().flat_map(|value| value.to_le_bytes()).collect();
    let chunks: Vec<&[u8]> = bytes.chunks_exact(CHUNK_BYTES).collect();
    let deflate = |bytes: Vec<u8>| {
        let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
        let mut stored = vec![0; compressor.zlib_compress_bound(bytes.len())];
        let n_bytes = compressor.zlib_compress(&bytes, &mut stored).unwrap();
        stored.truncate(n_bytes);
        stored
    };
    let shuffle = |bytes: &[u8]| (0..4).flat_map(|byte| bytes.iter().skip(byte).step_by(4).copied()).collect();
    let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).unwrap();
    for (name, filters, packed) in [
        ("shuffle", &[Filter::Shuffle][..], chunks.iter().map(|chunk| shuffle(chunk)).collect::<Vec<Vec<u8>>>()),
        ("deflate", &[Filter::Deflate], chunks.iter().map(|chunk| deflate(chunk.to_vec())).collect()),
        (
            "shuffle and deflate",
            &[Filter::Shuffle, Filter::Deflate],
            chunks.iter().map(|chunk| deflate(shuffle(chunk))).collect(),
        ),
        ("zstd", &[Filter::Zstd], chunks.iter().map(|chunk| zstd(chunk)).collect()),
    ] {
        let sizes: Vec<i64> = packed.iter().map(|chunk| chunk.len() as i64).collect();
        let (stored, masks) = (packed.concat(), vec![0; packed.len()]);
        let chunks = Chunks { stored: &stored, sizes: &sizes, masks: &masks, filters, item_bytes: 4 };
        let mut out = vec![0; CHUNK_BYTES * packed.len()];
        group.bench_function(name, |bencher| bencher.iter(|| unpack_chunks(chunks, &mut out).unwrap()));
    }
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
        [("rows", bench_rows as fn(&mut BenchmarkGroup<'_, WallTime>, &Cells)), ("unpack", bench_unpack)]
    {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(N_CELLS as u64));
        bench(&mut group, &cells);
        group.finish();
    }
    criterion.final_summary();
}
