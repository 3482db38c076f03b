//! Exposes the kernel to Python, as documented in `_core.pyi`. No other file depends on Python; only numbers cross.
//!
//! A call converts its arguments, releases the GIL, computes, and returns the arrays it wrote to without a copy.

use numpy::{
    Element, IntoPyArray, PyArray1, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyReadwriteArray1,
    PyUntypedArrayMethods, dtype,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PySlice};

use crate::error::{Error, ErrorKind};
use crate::genes::GeneIndex;
use crate::guard::catch_panic;
use crate::kernel::Options;
use crate::matrix::{CsrRows, DenseRows, Rows};
use crate::normalize::Normalization;
use crate::output::{Layout, Output, Token, Values};
use crate::random::{RandomGenes, draw_genes};
use crate::unpack::{Chunks, Filter, unpack_chunks};
use crate::values::ValueMode;

pyo3::import_exception!(teddytok_rs.errors, KernelError);
pyo3::import_exception!(teddytok_rs.errors, InternalError);

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        KernelError::new_err((error.kind.slug(), error.row, error.column, error.kind.argument()))
    }
}

fn argument_error(name: &'static str) -> PyErr {
    Error::new(ErrorKind::Argument(name)).into()
}

/// Calls `work` without the GIL; an error or a panic becomes an exception.
fn detach<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T, Error> + Send) -> PyResult<T> {
    match py.detach(|| catch_panic(work)) {
        Ok(result) => Ok(result?),
        Err(message) => Err(InternalError::new_err(format!(
            "the kernel panicked: {message}. This is a bug in teddytok-rs; please report it."
        ))),
    }
}

/// The column indices of a CSR matrix, in each supported integer type.
#[derive(FromPyObject)]
enum Indices<'py> {
    I32(PyReadonlyArray1<'py, i32>),
    I64(PyReadonlyArray1<'py, i64>),
}

macro_rules! numbers {
    ($($variant:ident: $type:ty),*) => {
        /// The values of a CSR matrix.
        #[derive(FromPyObject)]
        enum Data<'py> { $($variant(PyReadonlyArray1<'py, $type>)),* }

        /// A dense matrix.
        #[derive(FromPyObject)]
        enum Matrix<'py> { $($variant(PyReadonlyArray2<'py, $type>)),* }

        /// Evaluates `$work` with the array in `$numbers`, for any number type.
        macro_rules! with_array {
            ($kind:ident, $numbers:expr, $array:ident => $work:expr) => {
                match &$numbers { $($kind::$variant($array) => $work)* }
            };
        }
    };
}
numbers!(F32: f32, F64: f64, I8: i8, I16: i16, I32: i32, I64: i64, U8: u8, U16: u16, U32: u32, U64: u64);

/// Evaluates `$work` with a CSR matrix in `$matrix`, for any number types.
macro_rules! with_csr {
    ($indptr:expr, $indices:expr, $data:expr, $n_columns:expr, $matrix:ident => $work:expr) => {
        with_array!(Data, $data, data => {
            let data = data.as_slice()?;
            match &$indices {
                Indices::I32(indices) => {
                    let $matrix = &CsrRows::new($indptr, indices.as_slice()?, data, $n_columns)?;
                    $work
                }
                Indices::I64(indices) => {
                    let $matrix = &CsrRows::new($indptr, indices.as_slice()?, data, $n_columns)?;
                    $work
                }
            }
        })
    };
}

/// Evaluates `$work` with a dense matrix in `$matrix`, for any number type.
macro_rules! with_dense {
    ($x:expr, $matrix:ident => $work:expr) => {
        with_array!(Matrix, $x, x => {
            // `as_slice` would also accept a column-major array, and read it in the wrong order.
            if !x.is_c_contiguous() {
                return Err(argument_error("x"));
            }
            let $matrix = &DenseRows::new(x.as_slice()?, x.shape()[0], x.shape()[1])?;
            $work
        })
    };
}

