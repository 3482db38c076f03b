"""Distinguish counts from other values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .protocol import Source

#: Rows that a sample is taken from: blocks of consecutive ones, spread evenly; and bytes of all of them.
BLOCKS, BLOCK_ROWS = 8, 8
SAMPLE_BYTES = 2**24


@dataclass(frozen=True)
class ValueSummary:
    """What values look like.

    Attributes
    ----------
    n_values
        Values that are finite and not 0.
    n_negative, n_fractional
        Those below 0, and those that are not whole numbers.
    n_not_finite
        NaN and infinities.
    largest
        The largest finite value; 0 where there is none above.
    """

    n_values: int = 0
    n_negative: int = 0
    n_fractional: int = 0
    n_not_finite: int = 0
    largest: float = 0.0

    @classmethod
    def of(cls, values: NDArray[np.number]) -> ValueSummary:
        """Summarize values of any shape."""
        n_not_finite = n_fractional = 0
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            if not finite.all():
                n_not_finite = int(values.size - np.count_nonzero(finite))
                values = values[finite]
            n_fractional = int(np.count_nonzero(values != np.floor(values)))
        n_negative = 0 if values.dtype.kind == "u" else int(np.count_nonzero(values < 0))
        largest = float(values.max(initial=0))
        return cls(int(np.count_nonzero(values)), n_negative, n_fractional, n_not_finite, largest)

    def __add__(self, other: ValueSummary) -> ValueSummary:
        """Summarize both."""
        return ValueSummary(
            self.n_values + other.n_values,
            self.n_negative + other.n_negative,
            self.n_fractional + other.n_fractional,
            self.n_not_finite + other.n_not_finite,
            max(self.largest, other.largest),
        )

    @property
    def are_counts(self) -> bool:
        """Whether all of them are whole numbers from 0 on."""
        return not (self.n_negative or self.n_fractional or self.n_not_finite)

    def describe(self) -> str:
        """Write what there is that no count is; ``"whole numbers"`` where there is nothing of the kind."""
        found = [
            text
            for n, text in (
                (self.n_fractional, "values that are not whole numbers"),
                (self.n_negative, "negative values"),
                (self.n_not_finite, "NaN or infinity"),
            )
            if n
        ]
        return " and ".join(found) or "whole numbers"


def first_not_count(values: NDArray[np.number]) -> int | None:
    """Find the first of these values, shape (n,), that is not a whole number from 0 on; None where all are."""
    if values.dtype.kind == "u" or not values.size:
        return None
    wrong = values < 0
    if values.dtype.kind == "f":
        wrong |= values != np.floor(values)  # NaN too
        wrong |= np.isinf(values)
    first = int(wrong.argmax())
    return first if wrong[first] else None


def sample_spans(n_rows: int) -> list[tuple[int, int]]:
    """Choose the rows of a sample: all of a few, else blocks spread evenly from the first row to the last."""
    starts = list(range(0, n_rows, BLOCK_ROWS))
    if len(starts) > BLOCKS:
        starts = [int(start) for start in np.linspace(0, n_rows - BLOCK_ROWS, BLOCKS)]
    return [(start, min(start + BLOCK_ROWS, n_rows)) for start in starts]


def summarize_sample(source: Source) -> ValueSummary:
    """Summarize the values of a sample of rows."""
    summary = ValueSummary()
    for start, stop in sample_spans(source.n_cells):
        most = max(source.rows_within(start, SAMPLE_BYTES // BLOCKS, 0), 1)
        summary += ValueSummary.of(source.sample(start, min(stop, start + most)))
    return summary
