#!/usr/bin/env python3
"""Fail where a text holds a word of our old dialect; each is named with the usual word.

Read are comments, docstrings, messages, names and pages: all of the Python, Rust and Markdown files, and the HTML
template. A line that must quote such a word ends in a comment with "language: ok".
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: Pattern -> what to write instead.
WORDS = {
    r"\bmend(s|ed|ing)?\b": "hint, fix, cause",
    r"\b(tells?|told) of\b": "reports, says, lists",
    r"\bhangs? on\b": "depends on",
    r"\bbeside\b": "next to, alongside, in addition to",
    r"\banew\b": "again, new",
    r"\bspelt\b|\bspells no\b": "written; is not a valid ...",
    r"(?<!there )\bis no (shard|dataset|plain|table|folder|vocabulary|array|query|source|report|page|file|name)\b": (
        "is not a valid ..."
    ),
    r"\bstands? (for|in|there|here)\b": "means; is in; exists",
    r"\b(what|it|they|that|values|cells|file|ids?) (lies?|lay)\b|\blies in\b": "is stored in, is in",
    r"\bas (it was|they were) written\b": "damaged, checksum mismatch",
    r"^\s*(\"\"\"|//!)[^.:]{3,60} in, [^.:]{3,80} out\b": "start with a verb and its object",
    r"^\s*\"\"\"[^.]* (in|in[;,] .*) out\.(\"\"\"|$)|^\s*\"\"\".*\bin[;,] .* out\.": "start with a verb and its object",
    r"\bsound (dataset|file|shard|folder)\b": "complete, valid, undamaged",
    r"\bflying\b|\bin flight\b|\bn_flying\b": "pending, submitted",
    r"(\"\"\"|//[/!] )tells?\b|\btells? whether\b": "return whether, compute, distinguish",
    r"\"\"\"(say|give|miss) |^\s*\"\"\"let ": "format, describe, return, check",
    r", at most[.:]": "maximum number of ...",
    r"\d an? (cell|second|byte)\b": "per cell, per second",
    r"\b(cells|tokens|bytes|shards|rows|lines|[kMG]B) an? (cell|second|shard|thread|call|batch)\b": (
        "per cell, per second"
    ),
    r"\b(token a line|row a gene|sample a cell|file a cell|folder a source|once an epoch)\b": "one token per line, ...",
    r"\b(is|are|was) called as\b": "has the name of",
    r"\bwhoever\b": "the user, the caller, another process",
    r"\bwhat (a|the|that) runs? wrote\b": "the files of a run",
    r"\bnothing but\b": "only",
    r"\bwould stand\b": "would be",
    r"\bwhat bec(o|a)mes? of\b": "the result of",
    r"\bas long as (the block|a run|it) lasts\b": "for the ``with`` block, during a run",
    r"\bmeanwhile\b": "at the same time, during ..., until then",
    r"\bunless told\b|\btold (otherwise|beforehand|whole)\b": "by default, given",
    r"\bgoing by\b|\bat odds\b": "according to; does not fit",
    r"\bin (a|each) process of its own\b": "in a separate process",
    r"\bfiles of others\b": "other files",
    r"\b(is|are|and) told\b": "is reported",
    r"\bno part of (the|a) (dataset|preset)\b": "not part of",
}
#: Folders and files that are read.
READ = ("python", "rust/src", "benches", "tests", "docs", ".ci", ".github")
SUFFIXES = {".py", ".pyi", ".rs", ".md", ".html", ".sh", ".yml"}
NOT_READ = {"CHANGELOG.md", "THIRD-PARTY.md", "language.py", "SOURCE.md"}


def files() -> list[Path]:
    """List the files that are read."""
    found = [path for path in ROOT.glob("*.md") if path.name not in NOT_READ]
    for folder in READ:
        found += [
            path
            for path in (ROOT / folder).rglob("*")
            if path.suffix in SUFFIXES
            and path.name not in NOT_READ
            and not {"target", "site", "_build", "golden", "artifacts"} & set(path.relative_to(ROOT).parts)
        ]
    return sorted(found)


def main() -> None:
    """Print each place, then the counts."""
    counts: Counter[str] = Counter()
    patterns = {re.compile(pattern, re.IGNORECASE): usual for pattern, usual in WORDS.items()}
    for path in files():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if "language: ok" in line:
                continue
            text = line.replace("_", " ") if line.lstrip().startswith("def ") else line  # names of functions too
            for pattern, usual in patterns.items():
                for found in pattern.finditer(text):
                    counts[usual] += 1
                    print(f"{path.relative_to(ROOT)}:{number}: {found[0]!r}: write {usual}")
    print(f"{sum(counts.values())} words of the old dialect")
    sys.exit(int(bool(counts)))


main()
