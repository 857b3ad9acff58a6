"""Measurements and drawings are found by name, and drawings load no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from experiments.figures.subjects import DRAWINGS, MEASURES
from tests.experiments.figures.conftest import ROOT


def test_every_name_leads_to_its_function():
    assert {name: function.__name__ for name, function in MEASURES.items()} == {n: f"measure_{n}" for n in MEASURES}
    assert {name: function.__name__ for name, function in DRAWINGS.items()} == {n: f"draw_{n}" for n in DRAWINGS}


def test_every_module_has_its_names_and_every_name_a_figure():
    modules = {path.stem for path in (ROOT / "experiments" / "figures" / "subjects").glob("[!_]*.py")}
    figures = [OmegaConf.load(path) for path in (ROOT / "conf" / "figure").rglob("*.yaml")]
    assert modules == set(DRAWINGS) == {figure.draw.name for figure in figures if "draw" in figure}
    assert set(MEASURES) == set(DRAWINGS) - {"rows"}


@pytest.mark.parametrize("functions", [MEASURES, DRAWINGS])
def test_a_name_that_is_not_there_is_not_found(functions):
    assert "nothing" not in functions
    with pytest.raises(KeyError):
        functions["nothing"]


def test_no_drawing_loads_torch():
    code = (
        "import sys\n"
        "from experiments.figures.subjects import DRAWINGS, MEASURES\n"
        "print(len([*DRAWINGS.values(), *MEASURES.values()]), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == [str(len(DRAWINGS) + len(MEASURES)), "False"]
