"""Seconds of a whole null-space event, compared with those of the library at another commit.

Both libraries are timed in turn, each in a process of its own, on the same model, batches and settings: those of
``run.py model=... data=... teleport=nullspace`` at its first event, after the warm-up. The earlier library is taken
from the history of the repository. Settings that it does not know had their present meaning (``lr_unit: absolute``).
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from experiments.benchmarks import event_process
from experiments.benchmarks.aims import Aim, ratio, rows
from experiments.benchmarks.common import MACHINE, TIMES, Row, Settings, Timed, machine, ratios
from experiments.benchmarks.suite import Prepared, configuration
from experiments.configuration.teleport_config import NullSpaceConfig
from experiments.errors import UserError
from experiments.run.batches import draw_batches
from experiments.run.seeding import Stream, generator

BEFORE, NOW = "before", "now"

COMMIT = "75c9cfb"
"""Before frozen forward passes were checked, landed and measured as they are now."""

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Case:
    """A pair of model and data under ``conf/``, and a cap in place of the pair's own (too low a one: a no-op).

    The gradient norm of ResNet18 is above its pair's cap, so that its event has a relative one.
    """

    name: str
    model: str
    data: str
    cap: float | None = None
    relative_cap: float | None = None
    scale: str = "quick"


FULL = [
    Case("MLP on MNIST", "mlp", "mnist"),
    Case("MLP on digits", "mlp", "digits"),
    Case("CNN on CIFAR-10", "cnn", "cifar10"),
    Case("ResNet18 on CIFAR-10", "resnet18", "cifar10", relative_cap=2.0),
    Case("ResNet18 on CIFAR-10, no-op", "resnet18", "cifar10", cap=1e-3),
    Case("transformer on sequential MNIST", "transformer", "smnist"),
]
SMOKE = [Case("small MLP on digits", "mlp_small", "digits", scale="smoke")]

CASE = ("case", "model", "data", "batches", "samples", "cap")
COLUMNS = ["method", *CASE, "commit", *TIMES, "steps_taken", "norm_before", "norm_after", *MACHINE]


def _aim(name: str, limit: float) -> Aim:
    def figure(table: pd.DataFrame) -> float:
        return float(ratio(rows(table, case=name), ["case"], NOW, BEFORE).max())

    return Aim(f"a null-space event against commit {COMMIT}, {name}", "<=", limit, figure)


AIMS = [_aim(case.name, 0.2 if "no-op" in case.name else 0.5) for case in FULL]


def measure(settings: Settings) -> Iterator[Row]:
    """One row per case and library.

    Raises:
        UserError: the history of the repository is not there, or data are missing.
    """
    commit = "HEAD" if settings.smoke else COMMIT
    with tempfile.TemporaryDirectory() as folder:
        earlier = Path(folder)
        extract(commit, earlier)
        for case in SMOKE if settings.smoke else FULL:
            yield from _rows(case, commit, earlier, settings)
    torch.use_deterministic_algorithms(False)  # a run enables it


def line(row: Row) -> str:
    """The case, the library, its seconds and the steps taken."""
    return f"{row['case']:<32} {row['method']:<7} {row['seconds']:9.4f} s  {row['steps_taken']:>3} steps"


def summary(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The seconds of both libraries in units of the earlier one's."""
    return {
        f"seconds of an event, in units of those at commit {table['commit'].iloc[0]}": ratios(table, ["case"], BEFORE)
    }


def extract(commit: str, folder: Path) -> None:
    """Write the library at ``commit`` into ``folder``."""
    try:
        command = ["git", "archive", "--format=tar", commit, "teleport"]
        archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"this benchmark needs commit {commit} of this repository, which is not in its history here: run "
            "it in a clone with the whole history (git fetch --unshallow)"
        ) from error
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")


def _rows(case: Case, commit: str, earlier: Path, settings: Settings) -> Iterator[Row]:
    choices = [f"model={case.model}", f"data={case.data}", "teleport=nullspace", f"scale={case.scale}"]
    config = configuration([*choices, "data.test_samples=1"], settings.device)
    own = config.teleport
    assert isinstance(own, NullSpaceConfig)
    prepared = Prepared(config, settings.device)
    relative = own.relative_cap if case.relative_cap is None else case.relative_cap
    cap = None if case.relative_cap else own.cap if case.cap is None else case.cap
    given = {"cap": cap, "relative_cap": relative}
    given |= {key: getattr(own, key) for key in ("lr", "lr_unit", "steps", "step", "guard", "tolerance")}
    source = generator(config.seed, Stream.TELEPORT, 0)
    batches = draw_batches(prepared.task.train, own.batches, own.samples, source, settings.device)
    labels = {"case": case.name, "model": case.model, "data": case.data}
    labels |= {"batches": own.batches, "samples": own.samples, "commit": commit}
    labels["cap"] = cap  # empty if it is relative
    with ExitStack() as closing, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "event.pt"
        torch.save((prepared.model, batches), file)
        ask = {
            name: closing.enter_context(_process(library, file, given))
            for name, library in ((BEFORE, earlier), (NOW, ROOT))
        }
        for event in ask.values():  # a warm-up round
            event()
        answers: dict[str, list[dict[str, Any]]] = {name: [] for name in ask}
        for _ in range(settings.repeats):
            for name, event in ask.items():
                answers[name].append(event())
    for name, events in answers.items():
        times, last = Timed([each["seconds"] for each in events], None).columns(), events[-1]
        norms = {key: last[key] for key in ("norm_before", "norm_after")}
        yield {"method": name, **labels, **times, "steps_taken": last["steps"], **norms, **machine(settings.device)}


class _process:
    """A process with one library; a call makes one event there."""

    def __init__(self, library: Path, file: Path, settings: dict[str, Any]) -> None:
        command = [sys.executable, "-P", event_process.__file__, str(file), json.dumps(settings)]
        path = os.pathsep.join([str(library), str(ROOT)])  # the model's classes are this tree's
        self._running = subprocess.Popen(
            [*command, str(torch.get_num_threads())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert Path(self._answer()["library"]).parent == library

    def __enter__(self) -> Callable[[], dict[str, Any]]:
        return self._event

    def __exit__(self, *_: object) -> None:
        self._running.kill()
        self._running.communicate()

    def _event(self) -> dict[str, Any]:
        assert self._running.stdin is not None
        self._running.stdin.write("\n")
        self._running.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._running.stdout is not None
        answer = self._running.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process of an event ended with exit code {self._running.wait()}")
        found: dict[str, Any] = json.loads(answer)
        return found
