"""Finished runs to measure: a trained one with a null-space teleport, and one of no epochs."""

from __future__ import annotations

import pytest

from experiments.figures.runs import FigureRun, execute, expand
from tests.experiments.figures.conftest import conf

SMALL = ["data.train_samples=320", "data.test_samples=100", "model.widths=[40,30]", "training.epochs=1"]
INITIAL = ["training.epochs=0", "data.train_samples=64", "data.test_samples=32", "scale=smoke"]


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory) -> FigureRun:
    """An MLP after one epoch on digits, configured for a null-space teleport that is never due."""
    folder = tmp_path_factory.mktemp("trained")
    overrides = ["scale=smoke", "model.teleport_samples=25", f"machine.runs={folder}", *SMALL]
    with conf():
        runs = expand([{"data": "digits", "teleport": "nullspace_paper", "teleport.epochs": [[]]}], overrides)
    execute(runs)
    assert runs[0].reason == ""
    return runs[0]


def initial(folder, *overrides) -> FigureRun:
    """A run of no epochs on digits."""
    with conf():
        (run,) = expand([{"data": "digits", "model": "mlp"}], [*INITIAL, f"machine.runs={folder}", *overrides])
    execute([run])
    assert run.reason == ""
    return run


@pytest.fixture(scope="session")
def initial_run(tmp_path_factory) -> FigureRun:
    """An initial MLP of three hidden layers."""
    return initial(tmp_path_factory.mktemp("initial"), "model.widths=[50,40,40]")


@pytest.fixture(scope="session")
def small_figure(tmp_path_factory) -> list[FigureRun]:
    """Runs of one figure: two seeds without teleports, 0 and 10, and the first with null-space teleports."""
    overrides = ["scale=smoke", "model.teleport_samples=20", f"machine.runs={tmp_path_factory.mktemp('runs')}", *SMALL]
    with conf():
        runs = expand(
            [
                {"data": "digits", "model": "mlp", "seed": [0, 10], "teleport": "none"},
                {"data": "digits", "model": "mlp", "seed": 0, "teleport": "nullspace", "teleport.threshold": 0.99999},
            ],
            overrides,
        )
    execute(runs)
    assert [run.reason for run in runs] == [""] * 3
    return runs
