"""Catalogue of all errors: for each kind the exception, what is wrong and where, what to do, and the usual cause."""

from __future__ import annotations

from dataclasses import dataclass

from . import (
    ConfigError,
    DataError,
    GeneMatchError,
    InternalError,
    OutputError,
    ResourceError,
    SourceError,
    TeddytokError,
    VocabularyError,
)


@dataclass(frozen=True)
class Kind:
    """One kind of error.

    Attributes
    ----------
    raises
        The exception.
    what
        What is wrong, with which file, cell or key.
    hint
        What to do.
    cause
        The usual cause; for the documentation.
    """

    raises: type[TeddytokError]
    what: str
    hint: str
    cause: str = ""


KINDS: dict[str, Kind] = {
    # ---- arguments and configuration files
    "config_key_unknown": Kind(
        ConfigError,
        "{where}unknown configuration key {key!r}{nearest}.",
        "'teddytok tokenize --help' lists all keys.",
        "A typing error, or an argument of another version. The message names the nearest argument.",
    ),
    "config_key_missing": Kind(
        ConfigError,
        "{where}{key} is missing.",
        "Set it in the configuration, or by {option}; expected {expected}.",
        "The vocabulary has no default; a preset may need its model's medians.",
    ),
    "config_value": Kind(
        ConfigError,
        "{where}{key} = {got!r} is not valid.",
        "Expected {expected}.",
        "A number in quotes, a float where an integer is meant, a file where a folder is meant.",
    ),
    "config_conflict": Kind(
        ConfigError,
        "{where}{problem}.",
        "{advice}.",
        "Two arguments that exclude each other, or two sources with one file name for one output folder.",
    ),
    "config_file": Kind(
        ConfigError,
        "configuration file {file!r} cannot be read: {reason}.",
        "Expected a JSON or YAML file of key: value.",
        "A missing comma in JSON, a tab in YAML, or a list where keys are meant.",
    ),
    "token_dtype": Kind(
        ConfigError,
        "token_dtype = 'uint16' holds ids up to 65,535, but the run writes id {largest:,}.",
        "Use token_dtype = 'int32'.",
        "The vocabulary has more than 65,536 ids.",
    ),
    "mapping_file": Kind(
        ConfigError,
        "{key}: {file!r} cannot be used: {reason}.",
        "Expected a JSON object of raw label -> token id or token.",
        "The mapping is a list, or nested.",
    ),
    "mapping_token": Kind(
        ConfigError,
        "{key}: {file!r} maps {label!r} to {token!r}, which is not in the vocabulary {vocabulary!r}{more}.",
        "Map it to a token of the vocabulary or to an integer id.",
        "The mapping was made for another vocabulary.",
    ),
    "label_names": Kind(
        ConfigError,
        "label_names: {file!r} cannot be used: {reason}.",
        "Expected a JSON list of different names, in the order of their numbers.",
        "The file is missing, or a JSON object.",
    ),
    "median_file": Kind(
        ConfigError,
        "median_dict: {file!r} cannot be used: {reason}.",
        "Expected a JSON object of gene id -> median, each a finite number above 0.",
        "The medians are a pickle (Geneformer's are), hold zeros, or are nested.",
    ),
    "medians_match_nothing": Kind(
        ConfigError,
        "median_dict: none of the {n_kept:,} kept genes is in {file!r} (kept: {kept}; medians: {medians}).",
        "Set median_column to where the ids of the medians are, or give medians whose keys are the ids of {column}.",
        "Medians by Ensembl id for genes by symbol, or ids that end in a version.",
    ),
    "hub_file": Kind(
        ConfigError,
        "{keys}: there is no path {places}, and fetching it from the Hugging Face Hub failed: {reason}.",
        "{advice}.",
        "No network, a typing error, or a path that does not exist: two or more names that slashes join have the form "
        "of a name on the Hub.",
    ),
    "gene_map_file": Kind(
        ConfigError,
        "gene_map: {file!r} cannot be used: {reason}.",
        "Expected a JSON object, a CSV or TSV table of two columns with a header, or a 10x features.tsv(.gz).",
        "A table of more columns, or one without a header; a path that does not exist.",
    ),
    "gene_map_exists": Kind(
        OutputError, "{path!r} exists already.", "Choose another path.", "A map was written there before."
    ),
    "gene_map_source": Kind(
        DataError,
        "{source} has no {lacks} in var or var_names; it has {columns}.",
        "Take a file that has both, such as one of CELLxGENE, or give gene_map a table of names and ids.",
        "A file with symbols alone, as many tutorials write it.",
    ),
    # ---- the vocabulary
    "vocabulary_not_found": Kind(
        VocabularyError,
        "no vocabulary at {path!r}: {reason}.",
        "Give a folder with vocab.txt or vocab.json, one such file, or its name on the Hugging Face Hub "
        "(owner/name/folder); 'teddytok vocab build' makes one.",
        "Paths in a configuration start from the current directory, not from the file.",
    ),
    "vocabulary_file": Kind(
        VocabularyError,
        "vocabulary file {file!r} cannot be used: {reason}.",
        "{advice}.",
        "A token that occurs twice, an id that is not an integer, or not UTF-8.",
    ),
    "vocabulary_conflict": Kind(
        VocabularyError,
        "vocabulary {path!r}: token {token!r} has id {first} in {first_file} and id {second} in {second_file}.",
        "Make the files agree; an id must mean one thing.",
        "`added_tokens.json` or `tokenizer_config.json` belongs to another vocabulary.",
    ),
    "vocabulary_left_behind": Kind(
        VocabularyError,
        "the dataset {path!r} has no undamaged copy of its vocabulary, and {name!r} does not exist here.",
        "Put the vocabulary back there, or the folder {folder!r} of its corpus next to the dataset.",
        "A dataset was copied out of its corpus without the folder of the vocabulary, which all its datasets share.",
    ),
    "vocabulary_exists": Kind(
        OutputError,
        "{path!r} already holds a vocabulary.",
        "Choose another folder; ids in use must not change.",
        "A vocabulary that models were trained with must keep its ids.",
    ),
    "no_special_token": Kind(
        VocabularyError,
        "{needs} needs the vocabulary's {role} token, but {path!r} {lacks}.",
        "{advice}.",
        "The vocabulary was made without special tokens, or names them in another way.",
    ),
    "unknown_token_id": Kind(
        VocabularyError,
        "vocabulary {path!r} has no token of id {token_id}.",
        "Decode ids that it encoded.",
        "The ids come from another vocabulary.",
    ),
    # ---- the source as a file
    "source_not_found": Kind(
        SourceError,
        "no such source: {path!r}.",
        "Give a path to an .h5ad file or a .zarr store.",
        "Paths start from the current directory.",
    ),
    "source_unreadable": Kind(
        SourceError,
        "{path!r} cannot be read: {reason}.",
        "Check that it is a complete .h5ad or .zarr written by anndata.",
        "A copy or download that was cut off, a web page saved as a file, or HDF5 of another kind.",
    ),
    "source_type": Kind(
        SourceError,
        "{got} is not a source.",
        "Give an AnnData, or a path to an .h5ad file or a .zarr store.",
        "A matrix or a data frame was given; wrap it in an AnnData.",
    ),
    "source_format": Kind(
        SourceError,
        "{path!r} is {what}, which is not read as it is.",
        "{advice}.",
        "Another format of single-cell data, a container of several AnnData, or a file from before anndata 0.7.",
    ),
    "hdf5_filter": Kind(
        SourceError,
        "{path!r}: {item!r} is compressed with {name} (HDF5 filter {number}), which is not installed.",
        "{advice}.",
        "anndata-rs, SnapATAC2 and others compress with filters that h5py does not include.",
    ),
    "zarr_extra": Kind(
        SourceError,
        "{path!r} is a zarr store, and zarr is not installed.",
        "Install it: pip install 'teddytok-rs[zarr]'.",
        "Reading zarr is an extra.",
    ),
    "source_link": Kind(
        SourceError,
        "{path!r}: {item!r} is {what}, and its target may be missing or another file.",
        "Copy the data into one file without links.",
        "The file was put together with HDF5 external links.",
    ),
    "source_in_memory": Kind(
        SourceError,
        "an AnnData in memory cannot be read by another process.",
        "Write it to an .h5ad file and give its path.",
        "Worker processes open sources by path.",
    ),
    "source_changed": Kind(
        SourceError,
        "{path!r} changed while it was read.",
        "Wait until the source file is complete, then run again with overwrite (--overwrite).",
        "Another program was still writing the file.",
    ),
    "values_changed": Kind(
        SourceError,
        "the values of {sources} changed while they were counted.",
        "Wait until the source is complete, then run the same command again.",
        "Another program was still writing the file.",
    ),
    "source_remote": Kind(
        SourceError,
        "{path!r} cannot be fetched: {reason}.",
        "Check the URL, the credentials that fsspec uses, and the free space of the output folder.",
        "The protocol's own package (s3fs, gcsfs) is missing, or there are no credentials.",
    ),
    "cloud_extra": Kind(
        SourceError,
        "{path!r} is a URL, and fsspec is not installed.",
        "Install it: pip install 'teddytok-rs[cloud]'.",
        "Reading URLs is an extra.",
    ),
    "soma_url": Kind(
        ConfigError,
        "{url!r} is not a valid URL of a SOMA query: {reason}.",
        "Write soma://URI?measurement_name=NAME&obs_value_filter=FILTER, with %25 for a percent sign and %26 for '&'.",
        "A filter with `&` or `%` in it, which must be written `%26` and `%25`; or no `measurement_name`.",
    ),
    "soma_extra": Kind(
        SourceError,
        "{path!r} is a SOMA experiment, and tiledbsoma is not installed.",
        "Install it: pip install 'teddytok-rs[soma]'.",
        "Reading SOMA experiments is an extra.",
    ),
    "soma_unreadable": Kind(
        SourceError,
        "{path!r} cannot be read: {reason}.",
        "Check that the URI names a SOMA experiment, and the region and credentials that TileDB uses.",
        "A URI of something else, such as the whole Census; no region or credentials.",
    ),
    "chunks_missing": Kind(
        SourceError,
        "{path!r}: {missing:,} of the {n_chunks:,} chunks of {item!r} are missing, and would be read as zeros.",
        "Copy or write the complete store again.",
        "A zarr store that was copied in part.",
    ),
    "no_sources": Kind(
        ConfigError,
        "no source was given{where}.",
        "Name an .h5ad file or .zarr store, or set load_dir.",
        "Neither a source nor `load_dir` was given.",
    ),
    # ---- the source as data
    "soma_measurement": Kind(
        DataError,
        "{source} has no measurement {name!r}; it has {measurements}.",
        "Set measurement_name to one of these.",
        "Measurements have other names than the Census's `RNA`.",
    ),
    "soma_filter": Kind(
        DataError,
        "obs_value_filter = {obs_value_filter!r} cannot be used on {source}: {reason}.",
        "Compare obs columns, as in \"tissue_general == 'lung' and is_primary_data == True\".",
        "A column that `obs` does not have, or a number compared with text.",
    ),
    "soma_no_cells": Kind(
        DataError,
        "obs_value_filter = {obs_value_filter!r} selects no cell of {source}.",
        "Check its values.",
        "A label written in another way.",
    ),
    "soma_dense": Kind(
        DataError,
        "layer {layer!r} of {source} is a dense array.",
        "Write it as a SparseNDArray, as tiledbsoma does.",
        "The experiment was written with `X_kind=DenseNDArray`.",
    ),
    "layer_missing": Kind(
        DataError,
        "{source} has no layer {layer!r}; it has {layers}.",
        "Set layer (--layer) to one of these; unless set, it is 'processed'.",
        "The file holds raw counts in `X`: see [Your cells](cells.md).",
    ),
    "no_counts": Kind(
        DataError,
        "{source} has no layer of counts, which layer = 'auto' needs: {held}.",
        "Set layer (--layer) to one of them; if it is normalised already, set normalize_total and median_dict to null.",
        "A file that holds logarithms or scaled values alone; the counts were left out when it was written.",
    ),
    "not_a_count": Kind(
        DataError,
        "cell {cell!r} (row {row:,} of {source}, layer {layer!r}) has the value {value} for gene {gene!r}, but "
        "layer = 'auto' accepts only whole numbers that are not negative.",
        "Correct it, or set layer (--layer) to {layer!r} to use this layer's values unchecked.",
        "Counts of which some were corrected or replaced, such as those of ambient RNA.",
    ),
    "matrix_type": Kind(
        DataError,
        "layer {layer!r} of {source} holds {got}.",
        "Expected a CSR, CSC or dense matrix of integers, float32 or float64.",
        "A layer of strings, booleans or complex numbers.",
    ),
    "matrix_malformed": Kind(
        DataError,
        "layer {layer!r} of {source} is malformed: {reason}.",
        "Write the file again from the original data.",
        "A file written by hand, or damaged.",
    ),
    "no_temporary_space": Kind(
        DataError,
        "layer {layer!r} of {source} is stored by column (CSC), and there is no temporary space to sort it: {reason}.",
        "Set TMPDIR to a folder with more space, or store the layer as CSR.",
        "A matrix stored by column is sorted into rows on disk first.",
    ),
    "gene_column_missing": Kind(
        DataError,
        "{source} has no var column {column!r} ({key}); {candidates}.",
        "Set {key} to a var column or to 'index'.",
        "Gene ids are in another column; the message says which would match.",
    ),
    "gene_filter": Kind(
        DataError,
        "{source} cannot be filtered by its var column {column!r} (gene_filter): {reason}.",
        "Set gene_filter to a boolean column of var, or of raw.var where layer = 'raw' is read.",
        "The column is in `var`, but the counts of `raw.X` have a `raw.var` of their own; or it holds text.",
    ),
    "no_genes_match": Kind(
        GeneMatchError,
        "none of the {n_var:,} genes of {source} is in the vocabulary{examples}.",
        "{hints}.",
        "Symbols where the vocabulary has Ensembl ids: see [Gene ids](cells.md); versions (`.12`); another species.",
    ),
    "few_genes_match": Kind(
        GeneMatchError,
        "only {n_kept:,} of the {n_var:,} genes of {source} ({share:.1%}) are in the vocabulary, "
        "fewer than min_gene_overlap = {minimum:g}{examples}.",
        "{hints}.",
        "As above, or a panel of few genes: lower `min_gene_overlap` if that is so.",
    ),
    "duplicate_genes": Kind(
        DataError,
        "{source} has {n} with more than one gene: {examples}.",
        "Set duplicate_genes to 'sum' (add their values) or 'keep' (one token each), or make the gene ids unique.",
        "Several probes or transcripts for a gene, or versions that were stripped.",
    ),
    "obs_column_missing": Kind(
        DataError,
        "{source} has no obs column {column!r}, which {key} names{nearest}; it has {columns}.",
        "Name one of these in {key}, or turn off the argument that uses it.",
        "The column has another name in this file.",
    ),
    "obs_column_type": Kind(
        DataError,
        "obs column {column!r} of {source} holds {got}, which {key} cannot write.",
        "Convert it to strings, numbers or booleans.",
        "Lists, dates or mixed objects in `obs`.",
    ),
    "obs_column_reserved": Kind(
        DataError,
        "obs_columns: {column!r} would be written as {name!r}, which is already the name of an output column.",
        "List each column once; rename the obs column if it has the name of an output column.",
        "A column of `obs` has the name of an output column, such as `values`.",
    ),
    "label_missing": Kind(
        DataError,
        "cell {cell!r} (row {row:,} of {source}) has no value in obs column {column!r} (label_column){more}.",
        "Fill these values, or leave the cells out by cell_filter.",
        "Cells without a label; `cell_filter` can leave them out.",
    ),
    "label_unknown": Kind(
        DataError,
        "cell {cell!r} (row {row:,} of {source}) has {label!r} in obs column {column!r} (label_column), which "
        "label_names does not list{more}.",
        "Add it at the end of label_names, or leave the cells out by cell_filter.",
        "`label_names` was made from other cells.",
    ),
    "unmapped_annotation": Kind(
        DataError,
        "obs column {column!r} of {source} has {n} with no token: {labels}.",
        "Add them to {key}, or set unmapped_annotations = 'unk'.",
        "A label that the mapping does not know, with `unmapped_annotations = 'error'`.",
    ),
    "cell_filter": Kind(
        ConfigError,
        "cell_filter = {cell_filter!r} cannot be used on {source}: {reason}.",
        "{hint}.",
        "A mistyped column, `=` for `==`, text without quotes, or cells without a value: see [Your cells](cells.md).",
    ),
    "no_cells_kept": Kind(
        DataError,
        "cell_filter = {cell_filter!r} keeps none of the {n_cells:,} cells of {source}{labels}.",
        "Check the labels and numbers in it.",
        "A label written in another way.",
    ),
    "not_finite": Kind(
        DataError,
        "cell {cell!r} (row {row:,} of {source}, layer {layer!r}) has NaN or infinity for gene {gene!r}.",
        "Replace the value or drop the cell; 'teddytok check' counts all such cells and lists the first 20.",
        "A division by zero in an earlier step.",
    ),
    "negative_value": Kind(
        DataError,
        "cell {cell!r} (row {row:,} of {source}, layer {layer!r}) has a negative value for gene {gene!r}, and medians "
        "are those of values above 0.",
        "Set layer (--layer) to one that holds counts.",
        "A layer of scaled values.",
    ),
    "total_not_finite": Kind(
        DataError,
        "cell {cell!r} (row {row:,} of {source}, layer {layer!r}): the sum of its values is too large for float64.",
        "Check the values of that cell; normalize_total divides by their sum.",
        "Values near the largest float.",
    ),
    "normalized_not_finite": Kind(
        DataError,
        "cell {cell!r} (row {row:,} of {source}, layer {layer!r}): normalising gene {gene!r} gives NaN or infinity.",
        "log1p needs values above -1, such as counts; set layer to one that holds counts.",
        "`log1p` on values that are scaled (below -1), not counts.",
    ),
    "too_large_for_float32": Kind(
        DataError,
        "cell {cell!r} (row {row:,} of {source}, layer {layer!r}): gene {gene!r} has a value too large for float32.",
        "Values are written as float32; scale the layer down.",
        "Values in float64 above 3.4e38.",
    ),
    "gene_sum_overflow": Kind(
        DataError,
        "cell {cell!r} (row {row:,} of {source}, layer {layer!r}): "
        "the columns of gene {gene!r} sum to more than {dtype} holds.",
        "Store the layer in a wider integer type, or set duplicate_genes = 'keep'.",
        "Small integer types, with several columns of one gene.",
    ),
    # ---- the output
    "no_save_dir": Kind(
        ConfigError, "there is no output folder.", "Give save_dir (--out).", "Neither `--out` nor `save_dir` was given."
    ),
    "output_name": Kind(
        ConfigError,
        "{name!r} is not a valid name of an output folder.",
        "Give save_dir a path and name a folder name without slashes, both as strings.",
        "A name with a slash, or one that means a folder above.",
    ),
    "output_name_reserved": Kind(
        ConfigError,
        "{name!r} is not a valid name of a dataset: teddytok writes files of such names next to the datasets.",
        "Rename the source, or give the dataset another name.",
        "The source has the same name as a file of the corpus: `corpus.json.h5ad`.",
    ),
    "output_url": Kind(
        ConfigError,
        "{path!r} is a URL, and output can only be written to a local folder.",
        "Give a local path, and copy the finished folder from there.",
        "`--out` or `save_dir` is `s3://...` or another URL; sources can be URLs, output cannot.",
    ),
    "output_nested": Kind(
        ConfigError,
        "the dataset cannot be written to {path!r}, which is {what}.",
        "Choose another output folder (--out).",
        "`--out` names the folder of a dataset, or one inside a zarr store.",
    ),
    "output_exists": Kind(
        OutputError,
        "{path!r} holds files that teddytok did not write: {files}.",
        "Choose another folder, or move them; overwrite (--overwrite) removes only files that teddytok wrote.",
        "The folder holds other files and no dataset of teddytok.",
    ),
    "output_differs": Kind(
        OutputError,
        "{path!r} holds a run that differs from this one in {differences}.",
        "Give the same arguments and source, choose another folder, or start again with overwrite (--overwrite).",
        "The arguments, the vocabulary, a mapping or the source changed since the run began.",
    ),
    "output_locked": Kind(
        OutputError,
        "another process is writing to {path!r}.",
        "Wait for it, or choose another folder.",
        "The same command runs twice.",
    ),
    "output_symlink": Kind(
        OutputError,
        "{path!r} is or holds a symbolic link, which could point outside of the folder.",
        "Remove it, or choose another folder.",
        "A dataset or one of its files was replaced by a link.",
    ),
    "output_failed": Kind(
        OutputError,
        "{path!r} cannot be written: {reason}.",
        "Check that it is a folder, its permissions and its free space.",
        "A full disk, a folder without permission to write, or a file where the folder should be.",
    ),
    "medians_exist": Kind(
        OutputError,
        "medians cannot be written to {path!r}: {existing!r} already exists.",
        "Choose another file (--out), or remove that one first.",
        "The medians were built already, or `--out` names another file.",
    ),
    "executor_broken": Kind(
        OutputError,
        "the workers that write to {path!r} broke down: {reason}.",
        "If memory ran out, use fewer workers or a smaller chunk_bytes; the same call with new workers continues.",
        "A worker used too much memory and was killed.",
    ),
    "shards_missing": Kind(
        OutputError,
        "{path!r} lacks {n:,} of its shards: {files}.",
        "Run the same command again to write them; all workers must see this folder under the same path.",
        "The run was not finished, or files were deleted.",
    ),
    "output_unreadable": Kind(
        OutputError,
        "{path!r} is not a finished teddytok dataset: {reason}.",
        "Give a folder that 'teddytok tokenize' wrote.",
        "The folder is another one, or its run was not finished.",
    ),
    "file_damaged": Kind(
        OutputError,
        "the dataset {path!r} is damaged: {file!r} cannot be used ({reason}).",
        "Run the command that wrote it again, which writes damaged files again; 'teddytok verify' checks every byte.",
        "A copy that was cut off, a failing disk, or another program that changed the file.",
    ),
    "several_datasets": Kind(
        OutputError,
        "{path!r} is not a dataset but a folder of datasets: {inside}.",
        "Give {give}.",
        "The folder given to `--out`, in which each source has a dataset of its own.",
    ),
    "format_extra": Kind(
        ConfigError,
        "format = {format!r} is written by a library that is not installed.",
        "Install it: pip install 'teddytok-rs[webdataset]'.",
        "Writing WebDataset's tar files is an extra.",
    ),
    # ---- engines
    "engine_extra": Kind(
        ConfigError,
        "{engine} is not installed.",
        "Install it: pip install 'teddytok-rs[{extra}]'.",
        "Each engine is an extra.",
    ),
    "engine_unreachable": Kind(
        ConfigError,
        "{engine} cannot be reached at {address!r}: {reason}.",
        "Give the address (--address) of a cluster that runs, or none for this machine's cores.",
        "The scheduler has not started yet, or a firewall blocks the connection.",
    ),
    "batch_columns": Kind(
        DataError,
        "a batch of counts cannot be tokenized: {reason}.",
        "Expected the list columns 'indices' (integers) and 'data' (numbers), or a column of numbers for each gene.",
        "The frame holds counts in another layout.",
    ),
    # ---- the report
    "report_extra": Kind(
        ConfigError,
        "a report needs {module}, which is not installed.",
        "Install it: pip install 'teddytok-rs[report]'.",
        "The report needs libraries for figures, which are an extra.",
    ),
    "report_exists": Kind(
        OutputError,
        "the report cannot be written to {path!r}: it is {what}.",
        "Name a file that does not exist yet, or an earlier report.",
        "`--out` names the dataset's folder, or a source.",
    ),
    # ---- training
    "torch_extra": Kind(
        ConfigError,
        "teddytok_rs.torch needs PyTorch, which is not installed.",
        "Install it: pip install 'teddytok-rs[torch]'.",
        "Training is an extra.",
    ),
    "format_not_mapped": Kind(
        OutputError,
        "{path!r} holds {format} files, which cannot be memory-mapped.",
        "Read them with {reader}, or tokenize with format = 'arrow' (--format arrow).",
        "The dataset was written for another reader: `format` is `parquet` or `webdataset`.",
    ),
    "datasets_differ": Kind(
        OutputError,
        "{first!r} and {second!r} differ in {differences}, so that their sequences mean different things.",
        "{advice}.",
        "Folders of two runs with different arguments, or other labels in `label_column`.",
    ),
    # ---- the system
    "too_many_open_files": Kind(
        ResourceError,
        "{path!r} cannot be opened: {reason}.",
        "Raise the limit of open files ('ulimit -n'), or close what else the process has open.",
        "Other parts of the program, or other programs, hold files open.",
    ),
    "out_of_memory": Kind(
        ResourceError,
        "there is not enough memory{where}: {reason}.",
        "Raise the memory limit, or use fewer threads (--threads) and a smaller chunk_bytes (--chunk-bytes).",
        "A limit of the batch system or the container, or memory that other programs take.",
    ),
    # ---- bugs
    "internal": Kind(InternalError, "{reason}.", "This is a bug in teddytok-rs; please report it.", "A bug."),
}
