//! The kernel through its public interface: the worked examples, then matrices of any kind, good and bad.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use proptest::sample::Index as Any;
use serde_json::Value as Json;
use teddytok_rs::matrix::Rows;
use teddytok_rs::normalize::Normalization;
use teddytok_rs::order::Value;
use teddytok_rs::{
    CsrRows, DenseRows, Error, ErrorKind, GeneIndex, Kernel, Options, RandomGenes, TokenDtype, Tokenized, Tokens,
    ValueMode, Values, draw_genes,
};

// ---- the worked examples

fn spec(section: &str) -> Vec<Json> {
    let spec: Json = serde_json::from_str(include_str!("spec/examples.json")).unwrap();
    spec[section].as_array().unwrap().clone()
}

fn size(json: &Json) -> Option<usize> {
    json.as_u64().map(|n| usize::try_from(n).unwrap())
}

fn numbers(json: &Json) -> Vec<f64> {
    json.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// Builds the kernel of an example, whose genes have the tokens 100, 101 and so on.
fn kernel_of(example: &Json) -> Kernel {
    let args = &example["args"];
    let known = [
        "max_seq_len",
        "add_cls",
        "cls_token_id",
        "include_zero_genes",
        "bins",
        "continuous_rank",
        "random_genes",
        "random_genes_count",
        "gene_seed",
    ];
    let unknown = args.as_object().unwrap().keys().find(|key| !known.contains(&key.as_str()));
    assert_eq!(unknown, None, "this test would ignore an argument");

    let is_set = |key: &str| args[key].as_bool().unwrap_or(false);
    let add_cls = is_set("add_cls");
    let max_seq_len = size(&args["max_seq_len"]).unwrap();
    let n_genes = i32::try_from(numbers(&example["x"]).len()).unwrap();
    let values = match size(&args["bins"]) {
        Some(n_bins) => ValueMode::Bins(n_bins),
        None if is_set("continuous_rank") => ValueMode::Ranks,
        None => ValueMode::Expression,
    };
    let random = is_set("random_genes").then(|| RandomGenes {
        seed: args["gene_seed"].as_u64().unwrap(),
        block_rows: 512,
        count: size(&args["random_genes_count"]).unwrap_or(max_seq_len - usize::from(add_cls)),
    });
    let options = Options {
        max_seq_len,
        cls_token: add_cls.then(|| i32::try_from(args["cls_token_id"].as_i64().unwrap()).unwrap()),
        include_zero_genes: is_set("include_zero_genes"),
        values,
        random,
        normalization: Normalization::default(),
    };
    let genes = GeneIndex::new((0..n_genes).collect(), (100..100 + n_genes).collect()).unwrap();
    Kernel::new(genes, options).unwrap()
}

/// Compares one tokenized cell with an example.
fn assert_is(tokenized: &Tokenized, example: &Json) {
    let name = example["name"].as_str().unwrap();
    let Tokens::Int32(gene_ids) = &tokenized.gene_ids else { unreachable!("int32 was asked for") };
    assert_eq!(tokenized.layout.offsets, [0, i32::try_from(gene_ids.len()).unwrap()], "{name}");
    let gene_ids: Vec<f64> = gene_ids.iter().map(|&id| f64::from(id)).collect();
    assert_eq!(gene_ids, numbers(&example["gene_ids"]), "{name}");
    let expected = numbers(&example["values"]);
    match &tokenized.values {
        Values::Float32(values) => {
            let bits: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
            assert_eq!(bits, expected.iter().map(|&value| (value as f32).to_bits()).collect::<Vec<_>>(), "{name}");
        }
        Values::Int32(ids) => {
            assert_eq!(ids.iter().map(|&id| f64::from(id)).collect::<Vec<_>>(), expected, "{name}");
        }
        Values::None => unreachable!("values were asked for"),
    }
}

/// The places in the source of rows that follow one another.
fn places<R: Rows>(rows: &R, first_row: u64) -> Vec<i64> {
    (first_row as i64..).take(rows.n_rows()).collect()
}

fn check_example<T: Value>(example: &Json, x: &[T]) {
    let kernel = kernel_of(example);
    let dense = DenseRows::new(x, 1, x.len()).unwrap();
    assert_is(&kernel.tokenize(&dense, &places(&dense, 0), TokenDtype::Int32).unwrap(), example);

    let all: Vec<(i64, T)> = (0i64..).zip(x.iter().copied()).collect();
    let nonzero = all.iter().copied().filter(|&(_, value)| value != T::ZERO).collect();
    for stored in [nonzero, all.iter().copied().rev().collect::<Vec<_>>(), all] {
        let (indices, data): (Vec<i64>, Vec<T>) = stored.into_iter().unzip();
        let indptr = [0, i64::try_from(data.len()).unwrap()];
        let csr = CsrRows::new(&indptr, &indices, &data, x.len()).unwrap();
        assert_is(&kernel.tokenize(&csr, &places(&csr, 0), TokenDtype::Int32).unwrap(), example);
    }
}

#[test]
fn the_worked_examples_hold_for_floats() {
    for example in spec("examples") {
        let x: Vec<f32> = numbers(&example["x"]).into_iter().map(|value| value as f32).collect();
        check_example(&example, &x);
    }
}

#[test]
fn the_worked_examples_hold_for_integers() {
    for example in spec("examples") {
        let x: Vec<i16> = numbers(&example["x"]).into_iter().map(|value| value as i16).collect();
        check_example(&example, &x);
    }
}

#[test]
fn the_golden_subsets_are_drawn() {
    for subset in spec("subsets") {
        let of = |key: &str| subset[key].as_u64().unwrap();
        let n_genes = u32::try_from(of("n_genes")).unwrap();
        let drawn = draw_genes(of("gene_seed"), of("block"), n_genes, size(&subset["count"]).unwrap());
        let drawn: Vec<f64> = drawn.into_iter().map(f64::from).collect();
        assert_eq!(drawn, numbers(&subset["positions"]), "{subset}");
    }
}

// ---- matrices of any kind

/// A CSR matrix as a file may hold it, and what may not be believed about it.
#[derive(Debug, Clone)]
struct Stored {
    indptr: Vec<i64>,
    indices: Vec<i64>,
    data: Vec<f32>,
    n_columns: usize,
}

/// One lie.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Indptr(Any, i64),
    NoIndptr,
    LessIndptr,
    Index(Any, i64),
    IndexJustBeyond(Any),
    Data(Any, f32),
    LessData,
}

