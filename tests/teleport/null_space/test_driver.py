"""The event driver: which batches are evaluated, with which autograd graphs, and when these are freed."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch

from teleport import NullSpace
from tests.teleport.networks import LINEAR, cross_entropy


def norm_of_gradient(model: torch.nn.Module, batch: Any) -> float:
    gradients = torch.autograd.grad(cross_entropy(model, batch), list(model.parameters()))
    return float(torch.cat([gradient.flatten() for gradient in gradients]).norm())


@pytest.fixture
def graphs(monkeypatch):
    """Per call of ``torch.autograd.grad``, whether the gradients had a graph of their own."""
    made, grad = [], torch.autograd.grad

    def counted(*args: Any, **kwargs: Any) -> Any:
        made.append(bool(kwargs.get("create_graph")))
        return grad(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    return made


def test_a_batch_at_the_cap_after_one_that_had_no_room_is_evaluated_without_an_autograd_graph(graphs):
    model, batch = LINEAR[0].make()
    method = NullSpace(lr=1.0, steps=9, cap=2.0, relative_cap=None, forward="each")
    report = method(model, [batch] * 3, cross_entropy)
    assert [each.stopped for each in report.batches] == ["cap reached", "above cap", "above cap"]
    assert graphs[0]
    assert graphs[-2:] == [True, False]  # the first batch moved, so that the second one is expected to move
    assert report.batches[2].gradient_norm_before == pytest.approx(norm_of_gradient(model, batch), rel=1e-12)


def test_no_gradient_has_an_autograd_graph_of_its_own_if_the_forward_pass_is_frozen(graphs):
    model, batch = LINEAR[0].make()
    report = NullSpace(lr=1.0, steps=9, cap=2.0, relative_cap=None)(model, [batch] * 3, cross_entropy)
    assert report.batches[0].steps
    assert graphs
    assert not any(graphs)


def test_a_batch_below_the_cap_after_one_above_it_moves_as_if_it_were_the_only_one():
    def loss(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        return batch[2] * cross_entropy(model, batch[:2])

    (together, batch), (alone, _) = LINEAR[0].make(), LINEAR[0].make()
    steep, flat = (*batch, 100.0), (*batch, 1.0)
    cap = 10 * norm_of_gradient(together, batch)
    report = NullSpace(lr=0.1, steps=2, cap=cap)(together, [steep, flat], loss)
    NullSpace(lr=0.1, steps=2, cap=cap)(alone, [flat], loss)
    assert [each.steps for each in report.batches] == [0, 2]
    for one, other in zip(together.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("settings", [{}, {"step": "fixed"}, {"threshold": 0.9}])
def test_the_autograd_graph_of_a_batch_is_freed_before_the_next_one_is_evaluated(settings):
    model, batch = LINEAR[0].make()
    seen: list[tuple[float, weakref.ref[torch.Tensor]]] = []
    alive = []

    def loss(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        alive.extend(number for number, reference in seen if number != batch[2] and reference() is not None)
        saved = cross_entropy(model, batch[:2]).exp()  # for the logarithm's backward pass
        seen.append((batch[2], weakref.ref(saved)))
        return batch[3] * saved.log()

    cap = 10 * norm_of_gradient(model, batch)
    batches = [(*batch, number, steepness) for number, steepness in enumerate([1.0, 100.0, 100.0, 1.0, 1.0])]
    report = NullSpace(lr=0.01, steps=2, cap=cap, **settings)(model, batches, loss)
    assert [each.steps for each in report.batches] == [2, 0, 0, 2, 2]
    assert alive == []
