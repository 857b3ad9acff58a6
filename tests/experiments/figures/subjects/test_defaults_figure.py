"""The default settings on networks of torchvision: what is measured against the model itself, and the picture."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from experiments.errors import UserError
from experiments.figures.subjects.coverage import built
from experiments.figures.subjects.defaults import draw_defaults, measure_defaults
from experiments.figures.unchanged_outputs import replace_constants
from teleport import NullSpace
from tests.experiments.figures.tables import said, tabled


@pytest.mark.slow
def test_the_row_of_a_network_is_what_its_event_did():
    name, samples, side = "mnasnet0_5", 2, 32
    row, unknown = measure_defaults(None, names=[name, "resnet19"], side=side, samples=samples).to_dict("records")
    torch.manual_seed(0)
    model, _ = built(name, side)
    images = torch.randn(3, samples, 3, side, side)
    replace_constants(model, images[0])
    labels = [torch.randint(1000, (samples,)) for _ in images]

    def numbers():
        losses, norms = [], []
        for pair in zip(images, labels, strict=True):
            loss = F.cross_entropy(model(pair[0]), pair[1])
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            norms.append(math.sqrt(sum(float(each.double().square().sum()) for each in gradients)))
            losses.append(float(loss.detach()))
        return losses, norms

    (before, norms), _ = (
        numbers(),
        NullSpace()(
            model,
            list(zip(images[:2], labels[:2], strict=True)),
            lambda net, pair: F.cross_entropy(net(pair[0]), pair[1]),
        ),
    )
    after, _ = numbers()
    assert row["drift"] == pytest.approx(after[2] / before[2] - 1, abs=1e-6)
    assert row["told"] == pytest.approx(sum(after[:2]) / sum(before[:2]) - 1, abs=1e-5)
    assert row["norm_before"] == pytest.approx(norms[0], rel=0.5)  # the second batch's is after the first move
    assert 1.01 < row["norm_after"] / row["norm_before"] <= 2.001
    assert row["on_batch"] < 1e-3
    assert 0 < row["moved"] <= row["layers"]
    assert unknown["reason"].startswith("unknown model.arch 'resnet19'")
    figure = draw_defaults(tabled(({}, measure_defaults(None, names=[name, "resnet19"], side=side, samples=2))), "t")
    assert "unknown model.arch" in said(figure)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [name, "resnet19"]


def test_no_network_at_all_is_a_sentence():
    with pytest.raises(UserError, match=r"the first because: figure\.measure\.names lists none"):
        measure_defaults(None, names=[])
