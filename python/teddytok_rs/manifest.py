"""What a run did in, `teddytok.json` out, and back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from .documents import DocumentError, read_document
from .errors import error

if TYPE_CHECKING:
    from .tokenizer import Expression, Plan

FILE_NAME = "teddytok.json"
#: Arguments that say where, not what: the same run into another folder gives the same manifest.
PLACES = {"load_dir", "save_dir"}


def sha256_of(path: Path) -> str:
    """Compute the checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Shard:
    """One Arrow file of a dataset."""

    file: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a dataset is made of and from. Written beside it as ``teddytok.json``.

    Attributes
    ----------
    path
        The dataset's folder.
    version
        Of teddytok-rs.
    configuration
        All arguments but ``load_dir`` and ``save_dir``.
    gene_seed
        The seed used; None where no random subsets were drawn.
    source
        Name, fingerprint, cells, genes and number type of the source.
    checksums
        sha256 of each file of the vocabulary, of each mapping, and of ``genes.csv``.
    genes
        Genes of the source, kept, dropped; tokens with several genes; share of the expression lost with the dropped.
    annotations
        For each annotation: the obs column, the token id and number of cells of each label, the unmapped labels.
    cls_token
        Id of the CLS token; None where there is none.
    n_tokens
        Tokens written.
    shards
        The Arrow files, in order.
    """

    path: Path
    version: str
    configuration: dict[str, Any]
    gene_seed: int | None
    source: dict[str, Any]
    checksums: dict[str, dict[str, str]]
    genes: dict[str, Any]
    annotations: dict[str, Any]
    cls_token: int | None
    n_tokens: int
    shards: list[Shard]

    @property
    def n_cells(self) -> int:
        """Cells of the dataset."""
        return sum(shard.rows for shard in self.shards)

    @classmethod
    def of(
        cls,
        plan: Plan,
        path: Path,
        *,
        fingerprint: str,
        expression: Expression,
        genes_sha256: str,
        n_tokens: int,
        shards: list[Shard],
    ) -> Self:
        """Describe a finished run."""
        from . import __version__

        report = plan.genes.report
        mappings = dict(plan.annotations.sha256)
        if plan.args.median_dict is not None:
            mappings["median_dict"] = sha256_of(Path(plan.args.median_dict))
        checksums = {
            "vocabulary": plan.vocabulary.sha256,
            "mappings": mappings,
            "files": {"genes.csv": genes_sha256},
        }
        genes = {
            "n_var": report.n_var,
            "kept": report.n_kept,
            "dropped": report.n_dropped,
            "duplicates": {str(token): ids for token, ids in report.duplicates.items()},
            # Rounded to what summing in another order cannot change.
            "expression_lost": round(expression.lost, 6),
        }
        configuration = plan.args.model_dump(mode="json", exclude=PLACES)
        source = {
            "name": plan.source.name,
            "fingerprint": fingerprint,
            "n_cells": plan.source.n_cells,
            "layer": plan.source.layer,
            "dtype": str(plan.source.dtype),
        }
        annotations = {kind: asdict(report) for kind, report in plan.annotations.reports.items()}
        return cls(
            path, __version__, configuration, plan.seed, source, checksums, genes, annotations, plan.cls_token,
            n_tokens, shards,
        )  # fmt: skip

    def to_json(self) -> str:
        """Write as JSON, the same text for the same run."""
        document = {key: value for key, value in asdict(self).items() if key != "path"}
        return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the manifest of a dataset's folder.

        Raises
        ------
        OutputError
            If the folder has none, or it is not one that this package wrote.
        """
        try:
            document = read_document(path / FILE_NAME)
            shards = [Shard(**shard) for shard in document.pop("shards")]
            return cls(path=path, shards=shards, **document)
        except DocumentError as bad:
            reason = f"{FILE_NAME}: {bad}"
        except (TypeError, KeyError, AttributeError) as bad:
            reason = f"{FILE_NAME} is not one that teddytok wrote ({bad})"
        raise error("output_unreadable", path=str(path), reason=reason)
