//! Tests the kernel through its public interface: the worked examples, then matrices of any kind, valid and malformed.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use proptest::sample::Index as Any;
use serde_json::Value as Json;
use teddytok_rs::{
    CsrRows, DenseRows, Error, ErrorKind, GeneIndex, Kernel, Normalization, Options, Output, RandomGenes, Rows,
    Sequences, Token, Value, ValueMode, Values, draw_genes,
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
        "add_eos",
        "eos_token_id",
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
    let special = |add: &str, id: &str| is_set(add).then(|| i32::try_from(args[id].as_i64().unwrap()).unwrap());
    let (cls_token, eos_token) = (special("add_cls", "cls_token_id"), special("add_eos", "eos_token_id"));
    let n_special = usize::from(cls_token.is_some()) + usize::from(eos_token.is_some());
    let max_seq_len = size(&args["max_seq_len"]).unwrap();
    let n_genes = i32::try_from(numbers(&example["x"]).len()).unwrap();
    let values = match size(&args["bins"]) {
        Some(n_bins) => ValueMode::Bins(n_bins),
        None if is_set("continuous_rank") => ValueMode::Ranks,
        None => ValueMode::Expression,
    };
    let random = is_set("random_genes").then(|| RandomGenes {
        gene_seed: args["gene_seed"].as_u64().unwrap(),
        block_rows: 512,
        block_genes: size(&args["random_genes_count"]).unwrap_or(max_seq_len - n_special),
    });
    let options = Options {
        max_seq_len,
        cls_token,
        eos_token,
        include_zero_genes: is_set("include_zero_genes"),
        values,
        random,
        normalization: Normalization::default(),
    };
    let genes = GeneIndex::new((0..n_genes).collect(), (100..100 + n_genes).collect()).unwrap();
    Kernel::new(genes, options).unwrap()
}

/// Compares the sequence of one cell with an example.
fn assert_is(cell: &Sequences<i32>, example: &Json) {
    let name = example["name"].as_str().unwrap();
    let gene_ids = &cell.gene_ids;
    assert_eq!(cell.layout.offsets, [0, i32::try_from(gene_ids.len()).unwrap()], "{name}");
    let gene_ids: Vec<f64> = gene_ids.iter().map(|&id| f64::from(id)).collect();
    assert_eq!(gene_ids, numbers(&example["gene_ids"]), "{name}");
    let expected = numbers(&example["values"]);
    match &cell.values {
        Values::Floats(values) => {
            let bits: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
            assert_eq!(bits, expected.iter().map(|&value| (value as f32).to_bits()).collect::<Vec<_>>(), "{name}");
        }
        Values::Ids(ids) => {
            assert_eq!(ids.iter().map(|&id| f64::from(id)).collect::<Vec<_>>(), expected, "{name}");
        }
        Values::None => unreachable!("every example has values"),
    }
}

/// Numbers the rows of a matrix in the source, from `first_row` on.
fn source_rows(matrix: &impl Rows, first_row: u64) -> Vec<i64> {
    (first_row as i64..).take(matrix.n_rows()).collect()
}

fn check_example<T: Value>(example: &Json, x: &[T]) {
    let kernel = kernel_of(example);
    let dense = DenseRows::new(x, 1, x.len()).unwrap();
    assert_is(&kernel.tokenize(&dense, &source_rows(&dense, 0)).unwrap(), example);

    let all: Vec<(i64, T)> = (0i64..).zip(x.iter().copied()).collect();
    let nonzero = all.iter().copied().filter(|&(_, value)| value != T::ZERO).collect();
    for matrix in [nonzero, all.iter().copied().rev().collect::<Vec<_>>(), all] {
        let (indices, data): (Vec<i64>, Vec<T>) = matrix.into_iter().unzip();
        let indptr = [0, i64::try_from(data.len()).unwrap()];
        let csr = CsrRows::new(&indptr, &indices, &data, x.len()).unwrap();
        assert_is(&kernel.tokenize(&csr, &source_rows(&csr, 0)).unwrap(), example);
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

/// A CSR matrix as a file may store it.
#[derive(Debug, Clone)]
struct Matrix {
    indptr: Vec<i64>,
    indices: Vec<i64>,
    data: Vec<f32>,
    n_columns: usize,
}

/// One thing that is wrong with a matrix.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Indptr(Any, i64),
    NoIndptr,
    ShortIndptr,
    Index(Any, i64),
    IndexTooLargeByOne(Any),
    Data(Any, f32),
    ShortData,
}

/// Replaces the value at some place, if there is one.
fn put<T>(items: &mut [T], place: Any, value: T) {
    if !items.is_empty() {
        items[place.index(items.len())] = value;
    }
}

impl Matrix {
    fn damage(&mut self, damage: Damage) {
        match damage {
            Damage::Indptr(place, value) => put(&mut self.indptr, place, value),
            Damage::NoIndptr => self.indptr.clear(),
            Damage::ShortIndptr => drop(self.indptr.pop()),
            Damage::Index(place, value) => put(&mut self.indices, place, value),
            Damage::IndexTooLargeByOne(place) => put(&mut self.indices, place, self.n_columns as i64),
            Damage::Data(place, value) => put(&mut self.data, place, value),
            Damage::ShortData => drop(self.data.pop()),
        }
    }

    /// Returns whether it is a valid CSR matrix of finite values, by the definition.
    fn is_valid(&self) -> bool {
        let n_stored = i64::try_from(self.data.len()).unwrap();
        self.indptr.first() == Some(&0)
            && self.indptr.last() == Some(&n_stored)
            && self.indptr.is_sorted()
            && self.indices.len() == self.data.len()
            && self.indices.iter().all(|&index| (0..self.n_columns as i64).contains(&index))
            && self.data.iter().all(|value| value.is_finite())
    }

    fn tokenize(&self, kernel: &Kernel, first_row: u64) -> Result<Sequences<i32>, Error> {
        let rows = CsrRows::new(&self.indptr, &self.indices, &self.data, self.n_columns)?;
        kernel.tokenize(&rows, &source_rows(&rows, first_row))
    }
}

/// Draws valid matrices of up to 200 rows: unsorted, with duplicates, zeros and ties.
fn valid() -> impl Strategy<Value = Matrix> {
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
            Matrix { indptr, indices, data, n_columns }
        })
    })
}

