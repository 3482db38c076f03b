#!/usr/bin/env python3
"""Print figures of the structure; fail where the imports go in circles or too much is typed ``Any``.

Counted: files and functions of the package that one ``tokenize_to_disk`` enters, ``Any`` per 1,000 lines, import
levels and circles. Needs the package and import-linter (whose graph library, grimp, reads the imports).
"""

from __future__ import annotations

import ast
import graphlib
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import grimp

import teddytok_rs

if TYPE_CHECKING:
    from types import FrameType

PACKAGE = Path(teddytok_rs.__file__).parent
ANY_PER_1000 = 5.0


def entered() -> tuple[set[str], set[tuple[str, str]]]:
    """Tokenize the demo's cells; name the files and functions of the package that were entered."""
    from teddytok_rs import demo, tokenize_to_disk

    functions: set[tuple[str, str]] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and "teddytok_rs" in file and not frame.f_code.co_name.startswith("<"):
            functions.add((str(Path(file).relative_to(PACKAGE)), frame.f_code.co_qualname))

    with tempfile.TemporaryDirectory() as folder:
        args = demo.args()
        tokenize_to_disk(demo.CELLS, args, Path(folder, "first"))  # imports what is imported when needed
        threading.setprofile(note)
        sys.setprofile(note)
        try:
            tokenize_to_disk(demo.CELLS, args, Path(folder, "second"))
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    return {file for file, _ in functions}, functions


def any_per_1000() -> tuple[int, int]:
    """Count the annotations that name ``Any``, and all lines."""
    n_any = n_lines = 0
    for file in PACKAGE.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        n_lines += text.count("\n")
        n_any += sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(ast.parse(text)))
    return n_any, n_lines


def levels() -> tuple[int, list[str]]:
    """Measure the longest chain of imports; name the modules of a circle, if there is one."""
    graph = grimp.build_graph("teddytok_rs", exclude_type_checking_imports=True)
    imports = {module: graph.find_modules_directly_imported_by(module) - {module} for module in graph.modules}
    try:
        order = list(graphlib.TopologicalSorter(imports).static_order())
    except graphlib.CycleError as circle:
        return 0, list(circle.args[1])
    depth: dict[str, int] = {}
    for module in order:
        depth[module] = 1 + max((depth[other] for other in imports[module]), default=0)
    return max(depth.values()), []


def main() -> None:
    """Print the figures."""
    files, functions = entered()
    n_any, n_lines = any_per_1000()
    n_levels, circle = levels()
    share = 1000 * n_any / n_lines
    print(f"files entered by one tokenize_to_disk      {len(files)}")
    for file in sorted(files):
        print(f"    {file}: {', '.join(sorted(name for its, name in functions if its == file))}")
    print(f"functions entered by it                    {len(functions)}")
    print(f"Any per 1,000 lines                        {share:.1f} ({n_any} in {n_lines:,}; at most {ANY_PER_1000:g})")
    print(f"levels of imports                          {n_levels}")
    print(f"circles of imports                         {' -> '.join(circle) if circle else 0}")
    sys.exit(int(share > ANY_PER_1000 or bool(circle)))


main()
