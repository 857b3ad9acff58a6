"""One teleport event on a multilayer perceptron and random data, measured for several methods in turn."""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.benchmarks.common import MACHINE, TIMES, Row, Settings, machine, take_turns
from experiments.configuration.model_config import MLPConfig
from experiments.models.mlp import build
from experiments.run.methods import Teleporter
from experiments.tasks import Spec
from teleport import NullSpaceLayerReport, TeleportReport

RATE = 1e-9
"""A step so short that no method ends early: no cap is reached, and nothing diverges."""

PUBLISHED: dict[str, Any] = {
    "lr": RATE,
    "lr_unit": "absolute",
    "step": "fixed",
    "relative_cap": None,
    "guard": "none",
}
"""The rule of the papers, all steps taken whole: no default of the library decides what is timed."""

Method = Callable[[int], Teleporter]
"""Number of steps per batch -> teleporter."""


@dataclass(frozen=True)
class Case:
    """An event: ``layers`` hidden layers of ``width``, ``batches`` of ``samples``, ``steps`` per batch."""

    width: int = 512
    samples: int = 200
    layers: int = 2
    batches: int = 8
    steps: int = 8


AXES = [axis.name for axis in fields(Case)]

COLUMNS = ["method", *AXES, *TIMES, "steps_taken", "null_dimensions", *MACHINE]
"""``seconds`` are those of a whole event; ``null_dimensions`` those of one batch, summed over layers."""


def rows_of(case: Case, methods: Mapping[str, Method], settings: Settings, enough: float = math.inf) -> Iterator[Row]:
    """Measure ``methods`` on one network and one set of batches; one row per method.

    The network has images of 784 pixels, LeakyReLU and no biases, which every variant of symmetry accepts.

    Args:
        case: the event.
        methods: name -> number of steps -> teleporter.
        settings: number of rounds, and device.
        enough: seconds of the case after which no further round begins.
    """
    torch.manual_seed(0)
    spec, device = Spec("image", (1, 28, 28), 10), settings.device
    config = MLPConfig(name="mlp", widths=[case.width] * case.layers, activation="leaky_relu", bias=False)
    model = build(config, spec).to(device)
    batches = [
        (torch.randn(case.samples, 784, device=device), torch.randint(10, (case.samples,), device=device))
        for _ in range(case.batches)
    ]

    def ready(method: Method) -> Callable[[], TeleportReport]:
        teleporter, own = method(case.steps), copy.deepcopy(model)
        return lambda: teleporter(own, batches, _loss)

    turns = {name: lambda method=method: ready(method) for name, method in methods.items()}
    for name, timed in take_turns(turns, settings.repeats, device, enough).items():
        yield {"method": name, **asdict(case), **timed.columns(), **work_of(timed.last), **machine(device)}


def warm_up(methods: Mapping[str, Method], device: torch.device) -> None:
    """A tiny event by each method, which loads what is loaded on first use."""
    deque(rows_of(Case(16, 20, batches=1, steps=2), methods, Settings(1, True, device)), maxlen=0)


def work_of(report: TeleportReport) -> Row:
    """The steps taken by an event, and the null dimensions of a batch, summed over layers."""
    layers = [layer for layer in report.layers if isinstance(layer, NullSpaceLayerReport)]
    free = sum(min(layer.null_dimensions, default=0) for layer in layers)
    return {"steps_taken": report.steps, "null_dimensions": free}


def line(row: Row) -> str:
    """The case, the method, its seconds and the steps taken."""
    case = "  ".join(f"{axis} {row[axis]:>4}" for axis in AXES)
    return f"{case}  {row['method']:<20} {row['seconds']:9.4f} s  {row['steps_taken']:>3} steps"


def _loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])
