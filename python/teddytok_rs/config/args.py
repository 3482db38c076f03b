"""Check the arguments that users give as keywords, a dict or a JSON or YAML file: `TokenizationArgs`.

Each field's line of meaning feeds the command line's help, the docs and the error messages.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from ..errors import ConfigError, TeddytokError
from ..errors.build import error
from ..errors.text import TextRepr, nearest
from .files import DocumentError, read_document
from .kinds import OUTPUT_COLUMNS
from .preprocessing import is_preprocessing, with_preprocessing
from .presets import fill, preset_names
from .tables import BadEntryError, Table, TableLike, without_numpy

PathText = Annotated[str, BeforeValidator(lambda path: os.fspath(path) if isinstance(path, os.PathLike) else path)]
Column = Annotated[str, Field(min_length=1)]
OutputColumn = Literal["gene_ids", "values", "length", "bio_annotations", "labels"]
#: A dot would end the name of a member of WebDataset's samples.
OutputName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


def _not_one(bins: int) -> int:
    if bins == 1:
        reason = "one bin has no edge"
        raise ValueError(reason)
    return bins


def _all_different(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names or len(set(names)) < len(names):
        reason = "a name for each class"
        raise ValueError(reason)
    return names


@dataclass(frozen=True)
class Facts:
    """What the package knows of an argument in addition to its type, default and meaning.

    Attributes
    ----------
    takes
        The values that are valid, for messages.
    is_location
        It says where sources are or where output goes: no output depends on it, and it is not recorded.
    is_path
        It names a file or folder. Output depends on the contents, which are recorded by checksum, not on the path.
    is_table
        It may be a dict in place of the file.
    may_differ
        Datasets that differ in it can be joined; true of every path.
    needs
        Options of which one must be set, or the argument changes nothing.
    is_on_hub
        What it names may also be on the Hugging Face Hub, see `mapping.hub`.
    is_note
        It is recorded for readers: other arguments say what is done.
    """

    takes: str
    is_location: bool = False
    is_path: bool = False
    is_table: bool = False
    may_differ: bool = False
    needs: tuple[str, ...] = ()
    is_on_hub: bool = False
    is_note: bool = False


def _field(
    default: object,
    takes: str,
    meaning: str,
    *,
    is_location: bool = False,
    is_path: bool = False,
    is_table: bool = False,
    may_differ: bool = False,
    needs: tuple[str, ...] = (),
    is_on_hub: bool = False,
    is_note: bool = False,
    **checks: Any,
) -> Any:
    """Describe a field: its default, the values that are valid, what it does, and its other `Facts`."""
    is_path = is_path or is_table or is_on_hub
    may_differ = may_differ or is_path or is_note
    facts = Facts(takes, is_location, is_path, is_table, may_differ, needs, is_on_hub, is_note)
    return Field(default, description=meaning, json_schema_extra=asdict(facts), **checks)


#: What names a file, here or on the Hub.
_FILE = "the path of a JSON file, its name on the Hugging Face Hub, or a dict"
#: Options of which one writes tokens of a disease.
_DISEASE = ("bio_annotations", "add_disease_annotation")


class TokenizationArgs(BaseModel):
    """Every argument of a tokenization, checked. Frozen.

    A configuration file written for TEDDY's own script works unchanged; ``null`` means "not set".

    Raises
    ------
    ConfigError
        If a key is unknown or a value is not valid; the message names the key, what it got and what it takes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    preset_name: str | None = _field(
        None,
        f"one of {', '.join(map(repr, preset_names()))}",
        "Model whose arguments are used, unless you set them yourself; 'teddytok presets' lists them.",
        is_note=True,
    )
    # ---- vocabulary and genes
    tokenizer_name_or_path: PathText = _field(
        ...,
        "a folder or file with the vocabulary, or its name on the Hugging Face Hub",
        "Vocabulary: a folder with vocab.txt or vocab.json, one such file, or the name of either on the Hugging Face "
        "Hub (owner/name/folder@revision).",
        is_on_hub=True,
        min_length=1,
    )
    gene_id_column: Column = _field(
        "index",
        "the name of a var column, or 'index'",
        "Where gene ids are: a var column, or 'index' for var_names.",
        may_differ=True,
    )
    strip_gene_version: bool = _field(False, "true or false", "Remove a trailing .N of Ensembl ids before matching.")
    gene_map: PathText | None = _field(
        None,
        "the path of a JSON file, of a CSV or TSV table, or of a 10x features.tsv(.gz)",
        "File of source id -> id of the vocabulary, for genes that are not in it by their own id: JSON, a CSV or TSV "
        "table of these two columns with a header, or a 10x features.tsv; may be packed with gzip.",
        is_path=True,
    )
    gene_filter: Column | None = _field(
        None,
        "the name of a boolean var column",
        "Boolean var column: only its genes are tokenized. Totals of normalize_total are still of all genes.",
    )
    min_gene_overlap: float = _field(
        0.1,
        "a number from 0 to 1",
        "Least share of the source's genes that must be in the vocabulary.",
        may_differ=True,
        ge=0,
        le=1,
    )
    duplicate_genes: Literal["error", "sum", "keep"] = _field(
        "error",
        "'error', 'sum' or 'keep'",
        "What to do where several genes have one token: refuse, add their values, or keep each.",
    )
    # ---- values to read
    layer: Column = _field(
        "processed",
        "the name of a layer, 'X', 'raw' or 'auto'",
        "Where expression values are: a layer's name (or 'layers/NAME'), 'X', 'raw' for raw.X, or 'auto' for the first "
        "of raw.X, layers['counts'] and X that holds counts.",
        may_differ=True,
    )
    normalize_total: float | None = _field(
        None, "a number above 0", "Scale each cell's values to this sum over all genes (TEDDY: 10000).", gt=0
    )
    median_dict: PathText | TableLike | None = _field(
        None,
        _FILE,
        "JSON file, gene id -> median; values are divided by their gene's median.",
        is_table=True,
        is_on_hub=True,
    )
    median_column: Column | None = _field(
        None,
        "the name of a var column, or 'index'",
        "var column of the ids in median_dict, or 'index'. By default the gene ids as they were matched.",
        may_differ=True,
        needs=("median_dict",),
    )
    log1p: bool = _field(False, "true or false", "Take ln(1 + value), after normalize_total and median_dict.")
    cell_filter: Column | None = _field(
        None,
        "a boolean obs column, or an expression on obs columns",
        "Cells to tokenize: a boolean obs column, or an expression such as \"tissue == 'blood' and n_genes > 200\".",
        may_differ=True,
    )
    # ---- sequences
    max_seq_len: int = _field(
        2048, "an integer of at least 1", "Longest sequence, CLS and EOS included.", ge=1, lt=2**31
    )
    add_cls: bool = _field(False, "true or false", "Put the CLS token first, with value 1.")
    cls_token_id: int | None = _field(
        None,
        "an integer from 0 to 2147483647",
        "Id of the CLS token. By default that of the vocabulary.",
        needs=("add_cls",),
        ge=0,
        lt=2**31,
    )
    add_eos: bool = _field(False, "true or false", "Put the EOS token last, with value 0.")
    eos_token_id: int | None = _field(
        None,
        "an integer from 0 to 2147483647",
        "Id of the EOS token. By default that of the vocabulary.",
        needs=("add_eos",),
        ge=0,
        lt=2**31,
    )
    include_zero_genes: bool = _field(False, "true or false", "Keep selected genes of value 0.")
    bins: Annotated[int, AfterValidator(_not_one)] | None = _field(
        None,
        "an integer of at least 2, or 0 for off",
        "Write bin ids instead of values; number of bins (0: off).",
        needs=("write_values",),
        ge=0,
        lt=2**31,
    )
    continuous_rank: bool = _field(
        False, "true or false", "Write ranks, from 1 down to -1, instead of values.", needs=("write_values",)
    )
    random_genes: bool = _field(
        False, "true or false", "Select from a random subset of genes, drawn for each batch of cells."
    )
    random_genes_count: int | None = _field(
        None,
        "an integer of at least 1",
        "Genes in each random subset. By default as many as a sequence holds.",
        needs=("random_genes",),
        ge=1,
        lt=2**31,
    )
    batch_size: int = _field(
        512,
        "an integer of at least 1",
        "Consecutive cells that share a random subset.",
        needs=("random_genes",),
        ge=1,
        lt=2**31,
    )
    gene_seed: int | None = _field(
        None,
        "an integer from 0 to 18446744073709551615",
        "Seed of the random subsets. By default one is drawn, and recorded.",
        may_differ=True,
        needs=("random_genes",),
        ge=0,
        lt=2**64,
    )
    truncation_method: Literal["max"] = _field("max", "'max'", "How long cells are cut: the largest values stay.")
    pad_length: int | None = _field(
        None,
        "an integer of at least 1",
        "Length that a collator pads to; written sequences are not padded.",
        ge=1,
        lt=2**31,
    )
    # ---- annotations and labels
    bio_annotations: bool = _field(False, "true or false", "Write the tokens of disease, tissue, cell type and sex.")
    disease_mapping: PathText | TableLike | None = _field(
        None, _FILE, "JSON file, disease -> token id or token.", is_table=True, is_on_hub=True, needs=_DISEASE
    )
    tissue_mapping: PathText | TableLike | None = _field(
        None,
        _FILE,
        "JSON file, tissue -> token id or token.",
        is_table=True,
        is_on_hub=True,
        needs=("bio_annotations",),
    )
    cell_mapping: PathText | TableLike | None = _field(
        None,
        _FILE,
        "JSON file, cell type -> token id or token.",
        is_table=True,
        is_on_hub=True,
        needs=("bio_annotations",),
    )
    sex_mapping: PathText | TableLike | None = _field(
        None, _FILE, "JSON file, sex -> token id or token.", is_table=True, is_on_hub=True, needs=("bio_annotations",)
    )
    disease_column: Column = _field(
        "disease", "the name of an obs column", "obs column of the disease.", may_differ=True, needs=_DISEASE
    )
    tissue_column: Column = _field(
        "tissue", "the name of an obs column", "obs column of the tissue.", may_differ=True, needs=("bio_annotations",)
    )
    cell_column: Column = _field(
        "cell_type",
        "the name of an obs column",
        "obs column of the cell type.",
        may_differ=True,
        needs=("bio_annotations",),
    )
    sex_column: Column = _field(
        "sex", "the name of an obs column", "obs column of the sex.", may_differ=True, needs=("bio_annotations",)
    )
    unmapped_annotations: Literal["unk", "error"] = _field(
        "unk", "'unk' or 'error'", "What to do with a label that has no token.", may_differ=True, needs=_DISEASE
    )
    label_column: Column | None = _field(
        None, "the name of an obs column", "obs column to write as labels.", may_differ=True
    )
    label_names: PathText | Annotated[tuple[str, ...], AfterValidator(_all_different)] | None = _field(
        None,
        "a list of different names, or the path of a JSON file with one",
        "JSON list of class names, the first is class 0. By default the labels of the whole column, sorted.",
        is_path=True,
        needs=("label_column",),
        min_length=1,
    )
    add_disease_annotation: bool = _field(
        False, "true or false", "Write the disease token as labels, in place of label_column."
    )
    obs_columns: tuple[Column, ...] = _field(
        (), "a list of obs columns", "Further obs columns to copy; 'index' gives cell_id."
    )
    # ---- output
    format: Literal["arrow", "parquet", "webdataset"] = _field(
        "arrow",
        "'arrow', 'parquet' or 'webdataset'",
        "Format of the files: Arrow, for datasets and memory-mapping; Parquet; or WebDataset's tar files.",
    )
    max_shard_samples: int = _field(
        10_000, "an integer of at least 1", "Cells in each file.", may_differ=True, ge=1, lt=2**31
    )
    write_values: bool = _field(True, "true or false", "Write the values column.")
    write_length: bool = _field(False, "true or false", "Write the number of tokens of each sequence, as length.")
    output_names: dict[OutputColumn, OutputName] = _field(
        {},
        f"a name (letters, digits, _) for some of {', '.join(OUTPUT_COLUMNS)}",
        "Other names for output columns, such as input_ids for gene_ids.",
    )
    token_dtype: Literal["int32", "uint16", "int64"] = _field(
        "int32", "'int32', 'uint16' or 'int64'", "Integer type of the tokens."
    )
    load_dir: PathText | None = _field(
        None, "the path of a folder", "Folder the command line takes sources from when none is named.", is_location=True
    )
    save_dir: PathText | None = _field(None, "the path of a folder", "Folder to write to.", is_location=True)

    if not TYPE_CHECKING:  # checkers see the fields' own signature

        def __init__(self, /, **keys: object) -> None:
            try:
                super().__init__(**_set_keys(_with_preset(keys)))
            except ValidationError as exc:
                raise _config_error(exc) from None

    @model_validator(mode="after")
    def _one_value_a_gene(self) -> Self:
        if self.n_bins and self.continuous_rank:
            both = "bins and continuous_rank are both set, but a gene has one value"
            raise _conflict(both, "Set one of them", "bins", "continuous_rank")
        return self

    @model_validator(mode="after")
    def _special_tokens_fit(self) -> Self:
        if self.n_selected < 0:
            problem = f"max_seq_len = {self.max_seq_len} has no place for CLS and EOS"
            raise _conflict(problem, "Set max_seq_len to 2 or more", "max_seq_len", "add_cls", "add_eos")
        return self

    @model_validator(mode="after")
    def _columns_have_different_names(self) -> Self:
        names = [self.output_name(column) for column in OUTPUT_COLUMNS]
        taken = next((name for name in names if names.count(name) > 1 or name == "attention_mask"), None)
        if taken is not None:
            problem = f"output_names gives a column the name {taken!r}, which another column has"
            raise _conflict(problem, "Choose another name", "output_names")
        return self

    @model_validator(mode="after")
    def _padding_holds_a_sequence(self) -> Self:
        if self.pad_length is not None and self.pad_length < self.max_seq_len:
            shorter = f"pad_length = {self.pad_length:,} is smaller than max_seq_len = {self.max_seq_len:,}"
            advice = "Set pad_length to max_seq_len or more, or leave it out"
            raise _conflict(shorter, advice, "pad_length", "max_seq_len")
        return self

    @property
    def n_bins(self) -> int:
        """Number of bins; 0 where binning is off."""
        return self.bins or 0

    @property
    def n_selected(self) -> int:
        """Most genes a sequence can hold: ``max_seq_len`` less the CLS and EOS tokens."""
        return self.max_seq_len - self.n_special

    @property
    def n_special(self) -> int:
        """Number of special tokens of each sequence: CLS and EOS."""
        return self.add_cls + self.add_eos

    def output_name(self, column: str) -> str:
        """Return the name that one of the package's own columns has in the output."""
        return self.output_names.get(cast("OutputColumn", column), column)

    def replace(self, **keys: object) -> TokenizationArgs:
        """Return a copy with other values for ``keys``, validated again.

        Raises
        ------
        ConfigError
            If a key is unknown or a value is not valid.
        """
        return self._of({**self._given_for(keys), **keys})

    def _given_for(self, keys: Mapping[str, object]) -> dict[str, object]:
        """List the arguments as a preset takes them that is named in ``keys``, or that they are of."""
        if self.preset_name is None:
            return self.model_dump(exclude_unset=keys.get("preset_name") is not None)
        if keys.get("preset_name", self.preset_name) != self.preset_name:
            problem = f"preset_name = {keys['preset_name']!r} is given to arguments of preset {self.preset_name!r}"
            raise error("config_conflict", where="", problem=problem, advice="Give it to those that you set yourself")
        given = self.model_dump()
        if self.pad_length == self.max_seq_len and "max_seq_len" in keys:
            given["pad_length"] = keys["max_seq_len"]
        if not (self.bio_annotations or self.add_disease_annotation):
            # The mappings are not set yet; they are the preset's where ``keys`` asks for annotations.
            given = {key: value for key, value in given.items() if not key.endswith("_mapping") or value is not None}
        return given

    def _rows(self) -> tuple[str, list[tuple[str, str]]]:
        fields = type(self).model_fields
        changed = [(key, repr(value)) for key, value in self if value != fields[key].default]
        return f"TokenizationArgs, {len(fields) - len(changed)} other arguments at their defaults", changed

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    __repr__ = TextRepr.__repr__
    __str__ = TextRepr.__repr__
    _repr_html_ = TextRepr._repr_html_

    def __dir__(self) -> list[str]:
        ours = [name for name in vars(type(self)) if not name.startswith(("_", "model_"))]
        return sorted({*type(self).model_fields, *ours})

    @classmethod
    def load(
        cls,
        args: ArgsLike,
        /,
        *,
        preprocessing: Mapping[str, object] | str | os.PathLike[str] | None = None,
        **keys: object,
    ) -> TokenizationArgs:
        """Take arguments in any of their forms.

        Parameters
        ----------
        args
            A `TokenizationArgs`, a dict, or the path of a JSON or YAML file.
        preprocessing
            The configuration of TEDDY's own preprocessing, a dict or the path of a file, to do it in the same pass.
        keys
            Arguments that override those in `args`.

        Raises
        ------
        ConfigError
            If the file cannot be read, a key is unknown or a value is not valid.
        """
        if isinstance(args, TokenizationArgs):
            if preprocessing is None:
                return args.replace(**keys) if keys else args
            if args.preset_name is not None:
                problem = f"preprocessing is given to arguments of preset {args.preset_name!r}"
                advice = "Give it to TokenizationArgs.preset, which it overrides"
                raise error("config_conflict", where="", problem=problem, advice=advice)
            args = args.model_dump(exclude_unset=True)
        return cls._read(args, keys, preprocessing)

    @classmethod
    def preset(
        cls,
        name: str,
        args: Mapping[str, object] | str | os.PathLike[str] | None = None,
        /,
        *,
        preprocessing: Mapping[str, object] | str | os.PathLike[str] | None = None,
        **keys: object,
    ) -> TokenizationArgs:
        """Take the arguments that a model's publishers tokenize with.

        Parameters
        ----------
        name
            ``"teddy-g"``, ``"teddy-g:160M"`` for one of its sizes, ``"teddy-x"``, ``"geneformer-v1"``,
            ``"geneformer-v2"`` or ``"scgpt"``; ``preset_name`` in ``args`` does the same.
        args
            A dict, or the path of a JSON or YAML file, that overrides the preset.
        preprocessing
            As for `load`; it overrides the preset too.
        keys
            Arguments that override both.

        Raises
        ------
        ConfigError
            If there is no such preset, a file of the model is not named, or as `load` does.
        """
        return cls._read({} if args is None else args, {**keys, "preset_name": name}, preprocessing)

    @classmethod
    def _of(cls, keys: Mapping[str, Any]) -> Self:
        """Check arguments, whose types are as anybody gave them."""
        return cls(**keys)

    @classmethod
    def _read(
        cls,
        args: Mapping[str, object] | str | os.PathLike[str],
        keys: dict[str, object],
        preprocessing: Mapping[str, object] | str | os.PathLike[str] | None = None,
    ) -> Self:
        """Join a dict or a file with the keys that override it."""
        if isinstance(args, str | os.PathLike):
            path = Path(args)
            in_file = {str(key): value for key, value in _read_config(path).items()}
            if is_preprocessing(in_file):
                problem = "it is a configuration of TEDDY's preprocessing"
                advice = "Give it as --preprocessing, in Python as preprocessing=, next to the one for tokenizing"
                raise error("config_conflict", where=f"{path}: ", problem=problem, advice=advice)
            if preprocessing is not None:
                keys = with_preprocessing(preprocessing, in_file, keys)
            try:
                return cls._of(in_file | keys)
            except ConfigError as exc:
                if exc.context.get("key") in keys or exc.context.get("where"):
                    raise  # given next to the file, not in it
                where = f"{path}: "
                if isinstance(together := exc.context.get("keys"), list):
                    file_keys = [key for key in together if key in in_file and key not in keys]
                    if not file_keys:
                        raise
                    where = where if len(file_keys) == len(together) else f"{path} ({', '.join(file_keys)}): "
                raise error(exc.kind, **{**exc.context, "where": where}) from None
        if not hasattr(args, "keys"):
            takes = "a TokenizationArgs, a dict or the path of a file"
            raise error("config_value", where="", key="args", got=args, expected=takes)
        if preprocessing is not None:
            keys = with_preprocessing(preprocessing, args, keys)
        return cls._of({str(key): value for key, value in {**args, **keys}.items()})


