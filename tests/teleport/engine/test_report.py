"""The report: what it prints, converts to and shares, against the figures it was made of."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from teleport import (
    BatchReport,
    ChangeOfBasis,
    ChangeOfBasisReport,
    FactorReport,
    LayerReport,
    NullSpace,
    Rescaling,
    Stopped,
    TeleportReport,
)
from tests.teleport.vision import torchvision


def batch(before: float, after: float, stopped: Stopped = Stopped.STEPS_DONE, **more) -> BatchReport:
    return BatchReport(before, after, 2.0, 4.0, 3, stopped, **more)


def report(layers: list[LayerReport], batches: list[BatchReport] | None = None) -> TeleportReport:
    return TeleportReport("method", 1.5, 1.75, 2.0, 4.0, batches or [batch(1.5, 1.5)], layers, 0.25)


def deep(blocks: int = 120) -> TeleportReport:
    """A report as of a deep network: many layers that moved, and many reasons."""
    layers = [
        LayerReport(f"layer{n}.convolution_with_a_long_name.weight", "conv2d", 9, n % 2 * 0.1, "", 10 * n)
        for n in range(blocks)
    ]
    for n, layer in enumerate(layers):
        if not layer.relative_change:
            layer.reason = f"its inputs span all {n} dimensions, which is explained in a sentence of some length " * 2
    batches = [batch(1.0, 1.0, status, reason="a reason " * 30) for status in Stopped]
    return report(layers, batches)


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3)).double()


BATCH = (torch.randn(4, 6, generator=torch.Generator().manual_seed(1)).double(), torch.tensor([0, 1, 2, 0]))


def loss_fn(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def test_the_text_fits_on_a_screen():
    lines = str(deep()).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 110
    assert lines[-1].strip().endswith("more reasons: report.reasons()")


@pytest.mark.parametrize(("moved", "more"), [(12, 0), (13, 1), (40, 28)])
def test_layers_beyond_the_screen_are_counted(moved, more):
    layers = [LayerReport(f"layer{n}", "linear", 4, 0.5, "", 100 - n) for n in range(moved)]
    lines = str(report(layers)).splitlines()
    assert [line for line in lines if "more layers" in line] == [f"  ... and {more} more layers"] * (more > 0)
    assert [n for n in range(moved) if any(f"layer{n}:" in line or f"layer{n} " in line for line in lines)] == [
        *range(12)
    ]


def test_a_line_beyond_the_width_is_cut_at_it():
    long = "its inputs " + "x" * 200
    line = next(
        line for line in str(report([LayerReport("a", "linear", 4, 0.0, long, 8)])).splitlines() if "xx" in line
    )
    assert len(line) == 110
    assert line == f"  stayed (1): a (linear): {long}"[:107] + "..."


def test_a_resnet_fits_on_a_screen():
    model = torchvision().models.resnet50(width_per_group=8, num_classes=5)
    found = ChangeOfBasis()(model, [torch.randn(2, 3, 32, 32)])
    assert len(found.layers) > 50
    assert len(str(found).splitlines()) <= 24
    free, shared, pinned = found.channels
    assert f"channels: {free} free, {shared} shared, {pinned} pinned" in str(found)
    names = dict(model.named_parameters())
    for layer in found.layers:
        assert layer.parameters == names[layer.name.partition("[")[0]].numel()


def test_the_text_says_the_losses_of_the_batches_and_the_drift():
    text = str(report([LayerReport("a", "linear", 4, 0.5, "", 8)], [batch(1.0, 1.25), batch(3.0, 2.75)]))
    assert "6 steps on 2 batches" in text
    assert "the loss of a batch changed by 2.50e-01 at most over its own steps" in text
    assert "1.5 -> 1.75, mean over batches; drift +1.67e-01" in text  # 0.25 / 1.5
    assert "gradient norm 2 -> 4" in text
    assert "steps done (2)" in text


def test_undone_steps_count_neither_as_steps_nor_as_a_change():
    undone = batch(1.0, 9.0, Stopped.ROLLED_BACK, accepted=False, reason="the loss moved")
    text = str(report([LayerReport("a", "linear", 4, 0.0, "no", 8)], [undone, undone]))
    assert "0 steps on 2 batches, rolled back (2); 0.25 s" in text
    assert "changed by 0.00e+00 at most" in text
    assert "rolled back (2): the loss moved" in text


def test_reasons_are_grouped_with_the_most_parameters_first():
    layers = [
        LayerReport("small", "linear", 4, 0.0, "first", 5),
        *(LayerReport(f"part{n}", "conv2d", 4, 0.0, "second", n) for n in range(6)),
        LayerReport("moved", "linear", 4, 0.5, "", 100),
        LayerReport("large", "linear", 4, 0.0, "third", 1000),
    ]
    assert report(layers).reasons().splitlines() == [
        "third: large (linear)",
        "second: " + ", ".join(f"part{n} (conv2d)" for n in (5, 4, 3, 2, 1, 0)),  # 15 parameters
        "first: small (linear)",
    ]


def test_parts_of_one_parameter_count_once():
    layers = [LayerReport(f"in_proj_weight[{part}]", "linear", 4, 0.0, "blocks", 12) for part in "qkv"]
    other = LayerReport("other", "linear", 4, 0.0, "larger", 20)
    assert report([*layers, other]).reasons().startswith("larger")


def test_to_dict_is_json_and_says_what_the_report_says():
    model = mlp()
    found = NullSpace(lr=0.1)(model, [BATCH, BATCH], loss_fn)
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert content["drift"] == found.drift
    assert [row["loss_after"] for row in content["batches"]] == [each.loss_after for each in found.batches]
    assert [row["ranks"] for row in content["layers"]] == [each.ranks for each in found.layers]
    assert type(found.to_dict()["batches"][0]["stopped"]) is str
    without_loss = ChangeOfBasis()(model, [BATCH[0]])
    content = json.loads(json.dumps(without_loss.to_dict(), allow_nan=False))
    assert math.isnan(without_loss.loss_before)
    assert content["loss_before"] is None
    assert content["difference"] == without_loss.difference
    assert content["channels"] == list(without_loss.channels)


def test_to_frame_has_a_row_per_batch_or_layer():
    pytest.importorskip("pandas")
    found = NullSpace(lr=0.1)(mlp(), [BATCH, BATCH], loss_fn)
    assert found.to_frame("batches").loss_after.tolist() == [each.loss_after for each in found.batches]
    assert "trace" not in found.to_frame("batches")
    layers = found.to_frame().set_index("name").relative_change
    assert layers.to_dict() == {each.name: each.relative_change for each in found.layers}
    with pytest.raises(ValueError, match="of must be one of layers, batches"):
        found.to_frame("steps")


def test_to_frame_without_pandas_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="needs pandas"):
        report([]).to_frame()


@pytest.mark.parametrize("method", [Rescaling(), ChangeOfBasis(), ChangeOfBasis(activations="teleport"), NullSpace()])
def test_no_copy_of_a_report_copies_a_parameter(method, monkeypatch):
    model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3)).double()
    found = method(model, [BATCH], loss_fn)
    copied = []
    own = nn.Parameter.__deepcopy__
    monkeypatch.setattr(nn.Parameter, "__deepcopy__", lambda self, memo: copied.append(self) or own(self, memo))
    clone = copy.deepcopy(found)
    dataclasses.asdict(found)
    found.to_dict()
    str(found)
    assert not copied
    copy.deepcopy(model[2].weight)
    assert len(copied) == 1  # the count would see one
    clone.batches[0].loss_after = 123.0
    clone.layers[0].reason = "changed"
    assert found.batches[0].loss_after != 123.0
    assert found.layers[0].reason != "changed"
    if found.group is not None:
        assert {id(parameter) for parameter in clone.group} == {id(parameter) for parameter in found.group}
    if isinstance(found, ChangeOfBasisReport):
        assert clone.model is found.model


def test_only_methods_with_factors_have_a_group():
    model = mlp()
    assert NullSpace(lr=0.1)(model, [BATCH], loss_fn).group is None
    found = Rescaling()(model, [BATCH], loss_fn)
    assert isinstance(found, FactorReport)
    assert set(found.group) <= set(model.parameters())
    assert len(found.group) == 3


def test_a_no_op_reads_equal_numbers():
    model = mlp()
    batches = [(torch.randn(4, 6).double() * scale, BATCH[1]) for scale in (0.1, 1.0, 10.0)]
    norms = []
    for each in batches:
        gradients = torch.autograd.grad(loss_fn(model, each), list(model.parameters()))
        norms.append(math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients)))
    found = NullSpace(cap=1e-6)(model, batches, loss_fn)
    assert found.no_op
    assert found.gradient_norm_after == found.gradient_norm_before == pytest.approx(sum(norms) / 3)
    assert found.loss_after == found.loss_before