/// Puts a value at some place, if there is one.
fn put<T>(items: &mut [T], place: Any, value: T) {
    if !items.is_empty() {
        items[place.index(items.len())] = value;
    }
}

impl Stored {
    fn damage(&mut self, damage: Damage) {
        match damage {
            Damage::Indptr(place, value) => put(&mut self.indptr, place, value),
            Damage::NoIndptr => self.indptr.clear(),
            Damage::LessIndptr => drop(self.indptr.pop()),
            Damage::Index(place, value) => put(&mut self.indices, place, value),
            Damage::IndexJustBeyond(place) => put(&mut self.indices, place, self.n_columns as i64),
            Damage::Data(place, value) => put(&mut self.data, place, value),
            Damage::LessData => drop(self.data.pop()),
        }
    }

    /// Tells whether it can be tokenized, by the plainest reading of what a CSR matrix is.
    fn is_sound(&self) -> bool {
        let n_stored = i64::try_from(self.data.len()).unwrap();
        self.indptr.first() == Some(&0)
            && self.indptr.last() == Some(&n_stored)
            && self.indptr.is_sorted()
            && self.indices.len() == self.data.len()
            && self.indices.iter().all(|&index| (0..self.n_columns as i64).contains(&index))
            && self.data.iter().all(|value| value.is_finite())
    }

    fn tokenize(&self, kernel: &Kernel, first_row: u64) -> Result<Tokenized, Error> {
        let rows = CsrRows::new(&self.indptr, &self.indices, &self.data, self.n_columns)?;
        kernel.tokenize(&rows, &places(&rows, first_row), TokenDtype::Int32)
    }
}

/// Sound matrices of up to 200 rows: unsorted, with duplicates, zeros and ties.
fn sound() -> impl Strategy<Value = Stored> {
    (1usize..10).prop_flat_map(|n_columns| {
        let entry = (0..n_columns as i64, prop_oneof![(-2i8..4).prop_map(f32::from), -1e6f32..1e6]);
        let row = prop::collection::vec(entry, 0..2 * n_columns);
        prop::collection::vec(row, 0..200).prop_map(move |rows| {
            let ends = rows.iter().scan(0i64, |end, row| {
                *end += row.len() as i64;
                Some(*end)
            });
            let indptr = std::iter::once(0).chain(ends).collect();
            let (indices, data) = rows.iter().flatten().copied().unzip();
            Stored { indptr, indices, data, n_columns }
        })
    })
}

