"""Grids of overrides become runs."""

from __future__ import annotations

import itertools

import pytest

from experiments.errors import UserError
from experiments.figures.runs import expand, override_key, partner
from tests.experiments.figures.conftest import conf


@pytest.fixture(autouse=True)
def _hydra():
    with conf():
        yield


def test_a_grid_is_the_product_of_its_lists_the_last_fastest():
    runs = expand([{"data": "digits", "optimizer": ["sgd", "adam"], "seed": [0, 1], "teleport": "none"}], [])
    points = [(run.labels["optimizer"], run.labels["seed"]) for run in runs]
    assert points == list(itertools.product(["sgd", "adam"], [0, 1]))
    assert [(run.config.optimizer.name, run.config.seed) for run in runs] == points


def test_labels_are_the_choices_and_not_the_names_of_the_methods():
    runs = expand([{"teleport": ["nullspace", "nullspace_paper"]}], [])
    assert [run.labels["teleport"] for run in runs] == ["nullspace", "nullspace_paper"]
    assert [run.config.teleport.name for run in runs] == ["nullspace", "nullspace"]


def test_what_else_is_swept_is_a_label():
    runs = expand([{"teleport": "nullspace", "teleport.epochs": [[], [0, 1]]}], [])
    assert [run.labels["teleport.epochs"] for run in runs] == ["[]", "[0, 1]"]
    assert [list(run.config.teleport.epochs) for run in runs] == [[], [0, 1]]


def test_the_command_line_takes_the_place_of_a_swept_key_and_applies_to_all():
    grid = {"optimizer": ["sgd", "adam"], "seed": [0, 1, 2]}
    runs = expand([grid], ["figure=nullspace/fig8", "scale=smoke", "seed=5", "+figure.draw.x=step", "machine.jobs=2"])
    assert [run.labels["seed"] for run in runs] == [5, 5]
    assert {run.config.scale for run in runs} == {"smoke"}
    assert {run.config.machine.jobs for run in runs} == {2}
    assert all(run.config.figure is None for run in runs)


def test_a_run_that_two_grids_name_is_made_once():
    runs = expand([{"seed": [0, 1]}, {"data": "digits", "seed": [1, 2]}], [])
    assert [run.labels["seed"] for run in runs] == [0, 1, 2]


def test_a_grid_that_does_not_compose_is_one_sentence():
    with pytest.raises(UserError, match=r"model=mlpp: unknown option of model 'mlpp' \(did you mean 'mlp'"):
        expand([{"model": "mlpp"}], [])


@pytest.mark.parametrize(
    ("override", "key"),
    [("a.b=3", "a.b"), ("+a=[x=y]", "a"), ("~a", "a"), ("++a.b=1", "a.b"), ("data@x=mnist", "data")],
)
def test_what_an_override_is_about(override, key):
    assert override_key(override) == key


def test_the_partner_of_a_run_differs_in_the_given_labels_alone(tmp_path):
    runs = expand(
        [
            {"data": "digits", "seed": [0, 1], "optimizer.lr": [0.1, 0.2], "teleport": "none"},
            {"data": "digits", "seed": 0, "optimizer.lr": 0.2, "teleport": "nullspace", "teleport.cap": 3.0},
        ],
        [],
    )
    for run in runs:
        run.folder = tmp_path
    assert partner(runs[-1], teleport="none") is runs[1]  # seed 0 at the rate 0.2
    assert partner(runs[1], seed=1) is runs[3]
    with pytest.raises(UserError, match=r"no run with seed=7 .*add one"):
        partner(runs[0], seed=7)
    runs[1].folder, runs[1].reason = None, "it is not here"
    with pytest.raises(UserError, match=r"teleport=none .*has no result: it is not here"):
        partner(runs[-1], teleport="none")
