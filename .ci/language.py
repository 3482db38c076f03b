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
    r"\bsound (dataset|file|shard|folder)\b": "complete, valid, undamaged",
    r"\bflying\b|\bin flight\b|\bn_flying\b": "pending, submitted",
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
            for pattern, usual in patterns.items():
                for found in pattern.finditer(line):
                    counts[usual] += 1
                    print(f"{path.relative_to(ROOT)}:{number}: {found[0]!r}: write {usual}")
    print(f"{sum(counts.values())} words of the old dialect")
    sys.exit(int(bool(counts)))


main()