fn hostile() -> impl Strategy<Value = Stored> {
    let wild = || prop_oneof![any::<i64>(), -2i64..12, Just(i64::MIN), Just(i64::MAX), Just(1 << 32)];
    let damage = prop_oneof![
        (any::<Any>(), wild()).prop_map(|(place, value)| Damage::Indptr(place, value)),
        Just(Damage::NoIndptr),
        Just(Damage::LessIndptr),
        (any::<Any>(), wild()).prop_map(|(place, value)| Damage::Index(place, value)),
        any::<Any>().prop_map(Damage::IndexJustBeyond),
        (any::<Any>(), prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY]))
            .prop_map(|(place, value)| Damage::Data(place, value)),
        Just(Damage::LessData),
    ];
    (sound(), prop::collection::vec(damage, 1..3)).prop_map(|(mut stored, damages)| {
        for damage in damages {
            stored.damage(damage);
        }
        stored
    })
}

fn options() -> impl Strategy<Value = Options> {
    let values = prop_oneof![
        Just(ValueMode::Expression),
        (2usize..60).prop_map(ValueMode::Bins),
        Just(ValueMode::Ranks),
        Just(ValueMode::None)
    ];
    let random = (any::<u64>(), 1u64..90, 0usize..12).prop_map(|(seed, block_rows, count)| RandomGenes {
        seed,
        block_rows,
        count,
    });
    (1usize..14, prop::option::of(0i32..9), any::<bool>(), values, prop::option::of(random), any::<bool>()).prop_map(
        |(max_seq_len, cls_token, include_zero_genes, values, random, normalize)| Options {
            max_seq_len,
            cls_token,
            include_zero_genes,
            values,
            random,
            normalization: Normalization { target_sum: normalize.then_some(1e4), ..Normalization::default() },
        },
    )
}

fn kernel(n_columns: usize, options: &Options) -> Kernel {
    let n_columns = i32::try_from(n_columns).unwrap();
    let genes = GeneIndex::new((0..n_columns).collect(), (100..100 + n_columns).collect()).unwrap();
    Kernel::new(genes, options.clone()).unwrap()
}

/// All that comes out, as bits: -0.0 is not 0.0 here.
type Bits = (Vec<i32>, Tokens, Vec<u32>, Vec<u64>);

fn bits(tokenized: &Tokenized) -> Bits {
    let values = match &tokenized.values {
        Values::Float32(values) => values.iter().map(|value| value.to_bits()).collect(),
        Values::Int32(ids) => ids.iter().map(|&id| id as u32).collect(),
        Values::None => Vec::new(),
    };
    let totals = tokenized.layout.totals.iter().map(|total| total.to_bits()).collect();
    (tokenized.layout.offsets.clone(), tokenized.gene_ids.clone(), values, totals)
}

