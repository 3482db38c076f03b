//! The border to Python, and the one file that knows it: NumPy buffers in, NumPy buffers out, only numbers.
//!
//! Every call converts its arguments, lets go of the interpreter lock around all the work, and moves the results out.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use numpy::{
    Element, IntoPyArray, PyArray1, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyReadwriteArray1,
    PyUntypedArrayMethods, dtype,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PySlice};

use crate::cell::{Options, ValueMode};
use crate::error::{Error, ErrorKind};
use crate::genes::GeneIndex;
use crate::matrix::{CsrRows, DenseRows, Rows};
use crate::normalize::Normalization;
use crate::random::{RandomGenes, draw_genes};
use crate::tokenize::{Layout, TokenDtype, TokensMut, ValuesMut};
use crate::unpack::{Filter, unpack_chunks};

pyo3::import_exception!(teddytok_rs.errors, KernelError);
pyo3::import_exception!(teddytok_rs.errors, InternalError);

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        KernelError::new_err((error.kind.slug(), error.row, error.column))
    }
}

/// Runs `work` without the interpreter lock; a panic becomes an exception, never an abort.
fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T, Error> + Send) -> PyResult<T> {
    match py.detach(|| catch_unwind(AssertUnwindSafe(work))) {
        Ok(result) => Ok(result?),
        Err(panic) => Err(InternalError::new_err(panic_message(panic.as_ref()))),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the kernel panicked: {}. This is a bug in teddytok-rs; please report it.", text.unwrap_or("no message"))
}

/// Column indices, in either of the types that matrices are stored in.
#[derive(FromPyObject)]
enum Indices<'py> {
    I32(PyReadonlyArray1<'py, i32>),
    I64(PyReadonlyArray1<'py, i64>),
}

macro_rules! numbers {
    ($($variant:ident: $type:ty),*) => {
        /// Entries of a CSR matrix.
        #[derive(FromPyObject)]
        enum Data<'py> { $($variant(PyReadonlyArray1<'py, $type>)),* }

        /// A dense matrix.
        #[derive(FromPyObject)]
        enum Matrix<'py> { $($variant(PyReadonlyArray2<'py, $type>)),* }

        /// Does `$work` with the array in `$numbers`, whatever its number type.
        macro_rules! with_array {
            ($kind:ident, $numbers:expr, $array:ident => $work:expr) => {
                match &$numbers { $($kind::$variant($array) => $work)* }
            };
        }
    };
}
numbers!(F32: f32, F64: f64, I8: i8, I16: i16, I32: i32, I64: i64, U8: u8, U16: u16, U32: u32, U64: u64);

/// See `_core.pyi`.
#[pyclass(frozen, module = "teddytok_rs._core")]
struct Kernel {
    kernel: crate::cell::Kernel,
    dtype: TokenDtype,
}

#[pymethods]
impl Kernel {
    #[new]
    #[pyo3(signature = (position_of_column, token_of_position, *, max_seq_len, cls_token, include_zero_genes, values,
                        n_bins, random, target_sum, inverse_medians, log1p, token_dtype))]
    #[allow(clippy::too_many_arguments, clippy::needless_pass_by_value)] // one keyword an option; PyO3 hands out values
    fn new(
        position_of_column: PyReadonlyArray1<'_, i32>,
        token_of_position: PyReadonlyArray1<'_, i32>,
        max_seq_len: usize,
        cls_token: Option<i32>,
        include_zero_genes: bool,
        values: &str,
        n_bins: usize,
        random: Option<(u64, u64, usize)>,
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
            _ => return Err(Error::new(ErrorKind::Argument).into()),
        };
        let dtype = match token_dtype {
            "int32" => TokenDtype::Int32,
            "uint16" => TokenDtype::UInt16,
            "int64" => TokenDtype::Int64,
            _ => return Err(Error::new(ErrorKind::Argument).into()),
        };
        let inverse_medians = match inverse_medians {
            Some(medians) => Some(medians.as_slice()?.to_vec()),
            None => None,
        };
        let options = Options {
            max_seq_len,
            cls_token,
            include_zero_genes,
            values,
            random: random.map(|(seed, block_rows, count)| RandomGenes { seed, block_rows, count }),
            normalization: Normalization { target_sum, inverse_medians, log1p },
        };
        Ok(Self { kernel: crate::cell::Kernel::new(genes, options)?, dtype })
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
        let (indptr, places) = (indptr.as_slice()?, rows.as_slice()?);
        let n_columns = self.kernel.n_columns();
        with_array!(Data, data, data => {
            let data = data.as_slice()?;
            match &indices {
                Indices::I32(indices) => {
                    let indices = indices.as_slice()?;
                    self.run(py, &CsrRows::new(indptr, indices, data, n_columns)?, places)
                }
                Indices::I64(indices) => {
                    let indices = indices.as_slice()?;
                    self.run(py, &CsrRows::new(indptr, indices, data, n_columns)?, places)
                }
            }
        })
    }

    #[pyo3(signature = (x, *, rows))]
    #[allow(clippy::needless_pass_by_value)] // extracted arrays are values
    fn tokenize_dense<'py>(
        &self,
        py: Python<'py>,
        x: Matrix<'py>,
        rows: PyReadonlyArray1<'py, i64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let places = rows.as_slice()?;
        with_array!(Matrix, x, x => {
            // `as_slice` would also take a column-major array, and read it wrongly.
            if !x.is_c_contiguous() {
                return Err(Error::new(ErrorKind::Argument).into());
            }
            let (n_rows, n_columns, x) = (x.shape()[0], x.shape()[1], x.as_slice()?);
            self.run(py, &DenseRows::new(x, n_rows, n_columns)?, places)
        })
    }
}

