"""Peak memory of a null-space teleport by length, compared with a training step and with the weights.

The network is the suite's causal transformer on one text of random tokens. Each value is measured in a fresh process,
after a warm-up on a tiny network, which excludes one-time allocations. It is the peak memory of the process (on a GPU:
of torch's allocator) minus the peak before the work began, so it excludes the weights and the batch. A training step is
forward, backward and a step of plain SGD, so it adds a gradient of each weight. A teleport has one batch and two steps;
it keeps a copy of the weights for the rollback.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.benchmarks.aims import Aim
from experiments.benchmarks.common import MACHINE, TIMES, Row, Settings, machine, ratios, slopes, take_turns
from experiments.benchmarks.events import PUBLISHED
from experiments.configuration.model_config import TransformerConfig
from experiments.errors import UserError
from experiments.models.transformer import build
from experiments.pools import process_pool
from experiments.tasks import Spec
from teleport import NullSpace, TeleportReport

TRAINING, ONCE, EACH = "training step", "forward once", "forward each"

METHODS: dict[str, dict[str, Any]] = {TRAINING: {}, ONCE: {"forward": "once"}, EACH: {"forward": "each"}}
"""Settings of the teleports besides two steps of a fixed and tiny length."""


@dataclass(frozen=True)
class Case:
    """A transformer of ``layers`` blocks with ``heads`` of 64 dimensions, on a text of ``length`` tokens."""

    layers: int = 12
    heads: int = 12
    length: int = 1024
    vocabulary: int = 10_000

    @property
    def spec(self) -> Spec:
        """The spec of the text."""
        return Spec("text", (self.length,), self.vocabulary)


AXES = [axis.name for axis in fields(Case)]

COLUMNS = ["method", *AXES, *TIMES, "weights_bytes", "peak_bytes", "steps_taken", "moved", *MACHINE]
"""``peak_bytes`` is beyond the weights and the batch; ``moved`` counts layers."""

TINY = Case(1, 1, 8, 11)
FULL = [Case(length=length) for length in (256, 512, 1024)]
SMOKE = [TINY]

AIMS: list[Aim] = []


def measure(settings: Settings) -> Iterator[Row]:
    """One row per case and method, each of one round in a fresh process.

    Raises:
        UserError: a process was killed.
    """
    for case in SMOKE if settings.smoke else FULL:
        for method in METHODS:
            yield {"method": method, **asdict(case), **_alone(case, method, settings), **machine(settings.device)}


def line(row: Row) -> str:
    """The case, the method, and its peak in mebibytes and in weights."""
    case = "  ".join(f"{axis} {row[axis]:>4}" for axis in AXES)
    peak, weights = row["peak_bytes"], row["weights_bytes"]
    return f"{case}  {row['method']:<13} {peak / 2**20:8.0f} MiB, {peak / weights:5.2f} times the weights"


def summary(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Peaks in units of that of a training step and of the weights, and their exponents in the length."""
    relative = table.assign(relative=table.peak_bytes / table.weights_bytes)
    return {
        f"peak memory, in units of a {TRAINING}": ratios(table, AXES, TRAINING, "peak_bytes"),
        "peak memory, in units of the weights": relative.pivot_table(
            index=AXES, columns="method", values="relative", sort=False
        ).reset_index(),
        "exponents of memory (1 is linear)": slopes(table, AXES, "peak_bytes"),
        "exponents of seconds (1 is linear)": slopes(table, AXES),
    }


def peak_bytes(device: torch.device) -> int:
    """The peak memory of this process; on a GPU that of torch's allocator.

    On Linux it is not read from ``getrusage``, whose value includes the peak of the parent process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.is_file():
        held = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(held["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _alone(case: Case, method: str, settings: Settings) -> Row:
    """The cells measured in a fresh process."""
    with process_pool(1) as pool:
        try:
            return pool.submit(_measured, case, method, settings.device, torch.get_num_threads()).result()
        except BrokenProcessPool as error:
            raise UserError(
                f"the process of '{method}' at length {case.length} was killed, most likely out of memory; "
                "leave out the subject 'memory' on this machine"
            ) from error


def _measured(case: Case, method: str, device: torch.device, threads: int) -> Row:
    """Measure one method on one case in this process."""
    torch.set_num_threads(threads)
    _work(TINY, method, device)()
    work = _work(case, method, device)
    before = peak_bytes(device)
    timed = take_turns({method: lambda: work}, 1, device)[method]
    weights, report = timed.last
    return {
        **timed.columns(),
        "weights_bytes": weights,
        "peak_bytes": peak_bytes(device) - before,
        "steps_taken": report.steps if report else 0,
        "moved": sum(layer.relative_change > 0 for layer in report.layers) if report else 0,
    }


def _work(case: Case, method: str, device: torch.device) -> Callable[[], tuple[int, TeleportReport | None]]:
    """Build the network and the batch; the returned function gives the bytes of the weights and a teleport's report."""
    torch.manual_seed(0)
    config = TransformerConfig(name="transformer", heads=case.heads, head_dim=64, layers=case.layers)
    model = build(config, case.spec).to(device)
    tokens = torch.randint(case.vocabulary, (1, case.length + 1), device=device)
    batch = tokens[:, :-1], tokens[:, 1:]
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())

    def train() -> tuple[int, None]:
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        _loss(model, batch).backward()
        optimizer.step()
        return weights, None

    def teleport() -> tuple[int, TeleportReport]:
        settings = {**PUBLISHED, "guard": "transaction", "steps": 2, **METHODS[method]}
        return weights, NullSpace(**settings)(model, [batch], _loss)

    return train if method == TRAINING else teleport


def _loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, targets = batch
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
