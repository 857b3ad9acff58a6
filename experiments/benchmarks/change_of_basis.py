"""The cost of a random change of basis, compared with multiplying every weight once, and of finding the quiver.

``touch`` multiplies each parameter by a number in place, a lower bound for a teleport of all weights. ``teleport``
draws the factors and applies them, for a known quiver. ``capture`` finds the quiver, once per network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields

import pandas as pd
import torch

from experiments.benchmarks.aims import Aim, ratio, rows
from experiments.benchmarks.common import MACHINE, TIMES, Row, Settings, machine, ratios, take_turns
from experiments.configuration.model_config import MLPConfig, ModelConfig, NetworkConfig
from experiments.models.registry import build_model
from experiments.run.seeding import seed_everything
from experiments.tasks import Spec
from teleport import ChangeOfBasis

TOUCH, TELEPORT, CAPTURE = "touch", "teleport", "capture"

SPEC = Spec("image", (3, 32, 32), 10)


@dataclass(frozen=True)
class Case:
    """A network of Armenta et al., at a ``width`` relative to theirs."""

    model: str
    width: float = 1.0

    def config(self) -> ModelConfig:
        """The configuration of the network."""
        if self.model == "mlp500":
            return MLPConfig(name="mlp", widths=[round(500 * self.width)] * 5, init="kaiming")
        return NetworkConfig(name=self.model, width=self.width, init="kaiming")


AXES = [axis.name for axis in fields(Case)]

CHANNELS = ("free", "shared", "pinned")

COLUMNS = ["method", *AXES, *TIMES, "parameters", *CHANNELS, "difference", *MACHINE]
"""``free``, ``shared``, ``pinned`` count channels; ``difference`` is the relative change of the outputs."""

FULL = [Case("mlp500"), Case("vgg16"), Case("resnet18"), Case("densenet121")]
SMOKE = [Case("mlp500", 0.05), Case("resnet18", 0.125)]

AIMS = [
    Aim(
        "a change of basis against touching every weight once, at most over the four networks",
        "<=",
        3,
        lambda table: float(ratio(table, AXES, TELEPORT, TOUCH).max()),
    ),
    Aim(
        "finding the quiver of DenseNet121",
        "<=",
        2,
        lambda table: float(rows(table, method=CAPTURE, model="densenet121").seconds.max()),
        "s",
    ),
]


def measure(settings: Settings) -> Iterator[Row]:
    """One row per case and method; within a case the methods take turns."""
    with_machine = machine(settings.device)
    for case in SMOKE if settings.smoke else FULL:
        yield from ({**row, **with_machine} for row in _rows(case, settings))


def line(row: Row) -> str:
    """The network, the method and its seconds."""
    return f"{row['model']:<12} width {row['width']:<5g}  {row['method']:<9} {row['seconds'] * 1000:10.3f} ms"


def summary(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Ratios to multiplying every weight once, and the change of the outputs."""
    return {
        "in units of touching every weight once": ratios(table, AXES, TOUCH),
        "how far outputs move": table.loc[table.method == TELEPORT, [*AXES, *CHANNELS, "difference"]],
    }


def _rows(case: Case, settings: Settings) -> Iterator[Row]:
    """The rows of one network, whose weights are restored before each turn."""
    seed_everything(0)
    start = build_model(case.config(), SPEC).to(settings.device).eval()
    model, inputs = copy.deepcopy(start), torch.randn(8, *SPEC.input_shape, device=settings.device)
    method = ChangeOfBasis()
    quiver, parameters = method.capture(model, inputs), list(model.parameters())

    @torch.no_grad()
    def touch() -> None:
        for parameter in parameters:
            parameter.mul_(1.0)

    def teleport() -> None:
        method.sample(quiver).apply(model)

    def capture() -> None:
        method.capture(model, inputs[:1])

    def from_the_start(work: Callable[[], None]) -> Callable[[], Callable[[], None]]:
        def prepare() -> Callable[[], None]:
            model.load_state_dict(start.state_dict())
            return work

        return prepare

    works = {TOUCH: touch, TELEPORT: teleport, CAPTURE: capture}
    turns = {name: from_the_start(work) for name, work in works.items()}
    take_turns(turns, 1, settings.device)  # a warm-up round
    timed = take_turns(turns, settings.repeats, settings.device)
    report = ChangeOfBasis()(start, [inputs])
    for name, each in timed.items():
        yield {
            "method": name,
            **asdict(case),
            **each.columns(),
            "parameters": sum(parameter.numel() for parameter in parameters),
            **dict(zip(CHANNELS, report.channels, strict=True)),
            "difference": report.difference if name == TELEPORT else None,
        }
