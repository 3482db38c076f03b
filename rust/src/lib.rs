//! The kernel of teddytok-rs: rows of gene expression in, TEDDY token sequences out.
//!
//! ```text
//!   indptr  0     3  4        7            CsrRows / DenseRows          matrix.rs
//!   indices 2 5 9 | 5 | 0 5 8              one row: columns, values
//!   data    3 7 1 | 2 | 1 4 9                          |
//!                                          column -> position -> token   genes.rs
//!                                                      |
//!                                          raw counts -> processed       normalize.rs, log1p.rs
//!                                                      |
//!                                          (value, position) -> key      order.rs
//!                                                      |
//!                                          first n: > 0, then 0, then < 0  select.rs, sort.rs  <- random.rs
//!                                                      |
//!                                          values: expression | bins | ranks   bins.rs, ranks.rs
//!                                                      |
//!   offsets  0     3  4        7           cells side by side            cell.rs, tokenize.rs
//!   gene_ids 105 102 109 | 105 | ...
//!   values    7   3   1  |  2  | ...
//! ```
//!
//! Nothing above knows of files; what their chunks hold is unpacked in unpack.rs. Nothing here knows of names or
//! Python: genes are columns, cells are rows. `python.rs`, behind the cargo
//! feature `python`, is the one file that does know Python. Start reading at [`cell`].

pub mod bins;
pub mod cell;
pub mod error;
pub mod gather;
pub mod genes;
pub mod log1p;
pub mod matrix;
pub mod normalize;
pub mod order;
pub mod random;
pub mod ranks;
pub mod select;
pub mod sort;
pub mod tokenize;
pub mod unpack;

#[cfg(feature = "python")]
mod python;

pub use cell::{Kernel, Options, ValueMode};
pub use error::{Error, ErrorKind};
pub use genes::GeneIndex;
pub use matrix::{CsrRows, DenseRows};
pub use random::{RandomGenes, draw_genes};
pub use tokenize::{Layout, TokenDtype, Tokenized, Tokens, TokensMut, Values, ValuesMut};
