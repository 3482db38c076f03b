//! Draws random subsets of genes: for each block of rows, the genes with the smallest random keys.
//!
//! Keys come from Philox4x32-10, a counter-based generator (Salmon, Moraes, Dror and Shaw, "Parallel random numbers:
//! as easy as 1, 2, 3", SC 2011): the key of gene p in block b is a pure function of (seed, b, p). So it does not
//! depend on threads, chunks or interruptions.

use crate::genes::GeneIndex;
use crate::select::GeneSet;

/// How to draw the subset of each block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RandomGenes {
    /// The seed of all subsets.
    pub gene_seed: u64,
    /// Rows per block; block b holds the source rows `[block_rows * b, block_rows * (b + 1))`.
    pub block_rows: u64,
    /// Genes per subset; all kept genes if there are fewer.
    pub block_genes: usize,
}

/// The random subset of one block.
#[derive(Debug)]
pub(crate) struct Subset {
    block: u64,
    /// The genes of the subset.
    pub genes: GeneSet,
    /// The position of each column, -1 if its gene is not in the subset.
    pub position_of_column: Vec<i32>,
}

impl RandomGenes {
    /// Returns the subset of the block of `source_row`; draws it unless `subset` already holds it.
    pub(crate) fn subset_of<'a>(
        self,
        source_row: u64,
        genes: &GeneIndex,
        subset: &'a mut Option<Subset>,
    ) -> &'a Subset {
        let block = source_row / self.block_rows;
        subset.take_if(|subset| subset.block != block);
        subset.get_or_insert_with(|| self.draw(block, genes))
    }

    fn draw(self, block: u64, genes: &GeneIndex) -> Subset {
        let n_genes = genes.n_genes();
        // A GeneIndex has at most u32::MAX genes.
        let subset = GeneSet::of(&draw_genes(self.gene_seed, block, n_genes as u32, self.block_genes), n_genes);
        let in_subset = |&position: &i32| match u32::try_from(position) {
            Ok(at) if subset.positions.contains(at) => position,
            _ => -1,
        };
        let position_of_column = genes.positions().iter().map(in_subset).collect();
        Subset { block, genes: subset, position_of_column }
    }
}

/// Computes one block of Philox4x32-10.
fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32, // the low half
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// Draws the positions of a block's subset: the `count` positions with the smallest (key, position), ascending.
#[must_use]
pub fn draw_genes(gene_seed: u64, block: u64, n_genes: u32, count: usize) -> Vec<u32> {
    let philox_key = [gene_seed as u32, (gene_seed >> 32) as u32];
    let mut keys: Vec<(u64, u32)> = Vec::with_capacity(n_genes as usize);
    for pair in 0..n_genes.div_ceil(2) {
        let out = philox4x32_10([pair, 0, block as u32, (block >> 32) as u32], philox_key);
        keys.push((u64::from(out[0]) | u64::from(out[1]) << 32, 2 * pair));
        if 2 * pair + 1 < n_genes {
            keys.push((u64::from(out[2]) | u64::from(out[3]) << 32, 2 * pair + 1));
        }
    }
    if count == 0 {
        return Vec::new();
    }
    if count < keys.len() {
        keys.select_nth_unstable(count - 1);
        keys.truncate(count);
    }
    let mut positions: Vec<u32> = keys.into_iter().map(|(_, position)| position).collect();
    positions.sort_unstable();
    positions
}

#[cfg(test)]
mod tests {
    use super::{draw_genes, philox4x32_10};

    #[test]
    fn philox_equals_the_published_vectors() {
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox4x32_10([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn subsets_are_the_golden_ones() {
        assert_eq!(draw_genes(7, 0, 10, 4), [1, 4, 6, 7]);
        assert_eq!(draw_genes(7, 1, 10, 4), [0, 1, 3, 7]);
        assert_eq!(draw_genes((1 << 40) + 3, (1 << 33) + 1, 12, 5), [0, 1, 3, 4, 10]);
    }

    #[test]
    fn a_subset_of_more_genes_than_there_are_is_all_of_them() {
        assert_eq!(draw_genes(1, 2, 5, 9), [0, 1, 2, 3, 4]);
        assert_eq!(draw_genes(1, 2, 0, 9), [0u32; 0]);
        assert_eq!(draw_genes(1, 2, 5, 0), [0u32; 0]);
    }
}
