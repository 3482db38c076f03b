//! Calls the kernel as `python.rs` does: with arrays of the maximum size, which the call fills from the front.

use teddytok_rs::{Kernel, Layout, Output, Rows, ValueMode, Values};

/// The result of a call: the arrays, and how far they are filled.
pub type Called = (Layout, Vec<i32>, Values);

/// Allocates the arrays in fresh memory, and tokenizes all rows into them.
pub fn call(kernel: &Kernel, matrix: &impl Rows, source_rows: &[i64]) -> Called {
    let n = kernel.max_tokens(matrix).unwrap();
    let mut gene_ids = vec![0; n];
    let mut values = match kernel.values() {
        ValueMode::Expression | ValueMode::Ranks => Values::Floats(vec![0.0; n]),
        ValueMode::Bins(_) => Values::Ids(vec![0; n]),
        ValueMode::None => Values::None,
    };
    let to = match &mut values {
        Values::Floats(values) => Values::Floats(values.as_mut_slice()),
        Values::Ids(ids) => Values::Ids(ids.as_mut_slice()),
        Values::None => Values::None,
    };
    let layout = kernel.tokenize_into(matrix, source_rows, Output { gene_ids: &mut gene_ids, values: to }).unwrap();
    (layout, gene_ids, values)
}
