"""List the arguments that the publishers of a model tokenize with, each with where it is published.

All presets start from raw counts. TEDDY's files are on the Hugging Face Hub.
What a preset does not reach of its model is in its ``differs``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..errors.build import error
from .kinds import ANNOTATIONS, PROCESSED

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
    files
        Arguments that name the model's files on the Hugging Face Hub; ``{size}`` is replaced by the size. A mapping is
        taken only where its annotation is written.
    sizes
        Sizes of the model, as in ``teddy-g:70M``; the last is meant where none is named.
    """

    model: str
    settings: dict[str, Setting]
    needs: tuple[str, ...]
    differs: str
    files: dict[str, Setting] = field(default_factory=dict)
    sizes: tuple[str, ...] = ()

    def files_of(self, size: str) -> dict[str, Setting]:
        """List the files of a model's size; of the last, if it is empty."""
        size = size or (self.sizes[-1] if self.sizes else "")
        return {key: replace(file, value=str(file.value).format(size=size)) for key, file in self.files.items()}


_TEDDY_PREPROCESSING = (
    "TEDDY, preprocessing arguments of its tutorial (Merck/TEDDY): normalized_total 10000, log1p false"
)
_TEDDY_LAYER = "raw counts: TEDDY's preprocessing takes raw.X first, and X only if it holds integer counts"
_TEDDY_TOKENS = "TEDDY's tutorial (Merck/TEDDY), tokenization"
_TEDDY = "Merck/TEDDY/teddy"
_TEDDY_FILES = {
    "median_dict": Setting(
        f"{_TEDDY}/data_processing/utils/medians/data/teddy_gene_medians.json", "TEDDY, medians of its training cells"
    ),
    **{
        f"{kind}_mapping": Setting(
            f"{_TEDDY}/data_processing/utils/bio_annotations/data/mappings/all_filtered_{kind}_mapping.json",
            "TEDDY, with bio_annotations",
        )
        for kind in ANNOTATIONS
    },
}
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
    "Geneformer divides by obs['n_counts'], here by the sum of the row, and each step is rounded to float32. It drops "
    "empty cells, leaves the order of equal values open, and replaces retired ids by its own mapping file."
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
        (),
        "Equal values: torch.topk does not define their order, here they are in the order of var.",
        {
            "tokenizer_name_or_path": Setting(f"{_TEDDY}/models/teddy_g/{{size}}", "TEDDY-G, next to its weights"),
            **_TEDDY_FILES,
        },
        ("70M", "160M", "400M"),
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
        (),
        "TEDDY-X is not released: neither weights nor arguments. Give bins if you know its number. "
        "Equal values on an edge fall into the higher bin, where TEDDY's script draws one at random.",
        {
            "tokenizer_name_or_path": Setting(f"{_TEDDY}/tokenizer/gene_freq_tokenizer", "TEDDY, its tokenizer"),
            **_TEDDY_FILES,
        },
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


def preset_names() -> dict[str, tuple[Preset, str]]:
    """List the names of presets, with the preset and the size that each names."""
    return {
        ":".join(filter(None, [name, size])): (preset, size)
        for name, preset in PRESETS.items()
        for size in ("", *preset.sizes)
    }


def fill(name: object, keys: Mapping[str, object]) -> dict[str, object]:
    """Take a preset's arguments where ``keys`` says nothing.

    Raises
    ------
    ConfigError
        If there is no such preset, a file that it needs is not named, or its steps would be taken twice.
    """
    names = preset_names()
    if not isinstance(name, str) or name not in names:
        takes = f"one of {', '.join(map(repr, names))}"
        raise error("config_value", where="", key="preset_name", got=name, expected=takes)
    preset, size = names[name]
    where = f"preset {name!r}: "
    for key in preset.needs:
        if key not in keys:
            takes = "the path of the model's JSON file of gene id -> median, or null for none"
            option = f"--{key.replace('_', '-')}"
            raise error("config_key_missing", where=where, key=key, expected=takes, option=option)
    files = {key: file for key, file in preset.files_of(size).items() if _is_read(key, keys)}
    arguments = {key: setting.value for key, setting in (preset.settings | files).items()} | dict(keys)
    if "pad_length" in preset.settings and "pad_length" not in keys:
        arguments["pad_length"] = arguments["max_seq_len"]
    if arguments["layer"] in {None, *PROCESSED} and arguments.get("normalize_total") is not None:
        problem = "it starts from raw counts, and layers['processed'] holds values that are normalised already"
        advice = "Name the layer of the counts, or set normalize_total and median_dict to null"
        raise error("config_conflict", where=where, problem=problem, advice=advice)
    return arguments


def _is_read(key: str, keys: Mapping[str, object]) -> bool:
    """Return whether a file of a preset has an effect: a mapping only has one where its annotation is written."""
    of_disease = key == "disease_mapping" and keys.get("add_disease_annotation")
    return not key.endswith("_mapping") or bool(keys.get("bio_annotations") or of_disease)
