"""Take the configuration of TEDDY's own preprocessing, so that both of its steps are done in one pass."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..errors.build import error
from ..errors.text import nearest
from .files import DocumentError, read_document
from .kinds import PROCESSED

#: Key -> our argument of the same meaning.
SAME = {
    "normalized_total": "normalize_total",
    "median_dict": "median_dict",
    "median_column": "median_column",
    "log1p": "log1p",
    "load_dir": "load_dir",
}
#: Those of which null turns the step off.
STEPS = {"normalized_total", "median_dict", "log1p"}
#: Key -> the obs column of which cells with one of its values are removed.
REMOVED = {"remove_assays": "assay", "remove_cell_types": "cell_type"}
#: Key of a step that is not done in the same pass -> how to get it.
OTHER_STEPS = {
    "min_gene_counts": "Call scanpy.pp.calculate_qc_metrics, and set cell_filter, as in 'n_genes_by_counts >= 200'",
    "max_mitochondrial_prop": "Call scanpy.pp.calculate_qc_metrics(qc_vars=['mt']), and set cell_filter, as in "
    "'pct_counts_mt <= 20'",
    "hvg_method": "Call scanpy.pp.highly_variable_genes, and set gene_filter = 'highly_variable'",
    "reference_id_only": "Genes that are not in the vocabulary are dropped anyway; set gene_filter to a boolean var "
    "column to keep fewer",
    "compute_medians": "Run 'teddytok medians build', and set median_dict to what it writes",
}
#: The folder of the preprocessed files, which are not written.
NOT_WRITTEN = "save_dir"
KEYS = {*SAME, *REMOVED, *OTHER_STEPS, NOT_WRITTEN}
#: Keys that only such a configuration has.
OWN = KEYS - {"median_dict", "median_column", "log1p", "load_dir", "save_dir"}


def is_preprocessing(keys: Mapping[str, object]) -> bool:
    """Return whether these are the keys of a configuration for preprocessing, not for tokenizing."""
    return bool(OWN & keys.keys()) and "tokenizer_name_or_path" not in keys


def with_preprocessing(
    preprocessing: Mapping[str, object] | str | os.PathLike[str],
    given: Mapping[str, object],
    keys: Mapping[str, object],
) -> dict[str, object]:
    """Add what a configuration of TEDDY's preprocessing says to the arguments that override a configuration.

    Parameters
    ----------
    preprocessing
        The path of its JSON or YAML file, or a dict of its keys.
    given
        The configuration for tokenizing.
    keys
        Arguments that override both. Cells are removed in addition to a ``cell_filter``.

    Raises
    ------
    ConfigError
        If the file cannot be read, a key is unknown, a step cannot be done in the same pass, or the two configurations
        contradict each other.
    """
    where = f"{os.fspath(preprocessing)}: " if isinstance(preprocessing, str | os.PathLike) else "preprocessing: "
    ours = _translate(_read(preprocessing), where)
    both = {**given, **keys}
    for key in ours.keys() & given.keys() - keys.keys() - {"load_dir", "layer", "cell_filter"}:
        if given[key] is not None and (given[key] or None) != (ours[key] or None):  # null and false are off
            problem = f"{key} is {ours[key]!r}, but {given[key]!r} in the configuration for tokenizing"
            raise error("config_conflict", where=where, problem=problem, advice="Set it in one of them")
    if both.get("layer") in PROCESSED:
        problem = "it starts from counts, and layer = 'processed' holds values that are preprocessed already"
        advice = "Leave layer out, or tokenize without the configuration for preprocessing"
        raise error("config_conflict", where=where, problem=problem, advice=advice)
    removal = ours.pop("cell_filter", None)
    cell_filter = both.get("cell_filter")
    if removal is not None and cell_filter is not None:
        removal = f"({cell_filter}) and {removal}"
    layer = ours["layer"] if both.get("layer") is None else both["layer"]
    return {**ours, **keys, "layer": layer, "cell_filter": cell_filter if removal is None else removal}


def _read(preprocessing: Mapping[str, object] | str | os.PathLike[str]) -> dict[str, object]:
    if isinstance(preprocessing, str | os.PathLike):
        try:
            document = read_document(Path(preprocessing), stream=True)
        except DocumentError as exc:
            raise error("config_file", file=os.fspath(preprocessing), reason=exc) from None
        if not isinstance(document, dict):
            reason = "it is empty" if document is None else f"it holds a {type(document).__name__}"
            raise error("config_file", file=os.fspath(preprocessing), reason=reason)
        return {str(key): value for key, value in document.items()}
    if isinstance(preprocessing, Mapping):
        return {str(key): value for key, value in preprocessing.items()}
    takes = "a dict or the path of a file"
    raise error("config_value", where="", key="preprocessing", got=preprocessing, expected=takes)


def _translate(document: Mapping[str, object], where: str) -> dict[str, object]:
    """Write a configuration of preprocessing as arguments."""
    if "tokenizer_name_or_path" in document:
        problem = "it is a configuration for tokenizing"
        raise error("config_conflict", where=where, problem=problem, advice="Give it as --config, in Python as args")
    for key, value in document.items():
        if key not in KEYS:
            raise error("config_key_unknown", where=where, key=key, nearest=nearest(key, KEYS))
        if key in OTHER_STEPS and not _is_off(value):
            problem = f"{key} = {value!r} is not done in the same pass"
            raise error(
                "config_conflict", where=where, problem=problem, advice=f"{OTHER_STEPS[key]}; set {key} to null"
            )
    ours: dict[str, object] = {"layer": "auto"}
    ours |= {SAME[key]: value for key, value in document.items() if key in SAME and (value is not None or key in STEPS)}
    if conditions := [
        _removal(key, column, document[key], where) for key, column in REMOVED.items() if not _is_off(document.get(key))
    ]:
        ours["cell_filter"] = " and ".join(conditions)
    return ours


def _is_off(value: object) -> bool:
    return value is None or value is False or value in ("", [], (), {})


def _removal(key: str, column: str, values: object, where: str) -> str:
    """Write the condition of cells that have none of these values."""
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise error(
            "config_value", where=where, key=key, got=values, expected=f"a list of values of obs column {column!r}"
        )
    return f"{column} not in {list(values)!r}"
