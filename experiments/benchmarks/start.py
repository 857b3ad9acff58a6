"""Start-up times: an error message, the help, and the first training step, each in a fresh process.

Lower bounds for comparison are importing torch, and one step of a torch optimizer by hand, which imports torch's
compiler. ``modules`` and ``imported`` come from one further process each, before the timed ones, so that all files are
in the system's cache. For the first step both they and the seconds end when its line is printed: later imports, such as
the plotting library, do not delay it.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import torch

from experiments.benchmarks.aims import Aim, rows
from experiments.benchmarks.common import MACHINE, TIMES, Row, Settings, Timed, machine
from experiments.configuration.options import CONF

HEAVY = ("torch", "torch._dynamo", "torchvision", "numpy", "scipy", "sklearn", "pandas", "matplotlib")
"""Packages that are slow to import or have many dependencies."""

NOTHING = "-"
"""In the table, if none of ``HEAVY`` was imported."""

IMPORT, BARE_STEP, HELP, MISTAKE = "import torch", "a step by hand", "--help", "a wrong key"
FIRST_STEP, RUN = "first step of a run", "a run of one step"

BY_HAND = """
import torch
inputs, labels = torch.randn(32, 64), torch.zeros(32, dtype=torch.int64)
model = torch.nn.Linear(64, 10).to("{device}")
optimizer = torch.optim.SGD(model.parameters(), 0.1)
torch.nn.functional.cross_entropy(model(inputs.to("{device}")), labels.to("{device}")).backward()
optimizer.step()
"""


@dataclass(frozen=True)
class Command:
    """The arguments of Python, the expected exit code, and a text whose line stops the clock (``None``: the end).

    ``{runs}`` and ``{device}`` in the arguments stand for an empty folder and the device.
    """

    arguments: tuple[str, ...]
    code: int = 0
    until: str | None = None


ONE_STEP = (
    "run.py",
    "training.max_steps=1",
    "machine.progress=false",
    "machine.runs={runs}",
    "machine.device={device}",
)

FULL = {
    IMPORT: Command(("-c", "import torch")),
    BARE_STEP: Command(("-c", BY_HAND)),
    HELP: Command(("run.py", "--help")),
    MISTAKE: Command(("run.py", "optimizer.lrr=1"), code=2),
    FIRST_STEP: Command(ONE_STEP, until="step      1 "),
    RUN: Command(ONE_STEP),
}
SMOKE = {name: FULL[name] for name in (HELP, MISTAKE)}

COLUMNS = ["method", *TIMES, "modules", "imported", *MACHINE]
"""``modules`` is the number of imported modules, ``imported`` lists those of ``HEAVY`` among them."""


def _heavy(method: str, beyond: str | None = None) -> Callable[[pd.DataFrame], float]:
    """The number of ``HEAVY`` packages that ``method`` imports and ``beyond`` does not."""

    def figure(table: pd.DataFrame) -> float:
        cells = dict(zip(table.method, table.imported, strict=True))
        if not {method, beyond} <= {None, *cells}:
            return math.nan
        spared = cells[beyond].split() if beyond else []
        return float(len(set(cells[method].split()) - {NOTHING, *spared}))

    return figure


AIMS = [
    Aim("heavy imports of run.py --help", "<=", 0, _heavy(HELP), "packages"),
    Aim("heavy imports of a run with a wrong key", "<=", 0, _heavy(MISTAKE), "packages"),
    Aim(
        "heavy imports before the first step of a run on the digits, beyond those of a torch optimizer's step",
        "<=",
        0,
        _heavy(FIRST_STEP, BARE_STEP),
        "packages",
    ),
]


class Launched(NamedTuple):
    """The seconds of a command, and the lines that it wrote to either stream in that time."""

    seconds: float
    lines: list[str]


def measure(settings: Settings) -> Iterator[Row]:
    """One row per command; the commands take turns."""
    commands = SMOKE if settings.smoke else FULL
    imported = {name: imports_of(launch(command, settings.device, trace=True)) for name, command in commands.items()}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(settings.repeats):
        for name, command in commands.items():
            seconds[name].append(launch(command, settings.device).seconds)
    for name, modules in imported.items():
        yield {
            "method": name,
            **Timed(seconds[name], None).columns(),
            "modules": len(modules),
            "imported": " ".join(heavy for heavy in HEAVY if heavy in modules) or NOTHING,
            **machine(settings.device),
        }


def line(row: Row) -> str:
    """The command, its seconds, and its imports."""
    return f"{row['method']:<20} {row['seconds']:7.3f} s  {row['modules']:>5} modules  {row['imported']}"


def summary(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Seconds in units of importing torch and of a step by hand, and the imports."""
    times = table[["method", "seconds", "modules", "imported"]].copy()
    for unit in (IMPORT, BARE_STEP):
        times.insert(2, f"in units of: {unit}", table.seconds / rows(table, method=unit).seconds.max())
    return {"seconds to begin": times}


def launch(command: Command, device: torch.device, trace: bool = False) -> Launched:
    """Run a command to its end; with ``trace`` its lines list each imported module.

    Raises:
        RuntimeError: the exit code is not the expected one, or the expected line was not printed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    flags = ["-X", "importtime"] if trace else []
    with tempfile.TemporaryDirectory() as runs:
        arguments = [part.format(runs=runs, device=device) for part in command.arguments]
        started, lines, over = time.perf_counter(), [], False
        with subprocess.Popen(
            [sys.executable, *flags, *arguments],
            cwd=CONF.parent,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            while not over and (text := process.stdout.readline()):
                lines.append(text)
                over = command.until is not None and command.until in text
            if not over:
                process.wait()
            seconds = time.perf_counter() - started
            rest = process.stdout.read()
    if process.returncode != command.code or (command.until is not None and not over):
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}: {''.join(lines)}{rest}")
    return Launched(seconds, lines)


def imports_of(launched: Launched) -> set[str]:
    """The names in Python's own account of imports."""
    found = (re.match(r"import time: +\d+ \| +\d+ \| +(\S+)", text) for text in launched.lines)
    return {match[1] for match in found if match}
