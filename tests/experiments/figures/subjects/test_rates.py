"""The end of a training by its learning rate: paired comparisons against scipy's, and the picture."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments.errors import UserError
from experiments.figures.subjects.rates import compared, draw_rates
from tests.experiments.figures.tables import said, tabled

RATES, SEEDS = (0.05, 0.1, 0.2), range(6)


def loss_of(teleport, rate, seed, epoch):
    """Falls with the epoch; teleports lower it by a seventh, a little differently per seed; best at the middle rate."""
    level = (1 + 30 * (rate - 0.1) ** 2) * (0.8 if epoch == 6 else 1.0) * (1 + 0.05 * seed)
    return level * {"none": 1.0, "gentle": 6 / 7 * (1 + 0.01 * (-1) ** seed), "random_gentle": 1.1}[teleport]


def cells(widths="[8, 8]", data="digits"):
    for teleport in ("none", "gentle", "random_gentle"):
        for rate in RATES if teleport != "random_gentle" else RATES[1:2]:
            for seed in SEEDS:
                epochs = [5.0, 6.0] if teleport == "none" else [5.0]
                losses = [loss_of(teleport, rate, seed, epoch) for epoch in epochs]
                labels = {"data": data, "model": "mlp", "optimizer": "sgd", "teleport": teleport, "seed": seed}
                labels |= {"optimizer.lr": rate, "model.widths": widths}
                rows = {"event": "evaluation", "step": 0, "epoch": epochs, "train_loss": losses, "test_loss": losses}
                yield labels, pd.DataFrame(rows)


@pytest.fixture
def table():
    return tabled(*cells())


def test_pairs_are_those_of_scipy(table):
    found = compared(table).set_index(["against", "rate"])
    ratios = [loss_of("gentle", 0.1, seed, 5) / loss_of("none", 0.1, seed, 5) for seed in SEEDS]
    test = stats.ttest_1samp(np.log(ratios), 0).confidence_interval(0.95)
    for row in (found.loc["none", "0.1"], found.loc["none", "best"]):
        assert row["effect"] == pytest.approx(stats.gmean(ratios) - 1)
        assert (row["low"], row["high"]) == pytest.approx((np.exp(test.low) - 1, np.exp(test.high) - 1))
        assert (row["seeds"], row["lower"]) == (6, 6)
    assert found.loc["longer", "0.1"]["effect"] == pytest.approx(stats.gmean(ratios) / 0.8 - 1)
    assert found.loc["random_gentle", "0.1"]["effect"] == pytest.approx(stats.gmean(ratios) / 1.1 - 1)
    assert len(found) == 4 + 4 + 1


def test_a_control_that_trains_longer_by_a_part_of_an_epoch_is_interpolated(table):
    found = compared(table, longer=0.25).set_index(["against", "rate"])
    ratio = stats.gmean([loss_of("gentle", 0.1, seed, 5) / loss_of("none", 0.1, seed, 5) for seed in SEEDS])
    assert found.loc["longer", "0.1"]["effect"] == pytest.approx(ratio / 0.8**0.25 - 1)
    none = found.loc["none", "0.1"]["effect"]
    assert compared(table, longer=0.0).set_index(["against", "rate"]).loc["longer", "0.1"]["effect"] == pytest.approx(
        none
    )


def test_panels_are_kept_apart_and_one_without_widths_is_one_of_them():
    table = tabled(*cells(), *cells(widths=None, data="smnist"))
    assert len(compared(table)) == 2 * 9
    picture = draw_rates(table, "title")
    assert [axes.get_title() for axes in picture.axes[:2]] == [
        "Digits, MLP 8-8, SGD",
        "sequential MNIST, MLP, SGD",
    ]
    assert "6 seeds" in said(picture)


def test_a_rate_at_which_a_run_diverged_has_no_interval(table):
    table.loc[(table["teleport"] == "gentle") & (table["seed"] == 2) & (table["optimizer.lr"] == 0.2), "train_loss"] = (
        np.inf
    )
    found = compared(table).set_index(["against", "rate"])
    assert np.isnan(found.loc["none", "0.2"]["low"])
    assert found.loc["none", "0.1"]["seeds"] == 6
    draw_rates(table, "title")


def test_a_panel_without_teleports_has_no_comparison(table):
    assert compared(table[table["teleport"] != "gentle"]).empty


def test_another_figure_is_refused(table):
    with pytest.raises(UserError, match=r"lacks 'optimizer\.lr'"):
        compared(table.drop(columns="optimizer.lr"))


def test_ticks_of_a_short_logarithmic_axis_are_plain_numbers_and_several(table):
    axes = draw_rates(table, "title").axes[0]
    axes.figure.draw_without_rendering()
    low, high = axes.get_ylim()
    inside = [
        tick.get_text() for tick, at in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True) if low < at < high
    ]
    assert axes.get_yscale() == "log"
    assert len(inside) >= 3
    assert all(float(text) > 0 for text in inside)
