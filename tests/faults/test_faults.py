"""Whichever call to the file system fails, the run says so, and the next one gives the bytes of an undisturbed one."""

from pathlib import Path

import pytest

from faults.sweep import compile_injector, sweep


def test_a_sample_of_all_faults_costs_no_bytes(tmp_path: Path):
    library = compile_injector(tmp_path)
    if isinstance(library, str):
        pytest.skip(library)
    process = sweep(library, "--most", "6", capture=True)
    *runs, total = process.stdout.splitlines() or [""]
    assert process.returncode == 0, process.stdout + process.stderr
    assert len(runs) == 9
    assert all("refused" in run and "killed" in run for run in runs), runs
    assert total.endswith("; 0 problems")
