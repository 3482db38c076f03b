"""Let every call to the file system fail, one after the other, and compare what the next run makes of what is left.

``python tests/faults/sweep.py --all`` sweeps every point of every run; ``--most 40`` takes that many of each run; see
`points.py`. The injector, ``inject.c``, is compiled with ``cc`` and loaded with LD_PRELOAD.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
#: Names the injector to the process that it is loaded into.
LIBRARY = "TEDDYTOK_FAULTS"


def compile_injector(folder: Path) -> Path | str:
    """Compile the injector, or say why there is none."""
    if sys.platform != "linux":
        return "the injector is loaded with LD_PRELOAD of Linux"
    compiler = shutil.which("cc")
    if compiler is None:
        return "there is no C compiler, cc, for the injector"
    library = folder / "inject.so"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-U_FORTIFY_SOURCE"]
    command = [compiler, *flags, "-o", library, HERE / "inject.c", "-ldl"]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)
    return library if compiled.returncode == 0 else f"cc cannot compile the injector: {compiled.stderr}"


def sweep(library: Path, *words: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the sweep in a process with the injector."""
    paths = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    surroundings = os.environ | {"LD_PRELOAD": str(library), LIBRARY: str(library), "PYTHONPATH": paths}
    command = [sys.executable, HERE / "points.py", *words]
    return subprocess.run(command, env=surroundings, capture_output=capture, text=True, check=False)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="teddytok-faults-") as made:
        injector = compile_injector(Path(made))
        sys.exit(injector if isinstance(injector, str) else sweep(injector, *sys.argv[1:]).returncode)
