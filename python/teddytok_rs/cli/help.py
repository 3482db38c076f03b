"""List the options of a command in groups, in a window of 80 columns."""

from __future__ import annotations

import re

import click

from ..config.kinds import ANNOTATIONS

#: Heading -> the options under it, in this order. Any other stands under *Options*, at the end.
GROUPS: dict[str, tuple[str, ...]] = {
    "Arguments": ("config", "preprocessing", "preset_name"),
    "Genes": (
        "tokenizer_name_or_path", "gene_id_column", "strip_gene_version", "gene_map", "gene_filter",
        "min_gene_overlap", "duplicate_genes",
    ),
    "Cells and values": ("layer", "cell_filter", "bins", "continuous_rank", "write_values"),
    "Raw counts": ("normalize_total", "median_dict", "median_column", "log1p"),
    "Sequences": (
        "max_seq_len", "add_cls", "cls_token_id", "add_eos", "eos_token_id", "include_zero_genes", "truncation_method",
        "pad_length",
        "random_genes", "random_genes_count", "batch_size", "gene_seed",
    ),
    "Annotations and labels": (
        "label_column", "label_names", "add_disease_annotation", "bio_annotations",
        *(f"{kind}_column" for kind in ANNOTATIONS), *(f"{kind}_mapping" for kind in ANNOTATIONS),
        "unmapped_annotations", "obs_columns",
    ),
    "Output": (
        "save_dir", "out", "overwrite", "format", "max_shard_samples", "token_dtype", "write_length", "output_names",
        "report",
    ),
    "Running": ("load_dir", "threads", "chunk_bytes", "fail_fast", "engine", "address"),
    "Messages": ("verbose", "quiet", "as_json", "debug", "version", "_click_default_help", "help"),
}  # fmt: skip
#: Columns for the names of options, before their meaning.
NAMES = 28


class _Examples(click.Command):
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the examples as one more group."""
        if self.epilog:
            formatter.write_paragraph()
            formatter.write_text(self.epilog)


class Command(_Examples):
    """A command whose help lists its options in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options."""
        records = {
            param.name: (_names(param, record[0]), re.sub(r"\s*\[x>=\d+\]", "", record[1]))
            for param in self.get_params(ctx)
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None
        }
        listed = {name for names in GROUPS.values() for name in names}
        groups = {**GROUPS, "Options": tuple(str(name) for name in records if name not in listed)}
        for heading, names in groups.items():
            if rows := [(records[name][0].ljust(NAMES), records[name][1]) for name in names if name in records]:
                with formatter.section(heading):
                    formatter.write_dl(rows, col_max=NAMES)


def _names(option: click.Option, names: str) -> str:
    """Leave the name out that turns a switch off which is off unless it is turned on."""
    switch = option.secondary_opts and "[default: True]" not in (option.help or "")
    return names.partition(" / ")[0] if switch else names


class Group(_Examples, click.Group):
    """Commands with such help."""

    command_class = Command
    group_class = type