fn malformed() -> impl Strategy<Value = Matrix> {
    let wild = || prop_oneof![any::<i64>(), -2i64..12, Just(i64::MIN), Just(i64::MAX), Just(1 << 32)];
    let damage = prop_oneof![
        (any::<Any>(), wild()).prop_map(|(place, value)| Damage::Indptr(place, value)),
        Just(Damage::NoIndptr),
        Just(Damage::ShortIndptr),
        (any::<Any>(), wild()).prop_map(|(place, value)| Damage::Index(place, value)),
        any::<Any>().prop_map(Damage::IndexTooLargeByOne),
        (any::<Any>(), prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY]))
            .prop_map(|(place, value)| Damage::Data(place, value)),
        Just(Damage::ShortData),
    ];
    (valid(), prop::collection::vec(damage, 1..3)).prop_map(|(mut matrix, damages)| {
        for damage in damages {
            matrix.damage(damage);
        }
        matrix
    })
}

fn options() -> impl Strategy<Value = Options> {
    let values = prop_oneof![
        Just(ValueMode::Expression),
        (2usize..60).prop_map(ValueMode::Bins),
        Just(ValueMode::Ranks),
        Just(ValueMode::None)
    ];
    let random = (any::<u64>(), 1u64..90, 0usize..12).prop_map(|(gene_seed, block_rows, block_genes)| RandomGenes {
        gene_seed,
        block_rows,
        block_genes,
    });
    let special = (prop::option::of(0i32..9), prop::option::of(9i32..12));
    (2usize..14, special, any::<bool>(), values, prop::option::of(random), any::<bool>()).prop_map(
        |(max_seq_len, (cls_token, eos_token), include_zero_genes, values, random, normalize)| Options {
            max_seq_len,
            cls_token,
            eos_token,
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

/// All results as bits: -0.0 is not 0.0 here.
type Bits = (Vec<i32>, Vec<i32>, Vec<u32>, Vec<u64>);

fn bits(cells: &Sequences<i32>) -> Bits {
    let values = match &cells.values {
        Values::Floats(values) => values.iter().map(|value| value.to_bits()).collect(),
        Values::Ids(ids) => ids.iter().map(|&id| id as u32).collect(),
        Values::None => Vec::new(),
    };
    let totals = cells.layout.totals.iter().map(|total| total.to_bits()).collect();
    (cells.layout.offsets.clone(), cells.gene_ids.clone(), values, totals)
}

fn check_consistent(cells: &Sequences<i32>, n_rows: usize, options: &Options) -> Result<(), TestCaseError> {
    let gene_ids = &cells.gene_ids;
    prop_assert_eq!(cells.layout.offsets.len(), n_rows + 1);
    prop_assert_eq!(cells.layout.offsets[0], 0);
    prop_assert_eq!(cells.layout.offsets.last().map(|&end| end as usize), Some(gene_ids.len()));
    prop_assert_eq!(cells.layout.totals.len(), 2 * n_rows);
    for ends in cells.layout.offsets.windows(2) {
        prop_assert!(ends[0] <= ends[1]);
        prop_assert!((ends[1] - ends[0]) as usize <= options.max_seq_len);
        if let Some(cls_token) = options.cls_token {
            prop_assert_eq!(gene_ids.get(ends[0] as usize), Some(&cls_token));
        }
        if let Some(eos_token) = options.eos_token {
            prop_assert_eq!(gene_ids.get(ends[1] as usize - 1), Some(&eos_token));
        }
    }
    match (&cells.values, options.values) {
        (Values::Floats(values), ValueMode::Expression | ValueMode::Ranks) => {
            prop_assert_eq!(values.len(), gene_ids.len());
            prop_assert!(values.iter().all(|value| value.is_finite()));
        }
        (Values::Ids(ids), ValueMode::Bins(n_bins)) => {
            prop_assert_eq!(ids.len(), gene_ids.len());
            prop_assert!(ids.iter().all(|&id| usize::try_from(id).is_ok_and(|id| id < n_bins)));
        }
        (Values::None, ValueMode::None) => {}
        (values, mode) => prop_assert!(false, "{mode:?} gave {values:?}"),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_valid_matrix_gives_consistent_sequences(
        matrix in valid(), options in options(), first_row in 0u64..1 << 40,
    ) {
        let kernel = kernel(matrix.n_columns, &options);
        let one = matrix.tokenize(&kernel, first_row).unwrap();
        check_consistent(&one, matrix.indptr.len() - 1, &options)?;
    }

    #[test]
    fn a_malformed_matrix_is_refused(
        matrix in malformed(), options in options(), first_row in 0u64..1 << 40,
    ) {
        let kernel = kernel(matrix.n_columns, &options);
        let one = matrix.tokenize(&kernel, first_row);
        prop_assert_eq!(one.is_ok(), matrix.is_valid(), "{:?}", one);
        match &one {
            Ok(cells) => check_consistent(cells, matrix.indptr.len() - 1, &options)?,
            Err(Error { kind: ErrorKind::ColumnOutOfRange | ErrorKind::NotFinite, row, .. }) => {
                let rows = first_row..first_row + matrix.indptr.len() as u64 - 1;
                prop_assert!(row.is_some_and(|row| rows.contains(&row)));
            }
            Err(_) => {}
        }
    }

    #[test]
    fn a_piece_of_a_matrix_gives_its_part_of_the_whole(
        matrix in valid(), options in options(), first_row in 0u64..1 << 40, cut in any::<Any>(),
    ) {
        let kernel = kernel(matrix.n_columns, &options);
        let cut = cut.index(matrix.indptr.len());
        let end = matrix.indptr[cut];
        let tail = Matrix {
            indptr: matrix.indptr[cut..].iter().map(|at| at - end).collect(),
            indices: matrix.indices[end as usize..].to_vec(),
            data: matrix.data[end as usize..].to_vec(),
            ..matrix
        };
        let (offsets, gene_ids, values, totals) = bits(&matrix.tokenize(&kernel, first_row).unwrap());
        let piece = bits(&tail.tokenize(&kernel, first_row + cut as u64).unwrap());
        let start = offsets[cut];
        prop_assert_eq!(piece.0, offsets[cut..].iter().map(|at| at - start).collect::<Vec<_>>());
        prop_assert_eq!(&piece.1, &gene_ids[start as usize..]);
        prop_assert_eq!(&piece.2, &values[values.len().min(start as usize)..]);
        prop_assert_eq!(&piece.3, &totals[2 * cut..]);
    }

    #[test]
    fn a_dense_matrix_gives_what_its_csr_form_gives(matrix in valid(), options in options()) {
        let n_rows = matrix.indptr.len() - 1;
        let mut x = vec![0f32; n_rows * matrix.n_columns];
        for row in 0..n_rows {
            for at in matrix.indptr[row] as usize..matrix.indptr[row + 1] as usize {
                x[row * matrix.n_columns + matrix.indices[at] as usize] += matrix.data[at];
            }
        }
        let kernel = kernel(matrix.n_columns, &options);
        let dense = DenseRows::new(&x, n_rows, matrix.n_columns).unwrap();
        let from_dense = kernel.tokenize(&dense, &source_rows(&dense, 0)).unwrap();
        prop_assert_eq!(bits(&from_dense), bits(&matrix.tokenize(&kernel, 0).unwrap()));
    }
}

fn plain_options() -> Options {
    Options {
        max_seq_len: 4,
        cls_token: Some(1),
        eos_token: None,
        include_zero_genes: false,
        values: ValueMode::Expression,
        random: None,
        normalization: Normalization::default(),
    }
}

#[test]
fn no_rows_give_one_offset() {
    let empty = Matrix { indptr: vec![0], indices: vec![], data: vec![], n_columns: 3 };
    let options = Options { include_zero_genes: true, values: ValueMode::Ranks, ..plain_options() };
    let cells = empty.tokenize(&kernel(3, &options), 0).unwrap();
    assert_eq!(bits(&cells), (vec![0], vec![], vec![], vec![]));
}

// ---- arguments

fn tokens_as<T: Token>(kernel: &Kernel) -> Result<Vec<T>, ErrorKind> {
    let x = DenseRows::new(&[1f32, 3.0, 2.0], 1, 3).unwrap();
    kernel.tokenize::<T>(&x, &[0]).map(|cells| cells.gene_ids).map_err(|error| error.kind)
}

#[test]
fn token_ids_are_the_same_in_each_type_that_holds_them() {
    let small = kernel(3, &plain_options());
    assert_eq!(tokens_as::<i32>(&small), Ok(vec![1, 101, 102, 100]));
    assert_eq!(tokens_as::<u16>(&small), Ok(vec![1, 101, 102, 100]));
    assert_eq!(tokens_as::<i64>(&small), Ok(vec![1, 101, 102, 100]));
    for special in [65_536, -1] {
        let large = kernel(3, &Options { cls_token: Some(special), ..plain_options() });
        assert_eq!(tokens_as::<u16>(&large), Err(ErrorKind::TokenDoesNotFit));
        assert_eq!(tokens_as::<i64>(&large), Ok(vec![i64::from(special), 101, 102, 100]));
        let large = kernel(3, &Options { eos_token: Some(special), ..plain_options() });
        assert_eq!(tokens_as::<u16>(&large), Err(ErrorKind::TokenDoesNotFit));
        assert_eq!(tokens_as::<i64>(&large), Ok(vec![1, 101, 102, i64::from(special)]));
    }
}

#[test]
fn the_wrong_argument_of_a_kernel_is_named() {
    let random = Some(RandomGenes { gene_seed: 1, block_rows: 0, block_genes: 4 });
    let normalization = Normalization { inverse_medians: Some(vec![1.0; 2]), ..Normalization::default() };
    for (options, argument) in [
        (Options { max_seq_len: 0, ..plain_options() }, "max_seq_len"),
        (Options { max_seq_len: 0, cls_token: None, ..plain_options() }, "max_seq_len"),
        (Options { max_seq_len: 1, eos_token: Some(2), ..plain_options() }, "max_seq_len"),
        (Options { values: ValueMode::Bins(1), ..plain_options() }, "n_bins"),
        (Options { values: ValueMode::Bins(1 << 31), ..plain_options() }, "n_bins"),
        (Options { random, ..plain_options() }, "block_rows"),
        (Options { normalization, ..plain_options() }, "inverse_medians"),
    ] {
        let genes = GeneIndex::new((0..3).collect(), (100..103).collect()).unwrap();
        assert_eq!(Kernel::new(genes, options).unwrap_err(), ErrorKind::Argument(argument).into());
    }
}

#[test]
fn the_wrong_argument_of_a_call_is_named() {
    let kernel = kernel(3, &plain_options());
    let x = [1f32, 3.0, 2.0];
    let rows = DenseRows::new(&x, 1, 3).unwrap();
    let call = |source_rows: &[i64], n_ids, values: Values<&mut [f32], &mut [i32]>| {
        kernel.tokenize_into(&rows, source_rows, Output { gene_ids: &mut vec![0i32; n_ids], values })
    };
    let (mut floats, mut ids) = ([0f32; 4], [0i32; 4]);
    assert_eq!(kernel.max_tokens(&rows), Ok(4));
    assert!(call(&[0], 4, Values::Floats(&mut floats)).is_ok());
    for source_rows in [&[][..], &[0, 1], &[-1]] {
        let wrong = call(source_rows, 4, Values::Floats(&mut floats));
        assert_eq!(wrong, Err(ErrorKind::Argument("rows").into()));
    }
    assert_eq!(call(&[0], 3, Values::Floats(&mut floats)), Err(ErrorKind::Argument("gene_ids").into()));
    assert_eq!(call(&[0], 4, Values::Floats(&mut floats[..3])), Err(ErrorKind::Argument("values").into()));
    assert_eq!(call(&[0], 4, Values::Ids(&mut ids)), Err(ErrorKind::Argument("values").into()));
    assert_eq!(call(&[0], 4, Values::None), Err(ErrorKind::Argument("values").into()));
    let wide = DenseRows::new(&x, 0, 4).err().map(|error| error.kind);
    assert_eq!(wide, Some(ErrorKind::LengthsDiffer));
    let narrow = kernel.tokenize::<i32>(&DenseRows::new(&x, 3, 1).unwrap(), &[0, 1, 2]);
    assert_eq!(narrow, Err(ErrorKind::LengthsDiffer.into()));
}
