"""Peak memory of a null-space teleport, compared with the library at another commit, a training step and the weights.

The network is the suite's causal transformer on one text of random tokens. Each value is measured in a fresh process,
after a warm-up on a tiny network, which excludes one-time allocations (``memory_process.py``). It is the peak memory of
the process (on a GPU: of torch's allocator) minus what it held before the work began, so it excludes the weights and
the batch. A training step is forward, backward and a step of plain SGD, so it adds a gradient of each weight. A
teleport has one batch and two steps of the papers' rule, of a tiny length, with a copy of the weights for the rollback.
Seconds are those of the processor, of one round.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from experiments.benchmarks import memory_process
from experiments.benchmarks.against import BEFORE, COMMIT, NOW, ROOT, extract
from experiments.benchmarks.aims import Aim, ratio, rows
from experiments.benchmarks.common import MACHINE, TIMES, Row, Settings, machine, ratios
from experiments.benchmarks.events import PUBLISHED
from experiments.errors import UserError

TRAINING, ONCE, EACH = "training step", "forward once", "forward each"

STEPS: dict[str, Any] = {**PUBLISHED, "guard": "transaction", "steps": 2}

BUDGETS = ("6GB", "3GB", "1.5GB")
"""Of ``NullSpace(memory=...)``: enough for a record of the whole event, for its graph, for its parts one at a time."""

METHODS: dict[str, tuple[str, dict[str, Any] | None]] = {
    TRAINING: (NOW, None),
    f"{ONCE}, {BEFORE}": (BEFORE, {"forward": "once"}),
    f"{ONCE}, {NOW}": (NOW, {"forward": "once"}),
    f"{EACH}, {BEFORE}": (BEFORE, {"forward": "each"}),
    f"{EACH}, {NOW}": (NOW, {"forward": "each"}),
    **{f"memory={budget}": (NOW, {"forward": "once", "memory": budget}) for budget in BUDGETS},
}
"""The library of each method, and its settings besides ``STEPS``; ``None`` for a training step."""


@dataclass(frozen=True)
class Case:
    """A transformer of ``layers`` blocks with ``heads`` of 64 dimensions, on a text of ``length`` tokens."""

    layers: int = 6
    heads: int = 6
    length: int = 256
    vocabulary: int = 10_000


AXES = [axis.name for axis in fields(Case)]

KEY = "cell"
"""A case and a method, in words."""

COLUMNS = [
    KEY,
    "method",
    *AXES,
    "commit",
    *TIMES,
    "weights_bytes",
    "peak_bytes",
    "steps_taken",
    "moved",
    "chosen",
    *MACHINE,
]
"""``peak_bytes`` is beyond the weights and the batch; ``moved`` counts layers; ``chosen`` is ``report.memory``."""

BUDGETED = Case(length=1024)
FULL = [Case(), BUDGETED, Case(12), Case(12, length=1024)]
SMOKE = [Case(1, 1, 8, 11)]


def _aim(what: str, limit: float, methods: list[str], against: str | None, value: str) -> Aim:
    def figure(table: pd.DataFrame) -> float:
        others = [against or method.replace(NOW, BEFORE) for method in methods]
        pairs = zip(methods, others, strict=True)
        return max(float(ratio(table, AXES, method, other, value).max()) for method, other in pairs)

    return Aim(what, "<=", limit, figure)


_NEW = [f"{ONCE}, {NOW}", f"{EACH}, {NOW}"]

AIMS: list[Aim] = [
    _aim(f"peak memory of an event, forward each, against commit {COMMIT}", 0.4, _NEW[1:], None, "peak_bytes"),
    _aim(f"peak memory of an event, forward once, against commit {COMMIT}", 0.25, _NEW[:1], None, "peak_bytes"),
    _aim("peak memory of an event, in training steps", 5, _NEW, TRAINING, "peak_bytes"),
    _aim(f"processor seconds of an event, against commit {COMMIT}", 1.2, _NEW, None, "seconds"),
    Aim("peak memory of an event with a budget, over the budget", "<=", 1, lambda table: _over_budget(table)),
]


def measure(settings: Settings) -> Iterator[Row]:
    """One row per case and method, each of one round in a fresh process.

    Raises:
        UserError: the history of the repository is not there, or a process was killed.
    """
    commit = "HEAD" if settings.smoke else COMMIT
    with tempfile.TemporaryDirectory() as folder:
        earlier = Path(folder)
        extract(commit, earlier)
        for case in SMOKE if settings.smoke else FULL:
            for method, (library, own) in METHODS.items():
                if method.startswith("memory=") and not (settings.smoke or case == BUDGETED):
                    continue
                cell = f"{case.layers} layers, {case.heads} heads, {case.length} tokens, {method}"
                if cell in settings.done:
                    continue
                event = None if own is None else {**STEPS, **own}
                found = _alone(earlier if library == BEFORE else ROOT, case, event, settings)
                labels = {KEY: cell, "method": method, **asdict(case), "commit": commit if library == BEFORE else ""}
                yield {**labels, **found, **machine(settings.device)}


def line(row: Row) -> str:
    """The case, the method, and its peak in mebibytes and in weights."""
    case = "  ".join(f"{axis} {row[axis]:>4}" for axis in AXES)
    peak, weights, seconds = row["peak_bytes"], row["weights_bytes"], row["seconds"]
    return (
        f"{case}  {row['method']:<20} {peak / 2**20:6.0f} MiB, {peak / weights:5.2f} times the weights, {seconds:.1f} s"
    )


def summary(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Peaks in units of that of a training step and of the weights, and both libraries' peaks and seconds."""
    found = {
        f"peak memory, in units of a {TRAINING}": ratios(table, AXES, TRAINING, "peak_bytes"),
        "peak memory, in units of the weights": table.assign(relative=table.peak_bytes / table.weights_bytes)
        .pivot_table(index=AXES, columns="method", values="relative", sort=False)
        .reset_index(),
    }
    for mode in (ONCE, EACH):
        own = rows_of(table, mode)
        for what, value in (("peak memory", "peak_bytes"), ("processor seconds", "seconds")):
            heading = f"{what} of an event, {mode}, in units of those of the earlier commit"
            found[heading] = ratios(own, AXES, f"{mode}, {BEFORE}", value)
    return found


