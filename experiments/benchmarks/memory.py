"""How much memory a null-space teleport needs at its peak, against a training step and the weights, by length.

The network is a causal transformer of the suite on one text of random tokens. Each figure is of a process of its own,
which works on a tiny network first: what is loaded at first use is no memory of the work. It is the largest memory
that the process (on a GPU: torch's allocator) ever held, less the largest before the work began, so beyond the weights
and the batch themselves. A training step is forward, backward and a step of plain SGD, so it adds a gradient of each
weight. A teleport has one batch and two steps; it keeps a copy of the weights to go back to.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
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
from experiments.configuration.model_config import TransformerConfig
from experiments.errors import UserError
from experiments.models.transformer import build
from experiments.tasks import Spec
from teleport import NullSpace, TeleportReport

TRAINING, ONCE, EACH = "training step", "forward once", "forward each"

METHODS: dict[str, dict[str, Any]] = {TRAINING: {}, ONCE: {"forward": "once"}, EACH: {"forward": "each"}}
"""Settings of the teleports beside two steps of a fixed and tiny length."""


@dataclass(frozen=True)
class Case:
    """A transformer of ``layers`` blocks with ``heads`` of 64 dimensions, on a text of ``length`` tokens."""

    layers: int = 12
    heads: int = 12
    length: int = 1024
    vocabulary: int = 10_000

    @property
    def spec(self) -> Spec:
        """Of the text."""
        return Spec("text", (self.length,), self.vocabulary)


AXES = [axis.name for axis in fields(Case)]

COLUMNS = ["method", *AXES, *TIMES, "weights_bytes", "peak_bytes", "steps_taken", "moved", *MACHINE]
"""``peak_bytes`` is beyond the weights and the batch; ``moved`` counts layers."""

TINY = Case(1, 1, 8, 11)
FULL = [Case(length=length) for length in (256, 512, 1024)]
SMOKE = [TINY]

AIMS: list[Aim] = []


def measure(settings: Settings) -> Iterator[Row]:
    """A row a case and method, each of one round in a fresh process.

    Raises:
        UserError: a process that died.
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
    """Peaks in units of a training step's and of the weights, and how they grow with the length."""
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
    """The largest memory that this process ever held, on a GPU that its tensors did.

    On Linux it is not ``getrusage``'s, which starts from what the parent process held.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.is_file():
        held = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(held["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _alone(case: Case, method: str, settings: Settings) -> Row:
    """The cells that a process of its own measures."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_measured, case, method, settings.device, torch.get_num_threads()).result()
        except BrokenProcessPool as error:
            raise UserError(
                f"the process of '{method}' at length {case.length} died, most likely for want of memory; "
                "leave out the subject 'memory' on this machine"
            ) from error


def _measured(case: Case, method: str, device: torch.device, threads: int) -> Row:
    """What one method on one case needs, in this process."""
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
    """Build the network and the batch; the work on them returns the weights' bytes and a teleport's report."""
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
        return weights, NullSpace(lr=1e-9, steps=2, step="fixed", **METHODS[method])(model, [batch], _loss)

    return train if method == TRAINING else teleport


def _loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, targets = batch
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
