"""Reads of values on which a branch may depend are named with their place; those of constants and shapes are not."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import teleport
from teleport._quiver.find_quiver import trace_quiver
from teleport._tracing.value_reads import value_reads_of


@torch.jit.script
def scripted(hidden: torch.Tensor) -> int:
    if bool(hidden.sum() > 0):
        return 1
    return 0


def written(hidden, into):
    into[0] = hidden.sum()
    return bool(into.sum() > 0)


def by_out(hidden, into):
    torch.add(hidden.detach(), 1, out=into)
    return bool(into.sum() > 0)


OF_PARAMETERS = {
    "if": lambda h, m: 1 if h.sum() > 0 else 0,
    "bool": lambda h, m: bool(h.sum() > 0),
    "item": lambda h, m: h.sum().item(),
    "float": lambda h, m: float(h.mean()),
    "int": lambda h, m: int(h.mean()),
    "complex": lambda h, m: complex(h.sum()),
    "index of a list": lambda h, m: [0] * h.mean().long(),
    "range": lambda h, m: list(range(h.mean().long())),
    "tolist": lambda h, m: h.tolist(),
    "tolist of a scalar": lambda h, m: h.sum().tolist(),
    "numpy": lambda h, m: h.sum().detach().numpy(),
    "asarray": lambda h, m: np.asarray(h.sum().detach()),
    "ufunc": lambda h, m: np.square(h.detach()),
    "from_dlpack": lambda h, m: np.from_dlpack(h.detach()),
    "equal": lambda h, m: torch.equal(h, h * 2),
    "method equal": lambda h, m: h.equal(h * 2),
    "allclose": lambda h, m: torch.allclose(h, h * 2),
    "is_nonzero": lambda h, m: torch.is_nonzero(h.sum()),
    "nonzero": lambda h, m: len(h.nonzero()),
    "where": lambda h, m: len(torch.where(h > 0)[0]),
    "boolean index": lambda h, m: h[h > 0].shape,
    "masked_select": lambda h, m: torch.masked_select(h, h > 0).shape,
    "unique": lambda h, m: torch.unique(h).shape,
    "bincount": lambda h, m: torch.bincount(h[0].abs().long()).shape,
    "repeat_interleave": lambda h, m: torch.arange(6).repeat_interleave(h[0].abs().long()).shape,
    "sparse": lambda h, m: h.to_sparse().indices().shape,
    "in": lambda h, m: 3.0 in h,
    "max": lambda h, m: max(h.sum(), h.mean()),
    "sorted": lambda h, m: sorted([h.sum(), h.mean()]),
    "all": lambda h, m: torch.isfinite(h).all() or 1,
    "math": lambda h, m: math.sqrt(h.sum().abs()),
    "str": lambda h, m: str(h.sum()),
    "format": lambda h, m: f"{h.sum():.2f}",
    "pickle": lambda h, m: pickle.dumps(h.detach()),
    "apply_": lambda h, m: h.detach().clone().apply_(lambda value: value),
    "storage": lambda h, m: h.storage()[0],
    "a new tensor of it": lambda h, m: bool(torch.tensor(h.sum()) > 0),
    "a new tensor of several": lambda h, m: bool(torch.tensor([h.sum(), h.mean()]).sum() > 0),
    "new_tensor": lambda h, m: bool(h.new_tensor([h.sum(), h.mean()]).sum() > 0),
    "deepcopy": lambda h, m: bool(copy.deepcopy(h.detach()).sum() > 0),
    "an element by its place": lambda h, m: bool(h[0, h[0].argmax()] > 0),
    "a copy in place": lambda h, m: bool(torch.zeros(2, 6).copy_(h).sum() > 0),
    "an element set": lambda h, m: written(h, torch.zeros(3)),
    "out": lambda h, m: by_out(h, torch.zeros(2, 6)),
    "vmap": lambda h, m: bool(torch.func.vmap(lambda row: row.sum())(h)[0] > 0),
    "script": lambda h, m: scripted(h),
    "numbers in a list": lambda h, m: np.array([float(value) for value in h[0]]),
    "integers": lambda h, m: bool(h.detach().long().sum() > 0),
    "topk": lambda h, m: h.topk(2).indices.tolist(),
    "rank": lambda h, m: int(torch.linalg.matrix_rank(h)),
    "a parameter": lambda h, m: bool(m.first.weight.sum() > 0),
    "its data": lambda h, m: bool(m.first.weight.data.sum() > 0),
    "noise": lambda h, m: bool(F.gumbel_softmax(h)[0, 0] > 0),
}

OF_THE_BATCH = {
    "if": lambda h, m: 1 if m.given.sum() > 0 else 0,
    "not a number": lambda h, m: bool(torch.isnan(m.given).any()),
    "a mask": lambda h, m: bool((m.given > 0).all()),
}

OF_NEITHER = {
    "shapes": lambda h, m: h.shape[0] > 1 and h.size(1) > 2 and len(h) > 0 and h.numel() > 3 and h.dim() == 2,
    "form": lambda h, m: h.is_contiguous() and h.stride()[0] > 0 and h.dtype == torch.float32 and h.is_same_size(h),
    "a constant": lambda h, m: torch.linspace(0, 1, 4).tolist(),
    "positions": lambda h, m: bool(torch.arange(h.shape[0]).sum() > 0),
    "a buffer": lambda h, m: bool(m.constants.sum() > 0),
    "a frozen parameter": lambda h, m: bool(m.frozen.sum() > 0),
    "zeros": lambda h, m: bool(torch.zeros_like(h).sum() > 0),
    "ones": lambda h, m: bool(h.new_ones(3).sum() > 0),
    "a full tensor": lambda h, m: bool(torch.full_like(h, 2.0).sum() > 0),
    "a mask of ones": lambda h, m: bool(torch.ones(h.shape[:1], dtype=torch.bool).all()),
    "equal shapes": lambda h, m: torch.equal(torch.tensor(h.shape), torch.tensor([2, 6])),
    "identity": lambda h, m: h is None or h is m,
    "chance": lambda h, m: bool(torch.rand(3).sum() > 0),
}


class Asking(nn.Module):
    """A hidden layer, about which a function asks."""

    def __init__(self, ask):
        super().__init__()
        self.first, self.last, self.ask = nn.Linear(5, 6), nn.Linear(6, 2), ask
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.register_buffer("constants", torch.ones(6))

    def forward(self, given):
        hidden = self.first(given).relu()
        self.given = given
        self.ask(hidden, self)
        del self.given
        return self.last(hidden)


def reads_of(ask):
    """What is told of a model that asks so."""
    torch.manual_seed(0)
    model, batch = Asking(ask), torch.randn(2, 5)
    values = value_reads_of(model, [batch])
    named = dict(model.named_parameters())
    return trace_quiver([lambda: model(batch)], named, True, True, "output", values=values).value_reads


@pytest.mark.parametrize("ask", OF_PARAMETERS.values(), ids=OF_PARAMETERS)
@pytest.mark.filterwarnings("ignore")
def test_reads_of_what_parameters_decide_are_named(ask):
    found = reads_of(ask)
    assert {each.of for each in found} == {"parameters"}
    assert any(each.file == __file__ for each in found)


@pytest.mark.parametrize("ask", OF_THE_BATCH.values(), ids=OF_THE_BATCH)
def test_reads_of_the_batch_alone_are_told_apart(ask):
    assert {each.of for each in reads_of(ask)} == {"batch"}


@pytest.mark.parametrize("ask", OF_NEITHER.values(), ids=OF_NEITHER)
def test_reads_of_constants_and_shapes_are_not_told(ask):
    assert reads_of(ask) == []


def by_sign(hidden, model):
    return hidden.sum() > 0 or None  # the place that is told


@pytest.mark.parametrize("group", ["scaling", "permutation"])
def test_summary_and_report_name_the_place(group):
    model, batch = Asking(by_sign), torch.randn(2, 5)
    line = by_sign.__code__.co_firstlineno + 1
    told = f"test_value_reads.py:{line} (by_sign) reads a value of parameters by torch.Tensor.__bool__"
    assert told in str(teleport.find_symmetries(model, batch))
    report = teleport.ChangeOfBasis(group=group)(model, [batch])
    assert told in str(report)
    assert [told in each for each in report.value_reads] == [True]
    assert report.to_dict()["value_reads"] == report.value_reads


def test_arguments_that_forward_makes_are_of_the_batch():
    """The batch is an array, of which a function of the caller makes the model's argument."""
    model = Asking(lambda h, m: bool(m.given.sum() > 0))
    found = teleport.find_symmetries(model, np.ones((2, 5)), lambda m, rows: m(torch.tensor(rows).float()))
    assert [each.of for each in found.value_reads] == ["batch"]


def test_operators_of_control_flow_are_refused_in_one_sentence():
    model = Asking(lambda h, m: torch.cond(h.sum() > 0, lambda v: v + 1, lambda v: v - 1, (h,)))
    with pytest.raises(teleport.UnsupportedModel, match="control flow operator"):
        teleport.find_symmetries(model, torch.randn(2, 5))
