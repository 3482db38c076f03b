//! Does the minimum work of any tokenizer, and times one pass of it, or of the kernel, over the arrays of `run.py`.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use teddytok_rs::{CsrRows, Kernel, Value};

use crate::call::{Called, call};
use crate::cells::{Csr, MAX_SEQ_LEN, gene_index, options};

/// Rows of a kernel call: those of a record batch.
const BATCH_ROWS: usize = 1000;
/// Rows of the first pass, which is not timed.
const WARM_UP_ROWS: usize = 600;

/// Copies the token and the value of each kept entry, in storage order, until a cell has `MAX_SEQ_LEN` of them.
///
/// A program that sorts the genes of a cell must read and write at least as much. The arrays start at their final size,
/// and the copy has no branch that a processor could mispredict.
pub fn floor<T: Value>(csr: &Csr<T>, start: usize, stop: usize, token_of_column: &[i32]) -> (Vec<i32>, Vec<T>) {
    let most: usize =
        csr.indptr[start..=stop].windows(2).map(|ends| MAX_SEQ_LEN.min((ends[1] - ends[0]) as usize)).sum();
    // The last write of a cell may be of a dropped entry, one position after the kept entries.
    let (mut tokens, mut values) = (vec![0; most + MAX_SEQ_LEN], vec![T::ZERO; most + MAX_SEQ_LEN]);
    let mut end = 0;
    for ends in csr.indptr[start..=stop].windows(2) {
        let stored = ends[0] as usize..ends[1] as usize;
        let (tokens, values) = (&mut tokens[end..end + MAX_SEQ_LEN], &mut values[end..end + MAX_SEQ_LEN]);
        let mut n = 0;
        for (&column, &value) in csr.indices[stored.clone()].iter().zip(&csr.data[stored]) {
            if n == MAX_SEQ_LEN {
                break;
            }
            let token = token_of_column[column as usize];
            tokens[n] = token;
            values[n] = value;
            n += usize::from(token >= 0);
        }
        end += n;
    }
    tokens.truncate(end);
    values.truncate(end);
    (tokens, values)
}

/// Calls `work` for each `BATCH_ROWS` rows on this number of threads, and keeps the results, as a caller would.
fn in_batches<R: Send>(n_rows: usize, threads: usize, work: impl Fn(usize, usize) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let take = || {
        let mut results = Vec::new();
        loop {
            let start = next.fetch_add(BATCH_ROWS, Ordering::Relaxed);
            if start >= n_rows {
                return results;
            }
            results.push(work(start, n_rows.min(start + BATCH_ROWS)));
        }
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(take)).collect();
        let mut results = take();
        results.extend(others.into_iter().flat_map(|thread| thread.join().unwrap()));
        results
    })
}

fn read_numbers<T, const N: usize>(path: &Path, number: fn([u8; N]) -> T) -> Vec<T> {
    let bytes = fs::read(path).unwrap();
    bytes.chunks_exact(N).map(|bytes| number(bytes.try_into().unwrap())).collect()
}

/// Times one pass, after one over the first rows, and prints the time as JSON.
pub fn time_rows(folder: &Path, program: &str, values: &str, threads: usize) {
    let csr = Csr {
        indptr: read_numbers(&folder.join("indptr.i64"), i64::from_le_bytes),
        indices: read_numbers(&folder.join("indices.i32"), i32::from_le_bytes),
        data: read_numbers(&folder.join(format!("{values}.f32")), f32::from_le_bytes),
    };
    let token_of_column = read_numbers(&folder.join("token_of_column.i32"), i32::from_le_bytes);
    let kernel = Kernel::new(gene_index(&token_of_column), options()).unwrap();
    let pass = |n_rows| match program {
        "floor" => timed(
            || in_batches(n_rows, threads, |start, stop| floor(&csr, start, stop, &token_of_column)),
            |(tokens, _)| tokens.len(),
        ),
        "kernel" => timed(
            || in_batches(n_rows, threads, |start, stop| tokenize_batch(&kernel, &csr, start, stop)),
            |(layout, ..)| layout.n_tokens(),
        ),
        _ => panic!("no program {program:?}"),
    };
    pass(csr.n_rows().min(WARM_UP_ROWS));
    let (seconds, tokens) = pass(csr.n_rows());
    println!("{{\"seconds\": {seconds}, \"tokens\": {tokens}}}");
}

fn tokenize_batch(kernel: &Kernel, csr: &Csr<f32>, start: usize, stop: usize) -> Called {
    let first = csr.indptr[start];
    let indptr: Vec<i64> = csr.indptr[start..=stop].iter().map(|end| end - first).collect();
    let stored = first as usize..csr.indptr[stop] as usize;
    let rows = CsrRows::new(&indptr, &csr.indices[stored.clone()], &csr.data[stored], kernel.n_columns()).unwrap();
    let source_rows: Vec<i64> = (start as i64..stop as i64).collect();
    call(kernel, &rows, &source_rows)
}

fn timed<R>(work: impl FnOnce() -> Vec<R>, tokens: impl Fn(&R) -> usize) -> (f64, usize) {
    let start = Instant::now();
    let parts = black_box(work());
    (start.elapsed().as_secs_f64(), parts.iter().map(tokens).sum())
}
