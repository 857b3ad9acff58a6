"""Every method in 2 and 4 processes, each with its part of the batches, against one process with whole batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import teleport
from teleport import OBJECTIVES, ChangeOfBasis, Functional, NullSpace, Rescaling, Symmetry
from tests.teleport.methods import CLASSES, ROWS, values
from tests.teleport.processes.spawned import results_of_ranks

pytestmark = pytest.mark.slow

Part = Callable[[Any], Any]


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    return CLASSES.make(dtype)[0]


def drawn(batches: int, seed: int, dtype: torch.dtype = torch.float64, samples: int = 8) -> list[tuple[Tensor, Tensor]]:
    source = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(samples, 6, generator=source, dtype=torch.float64) for _ in range(batches)]
    return [(each.to(dtype), torch.arange(samples) % 3) for each in inputs]


def part_of(rank: int, size: int) -> Part:
    """Cuts batches into equal parts, one per rank."""
    return lambda batches: [tuple(tensor.chunk(size)[rank] for tensor in batch) for batch in batches]


def spread_of_outputs(model: nn.Module) -> Callable[[Part], Functional]:
    """A functional that is a mean over samples, of its own data."""
    return lambda part: Functional(lambda: model(part(drawn(1, 3))[0][0]).square().mean())


@dataclass(frozen=True)
class Case:
    """A method, and what its call takes besides; given the model and what cuts batches into parts."""

    make: Callable[[nn.Module, Part], Callable[..., teleport.TeleportReport]]
    options: Callable[[Part], dict[str, Any]] = field(default=lambda part: {})
    loss: bool = True
    moves: bool = True


CASES = {f"row {row}": Case(lambda model, part, row=row: row.make()) for row in ROWS}
CASES |= {
    objective: Case(lambda model, part, name=objective: NullSpace(lr=0.03, steps=3, objective=name))
    for objective in OBJECTIVES
}
CASES |= {
    "functional": Case(lambda model, part: NullSpace(lr=0.03, steps=2, objective=spread_of_outputs(model)(part))),
    "forward each": Case(lambda model, part: NullSpace(forward="each")),
    "most of the energy": Case(lambda model, part: NullSpace(threshold=0.999, tolerance=0.5, lr=0.01)),
    "fixed steps": Case(lambda model, part: NullSpace(step="fixed", lr=0.01)),
    "moved parameters": Case(lambda model, part: NullSpace(objective_params="moved", forward="each")),
    "shortest": Case(lambda model, part: NullSpace(path="shortest")),
    "constraint": Case(lambda model, part: NullSpace(), lambda part: {"constraint": part(drawn(2, 5, samples=4))}),
    "least drift": Case(
        lambda model, part: NullSpace(path="least_drift"), lambda part: {"held_out": part(drawn(4, 7, samples=12))}
    ),
    "random path": Case(
        lambda model, part: NullSpace(path="random"), lambda part: {"generator": torch.Generator().manual_seed(3)}
    ),
    "balance": Case(lambda model, part: Rescaling(mode="balance")),
    "change of basis without a loss": Case(lambda model, part: ChangeOfBasis(), loss=False),
    "symmetry 2022": Case(lambda model, part: Symmetry("2022", lr=0.01, steps=3, step="fixed", guard="none")),
    "symmetry 2024": Case(lambda model, part: Symmetry("2024", lr=0.01, steps=3, step="fixed", guard="none")),
}


def after(name: str, part: Part, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """The parameters after a case, and what its report says of the batches."""
    case, model = CASES[name], network(dtype)
    method, batches = case.make(model, part), part(drawn(3, 0, dtype))
    options = case.options(part)
    report = method(model, batches, CLASSES.loss_fn, **options) if case.loss else method(model, batches)
    told = [(each.steps, str(each.stopped), each.accepted, each.reason) for each in report.batches]
    numbers = [number for each in report.batches for number in (each.loss_after, each.gradient_norm_after)]
    layers = [(each.name, getattr(each, "ranks", None), each.reason) for each in report.layers]
    numbers = [*numbers, report.loss_before, report.loss_after] if case.loss else []
    return {"values": values(model), "told": told, "numbers": numbers, "layers": layers}


def all_cases(rank: int, size: int) -> dict[str, Any]:
    part = part_of(rank, size)
    found = {name: after(name, part) for name in CASES}
    return found | {f"{name} in single": after(name, part, torch.float32) for name in ("row nullspace", "row levelset")}


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request):
    return results_of_ranks(all_cases, request.param)


@pytest.mark.parametrize("name", CASES)
def test_ranks_end_bit_identical_and_as_one_process(ranks, name):
    first, one = ranks[0][name], after(name, lambda batches: batches)
    for other in ranks[1:]:
        assert all(torch.equal(value, first["values"][key]) for key, value in other[name]["values"].items())
        assert {key: value for key, value in other[name].items() if key != "values"} == {
            key: value for key, value in first.items() if key != "values"
        }
    assert first["told"] == one["told"]
    assert first["layers"] == one["layers"]
    assert first["numbers"] == pytest.approx(one["numbers"], abs=1e-10, rel=1e-10)
    for key, value in one["values"].items():
        torch.testing.assert_close(first["values"][key], value, atol=1e-10, rtol=1e-10)
    if CASES[name].moves:
        start = values(network())
        assert any(not torch.equal(value, start[key]) for key, value in first["values"].items())


@pytest.mark.parametrize("name", ["row nullspace", "row levelset"])
def test_ranks_in_single_precision_differ_from_one_process_by_rounding(ranks, name):
    first, one = ranks[0][f"{name} in single"], after(name, lambda batches: batches, torch.float32)
    assert first["told"] == one["told"]
    for other in ranks[1:]:
        assert all(
            torch.equal(value, first["values"][key]) for key, value in other[f"{name} in single"]["values"].items()
        )
    for key, value in one["values"].items():
        torch.testing.assert_close(first["values"][key], value, atol=2e-5, rtol=1e-4)
