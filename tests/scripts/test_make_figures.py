"""Figures are drawn again from their tables: the same bytes, no training, no torch."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.figures.build import build
from tests.experiments.figures.conftest import conf

ROOT = Path(__file__).parents[2]
MAIN = runpy.run_path(str(ROOT / "scripts" / "make_figures.py"))["main"]
WITHOUT_TORCH = """
import runpy, sys
code = runpy.run_path("scripts/make_figures.py")["main"](sys.argv[1:])
print("torch:", "torch" in sys.modules)
sys.exit(code)
"""


def redraw(results: Path, *names: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_TORCH, *names, "--results", str(results)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """The results with one figure that needs no runs."""
    results = tmp_path_factory.mktemp("drawn") / "results"
    with conf():
        build(["figure=nullspace/fig11", f"machine.results={results}"])
    return results


def test_the_same_bytes_without_torch(drawn, tmp_path):
    shutil.copytree(drawn, tmp_path / "results")
    pictures = {path.name: path.read_bytes() for path in drawn.rglob("fig11.p*")}
    assert set(pictures) == {"fig11.pdf", "fig11.png"}
    for path in (tmp_path / "results").rglob("fig11.p*"):
        path.unlink()
    done = redraw(tmp_path / "results")
    assert done.returncode == 0, done.stderr
    assert "torch: False" in done.stdout
    assert {path.name: path.read_bytes() for path in (tmp_path / "results").rglob("fig11.p*")} == pictures


@pytest.mark.slow
def test_a_figure_that_cannot_be_drawn_is_told_and_does_not_stop_the_others(drawn, tmp_path):
    results = shutil.copytree(drawn, tmp_path / "results")
    shutil.copytree(results / "nullspace" / "fig11", results / "nullspace" / "broken")
    (results / "nullspace" / "broken" / "fig11.csv").write_text("nothing\n")
    (results / "nullspace" / "gone").mkdir()
    gone = {"figure": "nullspace/gone", "overrides": ["figure=nullspace/gone"]}
    (results / "nullspace" / "gone" / "provenance.json").write_text(json.dumps(gone))
    (results / "nullspace" / "fig11" / "fig11.png").unlink()
    done = redraw(results)
    assert done.returncode == 2
    assert "broken/fig11.csv' is damaged or was changed: it does not have the checksum" in done.stderr
    assert "unknown option of figure 'nullspace/gone'" in done.stderr
    assert "Traceback" not in done.stderr
    assert (results / "nullspace" / "fig11" / "fig11.png").exists()


def test_one_figure_is_redrawn_by_its_name_and_others_are_not(drawn, tmp_path):
    results = shutil.copytree(drawn, tmp_path / "results")
    pictures = [results / paper / name / "fig11.png" for paper, name in (("nullspace", "fig11"), ("neural", "fig12"))]
    shutil.copytree(results / "nullspace" / "fig11", results / "neural" / "fig12")
    for path in pictures:
        path.unlink()
    assert MAIN(["nullspace/fig11", "--results", str(results)]) == 0
    assert [path.exists() for path in pictures] == [True, False]
    assert MAIN(["neural/fig12", "neural/fig11", "--results", str(results)]) == 2
    assert pictures[1].exists()


def test_a_figure_without_a_table_says_which_runs_it_needs_and_how_to_get_them(drawn, tmp_path, capsys):
    results = shutil.copytree(drawn, tmp_path / "results")
    assert MAIN(["nullspace/gain", "nullspace/fig11", "--results", str(results)]) == 2
    printed = capsys.readouterr()
    assert "'nullspace/gain' has no table; it needs 16 runs: data=mnist model=mlp" in printed.err
    assert "seed=0,1,2,3,4 teleport=none,nullspace; data=cifar10" in printed.err
    assert "make reproduce FIG=nullspace/gain" in printed.err
    assert "fig11.png" in printed.out  # the other is drawn
    assert MAIN(["nullspace/fig88"]) == 2
    assert "unknown figure 'nullspace/fig88' (did you mean 'nullspace/fig8'?)" in capsys.readouterr().err
    assert MAIN(["--results", str(results)]) == 0
    assert "no table yet of neural/coverage, neural/fig1," in capsys.readouterr().out


def test_the_verdicts_are_part_of_the_picture_and_a_damaged_ledger_is_named(drawn, tmp_path, capsys):
    results = shutil.copytree(drawn, tmp_path / "results")
    png = results / "nullspace" / "fig11" / "fig11.png"
    before = png.read_bytes()
    (results / "claims.csv").write_text("figure,claim,case,at,verdict\nnullspace/fig11,it holds,,equal epochs,holds\n")
    assert MAIN(["--results", str(results)]) == 0
    assert png.read_bytes() != before
    (results / "claims.csv").write_bytes(b"\xff\xfe")
    assert MAIN(["--results", str(results)]) == 2
    assert "claims.csv' cannot be read" in capsys.readouterr().err


@pytest.mark.slow
def test_all_committed_pictures_are_what_their_tables_give_whatever_the_processor(tmp_path):
    """numpy's logarithms and powers and OpenBLAS' products have other last bits without the newest instructions."""
    results = shutil.copytree(ROOT / "results", tmp_path / "results")
    older = {"NPY_DISABLE_CPU_FEATURES": _newest_instructions(), "OPENBLAS_CORETYPE": "Nehalem"}
    command = [sys.executable, "scripts/make_figures.py", "--results", str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, env=os.environ | older)
    assert done.returncode == 0, done.stderr
    pictures = [path for kind in ("pdf", "png") for path in sorted((ROOT / "results").rglob(f"*.{kind}"))]
    assert len(pictures) > 60
    other = [
        path for path in pictures if path.read_bytes() != (results / path.relative_to(ROOT / "results")).read_bytes()
    ]
    assert other == []


def _newest_instructions() -> str:
    """The dispatched instruction sets that numpy finds on this machine."""
    import numpy

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        numpy.show_runtime()
    (found,) = re.findall(r"'found': \[(.*?)\]", printed.getvalue(), re.DOTALL)
    return " ".join(re.findall(r"\w+", found))


def test_nothing_there_yet(tmp_path):
    done = redraw(tmp_path)
    assert done.returncode == 0
    assert "no figure under" in done.stdout
    assert not list(tmp_path.iterdir())


def test_pictures_carry_no_date_and_whole_fonts(drawn):
    (pdf,) = drawn.rglob("fig11.pdf")
    content = pdf.read_bytes()
    assert b"CreationDate" not in content
    assert b"/Type3" not in content
    assert b"/FontFile2" in content


DAMAGED = {
    "provenance.json": [b"", b"[]", b'{"figure": 3}', b'{"figure": "nullspace/fig11", "overrides": [1]}', b"\xff\xfe"],
    "fig11.csv": [b"", b"scale,results_version,run,hardware,note,reason\nquick,3,,,,\n", b"\xff\xfe"],
}


@pytest.mark.parametrize("checked", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_each_damaged_file_is_named_and_all_others_are_drawn(drawn, tmp_path, checked):
    results = shutil.copytree(drawn, tmp_path / "results")
    healthy = results / "nullspace" / "fig11"
    origin = json.loads((healthy / "provenance.json").read_text())
    expected = []
    for name, contents in DAMAGED.items():
        for number, content in enumerate(contents):
            folder = shutil.copytree(healthy, results / "nullspace" / f"damaged-{name}-{number}")
            if not checked:  # as earlier code wrote it
                plain = {key: value for key, value in origin.items() if "sha256" not in key}
                (folder / "provenance.json").write_text(json.dumps(plain))
            (folder / name).write_bytes(content)
            expected.append(str(folder / name))
    shutil.copytree(healthy, results / "nullspace" / "without")
    (results / "nullspace" / "without" / "provenance.json").unlink()
    expected.append(str(results / "nullspace" / "without" / "provenance.json"))
    (healthy / "fig11.png").unlink()
    done = redraw(results)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert [path for path in expected if path not in done.stderr] == []
    assert done.stderr.count("error: ") == len(expected), done.stderr
    assert (healthy / "fig11.png").exists()