#[derive(Clone, Copy)]
enum TokenDtype {
    Int32,
    UInt16,
    Int64,
}

#[pyclass(frozen, module = "teddytok_rs._core")]
struct Kernel {
    kernel: crate::kernel::Kernel,
    token_dtype: TokenDtype,
}

#[pymethods]
impl Kernel {
    #[new]
    #[pyo3(signature = (position_of_column, token_of_position, *, max_seq_len, cls_token, eos_token, include_zero_genes,
                        values, n_bins, gene_seed, block_rows, block_genes, target_sum, inverse_medians, log1p, token_dtype))]
    #[allow(clippy::too_many_arguments, clippy::needless_pass_by_value)] // a keyword for each option; PyO3 gives values
    fn new(
        position_of_column: PyReadonlyArray1<'_, i32>,
        token_of_position: PyReadonlyArray1<'_, i32>,
        max_seq_len: usize,
        cls_token: Option<i32>,
        eos_token: Option<i32>,
        include_zero_genes: bool,
        values: &str,
        n_bins: usize,
        gene_seed: Option<u64>,
        block_rows: u64,
        block_genes: usize,
        target_sum: Option<f64>,
        inverse_medians: Option<PyReadonlyArray1<'_, f64>>,
        log1p: bool,
        token_dtype: &str,
    ) -> PyResult<Self> {
        let genes = GeneIndex::new(position_of_column.as_slice()?.to_vec(), token_of_position.as_slice()?.to_vec())?;
        let values = match values {
            "expression" => ValueMode::Expression,
            "bins" => ValueMode::Bins(n_bins),
            "ranks" => ValueMode::Ranks,
            "none" => ValueMode::None,
            _ => return Err(argument_error("values")),
        };
        let token_dtype = match token_dtype {
            "int32" => TokenDtype::Int32,
            "uint16" => TokenDtype::UInt16,
            "int64" => TokenDtype::Int64,
            _ => return Err(argument_error("token_dtype")),
        };
        let inverse_medians = match inverse_medians {
            Some(medians) => Some(medians.as_slice()?.to_vec()),
            None => None,
        };
        let options = Options {
            max_seq_len,
            cls_token,
            eos_token,
            include_zero_genes,
            values,
            random: gene_seed.map(|gene_seed| RandomGenes { gene_seed, block_rows, block_genes }),
            normalization: Normalization { target_sum, inverse_medians, log1p },
        };
        Ok(Self { kernel: crate::kernel::Kernel::new(genes, options)?, token_dtype })
    }

    #[pyo3(signature = (indptr, indices, data, *, rows))]
    #[allow(clippy::needless_pass_by_value)] // extracted arrays are values
    fn tokenize_csr<'py>(
        &self,
        py: Python<'py>,
        indptr: PyReadonlyArray1<'py, i64>,
        indices: Indices<'py>,
        data: Data<'py>,
        rows: PyReadonlyArray1<'py, i64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (indptr, rows) = (indptr.as_slice()?, rows.as_slice()?);
        with_csr!(indptr, indices, data, self.kernel.n_columns(), matrix => self.run(py, matrix, rows))
    }

    #[pyo3(signature = (x, *, rows))]
    #[allow(clippy::needless_pass_by_value)] // extracted arrays are values
    fn tokenize_dense<'py>(
        &self,
        py: Python<'py>,
        x: Matrix<'py>,
        rows: PyReadonlyArray1<'py, i64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let rows = rows.as_slice()?;
        with_dense!(x, matrix => self.run(py, matrix, rows))
    }
}

