"""Name the kinds of annotations and the output columns, in the order in which they are written, for `--help` too."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The annotations that ``bio_annotations`` writes, in this order, and the name of each in a text.
ANNOTATIONS = {"disease": "disease", "tissue": "tissue", "cell": "cell type", "sex": "sex"}

#: The output columns that are not copied from ``obs``, and the arguments of which one must be set for each of them.
OUTPUT_COLUMNS: dict[str, tuple[str, ...]] = {
    "gene_ids": (),
    "values": ("write_values",),
    "length": ("write_length",),
    "bio_annotations": ("bio_annotations",),
    "labels": ("label_column", "add_disease_annotation"),
}


def columns_by_name(output_names: Mapping[str, str]) -> dict[str, str]:
    """Return which of the `OUTPUT_COLUMNS` has which name in the output."""
    return {output_names.get(column, column): column for column in OUTPUT_COLUMNS}


#: Names of the layer that TEDDY's own preprocessing writes.
PROCESSED = {"processed", "layers/processed"}
