"""Read cells as PyTorch datasets: from written datasets, memory-mapped, or tokenized on the fly."""

from __future__ import annotations

import operator
import os
import sys
from collections import OrderedDict
from contextlib import closing, contextmanager, suppress
from errno import EMFILE, ENFILE, ENOMEM
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from ..config.args import TokenizationArgs
from ..corpus.classes import fix_classes
from ..corpus.manifest import find_datasets
from ..errors.build import error, system_error
from ..errors.text import Rows, TextRepr, count, some
from ..mapping.inputs import fetch_inputs
from ..mapping.vocabulary import Vocabulary, load_vocabulary
from ..output.arrow import check_mapped_batch, map_arrow
from ..output.compatibility import Columns, Joined, check_mapped, meaning
from ..output.dataset_info import read_features
from ..output.manifest import Manifest
from ..output.vocabulary import dataset_vocabulary
from ..pipeline.batches import tokenize_batches
from ..pipeline.plan import Plan, build_plan
from ..pipeline.resources import CHUNK_BYTES, Resources
from ..pipeline.schema import schema_of
from ..pipeline.warnings import collect_warnings, log_warnings
from ..sources.files import closed_on_error
from ..sources.identity import stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from ..config.args import ArgsLike
    from ..mapping.annotations import ArrowArray
    from ..output.manifest import Shard
    from ..sources.protocol import Source

PathLike = str | os.PathLike[str]
Cell = dict[str, Any]

#: Consecutive cells that are read and tokenized together, then mixed with others: many enough that a read and a call
#: cost little a cell, few enough that a training step seldom waits for them.
BLOCK_CELLS = 256

#: Shards that a `WrittenDataset` keeps mapped in a process: a quarter of the maps that Linux allows one by default.
MAX_MAPPED = 16_384

#: Workers whose iterations are counted apart.
_COUNTERS = 1024


class WrittenDataset(TextRepr, Dataset):  # type: ignore[misc]
    """The cells of written datasets, memory-mapped, by number.

    It can be pickled or forked into workers, which map the files again, and read by several threads.

    Parameters
    ----------
    folders
        A folder that `tokenize_to_disk` wrote; a folder of such folders, taken in the order of their names, of a corpus
        those that ``corpus.json`` lists as finished; or a list of these.

    Raises
    ------
    OutputError
        If a folder is not a finished dataset or has another format than Arrow, a shard is missing or has another length
        than was written, or the datasets differ in their vocabulary, mappings, columns or in an argument that changes
        what a sequence means. Their lists of class names may differ where one is a prefix of the other. When a cell is
        read: if its shard is damaged so that it cannot be read. A number that was changed where it is stored is not
        noticed: `verify` checks every byte.
    ResourceError
        When a cell is read: if the system gives the process no more memory or open files.

    Attributes
    ----------
    label_names
        Names of the classes of ``labels`` by their numbers, the longest list of the datasets; empty where there are
        none.
    output_names
        Other names that columns have, by their usual ones.
    """

    def __init__(self, folders: PathLike | Sequence[PathLike]) -> None:
        folders = [folders] if isinstance(folders, str | os.PathLike) else folders
        self.manifests = [Manifest.read(folder) for given in folders for folder in find_datasets(Path(given))]
        if not self.manifests:
            raise error("no_sources", where=" to WrittenDataset")
        self.pad_length: int | None = self.manifests[0].args.pad_length
        self.output_names = self.manifests[0].args.output_names
        self._shards = [(manifest.path, shard) for manifest in self.manifests for shard in manifest.shards]
        self._starts = np.cumsum([0, *(shard.rows for _, shard in self._shards)])[:-1]
        self._n_cells = sum(shard.rows for _, shard in self._shards)
        self._open: OrderedDict[int, _MappedShard] = OrderedDict()
        for folder, shard in self._shards:
            check_mapped(folder, shard)
        joined = Joined()
        for manifest in self.manifests:
            joined.add(manifest.path, meaning(manifest))
        self.label_names = joined.label_names
        described = read_features(next((manifest for manifest in self.manifests if manifest.shards), self.manifests[0]))
        self._schema = schema_of(described).remove_metadata()  # most of it would be the names of classes

    def __len__(self) -> int:
        return self._n_cells

    def __getitem__(self, index: int) -> Cell:
        index = operator.index(index)
        index += self._n_cells if index < 0 else 0
        if not 0 <= index < self._n_cells:
            raise IndexError(index)
        shard = int(self._starts.searchsorted(index, side="right")) - 1
        return self._mapped(shard).cell(index - int(self._starts[shard]))

    def _mapped(self, number: int) -> _MappedShard:
        """Map a shard, or find it among those that are mapped; several threads may do so at a time."""
        shard = self._open.get(number)
        if shard is None:
            shard = self._open[number] = _MappedShard(*self._shards[number], self._schema)
            while len(self._open) > MAX_MAPPED:
                self._open.popitem(last=False)
        else:
            with suppress(KeyError):  # another thread needed the place
                self._open.move_to_end(number)
        return shard

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": OrderedDict()}

    def _rows(self) -> tuple[str, Rows]:
        title = f"WrittenDataset of {count(len(self), 'cell')}: {count(len(self.manifests), 'dataset')}"
        return title, [(manifest.path.name, count(manifest.n_cells, "cell")) for manifest in self.manifests]

    @property
    def special_tokens(self) -> dict[str, int]:
        """Role (``"pad"``, ``"mask"``, ...) -> id of each special token."""
        return self.manifests[0].special_tokens or self.load_vocabulary().special_ids

    def load_vocabulary(self) -> Vocabulary:
        """Read the vocabulary of the datasets: its copy in their folder, or the path in their configuration."""
        return dataset_vocabulary(self.manifests[0])


