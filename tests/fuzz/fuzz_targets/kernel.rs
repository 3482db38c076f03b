//! Tokenizes valid and nearly valid matrices with any options: the result is consistent, the same for each index and
//! token type, and a CSR matrix gives what its dense form gives.

#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use teddytok_rs::{
    CsrRows, DenseRows, Error, ErrorKind, GeneIndex, Kernel, Normalization, Options, RandomGenes, Rows, Sequences, Token,
    Value, ValueMode, Values,
};

fuzz_target!(|bytes: &[u8]| {
    // Too few bytes give no case, not an error.
    let _ = case(&mut Unstructured::new(bytes));
});

fn case(u: &mut Unstructured) -> Result<()> {
    match u.int_in_range(0..=3)? {
        0 => matrix::<f32>(u, |u| {
            Ok(match u.int_in_range(0..=9)? {
                0 => f32::arbitrary(u)?,
                1 => [f32::MAX, f32::MIN, f32::MIN_POSITIVE, -0.0, f32::NAN, f32::INFINITY][u.choose_index(6)?],
                _ => f32::from(u.int_in_range(-3i8..=5)?) / 2.0,
            })
        }),
        1 => matrix::<f64>(u, |u| {
            Ok(match u.int_in_range(0..=9)? {
                0 => f64::arbitrary(u)?,
                1 => [f64::MAX, f64::MIN, f64::MIN_POSITIVE, -0.0, f64::NAN, 1e300][u.choose_index(6)?],
                _ => f64::from(u.int_in_range(-3i8..=5)?) / 2.0,
            })
        }),
        2 => matrix::<i64>(u, |u| {
            Ok(match u.int_in_range(0..=9)? {
                0 => i64::arbitrary(u)?,
                1 => [i64::MAX, i64::MIN, 1 << 53, (1 << 53) + 1][u.choose_index(4)?],
                _ => u.int_in_range(-2..=4)?,
            })
        }),
        _ => matrix::<u8>(u, |u| u8::arbitrary(u)),
    }
}

/// Draws a matrix in CSR form and options; compares what its forms give.
fn matrix<T: Value>(u: &mut Unstructured, value: impl Fn(&mut Unstructured) -> Result<T>) -> Result<()> {
    let (n_rows, n_columns) = (u.int_in_range(0..=130)?, u.int_in_range(1usize..=150)?);
    let (mut indptr, mut indices, mut data) = (vec![0i64], Vec::<i64>::new(), Vec::<T>::new());
    for _ in 0..n_rows {
        let n = if u.ratio(1, 4)? { u.int_in_range(0..=n_columns)? } else { u.int_in_range(0..=6)? };
        let sorted = u.ratio(1, 2)?;
        let start = indices.len();
        for _ in 0..n {
            indices.push(u.int_in_range(0..=n_columns - 1)? as i64);
            data.push(value(u)?);
        }
        if sorted {
            indices[start..].sort_unstable();
        }
        indptr.push(indices.len() as i64);
    }
    let kernel = match kernel(u, n_columns)? {
        Some(kernel) => kernel,
        None => return Ok(()),
    };
    let as_u16 = bool::arbitrary(u)?;
    let first = if u.ratio(1, 2)? { 0 } else { u.int_in_range(0..=i64::MAX - 1000)? };
    let source_rows: Vec<i64> = (first..).take(n_rows).collect();

    let is_valid = !u.ratio(1, 8)?;
    if !is_valid {
        match u.int_in_range(0..=3)? {
            0 => indptr[u.choose_index(n_rows + 1)?] = i64::arbitrary(u)?,
            1 if !indices.is_empty() => indices[u.choose_index(data.len())?] = i64::arbitrary(u)?,
            2 => drop(data.pop()),
            _ => drop(indptr.pop()),
        }
    }
    let narrow: Vec<i32> = indices.iter().map(|&index| index as i32).collect();
    let wide = CsrRows::new(&indptr, &indices, &data, n_columns);
    let Ok(matrix) = wide else {
        assert!(!is_valid);
        return Ok(());
    };
    let whole = run::<i64>(&kernel, &matrix, &source_rows);
    if !is_valid {
        return Ok(());
    }
    assert!(!matches!(&whole, Err(error) if matches!(error.kind, ErrorKind::Argument(_) | ErrorKind::LengthsDiffer)));
    let narrow = CsrRows::new(&indptr, &narrow, &data, n_columns);
    same(&whole, &narrow.and_then(|matrix| run::<i32>(&kernel, &matrix, &source_rows)));
    if as_u16 {
        let short = run::<u16>(&kernel, &matrix, &source_rows);
        if !matches!(&short, Err(error) if error.kind == ErrorKind::TokenDoesNotFit) {
            same(&whole, &short);
        }
    }

    let mut x = vec![T::ZERO; n_rows * n_columns];
    for row in 0..n_rows {
        for entry in indptr[row] as usize..indptr[row + 1] as usize {
            let cell = &mut x[row * n_columns + indices[entry] as usize];
            *cell = cell.add(data[entry]);
        }
    }
    let dense = DenseRows::new(&x, n_rows, n_columns).and_then(|matrix| run::<i64>(&kernel, &matrix, &source_rows));
    same(&whole, &dense);
    Ok(())
}

