"""What a change of basis reaches and leaves, counted by hand on small networks; and how that is drawn."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from experiments.errors import UserError
from experiments.figures.draw.coverage import draw_coverage
from experiments.figures.draw.outputs import NAMES, draw_outputs
from experiments.figures.measure import outputs
from experiments.figures.measure.coverage import _build, measure_coverage
from experiments.figures.measure.kept import FORMS, settle, teleport_once
from experiments.figures.measure.outputs import TRIALS, measure_outputs
from experiments.figures.style import MODELS
from experiments.figures.table import gather, parse, to_csv


def tabled(rows):
    return parse(to_csv(gather([({}, rows)], "quick", 1)), "it")


def said(figure):
    return " ".join(" ".join(text.get_text().split()) for axes in [figure, *figure.axes] for text in axes.texts)


class Small(nn.Module):
    """6 channels that enter a batch norm, the norm's 6, which enter ReLU, 5 that enter tanh, 4 outputs."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.second, self.head = nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, x):
        return self.head(torch.tanh(self.second(F.relu(self.norm(self.first(x))).mean((2, 3)))))


@pytest.fixture
def small():
    torch.manual_seed(0)
    model, inputs = Small(), torch.randn(4, 3, 8, 8)
    settle(model, inputs)
    return model, inputs


def test_channels_are_counted_by_what_becomes_of_them(small):
    in_place = teleport_once(*small, "in place", "intra", 0.9, 0)
    assert {key: in_place[key] for key in ("channels", "free", "shared", "pinned")} == {
        "channels": 17,  # the four outputs are none of them
        "free": 6,
        "shared": 0,
        "pinned": 11,
    }
    assert in_place["pinned_by"] == "batch_norm 6, tanh 5"
    teleported = teleport_once(*small, "teleported activations", "inter", 0.9, 0)
    assert (teleported["free"], teleported["pinned_by"]) == (11, "batch_norm 6")


def test_the_move_is_that_of_the_weights(small):
    model, inputs = small
    before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    found = teleport_once(model, inputs, "in place", "intra", 0.5, 3)
    after = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    assert found["moved"] == pytest.approx(((after - before).norm() / after.norm()).item(), rel=1e-5)
    assert 0 < found["difference"] < 1e-5


def test_settling_leaves_no_parameter_constant_and_scales_signals_to_one():
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 4)), torch.randn(7, 6)
    nn.init.zeros_(model[1].weight)
    settle(model, inputs)
    assert not [name for name, each in model.named_parameters() if each.min() == each.max()]
    assert ((model[0].weight > 0.5) & (model[0].weight < 1.5)).all()
    assert not model.training

    network, images = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)).double(), torch.randn(4, 3, 8, 8).double()
    settle(network, images)
    normed = (network(images) - network[1].bias[:, None, None]) / network[1].weight[:, None, None]
    assert normed.square().mean().item() == pytest.approx(1, rel=1e-3)


def test_networks_of_torchvision_are_covered_and_keep_their_outputs():
    table = measure_coverage(None, names=["mobilenet_v3_small", "squeezenet1_1", "resnet19"], side=64)
    *rows, unknown = table.to_dict("records")
    assert [(row["arch"], row["form"]) for row in rows] == [
        (arch, form) for arch in ("mobilenet_v3_small", "squeezenet1_1") for form in FORMS
    ]
    for row in rows:
        assert row["channels"] == row["free"] + row["shared"] + row["pinned"]
        assert row["free"] + row["shared"] > 0
        assert row["moved"] > 0.01
        assert row["difference"] < 1e-4
        assert 0 < row["rounding"] < 1e-4
    assert unknown["reason"].startswith("unknown model.arch 'resnet19'")
    figure = draw_coverage(tabled(table), "title")
    assert "unknown model.arch" in said(figure)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == list(table["arch"].unique())


@pytest.mark.parametrize(("names", "reason"), [([], "lists none"), (["resnet19"], r"unknown model\.arch 'resnet19'")])
def test_no_network_at_all_is_a_sentence(names, reason):
    with pytest.raises(UserError, match=f"no network can be teleported, the first because: .*{reason}"):
        measure_coverage(None, names=names)


def test_an_architecture_of_fixed_size_gets_larger_images():
    assert [_build(name, 64)[1] for name in ("shufflenet_v2_x0_5", "inception_v3")] == [64, 224]


def test_a_network_without_a_free_channel_is_called_not_covered():
    row = {"arch": "a", "form": "in place", "channels": 4, "free": 0, "shared": 0, "pinned": 4, "difference": 0.0}
    row["rounding"] = 1e-7
    free = row | {"arch": "b", "free": 1, "pinned": 3, "difference": 1e-6}
    text = said(draw_coverage(tabled(pd.DataFrame([row, free])), "title"))
    assert "every channel is pinned in place: a" in text


def test_outputs_of_every_style_are_kept_in_both_precisions(monkeypatch):
    few = {name: trial for name, trial in TRIALS.items() if name in ("inception", "unet", "functional", "encoder")}
    monkeypatch.setattr(outputs, "TRIALS", few)
    table = measure_outputs(None, teleports=1)
    assert len(table) == len(few) * 2 * 2 * 2
    assert (table["free"] > 0).all()
    assert (table["moved"] > 0.01).all()
    assert (table["difference"] < table["precision"].map({"float32": 1e-5, "float64": 1e-13})).all()
    figure = draw_outputs(tabled(table), "title")
    drawn = [math.log10(value) for axes in figure.axes for line in axes.lines for value in line.get_xdata()]
    assert len(drawn) == len(table) + 2 * 2  # and the two ends of each dotted line


def test_every_network_has_a_name_to_be_drawn_with():
    assert set(TRIALS) <= set(NAMES) | set(MODELS)
