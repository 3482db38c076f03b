"""List the arguments that the publishers of a model tokenize with, each with where it is published.

All presets start from raw counts. What a preset does not reach of its model is in its ``differs``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors.build import error

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Setting:
    """One argument of a preset."""

    value: bool | int | str | dict[str, str]
    source: str


@dataclass(frozen=True)
class Preset:
    """What is published of a model's tokens.

    Attributes
    ----------
    settings
        Arguments that differ from the package's defaults, or that the model's publishers state.
    needs
        Files that belong to the model in addition to its vocabulary, and that only the user has.
    differs
        In what the model's own tokens differ from those that the preset gives.
    """

    model: str
    settings: dict[str, Setting]
    needs: tuple[str, ...]
    differs: str


_TEDDY_PREPROCESSING = (
    "TEDDY, preprocessing arguments of its tutorial (Merck/TEDDY): normalized_total 10000, log1p false"
)
_TEDDY_LAYER = "raw counts: TEDDY's preprocessing takes raw.X first, and X only if it holds integer counts"
_TEDDY_TOKENS = "TEDDY's tutorial (Merck/TEDDY), tokenization"
_GENEFORMER = "Geneformer, TranscriptomeTokenizer.tokenize_anndata"
_SCGPT = "scGPT, tasks/cell_emb.py (embed_data)"

#: What both versions of Geneformer share.
_GENEFORMER_SETTINGS = {
    "layer": Setting("auto", f"raw counts; {_GENEFORMER} takes them from X"),
    "normalize_total": Setting(10_000, f"{_GENEFORMER}: target_sum=10_000"),
    "log1p": Setting(value=False, source=f"{_GENEFORMER}: none"),
    "duplicate_genes": Setting("sum", "Geneformer, sum_ensembl_ids: counts of one id are added"),
    "include_zero_genes": Setting(value=False, source="Geneformer, tokenize_cell: nonzero genes"),
    "write_values": Setting(value=False, source="Geneformer reads input_ids alone"),
    "write_length": Setting(value=True, source="Geneformer, create_dataset: the column length"),
    "output_names": Setting({"gene_ids": "input_ids"}, "Geneformer, create_dataset: the column input_ids"),
}
_GENEFORMER_DIFFERS = (
    "Geneformer divides in float64 by obs['n_counts'], here it is the sum of the row, in float32. It drops empty cells, "
    "and leaves the order of equal values open. It replaces retired ids by those of its own mapping file."
)

PRESETS: dict[str, Preset] = {
    "teddy-g": Preset(
        "TEDDY-G (70M, 160M, 400M): genes by rank",
        {
            "layer": Setting("auto", _TEDDY_LAYER),
            "normalize_total": Setting(10_000, _TEDDY_PREPROCESSING),
            "log1p": Setting(value=False, source=_TEDDY_PREPROCESSING),
            "max_seq_len": Setting(2048, _TEDDY_TOKENS),
            "pad_length": Setting(2048, _TEDDY_TOKENS),
            "add_cls": Setting(value=False, source=_TEDDY_TOKENS),
            "include_zero_genes": Setting(value=False, source=_TEDDY_TOKENS),
            "bins": Setting(0, _TEDDY_TOKENS),
            "continuous_rank": Setting(value=True, source=_TEDDY_TOKENS),
        },
        ("median_dict",),
        "The order of equal values: torch.topk leaves it open, here it is that of the genes.",
    ),
    "teddy-x": Preset(
        "TEDDY-X: genes and binned values",
        {
            "layer": Setting("auto", _TEDDY_LAYER),
            "normalize_total": Setting(10_000, _TEDDY_PREPROCESSING),
            "log1p": Setting(value=False, source=_TEDDY_PREPROCESSING),
            "max_seq_len": Setting(2048, "as TEDDY-G: one tokenization script for both"),
            "pad_length": Setting(2048, "as TEDDY-G: one tokenization script for both"),
            "add_cls": Setting(value=False, source="as TEDDY-G: one tokenization script for both"),
            "include_zero_genes": Setting(value=False, source="as TEDDY-G: one tokenization script for both"),
            "bins": Setting(51, "scGPT, whose binning TEDDY's script takes over; TEDDY-X's own number is not released"),
            "continuous_rank": Setting(value=False, source="a gene has one value, here its bin"),
        },
        ("median_dict",),
        "TEDDY-X is not released: neither weights nor arguments. Give bins if you know its number. "
        "Equal values on an edge fall into the higher bin, where TEDDY's script draws one at random.",
    ),
    "geneformer-v1": Preset(
        "Geneformer V1 (6 or 12 layers, 30M cells): genes by rank",
        {
            **_GENEFORMER_SETTINGS,
            "max_seq_len": Setting(2048, "Geneformer V1: model_input_size=2048"),
            "add_cls": Setting(value=False, source="Geneformer V1: special_token=False"),
            "add_eos": Setting(value=False, source="Geneformer V1: special_token=False"),
        },
        ("median_dict",),
        _GENEFORMER_DIFFERS,
    ),
    "geneformer-v2": Preset(
        "Geneformer V2 (12 to 20 layers, 104M cells): genes by rank, between CLS and EOS",
        {
            **_GENEFORMER_SETTINGS,
            "max_seq_len": Setting(4096, "Geneformer V2: model_input_size=4096, CLS and EOS included"),
            "add_cls": Setting(value=True, source="Geneformer V2: special_token=True, <cls> first"),
            "add_eos": Setting(value=True, source="Geneformer V2: special_token=True, <eos> last"),
        },
        ("median_dict",),
        _GENEFORMER_DIFFERS,
    ),
    "scgpt": Preset(
        "scGPT (whole-human and its organ models): genes and binned values",
        {
            "layer": Setting("auto", f"counts as they are; {_SCGPT} takes them from X"),
            "bins": Setting(51, "scGPT, data_collator.py: n_bins=51"),
            "max_seq_len": Setting(1200, f"{_SCGPT}: max_length=1200, CLS included"),
            "add_cls": Setting(value=True, source=f"{_SCGPT}: <cls> first"),
            "include_zero_genes": Setting(value=False, source=f"{_SCGPT}: nonzero genes"),
        },
        (),
        "Of a cell with more than 1,199 nonzero genes scGPT draws 1,199 at random after binning all of them; here the "
        "largest are taken, and binned. Genes come by value, not in the order of var. CLS has value 1, not scGPT's pad "
        "value -2. Equal values on an edge fall into the higher bin, where scGPT draws one at random.",
    ),
}


def fill(name: str, keys: Mapping[str, object]) -> dict[str, object]:
    """Take a preset's arguments where ``keys`` says nothing.

    Raises
    ------
    ConfigError
        If there is no such preset, a file that it needs is not named, or its steps would be taken twice.
    """
    if name not in PRESETS:
        takes = f"one of {', '.join(map(repr, PRESETS))}"
        raise error("config_value", where="", key="preset", got=name, expected=takes)
    where = f"preset {name!r}: "
    for key in PRESETS[name].needs:
        if key not in keys:
            takes = "the path of the model's JSON file of gene id -> median, or null for none"
            option = f"--{key.replace('_', '-')}"
            raise error("config_key_missing", where=where, key=key, expected=takes, option=option)
    arguments = {key: setting.value for key, setting in PRESETS[name].settings.items()} | dict(keys)
    if "pad_length" in PRESETS[name].settings and "pad_length" not in keys:
        arguments["pad_length"] = arguments["max_seq_len"]
    if arguments["layer"] == "processed" and arguments.get("normalize_total") is not None:
        problem = "it starts from raw counts, and layers['processed'] holds values that are normalised already"
        advice = "Name the layer of the counts, or set normalize_total and median_dict to null"
        raise error("config_conflict", where=where, problem=problem, advice=advice)
    return arguments
