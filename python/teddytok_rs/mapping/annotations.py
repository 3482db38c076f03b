"""`obs` and mapping files in; Arrow columns of annotations and labels, and a report of what had no token, out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Required, TypeAlias, TypedDict

import numpy as np

from ..config.files import DocumentError, read_document
from ..config.kinds import ANNOTATIONS
from ..errors.build import error, noting
from ..errors.text import count, some, tally
from .reports import AnnotationReport
from .vocabulary import MAX_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

    from ..config.args import TokenizationArgs
    from ..errors import TeddytokError
    from .cells import Cells
    from .vocabulary import Vocabulary

    #: An Arrow array of any type.
    ArrowArray: TypeAlias = pa.Array[pa.Scalar[pa.DataType]]

#: What CELLxGENE joins several diseases of a cell with.
PART_SEPARATOR = " || "
#: How a missing label is called in reports.
MISSING = "(missing)"


class Feature(TypedDict, total=False):
    """A column as `datasets` describes it: a ``Value`` of a type, a ``ClassLabel``, or a ``Sequence`` of another."""

    dtype: str
    names: list[str]
    feature: Feature
    _type: Required[str]


@dataclass(frozen=True)
class Column:
    """One output column: its values for all cells, and its feature as `datasets` describes it."""

    name: str
    values: ArrowArray
    feature: Feature


@dataclass(frozen=True)
class Annotations:
    """All output columns that come from ``obs``.

    Attributes
    ----------
    columns
        The columns, each with a value for every cell to tokenize.
    reports
        Kind of annotation (see `ANNOTATIONS`) -> what was mapped.
    sha256
        Argument (``"disease_mapping"``, ...) -> checksum of its file.
    warnings
        What may be unintended in the mappings, a sentence each.
    """

    columns: list[Column] = field(default_factory=list)
    reports: dict[str, AnnotationReport] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def read_annotations(
    cells: Cells, vocabulary: Vocabulary, args: TokenizationArgs, problems: list[TeddytokError]
) -> Annotations:
    """Make the output columns that come from ``obs``, but for those of which something is put into ``problems``.

    That is a `ConfigError` where a mapping file cannot be used; a `VocabularyError` where a label has no token and the
    vocabulary has no unknown token; a `DataError` where an obs column is missing or of a type that cannot be written, a
    label is missing, or a label has no token and ``unmapped_annotations`` is ``"error"``.
    """
    import pyarrow as pa

    annotations = Annotations()
    kinds = list(ANNOTATIONS) if args.bio_annotations else []
    if args.add_disease_annotation and "disease" not in kinds:
        kinds.append("disease")
    tokens: dict[str, NDArray[np.int32]] = {}
    for kind in kinds:
        column, key, mapping, labels = getattr(args, f"{kind}_column"), f"{kind}_mapping", None, None
        with noting(problems):
            mapping = _read_mapping(key, getattr(args, key), vocabulary, annotations)
        with noting(problems):
            labels = cells.column(column, f"{kind}_column")
        if mapping is not None and labels is not None:
            with noting(problems):
                tokens[kind] = _annotate(
                    cells, kind, labels, mapping, vocabulary=vocabulary, args=args, annotations=annotations
                )
    if args.bio_annotations and len(tokens) == len(kinds):
        four = np.stack([tokens[kind] for kind in ANNOTATIONS], axis=1)
        offsets = pa.array(np.arange(0, four.size + 1, 4, dtype=np.int32), pa.int32())
        values = pa.ListArray.from_arrays(offsets, pa.array(four.reshape(-1)))
        feature: Feature = {"feature": {"dtype": "int32", "_type": "Value"}, "_type": "Sequence"}
        annotations.columns.append(Column("bio_annotations", values, feature))
    makers: list[Callable[[], Column]] = []
    if args.add_disease_annotation and "disease" in tokens:
        ids = pa.array(tokens["disease"].astype(np.int64), pa.int64())
        annotations.columns.append(Column("labels", ids, {"dtype": "int64", "_type": "Value"}))
    elif args.label_column is not None and not args.add_disease_annotation:
        makers.append(partial(_labels, cells, args.label_column))
    makers += [partial(_copied, cells, name, annotations) for name in args.obs_columns]
    for make in makers:
        with noting(problems):
            annotations.columns.append(make())
    return annotations


# ---- annotations: labels -> tokens


def _annotate(
    cells: Cells,
    kind: str,
    labels_of: pd.Series,
    mapping: Mapping[str, int | str],
    *,
    vocabulary: Vocabulary,
    args: TokenizationArgs,
    annotations: Annotations,
) -> NDArray[np.int32]:
    """Map the labels of one obs column to token ids; shape (n_cells,)."""
    import pandas as pd

    column, key = getattr(args, f"{kind}_column"), f"{kind}_mapping"
    try:
        codes, categories = pd.factorize(labels_of, use_na_sentinel=True)
    except TypeError:  # lists and the like
        raise _bad_type(cells, column, f"{kind}_column", "Python objects") from None
    labels = [str(category) for category in categories]
    counts = np.bincount(codes + 1, minlength=len(labels) + 1)

    tokens: dict[str, int] = {}
    by_part: dict[str, str] = {}
    for label in labels:
        part = next((part for part in _parts(label) if part in mapping), None)
        if part is not None:
            token = mapping[part]
            if isinstance(token, str):
                facts = {"key": key, "file": getattr(args, key), "label": part, "vocabulary": vocabulary.path}
                raise error("mapping_token", token=token, more=f", and obs column {column!r} has that label", **facts)
            tokens[label] = token
            if part != label:
                by_part[label] = part
    n_cells = dict(zip([MISSING, *labels], map(int, counts), strict=True))
    if not n_cells[MISSING]:
        del n_cells[MISSING]
    unmapped = {label: n for label, n in n_cells.items() if label not in tokens}
    annotations.reports[kind] = AnnotationReport(column, tokens, n_cells, by_part, unmapped)

    unknown = -1
    if unmapped:
        listed = tally(unmapped)
        if args.unmapped_annotations == "error":
            raise error(
                "unmapped_annotation",
                column=column,
                source=cells.source.name,
                n=count(len(unmapped), "label"),
                labels=listed,
                key=key,
            )
        needs = f"obs column {column!r} of {cells.source.name}, with labels that have no token ({listed}),"
        advice = f"Add the labels to {key}, or an <unk> token to the vocabulary"
        unknown = vocabulary.special_id("unk", needs=needs, advice=advice)
    of_code = np.array([unknown, *(tokens.get(label, unknown) for label in labels)], dtype=np.int32)
    return of_code[codes + 1]


def _parts(label: str) -> list[str]:
    """List what a label may be looked up as: the whole, then its parts."""
    return [label, *label.split(PART_SEPARATOR)] if PART_SEPARATOR in label else [label]


def _read_mapping(
    key: str, path: str | None, vocabulary: Vocabulary, annotations: Annotations
) -> Mapping[str, int | str]:
    """Read raw label -> token id; without a file, labels are looked up in the vocabulary as they are.

    A token that the vocabulary lacks stays as it is: it is an error only if a cell has its label.
    """
    if path is None:
        return vocabulary.ids
    try:
        document = read_document(Path(path))
    except DocumentError as bad:
        raise error("mapping_file", key=key, file=path, reason=bad) from None
    if not isinstance(document, dict):
        raise error("mapping_file", key=key, file=path, reason=f"it holds a {type(document).__name__}")
    for label, token in document.items():
        whole_number = isinstance(token, int) and not isinstance(token, bool)
        if not (isinstance(token, str) or (whole_number and 0 <= token <= MAX_ID)):
            raise error("mapping_file", key=key, file=path, reason=f"label {label!r} is mapped to {token!r}")
    annotations.sha256[key] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    unknown = {
        label: token for label, token in document.items() if isinstance(token, str) and token not in vocabulary.ids
    }
    if unknown:
        annotations.warnings.append(
            f"{key}: {path!r} maps {count(len(unknown), 'label')} to tokens that are not in the vocabulary "
            f"{vocabulary.path!r}: {some(unknown)}"
        )
    return {
        label: vocabulary.ids.get(token, token) if isinstance(token, str) else token
        for label, token in document.items()
    }


# ---- labels and copied columns


def _labels(cells: Cells, column: str) -> Column:
    import pandas as pd
    import pyarrow as pa

    series = cells.column(column, "label_column")
    missing = np.flatnonzero(series.isna())
    if missing.size:
        row = cells.source_row(int(missing[0]))
        more = f", and {count(missing.size - 1, 'other cell')} likewise" if missing.size > 1 else ""
        raise error(
            "label_missing",
            cell=cells.source.cell_name(row),
            row=row,
            source=cells.source.name,
            column=column,
            more=more,
        )
    if isinstance(series.dtype, pd.CategoricalDtype):
        # All declared categories, so that files split from one dataset agree on the ids.
        try:
            names = sorted(series.cat.categories)
        except TypeError:
            raise _bad_type(cells, column, "label_column", "categories of several types") from None
        codes = pd.Categorical(series, categories=names).codes
    elif pd.api.types.is_string_dtype(series.dtype) or series.dtype == object:
        _refuse_mixed(cells, series, column, "label_column")
        codes, uniques = pd.factorize(series, sort=True)
        names = list(uniques)
    else:
        values = _plain(cells, series, column, "label_column")
        return Column("labels", values, {"dtype": _dtype_name(values), "_type": "Value"})
    feature: Feature = {"names": [str(name) for name in names], "_type": "ClassLabel"}
    return Column("labels", pa.array(np.asarray(codes, dtype=np.int64)), feature)


def _copied(cells: Cells, column: str, annotations: Annotations) -> Column:
    import pyarrow as pa

    name = "cell_id" if column == "index" else column
    if name in {"gene_ids", "values", *(taken.name for taken in annotations.columns)}:
        raise error("obs_column_reserved", column=column, name=name)
    if column == "index":
        try:
            names = pa.array(cells.names(), pa.string())
        except UnicodeEncodeError:
            raise _bad_type(cells, column, "obs_columns", "names that are no text") from None
        return Column(name, names, {"dtype": "string", "_type": "Value"})
    values = _plain(cells, cells.column(column, "obs_columns"), column, "obs_columns")
    return Column(name, values, {"dtype": _dtype_name(values), "_type": "Value"})


def _plain(cells: Cells, series: pd.Series, column: str, key: str) -> ArrowArray:
    """Turn a column of strings, numbers or booleans into Arrow; categories become their values."""
    import pyarrow as pa

    if series.dtype == object:
        _refuse_mixed(cells, series, column, key)
    try:
        values: ArrowArray | pa.ChunkedArray[pa.Scalar[pa.DataType]] = pa.array(series, from_pandas=True)
        if isinstance(values, pa.DictionaryArray):
            values = values.dictionary_decode()
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        raise _bad_type(cells, column, key, str(series.dtype)) from None
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_large_string(values.type) or pa.types.is_null(values.type):
        values = values.cast(pa.string())
    if not (pa.types.is_string(values.type) or pa.types.is_boolean(values.type) or _is_number(values.type)):
        raise _bad_type(cells, column, key, str(values.type))
    return values


def _refuse_mixed(cells: Cells, series: pd.Series, column: str, key: str) -> None:
    types = {type(value).__name__ for value in series.dropna()} - {"str"}
    if types:
        raise _bad_type(cells, column, key, f"Python objects ({', '.join(sorted(types))})")


def _bad_type(cells: Cells, column: str, key: str, got: str) -> Exception:
    return error("obs_column_type", column=column, source=cells.source.name, got=got, key=key)


def _is_number(dtype: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(dtype) or pa.types.is_float32(dtype) or pa.types.is_float64(dtype))


def _dtype_name(values: ArrowArray) -> str:
    """Name the type of a column as `datasets` does."""
    names = {"double": "float64", "float": "float32"}
    return names.get(str(values.type), str(values.type))
