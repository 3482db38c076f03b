"""Pad cells into the tensors of a batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from ..config.kinds import columns_by_name
from ..errors.build import error
from ..errors.text import Rows, TextRepr, nearest, some

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .datasets import Cell, OnTheFlyDataset, WrittenDataset


@dataclass(frozen=True, repr=False)
class Collator(TextRepr):
    """Pad cells into one batch as TEDDY's ``forward`` takes it: the ``collate_fn`` of a ``DataLoader``.

    A cell is a dict whose sequences are tensors, arrays or lists, such as `datasets` gives them.

    For B cells, padded to L: ``gene_ids`` (B, L) int64; ``attention_mask`` (B, L) int64, 1 for a token and 0 for
    padding; ``values`` (B, L), int64 for bins and else float32, 0 for padding; ``labels`` (B,), int64 for classes,
    integers and booleans, else float32; ``bio_annotations`` (B, 4) int64; ``length`` (B,) int64; each of
    ``obs_columns`` as a list.

    Parameters
    ----------
    pad_id
        Id of the vocabulary's padding token.
    pad_length
        Length of all sequences; that of the batch's longest if None. A longer sequence is an error: if it were cut
        here, its bins and ranks would not be those of ``max_seq_len = pad_length``.
    label_names
        Names of classes, by their numbers: labels that are text are the number of their name.
    output_names
        Other names that these columns have in the cells, such as ``{"gene_ids": "input_ids"}``; so they are called in
        the batch too.

    Notes
    -----
    ``forward`` of TEDDY-G takes ``gene_ids`` and ``attention_mask`` (which it inverts for PyTorch's encoder), and by
    other names ``annotations`` and ``annotation_labels``; which tokens to mask or predict is the training's choice.
    """

    pad_id: int
    pad_length: int | None = None
    label_names: tuple[str, ...] = ()
    output_names: Mapping[str, str] = field(default_factory=dict)

    def _rows(self) -> tuple[str, Rows]:
        rows = [("pad_id", str(self.pad_id)), ("pad_length", str(self.pad_length))]
        return "Collator", [*rows, *([("label_names", some(self.label_names))] if self.label_names else [])]

    @classmethod
    def for_dataset(cls, dataset: WrittenDataset | OnTheFlyDataset) -> Self:
        """Take the padding token of a dataset's vocabulary, its ``pad_length`` and its names of classes and columns."""
        pad_id = dataset.special_tokens.get("pad")
        if pad_id is None:
            advice = "Name a pad_token in special_tokens_map.json, or give Collator a pad_id"
            pad_id = dataset.load_vocabulary().special_id("pad", needs="padding", advice=advice)
        return cls(pad_id, dataset.pad_length, dataset.label_names, dataset.output_names)

    def __call__(self, cells: Sequence[Cell]) -> dict[str, Any]:
        """Pad the cells of a batch.

        Raises
        ------
        ConfigError
            If a sequence is longer than ``pad_length``, or a label is text that is not the name of a class.
        """
        columns = columns_by_name(self.output_names)
        gene_ids = self.output_names.get("gene_ids", "gene_ids")
        lengths = np.array([len(cell[gene_ids]) for cell in cells])
        width = self.pad_length or int(lengths.max())
        if (longest := lengths.max()) > width:
            problem = f"a sequence of {longest:,} tokens is longer than pad_length = {width:,}"
            raise error("config_conflict", where="", problem=problem, advice="Set a smaller max_seq_len, or pad longer")
        batch: dict[str, Any] = {}
        for name, first in cells[0].items():
            column, kind = [cell[name] for cell in cells], columns.get(name)
            if kind == "gene_ids":
                batch[name] = _padded(column, width, self.pad_id, np.int64)
                batch["attention_mask"] = torch.from_numpy((np.arange(width) < lengths[:, None]).astype(np.int64))
            elif kind == "values":
                dtypes = {np.asarray(values).dtype.kind for values in column if len(values)} or {"f"}
                is_float = "f" in dtypes
                batch[name] = _padded(column, width, 0, np.float32 if is_float else np.int64)
            elif kind == "bio_annotations":
                batch[name] = torch.from_numpy(np.stack([np.asarray(four, dtype=np.int64) for four in column]))
            elif kind == "labels":
                labels = np.asarray(
                    [self._class_number(label) if isinstance(label, str) else label for label in column]
                )
                if labels.dtype.kind not in "biuf":
                    problem = f"labels are neither numbers nor names of classes, such as {first!r}"
                    raise error("config_conflict", where="", problem=problem, advice="Give each cell one label")
                batch[name] = torch.from_numpy(labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64))
            elif kind == "length" and np.asarray(column).dtype.kind in "iu":  # or a column of obs has the name
                batch[name] = torch.from_numpy(np.asarray(column, dtype=np.int64))
            else:
                batch[name] = column
        return batch

    def _class_number(self, label: str) -> int:
        """Look up the number of a class."""
        try:
            return self.label_names.index(label)
        except ValueError:
            pass
        problem = f"the label {label!r} is text, and the names of the classes are not known"
        advice = "Use Collator.for_dataset, or give Collator the label_names in the order of their numbers"
        if self.label_names:
            problem = f"the label {label!r} is not the name of a class{nearest(label, self.label_names)}"
            advice = f"The classes are {some(self.label_names)}"
        raise error("config_conflict", where="", problem=problem, advice=advice)


def _padded(sequences: Sequence[Sequence[float]], width: int, padding: int, dtype: type[np.number]) -> torch.Tensor:
    # In NumPy: PyTorch would share such small work out among threads, and wait long for them on a busy machine.
    padded = np.full((len(sequences), width), padding, dtype)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = np.asarray(sequence)
    return torch.from_numpy(padded)
