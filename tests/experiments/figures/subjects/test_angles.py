"""Angles of micro-teleportations and of random vectors, and their histograms."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from experiments.figures import page
from experiments.figures.subjects.angles import PAIRS, angles, draw_angles, measure_angles
from experiments.figures.weight_space import RandomChanges, angle, displacement, flatten, gradient, trainable, unit
from tests.experiments.figures.networks import QUICK_FIRST, batch, loss_fn, network
from tests.experiments.figures.tables import MLP, VGG, angle_rows, tabled


@pytest.mark.parametrize("name", QUICK_FIRST)
def test_a_micro_teleport_is_perpendicular_to_the_gradient_of_any_batch(name):
    model = network(name)
    gradients = [flatten(gradient(model, batch(samples), loss_fn)) for samples in (2, 8)]
    drawn = RandomChanges(model, batch()[0]).draw(range=0.001, count=3, seed=0)
    micro = [displacement(model, factors) for factors in drawn]
    assert all(m.norm() > 1e-5 * flatten(trainable(model)).norm() for m in micro)
    for rows in angles(micro, gradients, torch.Generator().manual_seed(0)):
        for row in rows:
            assert row["micro_gradient"] == pytest.approx(90, abs=1e-3)
            assert abs(row["gradient_random"] - 90) > 10 * abs(row["micro_gradient"] - 90)


def test_a_larger_range_leaves_the_tangent():
    model = network("mlp500")
    of = flatten(gradient(model, batch(), loss_fn))
    errors = []
    for size in (0.4, 0.004):
        drawn = RandomChanges(model, batch()[0]).draw(range=size, count=10, seed=0)
        errors.append(sum(abs(angle(unit(displacement(model, factors)), unit(of)) - 90) for factors in drawn))
    assert errors[1] < errors[0] / 20  # in proportion to the range


def test_random_pairs_spread_by_the_root_of_the_dimension():
    size, count = 2000, 400
    unit = torch.zeros(size, dtype=torch.float64)
    unit[0] = 1.0
    rows = [row for rows in angles([unit] * count, [unit], torch.Generator().manual_seed(0)) for row in rows]
    expected = math.degrees(1) / math.sqrt(size)
    for pair in ("micro_random", "gradient_random", "random_random"):
        deviations = torch.tensor([row[pair] for row in rows]).double() - 90
        assert deviations.square().mean().sqrt().item() == pytest.approx(expected, rel=0.2)
        assert abs(deviations.mean().item()) < 4 * expected / math.sqrt(count)


def test_one_pair_of_random_vectors_meets_every_gradient():
    generator = torch.Generator().manual_seed(0)
    micro, first, second = torch.randn(3, 50, dtype=torch.float64, generator=generator)
    (rows,) = angles([micro], [first, second, -first], torch.Generator().manual_seed(1))
    assert len({row["random_random"] for row in rows}) == len({row["micro_random"] for row in rows}) == 1
    assert rows[0]["micro_gradient"] == pytest.approx(180 - rows[2]["micro_gradient"])
    assert rows[0]["gradient_random"] == pytest.approx(180 - rows[2]["gradient_random"])
    assert rows[1]["micro_gradient"] == pytest.approx(angle(unit(micro), unit(second)))


def test_angles_of_a_network(initial_run):
    rows = measure_angles(initial_run, range=0.001, teleports=30, batch_sizes=[4, 16])
    assert rows[["number", "batch_size"]].to_numpy().tolist() == [[t, b] for t in range(30) for b in (4, 16)]
    parameters = 65 * 50 + 51 * 40 + 41 * 40 + 41 * 10
    assert (rows["parameters"] == parameters).all()
    assert (rows["micro_gradient"] - 90).abs().max() < 1e-3
    small, large = (rows[rows["batch_size"] == size].reset_index() for size in (4, 16))
    for pair in PAIRS:
        assert (small[pair] == large[pair]).all() == ("gradient" not in pair)
    expected = math.degrees(1) / math.sqrt(parameters)
    spread = np.sqrt(np.mean((rows[["micro_random", "random_random"]].to_numpy() - 90) ** 2))
    assert spread == pytest.approx(expected, rel=0.3)


def test_each_pair_has_a_row_on_one_scale_and_every_angle_is_counted():
    figure = draw_angles(tabled((VGG, angle_rows(1e-7)), (MLP, angle_rows(0.3))), "title")
    axes = np.array(figure.axes).reshape(4, 2)
    assert [panel.get_ylabel().replace("\n", " ") for panel in axes[:, 0]] == list(PAIRS.values())
    assert axes[0, 0].get_title() == "VGG16, CIFAR-10\n14.72 M parameters"
    assert len({panel.get_xlim() for panel in axes.flat}) == 1
    assert axes[0, 0].get_xscale() == "log"
    for panel, pair in zip(axes[:, 1], PAIRS, strict=True):
        counts = [_counts(patch) for patch in panel.patches]
        assert [sum(each) for each in counts] == [50] * (2 if "gradient" in pair else 1)
        assert [patch.get_fill() for patch in panel.patches] == [True, False][: len(counts)]  # none hides the other


def _counts(patch) -> list[float]:
    """The heights of the bins of a histogram's outline."""
    vertices = patch.get_path().vertices
    edges = sorted(set(vertices[:, 0]))
    found = []
    for left, right in pairwise(edges):
        heights = [max(a[1], b[1]) for a, b in pairwise(vertices) if a[1] == b[1] and {a[0], b[0]} == {left, right}]
        found.append(max(heights, default=0))
    return found


def test_ticks_of_panels_beside_each_other_do_not_touch():
    names = ("mlp", "vgg16", "resnet18", "densenet121")
    cells = [({"data": "cifar10", "model": name}, angle_rows(0.3)) for name in names]
    with page.settings():
        figure = draw_angles(tabled(*cells), "title")
        figure.draw_without_rendering()
        below = figure.axes[-4:]
        boxes = [tick.get_window_extent() for axes in below for tick in axes.get_xticklabels() if tick.get_text()]
    assert all(left.x1 + 2 < right.x0 for left, right in pairwise(boxes))
