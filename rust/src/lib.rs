//! Tokenizes rows of gene expression into TEDDY token sequences: the kernel of teddytok-rs.
//!
//! ```text
//!   indptr  0     3  4        7            CsrRows / DenseRows              matrix.rs
//!   indices 2 5 9 | 5 | 0 5 8              one row: columns, values
//!   data    3 7 1 | 2 | 1 4 9                          |
//!                                          column -> position -> token      genes.rs
//!                                                      |
//!                                          (value, position) -> key; sums   gather.rs, order.rs
//!                                                      |
//!                                          raw counts -> processed values   normalize.rs, log1p.rs
//!                                                      |
//!                                          first n: > 0, then 0, then < 0   select.rs, sort.rs  <- random.rs
//!                                                      |
//!                                          values: expression, bins, ranks  values.rs, bins.rs
//!                                                      |
//!   offsets  0     3  4        7           cells concatenated               tokenize.rs, output.rs
//!   gene_ids 105 102 109 | 105 | ...
//!   values    7   3   1  |  2  | ...
//! ```
//!
//! Start reading at `kernel.rs`, which calls these stages for one cell. `medians.rs` finds the medians of genes over many
//! cells. `unpack.rs` decompresses the chunks of a file.
//! This crate has no file formats and no names: genes are columns, cells are rows. `python.rs`, behind the cargo
//! feature `python`, is the only file that depends on Python.

mod bins;
mod error;
mod gather;
mod genes;
#[cfg_attr(not(feature = "python"), allow(dead_code))] // only `python.rs` calls it
mod guard;
mod kernel;
mod log1p;
mod matrix;
mod medians;
mod normalize;
mod order;
mod output;
mod random;
mod select;
mod sort;
mod tokenize;
mod unpack;
mod values;

#[cfg(feature = "python")]
mod python;

pub use error::{Error, ErrorKind, Result};
pub use genes::GeneIndex;
pub use kernel::{Kernel, Options};
pub use matrix::{CsrRows, DenseRows, Index, Rows};
pub use medians::MedianCounter;
pub use normalize::Normalization;
pub use order::Value;
pub use output::{Layout, Output, Sequences, Token, Values};
pub use random::{RandomGenes, draw_genes};
pub use unpack::{Chunks, Filter, unpack_chunks};
pub use values::ValueMode;