#: Name of each argument -> its facts.
FACTS = {
    name: Facts(**cast("dict[str, Any]", field.json_schema_extra))
    for name, field in TokenizationArgs.model_fields.items()
}
#: Arguments that say where, not what: the same run into another folder gives the same manifest.
LOCATIONS = {name for name, facts in FACTS.items() if facts.is_location}
#: Arguments that name files. What is in them counts, not where they are.
PATHS = {name for name, facts in FACTS.items() if facts.is_path}
#: Those of which what is in the file may be given as a dict.
TABLES = {name for name, facts in FACTS.items() if facts.is_table}
#: Those of `PATHS` that may also be on the Hugging Face Hub, in order.
ON_HUB = [name for name, facts in FACTS.items() if facts.is_on_hub]
#: Arguments that are recorded, and on which no output depends.
NOTES = {name for name, facts in FACTS.items() if facts.is_note}
#: Arguments in which datasets that are joined may differ; in any other, their sequences mean different things.
MAY_DIFFER = {name for name, facts in FACTS.items() if facts.may_differ}
#: Name of each argument that has a default -> the default, as JSON holds it.
DEFAULTS: dict[str, object] = {
    name: list(field.default) if isinstance(field.default, tuple) else field.default
    for name, field in TokenizationArgs.model_fields.items()
    if not field.is_required()
}


