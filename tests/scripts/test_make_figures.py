"""Figures are drawn again from their tables: the same bytes, no training, no torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.figures.build import build
from tests.experiments.figures.conftest import conf

ROOT = Path(__file__).parents[2]
WITHOUT_TORCH = """
import runpy, sys
code = runpy.run_path("scripts/make_figures.py")["main"](sys.argv[1:])
print("torch:", "torch" in sys.modules)
sys.exit(code)
"""


def redraw(results: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_TORCH, str(results)]
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


@pytest.mark.parametrize("checked", [True, False])
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