class _MappedShard:
    """A shard that is mapped into memory, each of whose record batches is checked before a cell of it is read.

    Raises
    ------
    OutputError
        If it is damaged, or the system cannot map it.
    """

    def __init__(self, folder: Path, shard: Shard, schema: pa.Schema) -> None:
        check_mapped(folder, shard)
        self._folder, self._file = folder, shard.file
        with self._reading():
            self._batches = map_arrow(folder / shard.file, schema, shard.bytes, shard.rows)
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])[:-1]
        self._columns: list[_Columns | None] = [None] * len(self._batches)

    def cell(self, row: int) -> Cell:
        """Copy a cell out."""
        number = int(self._starts.searchsorted(row, side="right")) - 1
        columns = self._columns[number]
        if columns is None:
            with self._reading():
                check_mapped_batch(self._batches[number])
            columns = self._columns[number] = _Columns(self._batches[number])
        return columns.cell(row - int(self._starts[number]))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, pa.ArrowException) as exc:
            # Arrow gives the number of the system's error to some exceptions, but its text to all.
            numbers = (number for number in (EMFILE, ENFILE, ENOMEM) if os.strerror(number) in str(exc))
            refused = OSError(number, os.strerror(number)) if (number := next(numbers, None)) else exc
            path = str(self._folder)
            raise system_error("file_damaged", refused, path=path, file=self._file) from None


