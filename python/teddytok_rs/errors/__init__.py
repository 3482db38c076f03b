"""Define the exceptions. `catalogue.KINDS` holds their messages; `build.error` makes them."""

from __future__ import annotations


class TeddytokError(Exception):
    """Base of all errors that teddytok-rs raises on purpose.

    Attributes
    ----------
    kind
        The kind of the error, a key of `catalogue.KINDS`, for programs.
    context
        The facts of the message by name: cell, row, gene, file, key and so on.
    """

    kind: str = ""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.context: dict[str, object] = {}


class ConfigError(TeddytokError, ValueError):
    """An argument, a configuration file or a mapping file is wrong."""


class VocabularyError(TeddytokError, ValueError):
    """The vocabulary cannot be read or lacks a token."""


class DataError(TeddytokError, ValueError):
    """The cells or genes of a source cannot be tokenized as asked."""


class GeneMatchError(DataError):
    """Too few genes of the source are in the vocabulary."""


class SourceError(TeddytokError, OSError):
    """A source cannot be opened or read."""


class OutputError(TeddytokError, OSError):
    """An output folder cannot be written or read."""


class ResourceError(TeddytokError, OSError):
    """The system gives the process no more memory or open files."""


class InternalError(TeddytokError, RuntimeError):
    """A bug in teddytok-rs, not in the data."""


class KernelError(TeddytokError, ValueError):
    """Raised by the Rust extension with (kind, row, column, argument); `pipeline.batches` adds names for the user."""
