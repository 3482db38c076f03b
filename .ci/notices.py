#!/usr/bin/env python3
"""The crates compiled into the wheel in, THIRD-PARTY.md out: their licences, and the texts that must travel with them.

A crate that may be used under Apache-2.0 is used so, and that text is LICENSE; of any other the licence files are
copied.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEAD = """# Third-party software in the binary wheels

Made by `.ci/notices.py`. The compiled module holds the Rust crates and C libraries below and the Rust
standard library (MIT OR Apache-2.0). What may be used under Apache-2.0 is used under it; that text is `LICENSE`.
"""
#: C sources that crates carry, and where in the crate their licence is.
CARRIED = {
    "libdeflate-sys": ("libdeflate", "MIT", "libdeflate/COPYING"),
    "zstd-sys": ("Zstandard", "BSD-3-Clause", "zstd/LICENSE"),
}


def cargo(*words: str) -> str:
    """Run Cargo on the locked dependencies of the wheel, for every target."""
    command = ["cargo", *words, "--locked", "--features", "python"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def compiled_in() -> list[dict[str, str]]:
    """Name the packages that end in the binary: no build scripts, no macros, not the project itself."""
    form = ["--prefix", "none", "--no-dedupe", "--format", "{p}"]
    lines = cargo("tree", "--edges", "normal,no-proc-macro", "--target", "all", *form).splitlines()
    named = {tuple(line.split()[:2]) for line in lines if line}
    packages = json.loads(cargo("metadata", "--format-version", "1"))["packages"]
    found = [
        package for package in packages if (package["name"], "v" + package["version"]) in named and package["source"]
    ]
    return sorted(found, key=lambda package: (package["name"], package["version"]))


def texts(package: dict[str, str]) -> list[tuple[str, str]]:
    """Read what must be copied: title and text of each licence that is not Apache-2.0."""
    folder = Path(package["manifest_path"]).parent
    found = []
    if "Apache-2.0" not in re.split(r" OR |/", package["license"]):
        files = sorted(path for path in folder.iterdir() if re.match(r"(LICEN[CS]E|COPYING)", path.name))
        files = [path for path in files if path.is_file() and "APACHE" not in path.name.upper()]
        if not files:
            raise SystemExit(f"{package['name']} {package['version']} carries no licence file")
        found += [(package["name"], path.read_text(encoding="utf-8")) for path in files]
    if package["name"] in CARRIED:
        title, _, file = CARRIED[package["name"]]
        found.append((title, (folder / file).read_text(encoding="utf-8")))
    return found


def main() -> None:
    """Write the file."""
    rows, copies = [], []
    for package in compiled_in():
        rows.append(f"| {package['name']} | {package['version']} | {package['license']} | {package['repository']} |")
        if package["name"] in CARRIED:
            title, licence, _ = CARRIED[package["name"]]
            rows.append(f"| {title} (C) | in {package['name']} | {licence} | {package['repository']} |")
        copies += [f"## {title}\n\n```text\n{text.strip()}\n```" for title, text in texts(package)]
    table = "\n".join(["| what | version | licence | from |", "| --- | --- | --- | --- |", *rows])
    (ROOT / "THIRD-PARTY.md").write_text("\n\n".join([HEAD.rstrip(), table, *copies]) + "\n", encoding="utf-8")


main()
