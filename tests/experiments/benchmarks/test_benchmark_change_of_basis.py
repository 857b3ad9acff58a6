"""The change of basis that is timed is one: it moves the weights and keeps the outputs."""

from __future__ import annotations

import pytest

from experiments.benchmarks.change_of_basis import (
    AXES,
    FULL,
    SMOKE,
    TELEPORT,
    TOUCH,
    summary,
)


def test_channels_are_free_and_outputs_stay(measured):
    teleports = measured[measured.method == TELEPORT].set_index("model")
    assert teleports.free["mlp500"] == 5 * 25
    assert teleports.shared["resnet18"] > 0
    assert (teleports.difference > 0).all()
    assert (teleports.difference < 1e-4).all()


def test_ratios_are_to_touching_every_weight(measured):
    first = next(iter(summary(measured).values()))
    seconds = measured.set_index(["method", "model"]).seconds
    assert first[TOUCH].tolist() == [1.0] * len(SMOKE)
    assert first[TELEPORT][0] == pytest.approx(seconds[TELEPORT, "mlp500"] / seconds[TOUCH, "mlp500"])


def test_the_full_cases_are_the_four_networks_of_the_paper_whole():
    assert [vars(case) for case in FULL] == [
        {"model": name, "width": 1.0} for name in ("mlp500", "vgg16", "resnet18", "densenet121")
    ]
    assert AXES == ["model", "width"]