impl Kernel {
    fn run<'py, R: Rows + Sync>(&self, py: Python<'py>, matrix: &R, rows: &[i64]) -> PyResult<Bound<'py, PyAny>> {
        match self.token_dtype {
            TokenDtype::Int32 => self.run_as::<i32, R>(py, matrix, rows),
            TokenDtype::UInt16 => self.run_as::<u16, R>(py, matrix, rows),
            TokenDtype::Int64 => self.run_as::<i64, R>(py, matrix, rows),
        }
    }

    fn run_as<'py, T: Token + Element, R: Rows + Sync>(
        &self,
        py: Python<'py>,
        matrix: &R,
        rows: &[i64],
    ) -> PyResult<Bound<'py, PyAny>> {
        let n = self.kernel.max_tokens(matrix)?;
        let mut gene_ids = empty_array::<T>(py, n)?;
        let mut values = match self.kernel.values().array(|| empty_array::<f32>(py, n), || empty_array::<i32>(py, n)) {
            Values::Floats(array) => Values::Floats(array?),
            Values::Ids(array) => Values::Ids(array?),
            Values::None => Values::None,
        };
        let to = match &mut values {
            Values::Floats(array) => Values::Floats(array.as_slice_mut()?),
            Values::Ids(array) => Values::Ids(array.as_slice_mut()?),
            Values::None => Values::None,
        };
        let out = Output { gene_ids: gene_ids.as_slice_mut()?, values: to };
        let layout = detach(py, || self.kernel.tokenize_into(matrix, rows, out))?;
        let front = PySlice::new(py, 0, layout.n_tokens() as isize, 1); // counted by 32-bit offsets
        let gene_ids = gene_ids.get_item(&front)?;
        let values = match values {
            Values::Floats(array) => Some(array.get_item(&front)?),
            Values::Ids(array) => Some(array.get_item(&front)?),
            Values::None => None,
        };
        let Layout { offsets, totals } = layout;
        (offsets.into_pyarray(py), gene_ids, values, totals.into_pyarray(py)).into_pyobject(py).map(Bound::into_any)
    }
}

/// Makes an array without writing to its memory.
///
/// NumPy allocates it: with huge pages where the system has them, which halves the time of the first writes. Zeroing
/// reused memory would take as long again, with the GIL held.
fn empty_array<T: Element>(py: Python<'_>, length: usize) -> PyResult<PyReadwriteArray1<'_, T>> {
    let array = py.import("numpy")?.call_method1("empty", (length, dtype::<T>(py)))?;
    Ok(array.cast_into::<PyArray1<T>>()?.try_readwrite()?)
}

#[pyclass(frozen, module = "teddytok_rs._core")]
struct MedianCounter(crate::medians::MedianCounter);

#[pymethods]
impl MedianCounter {
    #[new]
    #[pyo3(signature = (n_genes, *, max_bytes, state=None))]
    #[allow(clippy::needless_pass_by_value)] // extracted arrays are values
    fn new(n_genes: usize, max_bytes: usize, state: Option<PyReadonlyArray1<'_, u64>>) -> PyResult<Self> {
        let state = state.as_ref().map(PyReadonlyArray1::as_slice).transpose()?;
        Ok(Self(crate::medians::MedianCounter::new(n_genes, max_bytes, state)?))
    }

    #[pyo3(signature = (indptr, indices, data, *, rows, position_of_column, gene_of_position, target_sum))]
    #[allow(clippy::needless_pass_by_value, clippy::too_many_arguments)] // extracted arrays are values
    fn count_csr(
        &self,
        py: Python<'_>,
        indptr: PyReadonlyArray1<'_, i64>,
        indices: Indices<'_>,
        data: Data<'_>,
        rows: PyReadonlyArray1<'_, i64>,
        position_of_column: PyReadonlyArray1<'_, i32>,
        gene_of_position: PyReadonlyArray1<'_, i32>,
        target_sum: Option<f64>,
    ) -> PyResult<()> {
        let (indptr, rows) = (indptr.as_slice()?, rows.as_slice()?);
        let genes = &GeneIndex::new(position_of_column.as_slice()?.to_vec(), gene_of_position.as_slice()?.to_vec())?;
        with_csr!(indptr, indices, data, genes.n_columns(), matrix => {
            detach(py, || self.0.count(matrix, rows, genes, target_sum))
        })
    }

    #[pyo3(signature = (x, *, rows, position_of_column, gene_of_position, target_sum))]
    #[allow(clippy::needless_pass_by_value)] // extracted arrays are values
    fn count_dense(
        &self,
        py: Python<'_>,
        x: Matrix<'_>,
        rows: PyReadonlyArray1<'_, i64>,
        position_of_column: PyReadonlyArray1<'_, i32>,
        gene_of_position: PyReadonlyArray1<'_, i32>,
        target_sum: Option<f64>,
    ) -> PyResult<()> {
        let rows = rows.as_slice()?;
        let genes = &GeneIndex::new(position_of_column.as_slice()?.to_vec(), gene_of_position.as_slice()?.to_vec())?;
        with_dense!(x, matrix => detach(py, || self.0.count(matrix, rows, genes, target_sum)))
    }

    fn finish_pass(&self, py: Python<'_>) -> PyResult<bool> {
        detach(py, || self.0.finish_pass())
    }

    fn state<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u64>> {
        self.0.state().into_pyarray(py)
    }

    fn medians<'py>(&self, py: Python<'py>) -> MedianArrays<'py> {
        let (n_values, medians) = self.0.medians();
        (n_values.into_pyarray(py), medians.map(|medians| medians.into_pyarray(py)))
    }
}

