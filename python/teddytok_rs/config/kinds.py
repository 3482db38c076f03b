"""Name the kinds of annotations, in the order in which they are written. Imports nothing, for `--help`."""

from __future__ import annotations

#: The annotations that ``bio_annotations`` writes, in this order, and the name of each in a text.
ANNOTATIONS = {"disease": "disease", "tissue": "tissue", "cell": "cell type", "sex": "sex"}
