"""How long a teleport takes: null space against symmetry, over width, samples, layers, batches and steps.

Null-space teleport is measured twice. At threshold 1 it is over at once where the samples span every layer's inputs,
which is no speed, and it skips the first layer. ``nullspace 0.999`` decomposes every layer and leaves each some
directions, so that all steps are taken. The table has the steps and the null dimensions of both.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.benchmarks.aims import Aim
from experiments.benchmarks.common import MACHINE, TIMES, Row, Settings, Timed, machine, ratios, slopes, take_turns
from experiments.config import MLPConfig
from experiments.methods import Teleporter
from experiments.models.mlp import build
from experiments.tasks import Spec
from teleport import NullSpace, Symmetry, TeleportReport

REFERENCE = "nullspace 0.999"
"""The method that others are compared with: it takes all steps."""

RATE = 1e-9
"""A step so short that no method ends early: no cap is met, and nothing runs away."""


@dataclass(frozen=True)
class Case:
    """An event: ``layers`` hidden layers of ``width``, ``batches`` of ``samples``, ``steps`` a batch."""

    width: int = 512
    samples: int = 200
    layers: int = 2
    batches: int = 8
    steps: int = 8


AXES = [axis.name for axis in fields(Case)]

COLUMNS = ["method", *AXES, *TIMES, "steps_taken", "null_dimensions", *MACHINE]
"""``seconds`` are a whole event's; ``null_dimensions`` a batch's, summed over layers."""

FULL = [
    *(Case(width, samples) for width in (128, 512, 1024) for samples in (100, 200, 1000)),
    *(Case(layers=layers) for layers in (1, 3, 4)),
    *(Case(batches=batches) for batches in (1, 2, 4)),
    *(Case(steps=steps) for steps in (1, 2, 4)),
]
SMOKE = [Case(16, 20, batches=1, steps=1), Case(32, 20, batches=1, steps=1), Case(16, 20, batches=1, steps=2)]
AIMS: list[Aim] = []

METHODS: dict[str, Callable[[int], Teleporter]] = {
    "nullspace": lambda steps: NullSpace(lr=RATE, steps=steps, step="fixed", guard="none"),
    REFERENCE: lambda steps: NullSpace(lr=RATE, steps=steps, threshold=0.999, step="fixed", guard="none"),
    "symmetry 2022": lambda steps: Symmetry("2022", lr=RATE, steps=steps, step="fixed", guard="none"),
    "symmetry 2024": lambda steps: Symmetry("2024", lr=RATE, steps=steps, step="fixed", guard="none"),
    "symmetry corrected": lambda steps: Symmetry("corrected", lr=RATE, steps=steps, step="fixed", guard="none"),
}


def measure(settings: Settings) -> Iterator[Row]:
    """A row a case and method; within a case the methods take turns."""
    with_machine = machine(settings.device)
    _rounds(Case(16, 20, batches=1, steps=2), 1, settings.device)  # what is loaded at first use
    for case in SMOKE if settings.smoke else FULL:
        for method, timed in _rounds(case, settings.repeats, settings.device).items():
            yield {
                "method": method,
                **asdict(case),
                **timed.columns(),
                "steps_taken": timed.last.steps,
                "null_dimensions": sum(min(layer.null_dimensions, default=0) for layer in timed.last.layers),
                **with_machine,
            }


def line(row: Row) -> str:
    """The case, the method, its seconds and the steps it took."""
    case = "  ".join(f"{axis} {row[axis]:>4}" for axis in AXES)
    return f"{case}  {row['method']:<18} {row['seconds']:9.4f} s  {row['steps_taken']:>3} steps"


def summary(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Ratios to the null space that takes all steps, and how seconds grow."""
    return {
        f"seconds, in units of {REFERENCE}": ratios(table, AXES, REFERENCE),
        "exponents (1 is linear)": slopes(table, AXES),
    }


def _rounds(case: Case, repeats: int, device: torch.device) -> dict[str, Timed[TeleportReport]]:
    """Each method's seconds, and its last report, on one network and one set of batches."""
    torch.manual_seed(0)
    spec = Spec("image", (1, 28, 28), 10)
    widths = [case.width] * case.layers
    model = build(MLPConfig(name="mlp", widths=widths, activation="leaky_relu"), spec).to(device)
    batches = [
        (torch.randn(case.samples, 784, device=device), torch.randint(10, (case.samples,), device=device))
        for _ in range(case.batches)
    ]

    def ready(make: Callable[[int], Teleporter]) -> Callable[[], TeleportReport]:
        teleporter, own = make(case.steps), copy.deepcopy(model)
        return lambda: teleporter(own, batches, _loss)

    return take_turns({name: lambda make=make: ready(make) for name, make in METHODS.items()}, repeats, device)


def _loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])