/// The number of values of each gene; the medians once they are known.
type MedianArrays<'py> = (Bound<'py, PyArray1<u64>>, Option<Bound<'py, PyArray1<f32>>>);

#[pyfunction]
#[pyo3(name = "draw_genes")]
fn py_draw_genes(
    py: Python<'_>,
    gene_seed: u64,
    block: u64,
    n_genes: u32,
    count: usize,
) -> PyResult<Bound<'_, PyArray1<u32>>> {
    Ok(detach(py, || Ok(draw_genes(gene_seed, block, n_genes, count)))?.into_pyarray(py))
}

#[pyfunction]
#[pyo3(name = "unpack_chunks", signature = (stored, sizes, masks, *, filters, item_bytes, out))]
#[allow(clippy::needless_pass_by_value)] // extracted arrays are values
fn py_unpack_chunks(
    py: Python<'_>,
    stored: PyReadonlyArray1<'_, u8>,
    sizes: PyReadonlyArray1<'_, i64>,
    masks: PyReadonlyArray1<'_, u32>,
    filters: Vec<u32>,
    item_bytes: usize,
    mut out: PyReadwriteArray1<'_, u8>,
) -> PyResult<Option<usize>> {
    let filters = filters.into_iter().map(Filter::from_number).collect::<Result<Vec<_>, _>>()?;
    let chunks = Chunks {
        stored: stored.as_slice()?,
        sizes: sizes.as_slice()?,
        masks: masks.as_slice()?,
        filters: &filters,
        item_bytes,
    };
    let out = out.as_slice_mut()?;
    detach(py, || unpack_chunks(chunks, out))
}

/// Panics inside a kernel call, so that tests can check how a panic is reported.
#[cfg(feature = "test-panic")]
#[pyfunction]
#[allow(clippy::panic)] // its purpose
fn _panic(py: Python<'_>) -> PyResult<()> {
    detach(py, || panic!("on purpose"))
}

#[pymodule(gil_used = false)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Kernel>()?;
    module.add_class::<MedianCounter>()?;
    module.add_function(wrap_pyfunction!(py_draw_genes, module)?)?;
    module.add_function(wrap_pyfunction!(py_unpack_chunks, module)?)?;
    #[cfg(feature = "test-panic")]
    module.add_function(wrap_pyfunction!(_panic, module)?)?;
    let build_info = PyDict::new(module.py());
    build_info.set_item("version", env!("CARGO_PKG_VERSION"))?;
    build_info.set_item("profile", if cfg!(debug_assertions) { "debug" } else { "release" })?;
    build_info.set_item("target", format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS))?;
    module.add("build_info", build_info)
}