def _conflict(problem: str, advice: str, *keys: str) -> PydanticCustomError:
    """Make the error of arguments that contradict each other; see `_config_error`."""
    return PydanticCustomError("conflict", "{problem}", {"problem": problem, "advice": advice, "keys": list(keys)})


def recorded(args: TokenizationArgs) -> dict[str, object]:
    """List all arguments as manifests record them: those that a run depends on, tables by their checksum."""
    tables = {key: value.recorded for key, value in args if isinstance(value, Table)}
    return args.model_dump(mode="json", exclude=LOCATIONS | tables.keys()) | tables


def _with_preset(keys: dict[str, object]) -> dict[str, object]:
    """Add the arguments of the preset that is named, if any."""
    return keys if keys.get("preset_name") is None else fill(keys["preset_name"], keys)


def _set_keys(keys: dict[str, object]) -> dict[str, object]:
    """Drop keys that are None ("not set"); turn NumPy scalars into Python's, lists into tuples, dicts into tables."""
    plain: dict[str, object] = {}
    for key, value in keys.items():
        if value is None and key in TokenizationArgs.model_fields:
            continue
        value = without_numpy(value)  # noqa: PLW2901
        if isinstance(value, Mapping) and not isinstance(value, Table) and key in TABLES:
            try:
                value = Table(value)  # noqa: PLW2901
            except BadEntryError as exc:
                raise error("config_value", where="", key=key, got=exc.args[0], expected=FACTS[key].takes) from None
        plain[key] = tuple(value) if isinstance(value, list) else value
    return plain