/// An array to write tokens or values into.
enum Fresh<'py> {
    I32(PyReadwriteArray1<'py, i32>),
    U16(PyReadwriteArray1<'py, u16>),
    I64(PyReadwriteArray1<'py, i64>),
    F32(PyReadwriteArray1<'py, f32>),
    None,
}

impl<'py> Fresh<'py> {
    /// The array's first `n_tokens` numbers.
    fn cut(self, py: Python<'py>, n_tokens: usize) -> PyResult<Bound<'py, PyAny>> {
        let front = PySlice::new(py, 0, n_tokens as isize, 1); // counted by 32-bit offsets
        match self {
            Self::I32(array) => array.get_item(front),
            Self::U16(array) => array.get_item(front),
            Self::I64(array) => array.get_item(front),
            Self::F32(array) => array.get_item(front),
            Self::None => Ok(py.None().into_bound(py)),
        }
    }
}

/// Makes an array, of whatever lies in its memory. NumPy does: where the system has huge pages it asks for them, and
/// first writes then cost half; zeroing memory that was used before would cost as much again, with all other threads waiting.
fn fresh<T: Element>(py: Python<'_>, length: usize) -> PyResult<PyReadwriteArray1<'_, T>> {
    let array = py.import("numpy")?.call_method1("empty", (length, dtype::<T>(py)))?;
    Ok(array.cast_into::<PyArray1<T>>()?.try_readwrite()?)
}

impl Kernel {
    fn run<'py, R: Rows + Sync>(&self, py: Python<'py>, rows: &R, places: &[i64]) -> PyResult<Bound<'py, PyAny>> {
        let room = self.kernel.room(rows)?;
        let mut gene_ids = match self.dtype {
            TokenDtype::Int32 => Fresh::I32(fresh(py, room)?),
            TokenDtype::UInt16 => Fresh::U16(fresh(py, room)?),
            TokenDtype::Int64 => Fresh::I64(fresh(py, room)?),
        };
        let mut values = match self.kernel.values() {
            ValueMode::Expression | ValueMode::Ranks => Fresh::F32(fresh(py, room)?),
            ValueMode::Bins(_) => Fresh::I32(fresh(py, room)?),
            ValueMode::None => Fresh::None,
        };
        let gene_ids_mut = match &mut gene_ids {
            Fresh::U16(array) => TokensMut::UInt16(array.as_slice_mut()?),
            Fresh::I64(array) => TokensMut::Int64(array.as_slice_mut()?),
            Fresh::I32(array) => TokensMut::Int32(array.as_slice_mut()?),
            Fresh::F32(_) | Fresh::None => return Err(Error::new(ErrorKind::Argument).into()),
        };
        let values_mut = match &mut values {
            Fresh::F32(array) => ValuesMut::Float32(array.as_slice_mut()?),
            Fresh::I32(array) => ValuesMut::Int32(array.as_slice_mut()?),
            _ => ValuesMut::None,
        };
        let layout = detached(py, || self.kernel.tokenize_into(rows, places, gene_ids_mut, values_mut))?;
        let n_tokens = layout.n_tokens();
        let (gene_ids, values) = (gene_ids.cut(py, n_tokens)?, values.cut(py, n_tokens)?);
        let Layout { offsets, totals } = layout;
        (offsets.into_pyarray(py), gene_ids, values, totals.into_pyarray(py)).into_pyobject(py).map(Bound::into_any)
    }
}

#[pyfunction]
#[pyo3(name = "draw_genes")]
fn py_draw_genes(
    py: Python<'_>,
    seed: u64,
    block: u64,
    n_genes: u32,
    count: usize,
) -> PyResult<Bound<'_, numpy::PyArray1<u32>>> {
    Ok(detached(py, || Ok(draw_genes(seed, block, n_genes, count)))?.into_pyarray(py))
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
    let (stored, sizes, masks, out) = (stored.as_slice()?, sizes.as_slice()?, masks.as_slice()?, out.as_slice_mut()?);
    detached(py, || unpack_chunks(stored, sizes, masks, &filters, item_bytes, out))
}

/// Panics inside the border's net, so that the tests can see what a panic turns into.
#[pyfunction]
#[allow(clippy::panic)] // its whole purpose
fn _panic(py: Python<'_>) -> PyResult<()> {
    detached(py, || panic!("on purpose"))
}

#[pymodule(gil_used = false)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Kernel>()?;
    module.add_function(wrap_pyfunction!(py_draw_genes, module)?)?;
    module.add_function(wrap_pyfunction!(py_unpack_chunks, module)?)?;
    module.add_function(wrap_pyfunction!(_panic, module)?)?;
    let build_info = PyDict::new(module.py());
    build_info.set_item("version", env!("CARGO_PKG_VERSION"))?;
    build_info.set_item("profile", if cfg!(debug_assertions) { "debug" } else { "release" })?;
    build_info.set_item("target", format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS))?;
    module.add("build_info", build_info)
}
