"""The script writes one whole table and prints what follows from it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pandas as pd
import pytest

MAIN = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "benchmark.py"))["main"]


def test_a_smoke_table(tmp_path, capsys):
    assert MAIN(["runtime", "--smoke", "--repeats", "1", "--results", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("runtime-")
    assert path.name.endswith("-smoke.csv")
    assert len(pd.read_csv(path)) == 15
    printed = capsys.readouterr().out
    assert "exponents" in printed
    assert str(path) in printed


def test_a_table_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert MAIN(["runtime", "--smoke", "--results", str(tmp_path / "file")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: cannot write")


def test_no_rounds_are_refused(capsys):
    with pytest.raises(SystemExit):
        MAIN(["runtime", "--repeats", "0"])
    assert "--repeats takes a whole number of at least 1" in capsys.readouterr().err
