//! Sound and nearly sound matrices with any options: the result holds together, is the same for 1 row
//! at a time, and a CSR matrix gives what the same matrix gives when it is dense.

#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use teddytok_rs::matrix::Rows;
use teddytok_rs::normalize::Normalization;
use teddytok_rs::order::Value;
use teddytok_rs::{
    CsrRows, DenseRows, Error, ErrorKind, GeneIndex, Kernel, Options, RandomGenes, TokenDtype, Tokenized, Tokens,
    ValueMode, Values,
};

const DTYPES: [TokenDtype; 3] = [TokenDtype::Int32, TokenDtype::UInt16, TokenDtype::Int64];

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

/// Draws a matrix in CSR form, its dense twin, and options; then compares.
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
    let dtype = *u.choose(&DTYPES)?;
    let first = if u.ratio(1, 2)? { 0 } else { u.int_in_range(0..=i64::MAX - 1000)? };
    let places: Vec<i64> = (first..).take(n_rows).collect();

    let sound = !u.ratio(1, 8)?;
    if !sound {
        match u.int_in_range(0..=3)? {
            0 => indptr[u.choose_index(n_rows + 1)?] = i64::arbitrary(u)?,
            1 if !indices.is_empty() => indices[u.choose_index(data.len())?] = i64::arbitrary(u)?,
            2 => drop(data.pop()),
            _ => drop(indptr.pop()),
        }
    }
    let narrow: Vec<i32> = indices.iter().map(|&index| index as i32).collect();
    let wide = CsrRows::new(&indptr, &indices, &data, n_columns);
    let Ok(rows) = wide else {
        assert!(!sound);
        return Ok(());
    };
    let whole = run(&kernel, &rows, &places, dtype);
    if !sound {
        return Ok(());
    }
    assert!(!matches!(whole, Err(error) if matches!(error.kind, ErrorKind::Argument | ErrorKind::LengthsDiffer)));
    same(&whole, &CsrRows::new(&indptr, &narrow, &data, n_columns).and_then(|rows| kernel.tokenize(&rows, &places, dtype)));

    let mut x = vec![T::ZERO; n_rows * n_columns];
    for row in 0..n_rows {
        for entry in indptr[row] as usize..indptr[row + 1] as usize {
            let cell = &mut x[row * n_columns + indices[entry] as usize];
            *cell = cell.add(data[entry]);
        }
    }
    let dense = DenseRows::new(&x, n_rows, n_columns).and_then(|rows| kernel.tokenize(&rows, &places, dtype));
    same(&whole, &dense);
    Ok(())
}

/// Draws genes and options; `None` where they contradict one another.
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
            Some(RandomGenes { seed: u64::arbitrary(u)?, block_rows, count: u.int_in_range(0..=200)? })
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

/// Tokenizes, and checks that the result holds together.
fn run<R: Rows>(kernel: &Kernel, rows: &R, places: &[i64], dtype: TokenDtype) -> std::result::Result<Tokenized, Error> {
    let result = kernel.tokenize(rows, places, dtype);
    if let Ok(done) = &result {
        assert_eq!(done.layout.offsets.len(), rows.n_rows() + 1);
        assert!(done.layout.offsets[0] == 0 && done.layout.offsets.windows(2).all(|pair| pair[0] <= pair[1]));
        let end = done.layout.offsets[rows.n_rows()] as usize;
        assert_eq!(ids(&done.gene_ids).len(), end);
        match (&done.values, kernel.values()) {
            (Values::Float32(values), _) => {
                assert_eq!(values.len(), end);
                assert!(values.iter().all(|value| value.is_finite()));
            }
            (Values::Int32(values), ValueMode::Bins(n)) => {
                assert_eq!(values.len(), end);
                assert!(values.iter().all(|&id| usize::try_from(id).is_ok_and(|id| id < n)));
            }
            (Values::None, ValueMode::None) => {}
            (values, mode) => panic!("{values:?} for {mode:?}"),
        }
        assert_eq!(done.layout.totals.len(), 2 * rows.n_rows());
    }
    result
}

fn ids(tokens: &Tokens) -> Vec<i64> {
    match tokens {
        Tokens::Int32(ids) => ids.iter().map(|&id| i64::from(id)).collect(),
        Tokens::UInt16(ids) => ids.iter().map(|&id| i64::from(id)).collect(),
        Tokens::Int64(ids) => ids.clone(),
    }
}

/// Tells whether two results are one, to the bit.
fn same(a: &std::result::Result<Tokenized, Error>, b: &std::result::Result<Tokenized, Error>) {
    match (a, b) {
        (Ok(a), Ok(b)) => {
            assert_eq!((&a.layout.offsets, &a.gene_ids), (&b.layout.offsets, &b.gene_ids));
            match (&a.values, &b.values) {
                (Values::Float32(a), Values::Float32(b)) => {
                    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(a), bits(b));
                }
                (a, b) => assert_eq!(a, b),
            }
            let bits = |totals: &[f64]| totals.iter().map(|total| total.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&a.layout.totals), bits(&b.layout.totals));
        }
        (Err(a), Err(b)) => {
            assert_eq!(a, b);
        }
        (a, b) => panic!("{a:?} is not {b:?}"),
    }
}
