"""Ctrl-C between any two instructions of the library: all is as it was, or, at the very end, all has moved."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import teleport
from teleport import (
    Balance,
    ChangeOfBasis,
    LevelSet,
    NullSpace,
    Orbit,
    PseudoTeleport,
    RandomNullSpace,
    Rescaling,
    Symmetry,
    preview,
)
from tests.teleport.interrupts import FILES, Interrupter, Kept, interrupted

FAST = 14
"""Instants per call in the fast tests."""


class Network(nn.Module):
    """A mixed state: training mode with a part in evaluation mode, a frozen parameter, buffers, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)
        self.middle, self.last = nn.Linear(6, 6, bias=False), nn.Linear(6, 3)
        self.dropout, self.shift = nn.Dropout(0.5), nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(F.leaky_relu(self.norm(self.first(x)), 0.1))
        return self.last(F.leaky_relu(self.middle(hidden), 0.1)) + self.shift


def loss_fn(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def scaled(theta: Tensor, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    factors = theta.exp()
    return {
        "middle.weight": factors[:, None] * weights["middle.weight"],
        "last.weight": weights["last.weight"] / factors,
    }


def teleported() -> ChangeOfBasis:
    return ChangeOfBasis(0.9, "inter", activations="teleport")


class Calls:
    """A network, an optimizer with a state, a batch, and the calls to interrupt."""

    def __init__(self, folder: Any) -> None:
        torch.manual_seed(0)
        self.model = Network()
        self.model.norm.eval()
        self.batches = [(torch.randn(3, 4), torch.arange(3))]
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        loss_fn(self.model, self.batches[0]).backward()
        self.optimizer.step()
        start = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.file = folder / "teleported.pt"
        report = teleported()(self.model, self.batches)
        teleport.save(report.model, self.file, report.change)
        self.model.load_state_dict(start)
        self.report = ChangeOfBasis()(self.model, self.batches)
        self.model.load_state_dict(start)
        self.kept = Kept(self.model, self.optimizer)

    def run(self, name: str) -> Any:
        model, batches = self.model, self.batches
        if name == "apply":
            return self.report.change.apply(model)
        if name == "inverse":
            return self.report.change.inverse().apply(model)
        if name == "transport":
            return teleport.transport_state(self.optimizer, self.report)
        if name == "load":
            return teleport.load(self.file, model)
        if name.startswith("preview"):
            method = teleported() if "teleported" in name else Rescaling(relative_cap=3.0, steps=3)
            return preview(method, model, batches, loss_fn)
        method = METHODS[name.partition(",")[0]]()
        return method(model, batches) if name.endswith("outputs") else method(model, batches, loss_fn)


METHODS: dict[str, Any] = {
    "null space": lambda: NullSpace(lr=1.0, relative_cap=3.0, steps=2),
    "random": lambda: RandomNullSpace(relative_cap=3.0),
    "level set": lambda: LevelSet(relative_cap=3.0, steps=2),
    "rescaling": lambda: Rescaling(relative_cap=3.0, steps=3),
    "symmetry": lambda: Symmetry("corrected", lr=0.01, step="cap", relative_cap=3.0, guard="transaction"),
    "orbit": lambda: Orbit(scaled, shape=(6,), relative_cap=3.0, steps=2),
    "pseudo-teleportation": PseudoTeleport,
    "balance": Balance,
    "change of basis": ChangeOfBasis,
    "all groups": lambda: ChangeOfBasis(group="all"),
    "teleported": teleported,
}
OTHERS = ["change of basis, outputs", "teleported, outputs", "preview", "preview, teleported"]
NEEDS_RESULT = ("teleported", "load")
"""The caller's model is not the one that goes on, so an interrupt at the very end must undo the move."""

every_call = pytest.mark.parametrize("name", [*METHODS, *OTHERS, "apply", "inverse", "transport", "load"])


def check_interrupts(calls: Calls, name: str, stride: int | None, files: str = FILES) -> tuple[int, list[str]]:
    """Interrupt a call at every ``stride``-th of its instants; how many were tried, and where the state was mixed."""
    kept = calls.kept
    calls.run(name)  # what is computed once is computed before
    kept.set_back()
    with Interrupter(files=files) as whole:
        calls.run(name)
    moved, wholly = kept.values(), kept.state()
    kept.set_back()
    wrong: list[str] = []

    def check(at: Interrupter) -> None:
        values, state = kept.values(), kept.state()
        before = values == kept.parameters and state == kept.rest
        after = values == moved and state == wholly and not name.startswith(NEEDS_RESULT)
        if not before and not after:
            wrong.append(at.where)

    instants = whole.instants
    chosen = instants[:: stride or max(1, len(instants) // FAST)]
    for instant in chosen:
        assert interrupted(lambda: calls.run(name), instant, check, files), "the interrupt was swallowed"
        kept.set_back()
        assert not kept.changed()
    return len(chosen), wrong


@every_call
def test_an_interrupt_at_any_instruction_leaves_all_as_it_was(name, tmp_path):
    tried, wrong = check_interrupts(Calls(tmp_path), name, None)
    assert tried >= FAST
    assert not wrong


@pytest.mark.parametrize("name", ["teleported, outputs", "rescaling"])
def test_an_interrupt_within_a_context_manager_leaves_all_as_it_was(name, tmp_path):
    """Its generator is suspended then, and must not clean up some time later."""
    tried, wrong = check_interrupts(Calls(tmp_path), name, 5, contextlib.__file__)
    assert tried >= FAST
    assert not wrong


@pytest.mark.slow
@every_call
def test_an_interrupt_at_every_instruction_leaves_all_as_it_was(name, tmp_path):
    """One instruction is left of a teleported form: the return to the caller, who has no report then."""
    tried, wrong = check_interrupts(Calls(tmp_path), name, int(os.environ.get("TELEPORT_INTERRUPTS", "31")))
    assert tried >= FAST
    assert all(name.startswith(NEEDS_RESULT) and " __call__+" in where for where in wrong)
    assert len(wrong) <= 1
