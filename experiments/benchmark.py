"""How long a teleport takes: null space against symmetry, over width, samples, layers, batches and steps.

Null-space teleport is measured twice. At threshold 1 it is over at once where the samples span every layer's inputs,
which is no speed, and it skips the first layer. ``nullspace 0.999`` decomposes every layer and leaves each some
directions, so that all steps are taken. The table has the steps and the null dimensions of both.
"""

from __future__ import annotations

import copy
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.clock import Clock
from experiments.config import MLPConfig
from experiments.environment import environment
from experiments.methods import Teleporter
from experiments.models.mlp import build
from experiments.tasks import Spec
from teleport import NullSpace, Symmetry, TeleportReport

COLUMNS = [
    *("method", "width", "samples", "layers", "batches", "steps", "seconds", "fastest", "slowest", "repeats"),
    *("steps_taken", "null_dimensions", "hardware", "threads", "torch"),
]
"""``seconds`` is the median of a whole event's; ``null_dimensions`` a batch's, summed over layers."""

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


FULL = [
    *(Case(width, samples) for width in (128, 512, 1024) for samples in (100, 200, 1000)),
    *(Case(layers=layers) for layers in (1, 3, 4)),
    *(Case(batches=batches) for batches in (1, 2, 4)),
    *(Case(steps=steps) for steps in (1, 2, 4)),
]
SMOKE = [Case(16, 20, batches=1, steps=1), Case(32, 20, batches=1, steps=1), Case(16, 20, batches=1, steps=2)]

METHODS: dict[str, Callable[[int], Teleporter]] = {
    "nullspace": lambda steps: NullSpace(lr=RATE, steps=steps, step="fixed", guard="none"),
    "nullspace 0.999": lambda steps: NullSpace(lr=RATE, steps=steps, threshold=0.999, step="fixed", guard="none"),
    "symmetry 2022": lambda steps: Symmetry("2022", lr=RATE, steps=steps, step="fixed", guard="none"),
    "symmetry 2024": lambda steps: Symmetry("2024", lr=RATE, steps=steps, step="fixed", guard="none"),
    "symmetry corrected": lambda steps: Symmetry("corrected", lr=RATE, steps=steps, step="fixed", guard="none"),
}


def measure(cases: Iterable[Case], repeats: int, device: torch.device) -> Iterable[dict[str, Any]]:
    """A row a case and method, as they are done; within a case the methods take turns, ``repeats`` times."""
    known = environment(device)
    machine = {"hardware": known["device_name"], "threads": known["threads"], "torch": torch.__version__}
    _rounds(Case(16, 20, batches=1, steps=2), 1, device)  # what is loaded at first use
    for case in cases:
        for method, (seconds, report) in _rounds(case, repeats, device).items():
            yield {
                "method": method,
                **asdict(case),
                "seconds": statistics.median(seconds),
                "fastest": min(seconds),
                "slowest": max(seconds),
                "repeats": repeats,
                "steps_taken": report.steps,
                "null_dimensions": sum(min(layer.null_dimensions, default=0) for layer in report.layers),
                **machine,
            }


def _rounds(case: Case, repeats: int, device: torch.device) -> dict[str, tuple[list[float], TeleportReport]]:
    """Each method's seconds, and its last report, on one network and one set of batches."""
    torch.manual_seed(0)
    spec = Spec("image", (1, 28, 28), 10)
    widths = [case.width] * case.layers
    model = build(MLPConfig(name="mlp", widths=widths, activation="leaky_relu"), spec).to(device)
    batches = [
        (torch.randn(case.samples, 784, device=device), torch.randint(10, (case.samples,), device=device))
        for _ in range(case.batches)
    ]
    measured: dict[str, tuple[list[float], TeleportReport]] = {}
    for _ in range(repeats):
        for method, make in METHODS.items():
            clock = Clock(device)
            teleporter, own = make(case.steps), copy.deepcopy(model)
            clock.start()
            report = teleporter(own, batches, _loss)
            seconds = clock.stop()
            measured[method] = ([*measured.get(method, ([], report))[0], seconds], report)
    return measured


def _loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def ratios(table: pd.DataFrame, against: str = "nullspace 0.999") -> pd.DataFrame:
    """How many times the seconds of ``against`` each method takes, a row a case."""
    axes = [axis.name for axis in fields(Case)]
    seconds = table.pivot_table(index=axes, columns="method", values="seconds", sort=False)
    return seconds.div(seconds[against], axis=0).reset_index()


def slopes(table: pd.DataFrame, base: Case) -> pd.DataFrame:
    """The exponent of each axis by method: the slope of log seconds over the log of the axis, all else as in ``base``.

    1 is linear, 0 no dependence. Axes with fewer than two values at ``base`` are left out.
    """
    rows = []
    for axis in (field.name for field in fields(Case)):
        others = {name: value for name, value in asdict(base).items() if name != axis}
        along = table[(table[list(others)] == pd.Series(others)).all(axis=1)]
        for method, own in along.groupby("method", sort=False):
            if own[axis].nunique() > 1:
                slope = np.polyfit(np.log(own[axis]), np.log(own["seconds"]), 1)[0]
                rows.append({"axis": axis, "method": method, "values": own[axis].nunique(), "slope": slope})
    return pd.DataFrame(rows, columns=["axis", "method", "values", "slope"])


def base_of(cases: Sequence[Case]) -> Case:
    """The case that the axes of ``cases`` cross in: each field's most frequent value."""
    modes = {field.name: statistics.mode(getattr(case, field.name) for case in cases) for field in fields(Case)}
    return replace(cases[0], **modes)


def slug(hardware: str) -> str:
    """A machine's name as a part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", hardware.lower()).strip("-") or "unknown"
