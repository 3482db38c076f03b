"""Make the output columns that come from ``obs``: annotations, labels and copies; count the labels without a token."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Required, TypeAlias, TypedDict

import numpy as np

from ..config.files import DocumentError
from ..config.kinds import ANNOTATIONS
from ..errors.build import error, noting
from ..errors.text import count, some, tally
from .cells import check_column, column_type_error, refuse_mixed
from .classes import find_classes, number_classes, read_label_names
from .hub import read_argument_table
from .reports import AnnotationReport
from .vocabulary import MAX_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

    from ..config.args import TokenizationArgs
    from ..config.tables import TableChecksum
    from ..errors import TeddytokError
    from .cells import Cells
    from .vocabulary import Vocabulary

    #: An Arrow array of any type.
    ArrowArray: TypeAlias = pa.Array[pa.Scalar[pa.DataType]]
    #: Reads cells ``start`` to ``stop``.
    Read: TypeAlias = Callable[[int, int], ArrowArray]
    ReadTokens: TypeAlias = Callable[[int, int], NDArray[np.int32]]

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
    """One output column.

    Attributes
    ----------
    name
        Its name.
    feature
        What `datasets` calls its type.
    read
        Reads its values for cells ``start`` to ``stop``; only a few parts of it are in memory.
    n_bytes
        Bytes of all its values; 0 until they were read once.
    """

    name: str
    feature: Feature
    read: Read
    n_bytes: int = 0

    def slice(self, start: int, stop: int, n_cells: int) -> ArrowArray:
        """Read cells ``start`` to ``stop`` as a slice of the column.

        Arrow writes the buffers of a slice up to a multiple of 64 bytes, so that values of the next cells fill the
        padding. A shard must have the same bytes however many cells are read at a time.
        """
        import pyarrow as pa

        before, ahead = min(start, 1), 512  # 64 bytes of the smallest type, which is a bit
        values = self.read(start - before, min(stop + ahead, n_cells))
        while (
            isinstance(values, pa.StringArray)
            and stop + ahead < n_cells
            and _lacks_padding(values, before, stop - start)
        ):
            ahead *= 2
            values = self.read(start - before, min(stop + ahead, n_cells))
        return values.slice(before, stop - start)


def _lacks_padding(values: pa.StringArray, start: int, n_values: int) -> bool:
    """Return whether the text after some values of an array ends before the next multiple of 64 bytes."""
    n_bytes = _text_bytes(values.slice(start, n_values))
    return _text_bytes(values.slice(start)) < -(-n_bytes // 64) * 64


def _text_bytes(values: pa.StringArray) -> int:
    import pyarrow.compute as pc

    return int(pc.sum(pc.binary_length(values)).as_py() or 0)


@dataclass(frozen=True)
class Annotations:
    """All output columns that come from ``obs``.

    Attributes
    ----------
    columns
        The columns.
    reports
        Kind of annotation (see `ANNOTATIONS`) -> what was mapped.
    mappings
        Argument (``"disease_mapping"``, ...) -> checksums of its mapping.
    warnings
        What may be unintended in the mappings, a sentence each.
    sha256_of_cells
        Checksum of what ``obs`` gave: the cells kept, and the values of all columns.
    """

    columns: list[Column] = field(default_factory=list)
    reports: dict[str, AnnotationReport] = field(default_factory=dict)
    mappings: dict[str, TableChecksum] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    sha256_of_cells: str = ""


def read_annotations(
    cells: Cells, vocabulary: Vocabulary, args: TokenizationArgs, problems: list[TeddytokError]
) -> Annotations:
    """Make the output columns from ``obs``, except those with an error, which is added to ``problems``.

    That is a `ConfigError` where a mapping file cannot be used; a `VocabularyError` where a label has no token and the
    vocabulary has no unknown token; a `DataError` where an obs column is missing or of a type that cannot be written, a
    label is missing, or a label has no token and ``unmapped_annotations`` is ``"error"``.
    """
    annotations = Annotations()
    kinds = list(ANNOTATIONS) if args.bio_annotations else []
    if args.add_disease_annotation and "disease" not in kinds:
        kinds.append("disease")
    tokens: dict[str, ReadTokens] = {}
    for kind in kinds:
        column, key, mapping = getattr(args, f"{kind}_column"), f"{kind}_mapping", None
        with noting(problems):
            mapping = _read_mapping(key, getattr(args, key), vocabulary, annotations)
        with noting(problems):
            check_column(cells.source, column, f"{kind}_column")
            if mapping is not None:
                tokens[kind] = _annotate(
                    cells, kind, column, mapping, vocabulary=vocabulary, args=args, annotations=annotations
                )
    makers: list[Callable[[], Column]] = []
    if args.bio_annotations and len(tokens) == len(kinds):
        four = [tokens[kind] for kind in ANNOTATIONS]
        makers.append(partial(_four, args.output_name("bio_annotations"), four))
    if args.add_disease_annotation and "disease" in tokens:
        makers.append(partial(_disease, args.output_name("labels"), tokens["disease"]))
    elif args.label_column is not None and not args.add_disease_annotation:
        makers.append(partial(_labels, cells, args.label_column, args))
    makers += [partial(_copied, cells, name, args, annotations) for name in args.obs_columns]
    digest = hashlib.sha256(b"" if cells.rows is None else cells.rows.astype("<i8").tobytes())
    for make in makers:
        with noting(problems):
            annotations.columns.append(_checked(make(), cells, digest))
    return replace(annotations, sha256_of_cells=digest.hexdigest())


def _checked(column: Column, cells: Cells, digest: hashlib._Hash) -> Column:
    """Read all of a column once, before anything is written: for its problems, its bytes and its checksum."""
    n_bytes = 0
    digest.update(f"{column.name} {column.feature}".encode())
    for span in cells.spans():
        values = column.read(*span)
        n_bytes += values.nbytes
        for buffer in values.buffers():
            digest.update(b"" if buffer is None else buffer)
    return replace(column, n_bytes=n_bytes)


def _four(name: str, tokens: list[ReadTokens]) -> Column:
    """Put the four annotations of each cell side by side."""
    import pyarrow as pa

    def read(start: int, stop: int) -> ArrowArray:
        four = np.stack([of_kind(start, stop) for of_kind in tokens], axis=1)
        offsets = pa.array(np.arange(0, four.size + 1, 4, dtype=np.int32), pa.int32())
        return pa.ListArray.from_arrays(offsets, pa.array(four.reshape(-1)))

    feature: Feature = {"feature": {"dtype": "int32", "_type": "Value"}, "_type": "Sequence"}
    return Column(name, feature, read)


def _disease(name: str, tokens: ReadTokens) -> Column:
    import pyarrow as pa

    feature: Feature = {"dtype": "int64", "_type": "Value"}
    return Column(name, feature, lambda start, stop: pa.array(tokens(start, stop).astype(np.int64), pa.int64()))


class _Numbering:
    """Gives the labels of a part of an obs column their numbers; those of a set of categories are looked up once."""

    def __init__(self, number_of: Callable[[str], int], missing: int) -> None:
        self._number_of, self._missing = number_of, missing
        self._known: tuple[pd.Index, NDArray[np.int64]] | None = None

    def __call__(self, labels: pd.Series) -> NDArray[np.int64]:
        import pandas as pd

        if not isinstance(labels.dtype, pd.CategoricalDtype):
            codes, distinct = pd.factorize(labels)
            return self._numbers(distinct)[codes]
        categories, known = labels.cat.categories, self._known
        if known is None or not (known[0] is categories or known[0].equals(categories)):
            known = self._known = categories, self._numbers(categories)
        return known[1][labels.cat.codes.to_numpy()]

    def _numbers(self, labels: Iterable[object]) -> NDArray[np.int64]:
        """List the numbers of labels; at the end, for the code -1, that of missing ones."""
        return np.array([*(self._number_of(str(label)) for label in labels), self._missing], dtype=np.int64)


# ---- annotations: labels -> tokens


def _annotate(
    cells: Cells,
    kind: str,
    column: str,
    mapping: Mapping[str, int | str],
    *,
    vocabulary: Vocabulary,
    args: TokenizationArgs,
    annotations: Annotations,
) -> ReadTokens:
    """Map the labels of one obs column to token ids; what reads those of cells ``start`` to ``stop`` is returned."""
    key = f"{kind}_mapping"
    n_cells = _count_labels(cells, column, f"{kind}_column")
    labels = [label for label in n_cells if label is not None]
    tokens: dict[str, int] = {}
    by_part: dict[str, str] = {}
    for label in labels:
        part = find_part(label, mapping)
        if part is not None:
            token = mapping[part]
            if isinstance(token, str):
                facts = {"key": key, "file": getattr(args, key), "label": part, "vocabulary": vocabulary.path}
                raise error("mapping_token", token=token, more=f", and obs column {column!r} has that label", **facts)
            tokens[label] = token
            if part != label:
                by_part[label] = part
    counts = {MISSING if label is None else label: n for label, n in n_cells.items()}
    unmapped = {label: n for label, n in counts.items() if label not in tokens}
    annotations.reports[kind] = AnnotationReport(column, tokens, counts, by_part, unmapped)

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
    numbering = _Numbering(lambda label: tokens.get(label, unknown), unknown)
    return lambda start, stop: numbering(cells.read(column, start, stop)).astype(np.int32)


def _count_labels(cells: Cells, column: str, key: str) -> dict[str | None, int]:
    """Count the cells of each label that occurs, missing ones first under None."""
    import pandas as pd

    missing = 0
    n_cells: Counter[str | None] = Counter()
    for span in cells.spans():
        try:
            codes, labels = pd.factorize(cells.read(column, *span), use_na_sentinel=True)
        except TypeError:  # lists and the like
            raise column_type_error(cells.source, column, key, "Python objects") from None
        counts = np.bincount(codes + 1, minlength=len(labels) + 1).tolist()
        missing += counts[0]
        n_cells.update(dict(zip(map(str, labels), counts[1:], strict=True)))
    return {**({None: missing} if missing else {}), **n_cells}


def split_label(label: str) -> list[str]:
    """List the parts of a label: itself, if it has only one."""
    return label.split(PART_SEPARATOR)


def find_part(label: str, mapping: Mapping[str, object]) -> str | None:
    """Find what a label is looked up as: the whole if it is mapped, else its first part that is; None if none is."""
    return next((part for part in [label, *split_label(label)] if part in mapping), None)


def _read_mapping(
    key: str, given: str | Mapping[str, object] | None, vocabulary: Vocabulary, annotations: Annotations
) -> Mapping[str, int | str]:
    """Read raw label -> token id; without a mapping, labels are looked up in the vocabulary as they are.

    A token that the vocabulary lacks stays as it is: it is an error only if a cell has its label.
    """
    if given is None:
        return vocabulary.ids
    try:
        entries, checksum = read_argument_table(key, given)
    except DocumentError as exc:
        raise error("mapping_file", key=key, file=given, reason=exc) from None
    mapping: dict[str, int | str] = {}
    unknown: dict[str, str] = {}
    for label, token in entries.items():
        if isinstance(token, str):
            mapping[label] = vocabulary.ids.get(token, token)
            if token not in vocabulary.ids:
                unknown[label] = token
        elif isinstance(token, int) and not isinstance(token, bool) and 0 <= token <= MAX_ID:
            mapping[label] = token
        else:
            raise error("mapping_file", key=key, file=given, reason=f"label {label!r} is mapped to {token!r}")
    annotations.mappings[key] = checksum
    if unknown:
        annotations.warnings.append(
            f"{key}: {given!r} maps {count(len(unknown), 'label')} to tokens that are not in the vocabulary "
            f"{vocabulary.path!r}: {some(unknown)}"
        )
    return mapping


# ---- labels and copied columns


def _labels(cells: Cells, column: str, args: TokenizationArgs) -> Column:
    import pyarrow as pa

    given = read_label_names(args.label_names)
    classes = find_classes(cells.source, column)
    if classes is None and given is not None:
        dtype = cells.read(column, 0, 0).dtype
        problem = f"obs column {column!r} of {cells.source.name} holds numbers ({dtype}), not names of classes"
        advice = "Convert the column to strings, or leave label_names out"
        raise error("config_conflict", where="", problem=problem, advice=advice)
    if classes is None:
        plain = _plain(cells, column, "label_column")

        def read_plain(start: int, stop: int) -> ArrowArray:
            if cells.read(column, start, stop).isna().any():
                raise _label_error(cells, column, lambda labels: labels.isna().to_numpy())
            return plain.read(start, stop)

        return replace(plain, name=args.output_name("labels"), read=read_plain)
    names = number_classes([classes], column) if given is None else given
    numbers = {name: number for number, name in enumerate(names)}
    numbering = _Numbering(lambda label: numbers.get(label, -1), -2)

    def read(start: int, stop: int) -> ArrowArray:
        found = numbering(cells.read(column, start, stop))
        if (found == -2).any():
            raise _label_error(cells, column, lambda labels: numbering(labels) == -2)
        if (found == -1).any():
            raise _label_error(cells, column, lambda labels: numbering(labels) == -1, unknown=True)
        return pa.array(found, pa.int64())

    return Column(args.output_name("labels"), {"names": list(names), "_type": "ClassLabel"}, read)


def _label_error(
    cells: Cells, column: str, is_bad: Callable[[pd.Series], NDArray[np.bool_]], *, unknown: bool = False
) -> TeddytokError:
    """Return the error for the first cell whose label cannot be used; it counts the others."""
    first, label, n_bad = 0, "", 0
    for start, stop in cells.spans():
        labels = cells.read(column, start, stop)
        places = np.flatnonzero(is_bad(labels))
        if places.size and not n_bad:
            first, label = start + int(places[0]), str(labels.iloc[places[0]])
        n_bad += places.size
    row = cells.source_row(first)
    more = f", and {count(n_bad - 1, 'other cell')} likewise" if n_bad > 1 else ""
    facts = {"cell": cells.source.cell_name(row), "source": cells.source.name, "column": column, "more": more}
    if unknown:
        return error("label_unknown", label=label, row=row, **facts)
    return error("label_missing", row=row, **facts)


def _copied(cells: Cells, column: str, args: TokenizationArgs, annotations: Annotations) -> Column:
    import pyarrow as pa

    name = "cell_id" if column == "index" else column
    own = ["gene_ids", "values", *(["length"] if args.write_length else [])]
    if name in {*map(args.output_name, own), *(taken.name for taken in annotations.columns)}:
        raise error("obs_column_reserved", column=column, name=name)
    if column != "index":
        check_column(cells.source, column, "obs_columns")
        return _plain(cells, column, "obs_columns")

    def read(start: int, stop: int) -> ArrowArray:
        try:
            return pa.array(cells.read_names(start, stop), pa.string())
        except UnicodeEncodeError:
            raise column_type_error(cells.source, column, "obs_columns", "names that are no text") from None

    return Column(name, {"dtype": "string", "_type": "Value"}, read)


def _plain(cells: Cells, column: str, key: str) -> Column:
    """Copy a column of strings, numbers or booleans; categories become their values."""
    import pandas as pd
    import pyarrow as pa

    first = cells.read(column, 0, 0)
    if isinstance(first.dtype, pd.CategoricalDtype):
        categories = first.cat.categories
        of_code = _to_arrow(cells, pd.Series(categories), column, key)

        def read(start: int, stop: int) -> ArrowArray:
            part = cells.read(column, start, stop).cat
            if part.categories is not categories and not part.categories.equals(categories):
                raise error("source_changed", path=cells.source.name)
            codes = part.codes.to_numpy()
            return of_code.take(pa.array(codes.astype(np.int64), pa.int64(), mask=codes < 0))

    else:

        def read(start: int, stop: int) -> ArrowArray:
            return _to_arrow(cells, cells.read(column, start, stop), column, key)

    dtype = read(0, 0).type
    names = {"double": "float64", "float": "float32"}
    feature: Feature = {"dtype": names.get(str(dtype), str(dtype)), "_type": "Value"}
    return Column(column, feature, read)


def _to_arrow(cells: Cells, series: pd.Series, column: str, key: str) -> ArrowArray:
    import pyarrow as pa

    if series.dtype == object:
        refuse_mixed(cells.source, series, column, key)
    try:
        values: ArrowArray | pa.ChunkedArray[pa.Scalar[pa.DataType]] = pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        raise column_type_error(cells.source, column, key, str(series.dtype)) from None
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_large_string(values.type) or pa.types.is_null(values.type):
        values = values.cast(pa.string())
    if not (pa.types.is_string(values.type) or pa.types.is_boolean(values.type) or _is_number(values.type)):
        raise column_type_error(cells.source, column, key, str(values.type))
    return values


def _is_number(dtype: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(dtype) or pa.types.is_float32(dtype) or pa.types.is_float64(dtype))