/// Draws genes and options; `None` if they contradict each other.
fn kernel(u: &mut Unstructured, n_columns: usize) -> Result<Option<Kernel>> {
    let mut positions = Vec::new();
    let mut n_genes = 0;
    let (dropping, sharing) = (u.ratio(1, 2)?, u.ratio(1, 4)?);
    for _ in 0..n_columns {
        positions.push(if dropping && u.ratio(1, 3)? {
            -1
        } else if sharing && n_genes > 0 && u.ratio(1, 3)? {
            u.int_in_range(0..=n_genes - 1)?
        } else {
            n_genes += 1;
            n_genes - 1
        });
    }
    let tokens = if u.ratio(1, 16)? {
        (0..n_genes).map(|_| i32::arbitrary(u)).collect::<Result<Vec<_>>>()?
    } else {
        (100..100 + n_genes).collect()
    };
    let options = Options {
        max_seq_len: if u.ratio(1, 8)? { usize::arbitrary(u)? } else { u.int_in_range(1..=200)? },
        cls_token: if u.ratio(1, 3)? { Some(i32::from(u8::arbitrary(u)?)) } else { None },
        eos_token: if u.ratio(1, 3)? { Some(i32::from(u8::arbitrary(u)?)) } else { None },
        include_zero_genes: bool::arbitrary(u)?,
        values: match u.int_in_range(0..=4)? {
            0 => ValueMode::Expression,
            1 => ValueMode::Bins(u.int_in_range(2..=60)?),
            2 => ValueMode::Bins(u32::arbitrary(u)? as usize),
            3 => ValueMode::Ranks,
            _ => ValueMode::None,
        },
        random: if u.ratio(1, 3)? {
            let block_rows = if u.ratio(1, 2)? { u.int_in_range(1..=20)? } else { u64::arbitrary(u)? };
            Some(RandomGenes { gene_seed: u64::arbitrary(u)?, block_rows, block_genes: u.int_in_range(0..=200)? })
        } else {
            None
        },
        normalization: Normalization {
            target_sum: if u.ratio(1, 3)? { Some(1e4) } else if u.ratio(1, 8)? { Some(f64::arbitrary(u)?) } else { None },
            inverse_medians: if u.ratio(1, 4)? {
                Some((0..n_columns).map(|_| Ok(f64::from(u8::arbitrary(u)?) / 16.0)).collect::<Result<_>>()?)
            } else {
                None
            },
            log1p: u.ratio(1, 3)?,
        },
    };
    Ok(GeneIndex::new(positions, tokens).and_then(|genes| Kernel::new(genes, options)).ok())
}

type Tokenized = std::result::Result<Sequences<i64>, Error>;

/// Tokenizes, checks that the result is consistent, and widens its tokens.
fn run<T: Token + Into<i64>>(kernel: &Kernel, matrix: &impl Rows, source_rows: &[i64]) -> Tokenized {
    let Sequences { layout, gene_ids, values } = kernel.tokenize::<T>(matrix, source_rows)?;
    assert_eq!(layout.offsets.len(), matrix.n_rows() + 1);
    assert!(layout.offsets[0] == 0 && layout.offsets.is_sorted());
    assert_eq!(gene_ids.len(), layout.n_tokens());
    match (&values, kernel.values()) {
        (Values::Floats(values), ValueMode::Expression | ValueMode::Ranks) => {
            assert_eq!(values.len(), gene_ids.len());
            assert!(values.iter().all(|value| value.is_finite()));
        }
        (Values::Ids(ids), ValueMode::Bins(n)) => {
            assert_eq!(ids.len(), gene_ids.len());
            assert!(ids.iter().all(|&id| usize::try_from(id).is_ok_and(|id| id < n)));
        }
        (Values::None, ValueMode::None) => {}
        (values, mode) => panic!("{values:?} for {mode:?}"),
    }
    assert_eq!(layout.totals.len(), 2 * matrix.n_rows());
    Ok(Sequences { layout, gene_ids: gene_ids.into_iter().map(Into::into).collect(), values })
}

/// Asserts that two results are equal, to the bit.
fn same(a: &Tokenized, b: &Tokenized) {
    match (a, b) {
        (Ok(a), Ok(b)) => {
            assert_eq!((&a.layout.offsets, &a.gene_ids), (&b.layout.offsets, &b.gene_ids));
            match (&a.values, &b.values) {
                (Values::Floats(a), Values::Floats(b)) => {
                    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(a), bits(b));
                }
                (a, b) => assert_eq!(a, b),
            }
            let bits = |totals: &[f64]| totals.iter().map(|total| total.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&a.layout.totals), bits(&b.layout.totals));
        }
        (Err(a), Err(b)) => assert_eq!(a, b),
        (a, b) => panic!("{a:?} is not {b:?}"),
    }
}
