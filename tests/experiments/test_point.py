"""Runs on test functions: what Zhao et al. 2022 show of them holds, by the suite's own loop and records."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest

from experiments.errors import UserError
from experiments.functions import FUNCTIONS
from experiments.run.make_run import make_run
from experiments.run.runs import load_table
from tests.experiments.small import composed

every_function = pytest.mark.parametrize("name", FUNCTIONS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The run of an experiment with a teleport method, and further overrides."""
    folder = tmp_path_factory.mktemp("functions")

    @cache
    def make(name, teleport, *overrides):
        return make_run(
            composed(f"experiment=symmetry/{name}", f"teleport={teleport}", f"machine.runs={folder}", *overrides)
        )

    return make


def last(folder) -> float:
    return float(load_table(folder, "curve")["train_loss"].iloc[-1])


def test_plain_descent_is_that_of_the_closed_form(made):
    """On the ellipse each coordinate shrinks by a factor a step."""
    curve = load_table(made("ellipse", "none"), "curve")
    steps = np.arange(11)
    expected = (8 * (1 - 2 * 0.08) ** steps) ** 2 + 9 * (2 * (1 - 18 * 0.08) ** steps) ** 2
    np.testing.assert_allclose(curve["train_loss"], expected, rtol=1e-12)


@pytest.mark.parametrize(("name", "lower"), [("booth", 1e-3), ("ellipse", 1e-3), ("rosenbrock", 1e-3)])
def test_with_teleports_descent_ends_lower_in_the_same_steps(made, name, lower):
    plain, teleported = made(name, "none"), made(name, "orbit")
    assert load_table(plain, "curve")["step"].iloc[-1] == load_table(teleported, "curve")["step"].iloc[-1]
    assert last(teleported) < lower * last(plain)


@every_function
def test_a_teleport_keeps_the_value_and_raises_the_gradient_norm(made, name):
    folder = made(name, "orbit")
    events, batches = load_table(folder, "teleport_events"), load_table(folder, "teleports")
    assert events["step"].tolist() == ([4] if name != "rosenbrock" else list(range(100, 1000, 100)))
    np.testing.assert_allclose(events["train_loss_after"], events["train_loss_before"], rtol=0, atol=1e-12)
    assert batches["accepted"].all()
    short = batches[batches["gradient_norm_before"] > 0]  # Rosenbrock's minimum is met exactly
    assert (short["gradient_norm_after"] > short["gradient_norm_before"]).all()
    assert batches["gradient_norm_after"].iloc[0] > 2 * batches["gradient_norm_before"].iloc[0]


@every_function
def test_the_linearised_level_set_moves_a_point_as_well(made, name):
    first = load_table(made(name, "levelset"), "teleports").iloc[0]
    assert first["gradient_norm_after"] > 1.5 * first["gradient_norm_before"]
    assert first["loss_after"] <= first["loss_before"] + 1e-3 * max(1.0, first["loss_before"])


@every_function
def test_positions_are_where_the_values_were_taken(made, name):
    folder, function = made(name, "orbit"), FUNCTIONS[name]
    positions = load_table(folder, "positions").pivot(index=["step", "moment"], columns="coordinate", values="value")
    values = function(positions[0], positions[1])
    curve, events = (
        load_table(folder, "curve").set_index("step"),
        load_table(folder, "teleport_events").set_index("step"),
    )
    for moment, known in (
        ("evaluation", curve["train_loss"]),
        ("before teleport", events["train_loss_before"]),
        ("after teleport", events["train_loss_after"]),
    ):
        np.testing.assert_allclose(values.xs(moment, level="moment"), known, rtol=1e-12)
    distance = ((positions - np.array(function.minimum)) ** 2).mean(axis="columns")
    np.testing.assert_allclose(distance.xs("evaluation", level="moment"), curve["train_metric"], rtol=1e-12)


def test_a_run_starts_where_it_is_told_to(made):
    folder = made("booth", "none", "model.start=[1.0,3.5]", "training.epochs=1")
    assert load_table(folder, "curve")["train_loss"].iloc[0] == pytest.approx(1.25)
    assert json.loads((folder / "summary.json").read_text())["parameters"] == 2


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data=digits", "model=point"], "model 'point' takes a test function, but data 'digits' gives images"),
        (["data=booth"], "model 'mlp' takes .* but data 'booth' gives a test function; fitting models: point"),
        (["data=booth", "model=point", "model.start=[1.0]"], "model.start has 1 coordinates, but the function has 2"),
        (["teleport=orbit"], r"unknown action of teleport=orbit \(a test function\) 'digits'; known: booth, ellipse,"),
        (
            ["teleport=orbit", "teleport.action=booth"],
            "teleport=orbit does not go with model=mlp: it is not model=point",
        ),
        (["data=booth", "model=point", "teleport=symmetry"], "teleport=symmetry does not go with model=point"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, overrides, said):
    with pytest.raises(UserError, match=said) as caught:
        make_run(composed(*overrides, f"machine.runs={tmp_path}"))
    assert "\n" not in str(caught.value)


def test_the_action_of_another_function_is_undone(made):
    folder = made("ellipse", "orbit", "teleport.action=booth")
    batch = load_table(folder, "teleports").iloc[0]
    assert not batch["accepted"]
    assert last(folder) == last(made("ellipse", "none"))