def rows_of(table: pd.DataFrame, mode: str) -> pd.DataFrame:
    """The rows of both libraries with a setting of ``forward``."""
    return table[table.method.str.startswith(f"{mode}, ")]


def _over_budget(table: pd.DataFrame) -> float:
    """The largest peak over its budget; nan without budgets."""
    budgets = {f"memory={budget}": float(budget.removesuffix("GB")) * 1e9 for budget in BUDGETS}
    shares = [float(rows(table, method=method).peak_bytes.max()) / budget for method, budget in budgets.items()]
    return max(shares)


def _alone(library: Path, case: Case, event: dict[str, Any] | None, settings: Settings) -> Row:
    """The cells measured in a fresh process with a library."""
    asked = {
        "case": asdict(case),
        "settings": event,
        "threads": torch.get_num_threads(),
        "device": str(settings.device),
    }
    path = os.pathsep.join([str(library), str(ROOT)])  # the model's classes are this tree's
    command = [sys.executable, "-P", memory_process.__file__, json.dumps(asked)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["most likely out of memory"]
        raise UserError(
            f"the process of the benchmark 'memory' at length {case.length} ended with exit code {done.returncode} "
            f"({last[0]}); leave out the subject 'memory' on this machine"
        )
    found = json.loads(done.stdout)
    assert Path(found.pop("library")).parent == library
    seconds = found.pop("processor_seconds")
    del found["seconds"]
    return {"seconds": seconds, "fastest": seconds, "slowest": seconds, "repeats": 1, **found}
