"""The phases of an event: every function exists, time counts for the innermost, and the parts make the whole."""

from __future__ import annotations

import sys
import time

import pytest
import torch
from torch import nn

import teleport
from experiments.benchmarks import phases
from experiments.benchmarks.phases import FUNCTIONS, MEANINGS, OTHER, Phases, code_of

CPU = torch.device("cpu")


def inner():
    time.sleep(0.02)


def outer():
    time.sleep(0.01)
    inner()
    inner()


def test_every_function_exists_once_and_every_phase_has_a_meaning():
    codes = [code_of(name) for names in FUNCTIONS.values() for name in names]
    assert len(set(codes)) == len(codes)
    assert set(MEANINGS) == {*FUNCTIONS, OTHER}


def test_time_counts_for_the_innermost_function_and_the_parts_are_the_whole(monkeypatch):
    monkeypatch.setattr(phases, "FUNCTIONS", {"one": (f"{__name__}:outer",), "two": (f"{__name__}:inner",)})
    start = time.perf_counter()
    with Phases(CPU) as measured:
        outer()
    whole = time.perf_counter() - start
    assert measured.calls == {"one": 1, "two": 2, OTHER: 0}
    assert measured.seconds["one"] >= 0.01
    assert measured.seconds["two"] >= 0.04
    assert sum(measured.seconds.values()) == pytest.approx(whole, rel=0.05)


def test_an_exception_ends_the_phases_that_it_leaves(monkeypatch):
    monkeypatch.setattr(phases, "FUNCTIONS", {"one": (f"{__name__}:fails",)})
    with Phases(CPU) as measured:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                fails()
    assert measured.calls["one"] == 2
    assert sys.getprofile() is None


def fails():
    return 1 / 0


METHODS = {
    "null space": (teleport.NullSpace(lr=0.1, cap=None, relative_cap=2.0), {"record", "decompose", "steps", "looks"}),
    "level set": (teleport.LevelSet(), {"steps"}),
    "rescaling": (teleport.Rescaling(), {"record", "steps"}),
    "change of basis": (teleport.ChangeOfBasis(), {"record"}),
}


@pytest.mark.parametrize("name", METHODS)
def test_the_phases_of_a_method_are_all_entered(name):
    method, entered = METHODS[name]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3))
    batches = [(torch.randn(8, 30), torch.randint(3, (8,)))]
    with Phases(CPU) as measured:
        method(model, batches, lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]))
    assert entered | {"inspect", "guard"} <= {phase for phase, count in measured.calls.items() if count}
    assert str(measured).splitlines()[0].split()[:2] == ["phase", "seconds"]