fn check_consistent(tokenized: &Tokenized, n_rows: usize, options: &Options) -> Result<(), TestCaseError> {
    let Tokens::Int32(gene_ids) = &tokenized.gene_ids else { unreachable!("int32 was asked for") };
    prop_assert_eq!(tokenized.layout.offsets.len(), n_rows + 1);
    prop_assert_eq!(tokenized.layout.offsets[0], 0);
    prop_assert_eq!(tokenized.layout.offsets.last().map(|&end| end as usize), Some(gene_ids.len()));
    prop_assert_eq!(tokenized.layout.totals.len(), 2 * n_rows);
    for ends in tokenized.layout.offsets.windows(2) {
        prop_assert!(ends[0] <= ends[1]);
        prop_assert!((ends[1] - ends[0]) as usize <= options.max_seq_len);
        if let Some(cls_token) = options.cls_token {
            prop_assert_eq!(gene_ids.get(ends[0] as usize), Some(&cls_token));
        }
    }
    match (&tokenized.values, options.values) {
        (Values::Float32(values), ValueMode::Expression | ValueMode::Ranks) => {
            prop_assert_eq!(values.len(), gene_ids.len());
            prop_assert!(values.iter().all(|value| value.is_finite()));
        }
        (Values::Int32(ids), ValueMode::Bins(n_bins)) => {
            prop_assert_eq!(ids.len(), gene_ids.len());
            prop_assert!(ids.iter().all(|&id| usize::try_from(id).is_ok_and(|id| id < n_bins)));
        }
        (Values::None, ValueMode::None) => {}
        (values, asked) => prop_assert!(false, "{asked:?} gave {values:?}"),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_sound_matrix_gives_consistent_sequences(
        stored in sound(), options in options(), first_row in 0u64..1 << 40,
    ) {
        let kernel = kernel(stored.n_columns, &options);
        let one = stored.tokenize(&kernel, first_row).unwrap();
        check_consistent(&one, stored.indptr.len() - 1, &options)?;
    }

    #[test]
    fn a_hostile_matrix_is_refused(
        stored in hostile(), options in options(), first_row in 0u64..1 << 40,
    ) {
        let kernel = kernel(stored.n_columns, &options);
        let one = stored.tokenize(&kernel, first_row);
        prop_assert_eq!(one.is_ok(), stored.is_sound(), "{:?}", one);
        match &one {
            Ok(tokenized) => check_consistent(tokenized, stored.indptr.len() - 1, &options)?,
            Err(Error { kind: ErrorKind::ColumnOutOfRange | ErrorKind::NotFinite, row, .. }) => {
                let rows = first_row..first_row + stored.indptr.len() as u64 - 1;
                prop_assert!(row.is_some_and(|row| rows.contains(&row)));
            }
            Err(_) => {}
        }
    }

    #[test]
    fn a_piece_of_a_matrix_gives_its_part_of_the_whole(
        stored in sound(), options in options(), first_row in 0u64..1 << 40, cut in any::<Any>(),
    ) {
        let kernel = kernel(stored.n_columns, &options);
        let cut = cut.index(stored.indptr.len());
        let end = stored.indptr[cut];
        let tail = Stored {
            indptr: stored.indptr[cut..].iter().map(|at| at - end).collect(),
            indices: stored.indices[end as usize..].to_vec(),
            data: stored.data[end as usize..].to_vec(),
            ..stored
        };
        let (offsets, gene_ids, values, totals) = bits(&stored.tokenize(&kernel, first_row).unwrap());
        let piece = bits(&tail.tokenize(&kernel, first_row + cut as u64).unwrap());
        let start = offsets[cut];
        let Tokens::Int32(gene_ids) = gene_ids else { unreachable!("int32 was asked for") };
        prop_assert_eq!(piece.0, offsets[cut..].iter().map(|at| at - start).collect::<Vec<_>>());
        prop_assert_eq!(piece.1, Tokens::Int32(gene_ids[start as usize..].to_vec()));
        prop_assert_eq!(&piece.2, &values[values.len().min(start as usize)..]);
        prop_assert_eq!(&piece.3, &totals[2 * cut..]);
    }

    #[test]
    fn a_dense_matrix_gives_what_its_csr_form_gives(stored in sound(), options in options()) {
        let n_rows = stored.indptr.len() - 1;
        let mut x = vec![0f32; n_rows * stored.n_columns];
        for row in 0..n_rows {
            for at in stored.indptr[row] as usize..stored.indptr[row + 1] as usize {
                x[row * stored.n_columns + stored.indices[at] as usize] += stored.data[at];
            }
        }
        let kernel = kernel(stored.n_columns, &options);
        let dense = DenseRows::new(&x, n_rows, stored.n_columns).unwrap();
        let from_dense = kernel.tokenize(&dense, &places(&dense, 0), TokenDtype::Int32).unwrap();
        prop_assert_eq!(bits(&from_dense), bits(&stored.tokenize(&kernel, 0).unwrap()));
    }
}

#[test]
fn no_rows_give_one_offset() {
    let empty = Stored { indptr: vec![0], indices: vec![], data: vec![], n_columns: 3 };
    let options = Options {
        max_seq_len: 4,
        cls_token: Some(1),
        include_zero_genes: true,
        values: ValueMode::Ranks,
        random: None,
        normalization: Normalization::default(),
    };
    let tokenized = empty.tokenize(&kernel(3, &options), 0).unwrap();
    assert_eq!(bits(&tokenized), (vec![0], Tokens::Int32(vec![]), vec![], vec![]));
}
