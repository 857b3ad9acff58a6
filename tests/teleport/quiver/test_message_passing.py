"""Channels keep their factors through the functions that gather and add rows by an index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from teleport import ChangeOfBasis

NODES, EDGES, WIDTH = 6, 14, 8
TO = torch.randint(NODES, (EDGES,), generator=torch.Generator().manual_seed(0))
FROM = torch.randint(NODES, (EDGES,), generator=torch.Generator().manual_seed(1))
WIDE = TO[:, None].expand(EDGES, WIDTH)
LENGTHS = torch.tensor([3, 2, 4, 1, 2, 2])
WEIGHTS = torch.rand(EDGES, generator=torch.Generator().manual_seed(2)).double()
ADJACENCY = torch.sparse_coo_tensor(torch.stack([TO, FROM]), WEIGHTS, (NODES, NODES)).coalesce()


class Graph(nn.Module):
    """Messages along edges, by a function of the hidden rows ``[nodes, width]``, between linear layers."""

    def __init__(self, messages: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle = nn.Linear(5, WIDTH).double(), nn.Linear(WIDTH, WIDTH).double()
        self.last = nn.Linear(WIDTH, 3).double()
        self.messages = messages

    def forward(self, x: Tensor) -> Any:
        hidden = self.messages(torch.relu(self.first(x)))
        return self.last(self.messages(torch.relu(self.middle(hidden))))


def zeros(like: Tensor, *shape: int) -> Tensor:
    return like.new_zeros(shape or (NODES, WIDTH))


def made(like: Tensor) -> Tensor:
    return torch.zeros(NODES, WIDTH, dtype=like.dtype)


def mean(h: Tensor) -> Tensor:
    count = zeros(h, NODES).scatter_add_(0, TO, torch.ones(EDGES).double()).clamp(min=1)
    return zeros(h).scatter_add_(0, WIDE, h[FROM]) / count[:, None]


def in_two_steps(h: Tensor) -> Tensor:
    out = made(h)
    out.index_add_(0, TO[:5], h[FROM[:5]])
    return out.index_add_(0, TO[5:], h[FROM[5:]])


def onto_itself(h: Tensor) -> Tensor:
    return h.index_add(0, TO, h[FROM], alpha=0.5)


KEEPS: dict[str, Callable[[Tensor], Tensor]] = {
    "index_add_": lambda h: made(h).index_add_(0, TO, h.index_select(0, FROM)),
    "index_add": lambda h: torch.index_add(made(h), 0, TO, h[FROM]),
    "index_add_ twice": in_two_steps,
    "index_add onto itself": onto_itself,
    "index_copy": lambda h: made(h).index_copy(0, TO[:1], h[FROM[:1]]),
    "index_reduce, mean": lambda h: zeros(h).index_reduce(0, TO, h[FROM], "mean"),
    "index_reduce_, amax": lambda h: zeros(h).index_reduce_(0, TO, h[FROM], "amax", include_self=False),
    "scatter_add_": lambda h: zeros(h).scatter_add_(0, WIDE, WEIGHTS[:, None] * h[FROM]),
    "scatter_add": lambda h: torch.zeros_like(h).scatter_add(0, WIDE, h[FROM]),
    "scatter_add of more rows": lambda h: zeros(h).scatter_add(0, WIDE[:9], h[FROM]),
    "scatter, mean": mean,
    "scatter": lambda h: zeros(h).scatter(0, WIDE[:1], h[FROM[:1]]),
    "scatter of zero": lambda h: h.scatter(0, WIDE[:1], 0.0),
    "scatter, add": lambda h: zeros(h).scatter(0, WIDE, h[FROM], reduce="add"),
    **{
        f"scatter_reduce, {reduce}": lambda h, reduce=reduce: zeros(h).scatter_reduce(
            0, WIDE, h[FROM], reduce, include_self=False
        )
        for reduce in ("sum", "mean", "amax", "amin")
    },
    "gather": lambda h: torch.gather(h, 0, WIDE[:NODES]),
    "take_along_dim": lambda h: torch.take_along_dim(h, WIDE[:NODES], 0),
    "sparse.mm": lambda h: torch.sparse.mm(ADJACENCY, h),
    "sparse @ dense": lambda h: ADJACENCY @ h,
    "sparse, rows": lambda h: ADJACENCY.to_sparse_csr() @ h,
    "sparse.addmm": lambda h: torch.sparse.addmm(h, ADJACENCY, h),
    "segment_reduce": lambda h: torch.segment_reduce(h[FROM], "mean", lengths=LENGTHS, axis=0),
    "segment_reduce, max": lambda h: torch.segment_reduce(h[FROM], "max", lengths=LENGTHS, axis=0),
    "cumsum": lambda h: h.cumsum(0),
}

PINS: dict[str, Callable[[Tensor], Tensor]] = {
    "onto ones": lambda h: h.new_ones(NODES, WIDTH).index_add_(0, TO, h[FROM]),
    "onto zeros that were written to": lambda h: made(h).add_(1).index_add_(0, TO, h[FROM]),
    "scatter_reduce, prod": lambda h: zeros(h).scatter_reduce(0, WIDE, h[FROM], "prod"),
    "scatter of a number": lambda h: h.scatter(0, WIDE[:1], 2.0),
    "segment_reduce from a start": lambda h: torch.segment_reduce(h[FROM], "sum", lengths=LENGTHS, axis=0, initial=1.0),
}
"""The factors may not pass."""


def through_another_view(h: Tensor) -> Tensor:
    """The sums are read through a view that was made while they were zeros."""
    sums = made(h)
    view = sums.view(-1, WIDTH)
    sums.index_add_(0, TO, h[FROM])
    return view + 0 * h


def over_channels(h: Tensor) -> Tensor:
    """Channels are mixed: all carry one factor."""
    return zeros(h).index_add_(1, torch.arange(WIDTH).flip(0), h)


@pytest.mark.parametrize("sampling", ["intra", "inter"])
@pytest.mark.parametrize("messages", KEEPS)
def test_channels_are_free_and_the_function_is_kept(messages, sampling):
    model, x, other = Graph(KEEPS[messages]), torch.randn(NODES, 5).double(), torch.randn(NODES, 5).double()
    before = [model(each).detach() for each in (x, other)]
    report = ChangeOfBasis(0.9, sampling)(model, [x])
    free, shared, pinned = report.channels
    assert report.accepted
    assert free + shared == 2 * WIDTH
    assert pinned == 3
    torch.testing.assert_close([model(each).detach() for each in (x, other)], before, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("messages", [*PINS, "through another view", "over channels", "cumsum over channels"])
def test_what_does_not_pass_a_factor_pins_it(messages):
    others = {
        "through another view": through_another_view,
        "over channels": over_channels,
        "cumsum over channels": lambda h: h.cumsum(1),
    }
    model, x = Graph({**PINS, **others}[messages]), torch.randn(NODES, 5).double()
    before = model(x).detach()
    report = ChangeOfBasis(0.9, guard="none")(model, [x])
    torch.testing.assert_close(model(x).detach(), before, rtol=1e-10, atol=1e-12)
    assert report.channels[0] == 0
