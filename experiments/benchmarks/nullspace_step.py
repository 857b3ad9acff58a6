"""The cost of one step of a null-space teleport, projection included, in units of a gradient evaluation.

A gradient evaluation is the forward and the backward pass of the same model on the same batch, over all parameters. The
seconds of a step are the difference between a teleport of many steps and one of few, per step, which excludes the work
done once per batch (the subject ``runtime`` includes it). ``AIMS`` are for the method ``once``. Without null dimensions
there is no step: the table also has the number of layers that moved.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from experiments.benchmarks.aims import Aim, rows
from experiments.benchmarks.common import MACHINE, TIMES, Row, Settings, Timed, machine, ratios, take_turns
from experiments.benchmarks.events import PUBLISHED
from experiments.configuration.model_config import CNNConfig, MLPConfig, ResNetConfig, TransformerConfig
from experiments.models import cnn, mlp, resnet, transformer
from experiments.tasks import Spec
from teleport import NullSpace, NullSpaceLayerReport, TeleportReport

FEW, MANY = 2, 10
"""Steps of the two teleports whose difference is measured."""

METHODS: dict[str, dict[str, Any]] = {
    "once": {},
    "each": {"forward": "each"},
    "cap": {"step": "cap", "lr": 1e-3},  # the line search needs a step with a measurable gain
    "0.999": {"threshold": 0.999},
    "split": {},  # protects another batch
}
"""Settings besides the published rule with a rate so small that no teleport ends early."""

GRADIENT = "gradient"
"""The unit of the ratios."""

COLUMNS = ["method", "model", "samples", "evaluations", *TIMES, "steps_taken", "moved", "null_dimensions", *MACHINE]
"""``evaluations``: the fastest step over the fastest gradient evaluation. A step's ``fastest`` does not belong to a
round: it is the fastest teleport of many steps minus the fastest of few, because a round in which the teleport of few
steps was disturbed would make a step look short. ``moved``: the number of layers with null dimensions,
``null_dimensions`` their sum, in one batch."""


@dataclass(frozen=True)
class Case:
    """A model by its name in the table, and the ``samples`` of its batch."""

    model: str
    samples: int
    build: Callable[[], nn.Module]
    spec: Spec


IMAGES, GREY = Spec("image", (3, 32, 32), 10), Spec("image", (1, 28, 28), 10)
ROWS, SERIES = Spec("sequence", (28, 28), 10), Spec("series", (64, 32), 32)


def transformer_of(heads: int, head_dim: int, layers: int, spec: Spec) -> nn.Module:
    """The suite's transformer of that size."""
    config = TransformerConfig(name="transformer", heads=heads, head_dim=head_dim, layers=layers)
    return transformer.build(config, spec)


FULL = [
    Case("mlp 1024-1024", 200, lambda: mlp.build(MLPConfig(name="mlp", widths=[1024, 1024]), GREY), GREY),
    Case("cnn 32-64-128", 32, lambda: cnn.build(CNNConfig(name="cnn", channels=[32, 64, 128]), IMAGES), IMAGES),
    Case(
        "resnet 32-64-128",
        32,
        lambda: resnet.build(ResNetConfig(name="resnet", channels=[32, 64, 128]), IMAGES),
        IMAGES,
    ),
    Case("transformer 2 x 64", 32, lambda: transformer_of(4, 16, 2, ROWS), ROWS),
    Case("transformer 4 x 256", 8, lambda: transformer_of(4, 64, 4, SERIES), SERIES),
]
SMOKE = [Case("mlp 32-32", 8, lambda: mlp.build(MLPConfig(name="mlp", widths=[32, 32]), GREY), GREY)]


def _aim(model: str, limit: float) -> Aim:
    """The cost of a step of ``once``, if all steps were taken."""

    def figure(table: pd.DataFrame) -> float:
        return float(rows(table, model=model, method="once", steps_taken=MANY).evaluations.max())

    return Aim(f"a null-space step of the {model}, forward once (fastest rounds)", "<=", limit, figure, "evaluations")


