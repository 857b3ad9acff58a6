"""The measurements of a change of basis on small runs, against what is known of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from experiments.analyses.angles import PAIRS
from experiments.analyses.magnitude import expected_gain
from experiments.errors import UserError
from experiments.figures.measure.angles import measure_angles
from experiments.figures.measure.feature_maps import measure_feature_maps
from experiments.figures.measure.landscape import measure_landscape
from experiments.figures.measure.level_curve import measure_level_curve
from experiments.figures.measure.magnitude import measure_magnitude
from experiments.figures.measure.quiver import measure_quiver
from experiments.figures.measure.subject import subject_of
from experiments.figures.measure.weight_histogram import measure_weight_histogram
from experiments.figures.runs import execute, expand
from experiments.run.runs import load_table
from tests.experiments.figures.conftest import conf

INITIAL = ["training.epochs=0", "data.train_samples=64", "data.test_samples=32", "scale=smoke"]


def made(folder, *overrides):
    with conf():
        (run,) = expand([{"data": "digits", "model": "mlp"}], [*INITIAL, f"machine.runs={folder}", *overrides])
    execute([run])
    assert run.reason == ""
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made(tmp_path_factory.mktemp("neural"), "model.widths=[50,40,40]")


def test_a_run_of_no_epochs_is_the_initial_model(run):
    subject = subject_of(run)
    initial = {name: value.clone() for name, value in subject.model.state_dict().items()}
    subject.load_trained()
    assert all(torch.equal(value, initial[name]) for name, value in subject.model.state_dict().items())
    assert load_table(run.folder, "curve")["step"].tolist() == [0]


def test_angles_of_a_network(run):
    rows = measure_angles(run, range=0.001, teleports=30, batch_sizes=[4, 16])
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


def test_the_gradients_difference_grows_with_the_range(run):
    rows = measure_magnitude(run, smallest=0.01, largest=0.9, ranges=3, teleports=4, samples=16, backpropagated_every=2)
    theorem, again = (rows[rows["source"] == source] for source in ("theorem", "backpropagation"))
    assert theorem.groupby("range").size().tolist() == [4, 4, 4]
    assert theorem.groupby("range")["difference"].mean().is_monotonic_increasing
    assert again["range"].tolist() == [0.01, 0.9]
    for row in again.itertuples():
        same = theorem[(theorem["range"] == row.range) & (theorem["number"] == row.number)]
        assert same["gain"].item() == pytest.approx(row.gain, rel=1e-5)
        assert same["difference"].item() == pytest.approx(row.difference, rel=1e-3)
        assert same["normalised_gain"].item() == pytest.approx(row.normalised_gain, rel=1e-5)
    start = theorem["difference"] / (theorem["normalised_gain"] - 1).abs()
    np.testing.assert_allclose(start, start.iloc[0], rtol=1e-6)  # |dW| / |W|
    assert 1 < theorem.loc[theorem["range"] == 0.9, "gain"].mean() < 3 * expected_gain(0.9)


def test_weights_before_and_after_are_all_counted_and_spread(run):
    rows = measure_weight_histogram(run, range=0.9, limit=0.2, bins=20)
    parameters = sum(p.numel() for p in subject_of(run).model.parameters())
    counts = rows.pivot(index="low", columns="state", values="count")
    assert counts.sum().tolist() == [parameters, parameters]
    assert counts["before"].iloc[[0, -1]].sum() == 0 < counts["after"].iloc[[0, -1]].sum()


def test_teleports_keep_the_loss_to_rounding_and_move_the_weights(run):
    rows = measure_level_curve(run, range=0.9, teleports=5, samples=32)
    change = (rows["loss_after"] / rows["loss_before"] - 1).abs().groupby(rows["precision"]).max()
    assert change["float64"] < 1e-13
    assert change["float32"] < 1e-5
    assert (rows["weight_difference"] > 0.5 * rows["weight_magnitude"]).all()
    way = rows.pivot(index="number", columns="precision", values="weight_difference")
    np.testing.assert_allclose(way["float32"], way["float64"], rtol=1e-5)  # the same teleports
    assert way["float64"].nunique() == 5


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_maps_of_a_layer_are_multiples_and_outputs_stay(tmp_path, activation):
    run = made(tmp_path, "model=cnn", "model.channels=[4,6]", f"model.activation={activation}")
    rows = measure_feature_maps(run, range=0.9, layers=["activation1", "activation2"], maps=3, sample=1)
    assert rows["output_difference"].max() < 1e-5
    assert rows.groupby(["state", "layer"]).size().tolist() == [24, 12, 24, 12]
    first = rows[rows["layer"] == "activation1"]
    before, after = (
        first[first["state"] == state].filter(regex=r"^x\d").to_numpy(float).reshape(3, -1)
        for state in ("before", "after")
    )
    for old, new in zip(before, after, strict=True):
        tau = new @ old / (old @ old)
        np.testing.assert_allclose(new, tau * old, atol=1e-5)
        assert 0.1 <= tau <= 1.9


def test_a_layer_that_is_not_there_is_a_sentence(run):
    with pytest.raises(UserError, match=r"unknown layer of the model 'linear'.*did you mean 'linear"):
        measure_feature_maps(run, range=0.9, layers=["linear"], maps=1, sample=0)


def test_all_teleports_of_two_weights_lie_on_the_level_of_the_loss():
    rows = measure_landscape(None, range=0.5, teleports=4, points=5)
    start = rows[rows["what"] == "start"].iloc[0]
    teleports = rows[rows["what"] == "teleport"]
    np.testing.assert_allclose(teleports["loss"], start["loss"], rtol=1e-12)
    np.testing.assert_allclose(teleports["first"] * teleports["second"], start["first"] * start["second"], rtol=1e-12)
    np.testing.assert_allclose(teleports["first"], teleports["tau"] * start["first"], rtol=1e-12)
    assert ((teleports["tau"] > 0) == (teleports["landscape"] == "original")).all()
    assert teleports.groupby("landscape").size().tolist() == [4, 4]


def test_the_other_landscape_is_that_of_the_teleported_activation():
    rows = measure_landscape(None, range=0.5, teleports=1, points=5, samples=20, seed=3)
    x, noise = torch.randn(2, 20, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64).numpy()
    targets = 0.5 * np.maximum(x, 0) + 0.2 * np.minimum(x, 0) + 0.05 * noise
    for landscape, f in (("original", np.maximum), ("other", np.minimum)):
        surface = rows[(rows["what"] == "surface") & (rows["landscape"] == landscape)]
        assert len(surface) == 25
        for row in surface.itertuples():
            expected = np.mean((row.second * f(row.first * x, 0) - targets) ** 2)
            assert row.loss == pytest.approx(expected, rel=1e-12)


def test_a_quivers_teleported_weights_follow_from_its_taus():
    rows = measure_quiver(None, widths=[2, 3, 2, 1], range=0.9)
    neurons, edges = rows[rows["what"] == "neuron"], rows[rows["what"] == "edge"]
    tau = neurons.set_index(["layer", "neuron"])["tau"]
    assert tau.groupby("layer").size().tolist() == [2, 3, 2, 1]
    np.testing.assert_allclose(tau[[(0, 0), (0, 1), (3, 0)]], 1, rtol=1e-12)
    assert (abs(tau.loc[1:2] - 1) > 1e-3).all()
    assert len(edges) == 6 + 6 + 2
    for edge in edges.itertuples():
        ratio = tau[edge.layer, edge.neuron] / tau[edge.layer - 1, edge.source]
        assert edge.teleported == pytest.approx(edge.weight * ratio, rel=1e-12)
