"""The script writes whole tables and prints what follows from them."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pandas as pd
import pytest

from experiments import files
from experiments.benchmarks import change_of_basis

MAIN = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "benchmark.py"))["main"]


def test_a_smoke_table(tmp_path, capsys):
    assert MAIN(["runtime", "--smoke", "--repeats", "1", "--results", str(tmp_path)]) == 0
    (table,) = tmp_path.glob("*.csv")
    (entries,) = tmp_path.glob("*.json")
    assert table.name == f"runtime-{entries.stem}.csv"
    assert entries.stem.endswith("-smoke")
    assert len(pd.read_csv(table)) == 15
    printed = capsys.readouterr().out
    assert "exponents" in printed
    assert str(table) in printed
    entry = json.loads(entries.read_text())["runtime"]
    assert entry["table"] == table.name
    assert entry["environment"]["threads"] >= 1
    assert entry["command"].startswith("python scripts/benchmark.py runtime --repeats 1")
    assert len(next(iter(entry["summary"].values()))) == 3  # a ratio a case


def test_other_subjects_entries_stay(tmp_path):
    assert MAIN(["runtime", "--smoke", "--repeats", "1", "--results", str(tmp_path)]) == 0
    (entries,) = tmp_path.glob("*.json")
    entries.write_text(json.dumps({"another": {}, "runtime": {}}))
    assert MAIN(["runtime", "--smoke", "--repeats", "1", "--results", str(tmp_path)]) == 0
    found = json.loads(entries.read_text())
    assert found["another"] == {}
    assert found["runtime"]["table"]


def test_a_table_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert MAIN(["runtime", "--smoke", "--results", str(tmp_path / "file")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: cannot write")


def test_an_unknown_subject_is_one_sentence(tmp_path, capsys):
    assert MAIN(["runtimes", "--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: unknown subject 'runtimes' (did you mean 'runtime'?)")


def test_aims_are_read_from_the_tables_that_are_there(tmp_path, capsys):
    quiver = {"method": "capture", "model": "densenet121", "width": 1.0, "seconds": 0.34444}
    files.write_csv(tmp_path / "change_of_basis-fast.csv", change_of_basis.COLUMNS, [quiver])
    assert MAIN(["aims", "--results", str(tmp_path)]) == 0
    assert "finding the quiver of DenseNet121" in capsys.readouterr().out
    assert "| <= 2 s | 0.344 | met |" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "aims-fast.csv").is_file()


@pytest.mark.parametrize("option", ["--repeats", "--threads"])
def test_no_rounds_and_no_threads_are_refused(option, capsys):
    with pytest.raises(SystemExit):
        MAIN(["runtime", option, "0"])
    assert f"{option} must be a whole number from 1 to" in capsys.readouterr().err


def test_subjects_of_one_call_have_a_table_each_and_share_the_machines_file(tmp_path):
    names = ["epoch", "positions", "teleport"]
    assert MAIN([*names, "--smoke", "--repeats", "1", "--results", str(tmp_path)]) == 0
    (entries,) = tmp_path.glob("*.json")
    assert sorted(json.loads(entries.read_text())) == names
    for name in names:
        assert len(pd.read_csv(tmp_path / f"{name}-{entries.stem}.csv")) > 0