AIMS = [
    _aim("mlp 1024-1024", 1.5),
    _aim("cnn 32-64-128", 2),
    _aim("transformer 2 x 64", 2),
    _aim("transformer 4 x 256", 2),
]


def measure(settings: Settings) -> Iterator[Row]:
    """One row per case and method; within a case the methods take turns."""
    for case in SMOKE if settings.smoke else FULL:
        timed = _rounds(case, settings)
        unit = min(timed[GRADIENT].seconds)
        yield _row(case, settings, GRADIENT, timed[GRADIENT], unit)
        for method in METHODS:
            few, many = timed[f"{method} {FEW}"], timed[f"{method} {MANY}"]
            pairs = zip(few.seconds, many.seconds, strict=True)
            step = Timed([(after - before) / (MANY - FEW) for before, after in pairs], many.last)
            fastest = (min(many.seconds) - min(few.seconds)) / (MANY - FEW)
            yield _row(case, settings, method, step, unit, fastest)


def line(row: Row) -> str:
    """The case, the method, and the cost of a step."""
    return (
        f"{row['model']:<20} {row['method']:<8} {row['evaluations']:6.2f} evaluations {1e3 * row['fastest']:9.2f} ms "
        f"{row['steps_taken']:>3} steps, {row['moved']} layers with {row['null_dimensions']} null dimensions"
    )


def summary(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Gradient evaluations per step, one row per case."""
    return {"a step, in gradient evaluations": ratios(table, ["model", "samples"], GRADIENT, "evaluations")}


def _row(
    case: Case, settings: Settings, method: str, timed: Timed[Any], unit: float, fastest: float | None = None
) -> Row:
    row = {"method": method, "model": case.model, "samples": case.samples, **timed.columns()}
    row["fastest"] = min(timed.seconds) if fastest is None else fastest
    row["evaluations"] = row["fastest"] / unit
    report = timed.last if isinstance(timed.last, TeleportReport) else None
    layers = [layer for layer in report.layers if isinstance(layer, NullSpaceLayerReport)] if report else []
    free = [layer.null_dimensions[0] for layer in layers if any(layer.null_dimensions)]
    row |= {"steps_taken": report.steps if report else 0, "moved": len(free), "null_dimensions": sum(free)}
    return row | machine(settings.device)


def _rounds(case: Case, settings: Settings) -> dict[str, Timed[Any]]:
    """The seconds of a gradient evaluation, and of each method's teleports of few and many steps."""
    torch.manual_seed(0)
    model = case.build().to(settings.device).eval()
    batch, other = (batch_of(case, settings.device) for _ in range(2))
    parameters = list(model.parameters())

    def gradient() -> Any:
        return torch.autograd.grad(loss_of(model, batch), parameters)

    def ready(method: str, steps: int) -> Callable[[], TeleportReport]:
        options = {**PUBLISHED, **METHODS[method]}
        teleporter, own = NullSpace(steps=steps, **options), copy.deepcopy(model)
        return lambda: teleporter(own, [batch], loss_of, constraint=[other] if method == "split" else None)

    work: dict[str, Callable[[], Callable[[], Any]]] = {GRADIENT: lambda: gradient}
    for method in METHODS:
        for steps in (FEW, MANY):
            work[f"{method} {steps}"] = lambda method=method, steps=steps: ready(method, steps)
    return take_turns(work, settings.repeats, settings.device)


def batch_of(case: Case, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random inputs and targets that fit the case's model."""
    inputs = torch.randn(case.samples, *case.spec.input_shape, device=device)
    if case.spec.kind == "series":
        return inputs, torch.randn(case.samples, case.spec.outputs, device=device)
    return inputs, torch.randint(case.spec.outputs, (case.samples,), device=device)


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean squared error if the targets are numbers, cross entropy if they are classes."""
    outputs, targets = model(batch[0]), batch[1]
    if targets.is_floating_point():
        return nn.functional.mse_loss(outputs, targets)
    return nn.functional.cross_entropy(outputs, targets)