def _read_config(path: Path) -> dict[object, object]:
    try:
        document = read_document(path, stream=True)
    except DocumentError as exc:
        raise error("config_file", file=str(path), reason=exc) from None
    if not isinstance(document, dict):
        reason = "it is empty" if document is None else f"it holds a {type(document).__name__}"
        raise error("config_file", file=str(path), reason=reason)
    return document


def _config_error(validation: ValidationError) -> TeddytokError:
    """Format an error: all unknown keys before the first invalid value, as a typo often causes both."""
    problem = min(validation.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    if problem["type"] == "conflict":
        return error("config_conflict", where="", **problem["ctx"])
    key = str(problem["loc"][0] if problem["loc"] else problem["input"])  # a key that is not valid text has no place
    fields = TokenizationArgs.model_fields
    if not problem["loc"] or problem["type"] == "extra_forbidden":
        unknown = [key, *(str(it["loc"][0]) for it in validation.errors() if it["type"] == "extra_forbidden")]
        unknown = list(dict.fromkeys(unknown))
        others = "".join(f", {other!r}{nearest(other, fields)}" for other in unknown[1:])
        return error("config_key_unknown", where="", key=key, nearest=nearest(key, fields) + others)
    expected = FACTS[key].takes
    if problem["type"] == "missing":
        return error("config_key_missing", where="", key=key, expected=expected, option=f"--{key.replace('_', '-')}")
    return error("config_value", where="", key=key, got=problem["input"], expected=expected)


#: What users give as arguments: a `TokenizationArgs`, a dict of its fields, or the path of a JSON or YAML file.
ArgsLike: TypeAlias = TokenizationArgs | Mapping[str, object] | str | os.PathLike[str]
