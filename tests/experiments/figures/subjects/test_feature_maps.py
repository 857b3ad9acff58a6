"""Feature maps of layers, before and after a teleport."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from experiments.errors import UserError
from experiments.figures.subjects.feature_maps import draw_feature_maps, feature_maps, measure_feature_maps
from teleport import ChangeOfBasis
from tests.experiments.figures.subjects.conftest import initial
from tests.experiments.figures.tables import said, tabled


def test_outputs_of_layers_as_they_are_when_they_are_made():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 3))
    image = torch.randn(1, 1, 8, 8)
    (first, hidden), outputs = feature_maps(model, [model[0], model[1]], image)
    torch.testing.assert_close(first, model[0](image))
    torch.testing.assert_close(hidden, model[0](image).relu())
    torch.testing.assert_close(outputs, model(image))
    assert not any(module._forward_hooks for module in model.modules())


def test_of_a_layer_that_is_called_twice_the_last_call():
    act = nn.Tanh()
    model = nn.Sequential(nn.Linear(2, 2), act, nn.Linear(2, 2), act)
    (found,), outputs = feature_maps(model, [act], torch.ones(1, 2))
    torch.testing.assert_close(found, outputs, rtol=0, atol=0)


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh])
def test_a_teleport_multiplies_each_map_and_keeps_the_outputs(act):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), act(), nn.Conv2d(4, 2, 3)).double()
    image, moved = torch.randn(1, 1, 8, 8).double(), copy.deepcopy(model)
    report = ChangeOfBasis(range=0.9, activations="teleport", seed=0)(moved, [(image, None)])
    (before,), outputs = feature_maps(model, [model[1]], image)
    (after,), again = feature_maps(report.model, [moved[1]], image)
    torch.testing.assert_close(again, outputs)
    tau = moved[0].bias / model[0].bias
    torch.testing.assert_close(after, before * tau[:, None, None])
    assert (tau - 1).abs().min() > 1e-3


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_maps_of_a_layer_are_multiples_and_outputs_stay(tmp_path, activation):
    run = initial(tmp_path, "model=cnn", "model.channels=[4,6]", f"model.activation={activation}")
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


def test_a_layer_that_is_not_there_is_a_sentence(initial_run):
    with pytest.raises(UserError, match=r"unknown layer of the model 'linear'.*did you mean 'linear"):
        measure_feature_maps(initial_run, range=0.9, layers=["linear"], maps=1, sample=0)


def test_maps_before_and_after_share_a_scale():
    frames = []
    for state, factor in (("before", 1.0), ("after", 1.9)):
        rows = pd.DataFrame(factor * np.arange(8.0).reshape(4, 2), columns=["x0", "x1"])
        frames.append(rows.assign(state=state, layer="relu", channel=[0, 0, 1, 1], row=[0, 1, 0, 1]))
    labels = {"data": "mnist", "model": "resnet18", "model.activation": "tanh"}
    figure = draw_feature_maps(tabled((labels, pd.concat(frames).assign(output_difference=3e-7))), "title")
    images = [axes.images[0] for axes in figure.axes]
    np.testing.assert_allclose([image.get_clim() for image in images], [(0.0, 13.3)] * 4)
    np.testing.assert_allclose(images[1].get_array(), [[4, 5], [6, 7]])
    np.testing.assert_allclose(images[3].get_array(), 1.9 * np.array([[4, 5], [6, 7]]))
    assert "tanh\nstem\nafter" in figure.axes[2].get_ylabel()
    assert "3e-07" in said(figure)
