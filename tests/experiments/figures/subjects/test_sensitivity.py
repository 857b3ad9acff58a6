"""Effects of the settings: a known linear design, ratios of known curves, and the committed design."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure

from experiments.errors import UserError
from experiments.figures.subjects.sensitivity import (
    _scale,
    by_level,
    draw_sensitivity,
    main_effects,
    measure_sensitivity,
    ratios,
)
from experiments.run.runs import load_table
from tests.experiments.figures.conftest import ROOT
from tests.experiments.figures.tables import said, tabled

SETTINGS = {"tau": "teleport.threshold", "schedule": "teleport.epochs"}
TAUS, SCHEDULES = (0.9, 0.99, 1.0), ("[0]", "[2]", "[0, 1]")


def run_cell(tau, schedule, seed, ratio, varied, rate=0.01):
    labels = {"data": "mnist", "model": "mlp", "optimizer": "sgd", "teleport": "nullspace", "seed": seed}
    row = {"varied": varied, "tau": tau, "schedule": schedule, "train_loss": ratio, "seconds": 1.0, "kept": 1.0}
    row |= {"epochs_ratio": ratio, "seconds_ratio": 2 * ratio, "test_ratio": ratio}
    return {**labels, "optimizer.lr": rate}, pd.DataFrame([row]).assign(run=f"{varied}{tau}{schedule}{seed}{rate}")


def designed(noise=0.0):
    """A full design: from its lowest to its highest level tau halves the loss, a schedule multiplies it by 1.5."""
    generator = np.random.default_rng(0)
    for (a, tau), (b, schedule), seed in itertools.product(enumerate(TAUS), enumerate(SCHEDULES), range(2)):
        ratio = 0.8 * 0.5 ** (a / 2) * 1.5 ** (b / 2) * np.exp(noise * generator.standard_normal())
        yield run_cell(tau, schedule, seed, ratio, "all")


def test_a_known_linear_design_is_found_exactly():
    rows = tabled(*designed())
    for ratio in ("epochs_ratio", "seconds_ratio"):
        found = main_effects(rows, list(SETTINGS), ratio).set_index("setting")
        for column in ("effect", "low", "high"):
            assert found[column].to_list() == pytest.approx([-0.5, 0.5])


def test_intervals_of_main_effects_are_those_of_the_one_factor_formula():
    """Settings of a full design are orthogonal, so that each slope is that of a regression on it alone."""
    rows = tabled(*designed(noise=0.1))
    found = main_effects(rows, list(SETTINGS), "epochs_ratio").set_index("setting")
    points = rows.groupby(["tau", "schedule"])["epochs_ratio"].apply(lambda x: np.log(x).mean()).unstack()[[*SCHEDULES]]
    response, level = points.to_numpy(), np.array([0.0, 0.5, 1.0])
    slopes = [np.polyfit(level, response.mean(axis=axis), 1)[0] for axis in (1, 0)]
    assert np.log1p(found["effect"]).to_list() == pytest.approx(slopes)
    fitted = response.mean() + slopes[0] * (level - 0.5)[:, None] + slopes[1] * (level - 0.5)
    error = np.sqrt(((response - fitted) ** 2).sum() / (9 - 3) / (3 * ((level - 0.5) ** 2).sum()))
    half = np.log1p(found["high"]) - np.log1p(found["effect"])
    assert half.to_list() == pytest.approx([2.446912 * error] * 2, rel=1e-6)  # Student's t, 6 degrees of freedom


def test_settings_that_cannot_be_told_apart_have_no_effects():
    same = [run_cell(tau, schedule, 0, 1.0, "all") for tau, schedule in zip(TAUS * 2, SCHEDULES * 2, strict=True)]
    assert main_effects(tabled(*same), list(SETTINGS), "epochs_ratio").empty


def test_levels_are_in_order_with_the_usual_one_among_them():
    cells = [run_cell(1.0, "[0, 1]", seed, 0.5, "usual") for seed in range(3)]
    cells += [run_cell(0.9, "[0, 1]", seed, 0.5 * 2.0**seed, "tau") for seed in range(3)]
    cells += [run_cell(1.0, schedule, 0, 0.7, "schedule") for schedule in ("[4]", "[0]")]
    cells += list(designed())
    rows = tabled(*cells)
    found = by_level(rows, "tau", "epochs_ratio")
    assert found["level"].to_list() == [0.9, 1.0]
    assert found["effect"].to_list() == pytest.approx([0.0, -0.5])  # the geometric mean of 0.5, 1 and 2
    assert found["high"][0] == pytest.approx(2 ** (4.302653 / 3**0.5) - 1, rel=1e-6)  # Student's t, 2 degrees
    assert by_level(rows, "schedule", "epochs_ratio")["level"].to_list() == ["[0]", "[4]", "[0, 1]"]


def curve(losses, seconds):
    return pd.DataFrame({"train_loss": losses, "test_loss": losses, "seconds": seconds})


def test_ratios_at_equal_epochs_and_at_equal_seconds():
    control = curve([4.0, 2.0, 1.0], [0.0, 1.0, 2.0])
    found = ratios(curve([4.0, 2.0, 0.5], [0.0, 1.5, 2.5]), control)
    assert found == pytest.approx({"epochs_ratio": 0.5, "seconds_ratio": 1.0, "test_ratio": 0.5})  # half-way in log
    diverged = ratios(curve([4.0, 9.0, np.nan], [0.0, 1.0, 1.2]), control)
    assert diverged == pytest.approx({"epochs_ratio": 4.0, "seconds_ratio": 4.0, "test_ratio": 4.0})


def test_the_picture_has_a_panel_per_setting_and_rate_and_one_of_the_design():
    cells = [run_cell(1.0, "[0, 1]", seed, 0.5, "usual", rate) for seed in range(3) for rate in (0.01, 0.1)]
    cells += [run_cell(0.9, "[0, 1]", 0, 0.7, "tau", rate) for rate in (0.01, 0.1)]
    picture = draw_sensitivity(tabled(*cells, *designed(0.1)), "title", settings=list(SETTINGS))
    assert [axes.get_title() for axes in picture.axes] == ["tau", "schedule", "", "", "random design, rate 0.01"]
    assert [tick.get_text() for tick in picture.axes[0].get_xticklabels()] == ["0.9", "1"]
    assert "seeds (3)" in said(picture)
    with pytest.raises(UserError, match="setting of the drawing 'sensitivity'"):
        draw_sensitivity(tabled(*cells), "title", settings=["cap"])


def test_seconds_of_two_machines_are_refused():
    cells = [run_cell(1.0, "[0]", seed, 0.5, "usual") for seed in range(2)]
    for number, (_, rows) in enumerate(cells):
        rows["hardware"] = f"machine {number}"
    with pytest.raises(UserError, match="hardware"):
        draw_sensitivity(tabled(*cells), "title", settings=list(SETTINGS))


def test_the_committed_design_is_balanced_and_no_two_settings_go_together():
    content = yaml.safe_load((ROOT / "conf" / "figure" / "nullspace" / "sensitivity.yaml").read_text())
    keys = list(content["measure"]["settings"].values())
    grids = [grid for grid in content["runs"] if set(keys) <= set(grid)]
    points = pd.DataFrame(
        [{key: len(grid[key][0]) if key == "teleport.epochs" else grid[key] for key in keys} for grid in grids]
    )
    assert len(points.drop_duplicates()) == 30
    for key in keys:
        assert points[key].value_counts().to_list() == [6] * 5
    correlations = points.corr("spearman").to_numpy() - np.eye(len(keys))
    assert np.abs(correlations).max() < 0.5


def test_a_run_is_measured_against_the_one_without_teleports(small_figure):
    control, other, teleported = small_figure
    (row,) = measure_sensitivity(teleported, settings=SETTINGS).to_dict("records")
    curves = [load_table(run.folder, "curve") for run in (teleported, control)]
    assert row["epochs_ratio"] == curves[0]["train_loss"].iloc[-1] / curves[1]["train_loss"].iloc[-1]
    assert (row["varied"], row["tau"], row["schedule"], row["kept"]) == ("tau", 0.99999, "[0, 1, 2, 3, 4]", 1.0)
    (plain,) = measure_sensitivity(other, settings=SETTINGS).to_dict("records")
    assert plain["varied"] == "usual"
    assert "epochs_ratio" not in plain


@pytest.mark.parametrize(("high", "most"), [(8.0, 8), (30.0, 6), (1e4, 5)])
def test_a_short_axis_has_few_ticks(high, most):
    axes = Figure(figsize=(2, 1)).subplots()
    axes.plot([0, 1], [1.0, high])
    _scale(axes)
    low, top = axes.get_ylim()
    assert 3 <= sum(low <= tick <= top for tick in axes.get_yticks()) <= most