class _Columns:
    """The columns of a record batch as NumPy views, one cell of which is a few slices."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.lists: list[tuple[str, NDArray[np.int32], NDArray[np.generic], np.dtype[np.generic]]] = []
        self.plain: list[tuple[str, ArrowArray]] = []
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if isinstance(column, pa.ListArray):
                items = column.values.to_numpy()
                # What PyTorch computes with: it has no operation on uint16.
                dtype = np.dtype(np.int32) if items.dtype == np.uint16 else items.dtype
                self.lists.append((name, column.offsets.to_numpy(), items, dtype))
            else:
                self.plain.append((name, column))

    def cell(self, row: int) -> Cell:
        """Copy one cell out: the views are read-only, and a few of them would keep a whole batch in memory."""
        cell: Cell = {
            name: torch.from_numpy(items[offsets[row] : offsets[row + 1]].astype(dtype))
            for name, offsets, items, dtype in self.lists
        }
        for name, column in self.plain:
            cell[name] = column[row].as_py()
        return cell


class OnTheFlyDataset(TextRepr, IterableDataset):  # type: ignore[misc]
    """The cells of h5ad files and zarr stores, tokenized while they are iterated over.

    Each cell's sequence is bit-identical to the one that `tokenize_to_disk` writes. The cells are distributed over the
    ranks of ``torch.distributed`` and the workers of each rank's ``DataLoader``; each is read once per epoch.

    Parameters
    ----------
    sources
        Path of an ``.h5ad`` file or ``.zarr`` store, URL of a SOMA query, or a list of these; each worker opens them.
    args
        As `tokenize`, or the path of a JSON or YAML file. With ``random_genes`` a ``gene_seed`` that is not set is
        drawn once, for all workers and epochs, and the classes of ``label_column`` are numbered over all sources;
        ``dataset.args`` has both.
    seed
        Seed of the order.
    shuffle
        Put blocks of 256 consecutive cells in random order, then let cells swap places within a buffer. Otherwise they
        come in the order of the sources.
    buffer_cells
        Cells that the buffer of a worker holds.
    drop_last
        Where not all ranks can have equally many cells: leave out the few that are over (True), as
        ``DistributedDataParallel`` needs, which would wait for ever for a rank that ends early; or give some ranks one
        more (False). To leave that open is an error then.
    split_by_rank
        Give each rank its part of the cells. False gives every rank all cells, in the same order: for frameworks that
        split what an iterable dataset gives among the ranks, as accelerate and the Trainer of Hugging Face do.

    Notes
    -----
    The order depends on the sources, ``seed``, the epoch, ``buffer_cells`` and the numbers of ranks and workers alone.
    `set_epoch` chooses the epoch, and with it which rank and worker has which cells. Without it, each further iteration
    changes the order in which a rank's worker gives its cells, but not which they are, so that no cell is lost where
    some rank or worker has begun more iterations than another.

    All workers but the last have a multiple of 256 cells, so that PyTorch's ``len(loader)`` counts the batches where
    the batch size divides 256. Otherwise each worker may end with a short batch that it does not count.

    Attributes
    ----------
    label_names
        Names of the classes in ``labels``, by their numbers; empty where ``labels`` are not classes.
    output_names
        Other names that columns have, by their usual ones.

    Raises
    ------
    ConfigError
        If ``args`` or ``drop_last`` leave open what all ranks must agree on, or accelerate is about to split among
        ranks what is split already.
    OutputError
        If a column means something else in another source, such as classes of other names.
    SourceError, VocabularyError, DataError
        As `tokenize`.
    """

    def __init__(
        self,
        sources: PathLike | Sequence[PathLike],
        args: ArgsLike | PathLike,
        *,
        seed: int = 0,
        shuffle: bool = True,
        buffer_cells: int = 4096,
        drop_last: bool | None = None,
        split_by_rank: bool = True,
    ) -> None:
        given = sources if isinstance(sources, list | tuple) else [sources]
        self.sources: list[str] = []
        for source in given:
            if not isinstance(source, str | os.PathLike):
                got, expected = type(source).__name__, "paths of .h5ad files or .zarr stores, which workers can open"
                raise error("config_value", where="", key="sources", got=got, expected=expected)
            self.sources.append(os.fspath(source))
        for key, number, least in (("seed", seed, 0), ("buffer_cells", buffer_cells, 1)):
            if not hasattr(number, "__index__") or isinstance(number, bool) or not least <= number < 2**64:
                raise error("config_value", where="", key=key, got=number, expected=f"integers {least} to {2**64 - 1}")
        self.args = fetch_inputs(TokenizationArgs.load(args))
        self.pad_length = self.args.pad_length
        self.output_names: dict[str, str] = dict(self.args.output_names.items())
        self.seed, self.shuffle, self.buffer_cells, self.drop_last = seed, shuffle, buffer_cells, drop_last
        self._plans: dict[tuple[int, int], Plan] = {}
        self.split_by_rank = split_by_rank
        self._rank = (0, 1)
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        #: Iterations that each worker has begun since `set_epoch`; workers that end leave their number to the next.
        self._n_started = torch.zeros(_COUNTERS, dtype=torch.int64).share_memory_()
        if not self.sources:
            raise error("no_sources", where=" to OnTheFlyDataset")
        self.args, _ = fix_classes(self.sources, self.args)
        self._seed_was_drawn = self.args.random_genes and self.args.gene_seed is None
        joined, blocks, self._stamps = Joined(), [], []
        logged: set[str] = set()
        for number, path in enumerate(self.sources):
            plan = build_plan(path, self.args)
            with closing(plan.source):
                if plan.seed is not None:
                    self.args = TokenizationArgs.load(self.args, gene_seed=plan.seed)
                log_warnings(collect_warnings(plan), logged)
                joined.add(path, {"columns": Columns.of(plan.schema, self.args.label_column)})
                starts = np.arange(0, len(plan.cells), BLOCK_CELLS)
                stops = np.minimum(starts + BLOCK_CELLS, len(plan.cells))
                blocks.append(np.stack([np.full_like(starts, number), starts, stops], axis=1))
                self._stamps.append(stamp(plan.source))
        self.label_names = joined.label_names
        self._blocks = np.concatenate(blocks)
        self._share(0, 1)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the epoch that begins next, the same on all ranks; it reaches persistent workers too."""
        self._epoch.fill_(operator.index(epoch))
        self._n_started.zero_()
        self._refuse_second_split()  # here too: workers do not see what iterates over them

    def __len__(self) -> int:
        return int(np.diff(self._share(0, 1))[0])

    @property
    def special_tokens(self) -> dict[str, int]:
        """Role (``"pad"``, ``"mask"``, ...) -> id of each special token."""
        return self.load_vocabulary().special_ids

    def load_vocabulary(self) -> Vocabulary:
        """Read the vocabulary that ``args`` name."""
        return load_vocabulary(self.args.tokenizer_name_or_path)

    def __iter__(self) -> Iterator[Cell]:
        self._refuse_second_split()
        worker = get_worker_info()
        number, n_workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        first, last = self._share(number, n_workers)
        if not self.shuffle:
            return self._cells(_part_of(self._blocks, first, last))
        rank = self._parts()[0]
        counter = (rank * n_workers + number) % _COUNTERS
        repeat = int(self._n_started[counter])
        self._n_started[counter] = repeat + 1
        key = np.array([self.seed, int(self._epoch)], dtype=np.uint64)
        blocks = _part_of(_shuffled(self._blocks, np.random.Philox(key=key)), first, last)
        bits = np.random.Philox(key=key, counter=[0, repeat, number + 1, rank])
        if repeat:
            blocks = _shuffled(blocks, bits)
        return _mixed(self._cells(blocks), self.buffer_cells, bits)

    def _share(self, worker: int, n_workers: int) -> tuple[int, int]:
        """Return the first and last cell of this rank's worker, counted in the order of the epoch."""
        n_cells = int((self._blocks[:, 2] - self._blocks[:, 1]).sum())
        if self._rank_now()[1] > 1 and self._seed_was_drawn:
            problem = "random_genes without gene_seed draws other genes on each rank"
            raise error("config_conflict", where="", problem=problem, advice="Set gene_seed")
        rank, n_ranks = self._parts()
        if n_cells % n_ranks:
            if self.drop_last is None:
                problem = f"{n_cells:,} cells cannot be shared out evenly among {n_ranks} ranks"
                advice = "Set drop_last to True (leave out the few that are over) or False (some ranks have one more)"
                raise error("config_conflict", where="", problem=problem, advice=advice)
            n_cells -= n_cells % n_ranks if self.drop_last else 0
        start, stop = n_cells * rank // n_ranks, n_cells * (rank + 1) // n_ranks
        n_units = -(-(stop - start) // BLOCK_CELLS)
        first, last = (n_units * part // n_workers * BLOCK_CELLS for part in (worker, worker + 1))
        return start + first, min(start + last, stop)

    def _cells(self, blocks: NDArray[np.int64]) -> Iterator[Cell]:
        """Tokenize blocks, each of which is the number of its source, its first cell and its end."""
        try:
            for source, start, stop in blocks.tolist():
                for batch in tokenize_batches(self._plan(source), [(start, stop)], resources=Resources(1, CHUNK_BYTES)):
                    columns = _Columns(batch.record_batch)
                    yield from map(columns.cell, range(batch.record_batch.num_rows))
        except Exception:
            self._each_source(lambda source: source.close())  # which a traceback would keep open
            raise
        finally:
            self._each_source(lambda source: source.release())

    def _each_source(self, do: Callable[[Source], None]) -> None:
        """Do something to each source that this process has."""
        for (process, _), plan in self._plans.items():
            if process == os.getpid():
                do(plan.source)

    def _plan(self, number: int) -> Plan:
        """Open a source for this process: HDF5 files that a parent has open must not be read here."""
        key = os.getpid(), number
        if key not in self._plans:
            plan = build_plan(self.sources[number], self.args)
            with closed_on_error(plan.source):
                if stamp(plan.source) != self._stamps[number]:
                    raise error("source_changed", path=self.sources[number])
            self._plans[key] = plan
        return self._plans[key]

    def _parts(self) -> tuple[int, int]:
        """Return the part of the cells that this rank has, and the number of parts."""
        return self._rank_now() if self.split_by_rank else (0, 1)

    def _refuse_second_split(self) -> None:
        """Refuse that accelerate splits the cells of a rank among the ranks again, which would lose most of them."""
        if self.split_by_rank and self._rank_now()[1] > 1 and any(loads is self for loads in _split_by_accelerate()):
            problem = "accelerate, which Hugging Face's Trainer uses too, splits the cells of each rank among the ranks"
            raise error("config_conflict", where="", problem=problem, advice="Set split_by_rank = False")

    def _rank_now(self) -> tuple[int, int]:
        """Look up rank and number of ranks; a spawned worker does not know them but from its parent."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return self._rank

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_plans": {}, "_rank": self._rank_now()}

    def _rows(self) -> tuple[str, Rows]:
        order = f"shuffled, seed {self.seed}" if self.shuffle else "that of the sources"
        rows = [("sources", some(self.sources)), ("order", order)]
        return f"OnTheFlyDataset of {count(len(self.sources), 'source')}", [*rows, *self.args._rows()[1]]


def _split_by_accelerate() -> Iterator[object]:
    """List the datasets that loaders of accelerate are iterating over now."""
    accelerate = sys.modules.get("accelerate.state")
    state = getattr(accelerate, "GradientState", None)
    if state is None:
        return
    for loader in state().dataloader_references:
        dataset = getattr(loader, "dataset", None)
        yield from (dataset, getattr(dataset, "dataset", None))


def _shuffled(blocks: NDArray[np.int64], bits: np.random.Philox) -> NDArray[np.int64]:
    # NumPy promises that the bits of Philox stay the same in all releases, but not its permutations.
    shuffled: NDArray[np.int64] = blocks[np.argsort(bits.random_raw(len(blocks)), kind="stable")]
    return shuffled


def _part_of(blocks: NDArray[np.int64], first: int, last: int) -> NDArray[np.int64]:
    """Cut the blocks that hold the cells from ``first`` to ``last``, counted over all blocks."""
    lengths = blocks[:, 2] - blocks[:, 1]
    ends = np.cumsum(lengths)
    cut = blocks.copy()
    cut[:, 1] += np.clip(first - (ends - lengths), 0, lengths)
    cut[:, 2] -= np.clip(ends - last, 0, lengths)
    return cut[cut[:, 1] < cut[:, 2]]


def _mixed(cells: Iterable[Cell], size: int, bits: np.random.Philox) -> Iterator[Cell]:
    """Swap each cell with one that waits in a buffer; at the end, empty that in random order."""
    buffer: list[Cell] = []
    for cell in cells:
        if len(buffer) < size:
            buffer.append(cell)
        else:
            place = bits.random_raw() % size
            yield buffer[place]
            buffer[place] = cell
    for place in np.argsort(bits.random_raw(len(buffer)), kind="stable"):
        yield buffer[place]
