"""The runs of a figure by a launcher: the same runs as without one, and only those that are missing."""

from __future__ import annotations

import json
import shutil
import sys
from types import ModuleType
from typing import ClassVar

import pytest
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.plugins import Plugins

from experiments.command_line.figure_runs import launcher_of
from experiments.command_line.job import job
from experiments.errors import UserError
from experiments.figures.build import build
from tests.experiments.figures.conftest import ROOT, conf, places

FIGURE = """# @package figure
defaults:
  - /schema/figure@_here_: figure
  - _self_
title: Runs of which one fails
claim: none
runs:
  - {data: digits, model: custom, "model.factory": "tests.experiments.small:watched", optimizer: sgd, teleport: none,
     seed: [0, 3, 4]}
draw: {name: curves, x: epoch}
"""
SMALL = ["data.train_samples=300", "data.test_samples=100", "training.epochs=1", "machine.threads=1"]
LAUNCHER = ["hydra.launcher._target_=hydra_plugins.in_turn.InTurn"]


class InTurn(BasicLauncher):
    """Hydra's own launcher by another name, with the number of runs of each call."""

    calls: ClassVar[list[int]] = []

    def launch(self, job_overrides, initial_job_idx):
        self.calls.append(len(job_overrides))
        return super().launch(job_overrides, initial_job_idx)


@pytest.fixture(autouse=True)
def plugin(monkeypatch):
    """Hydra takes plugins of the package ``hydra_plugins`` alone."""
    module = ModuleType("hydra_plugins.in_turn")
    module.InTurn = InTurn
    monkeypatch.setattr(InTurn, "__module__", module.__name__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    Plugins.instance().register(InTurn)
    InTurn.calls.clear()


@pytest.fixture
def figure(tmp_path, monkeypatch):
    """Makes the figure with a launcher or without; the content of its provenance."""
    own = shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (own / "figure" / "own").mkdir()
    (own / "figure" / "own" / "check.yaml").write_text(FIGURE)
    monkeypatch.setenv("TRAININGS", str(tmp_path / "trainings"))

    def make(name, launcher):
        overrides = ["figure=own/check", *SMALL, *places(tmp_path / name)]
        with conf(own):
            folder = build(overrides, launcher_of([*launcher, *overrides], job))
        return json.loads((folder / "provenance.json").read_text())

    return make


@pytest.mark.slow
def test_a_launcher_makes_the_runs_of_a_figure_that_are_made_without_it(figure, tmp_path):
    here, launched = figure("here", []), figure("launched", LAUNCHER)
    assert InTurn.calls == [3]
    assert len(here["runs"]) == 2
    assert launched["runs"].keys() == here["runs"].keys()
    assert launched["failed"] == here["failed"]
    assert launched["overrides"] == here["overrides"]
    tables = [sorted(path.name for path in (tmp_path / name / "runs").iterdir()) for name in ("here", "launched")]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_the_same_command_launches_what_failed_alone_and_says_what_is_missing(figure, tmp_path, caplog):
    caplog.set_level("INFO", logger="experiments")
    figure("launched", LAUNCHER)
    caplog.clear()
    figure("launched", LAUNCHER)
    assert InTurn.calls == [3, 1]
    assert sorted((tmp_path / "trainings").read_text().split()) == ["0", "4"]
    assert "1 of 3 runs are missing in the figure:" in caplog.text
    assert "seed=3 model.factory=tests.experiments.small:watched: no model with seed 3" in caplog.text
    tables = list((tmp_path / "launched" / "runs" / "sweeps").iterdir())
    assert all(path.suffix == ".csv" for path in tables), "the launches leave tables alone"


def test_hydras_own_launcher_is_none():
    with conf():
        assert launcher_of(["seed=1"], job) is None
        assert launcher_of(["hydra/launcher=basic", "seed=1"], job) is None


def test_a_launcher_beside_machine_jobs_is_refused():
    with conf(), pytest.raises(UserError, match=r"machine\.jobs=2 needs Hydra's own launcher"):
        launcher_of([*LAUNCHER, "machine.jobs=2"], job)
