"""One command line of the fuzzer, in this process, and what must hold of it."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from experiments.command_line import command_line
from experiments.run.records import Records
from experiments.run.training import Training
from scripts.fuzz._command_line.overrides import Case

STEPS = 2
"""The steps that a run of the fuzzer trains."""

LARGE = re.compile(r"[0-9_]{3,}")
"""A number of which a run could become long."""


class Reached(BaseException):
    """The training would begin; no handler of the command line takes it for a failure of a run."""


@dataclass
class Outcome:
    """What a command line did: its exit code, or ``None`` if the training would have begun, and its run's folder."""

    code: int | None
    said: str = ""
    run: str = ""
    written: tuple[str, ...] = ()
    raised: str = ""


@contextlib.contextmanager
def shortened(train: bool) -> Iterator[list[str]]:
    """Runs train ``STEPS`` steps, or none: they stop where the training would begin. Yields the folders of runs."""
    folders: list[str] = []
    whole = Training.run

    def run(self: Training) -> Records:
        folders.append(self.folder.name)
        if not train:
            raise Reached
        self.last_step = min(self.last_step, STEPS)
        return whole(self)

    with patch.object(Training, "run", run):
        yield folders


def attempt(arguments: list[str], train: bool) -> Outcome:
    """Run ``run.py`` with ``arguments`` in this process, and look at what it said and wrote."""
    with tempfile.TemporaryDirectory() as folder, shortened(train) as folders:
        runs = Path(folder) / "runs"
        said, raised, code = io.StringIO(), "", None
        words = ["run.py", f"machine.runs={runs}", *arguments]
        with (
            patch.object(sys, "argv", words),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(said),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            try:
                code = command_line.main()
            except Reached:
                pass
            except BaseException as error:  # a finding
                raised = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        written = tuple(str(path.relative_to(folder)) for path in sorted(Path(folder).rglob("*")))
        if code == 0 and not folders:  # a run that was made before it trained
            folders = [Path(name).name for name in written]
        return Outcome(code, said.getvalue(), (folders or [""])[0], written, raised)


def is_short(case: Case) -> bool:
    """Whether two steps of the run, and a teleport before them, take no longer than a second."""
    return not any(LARGE.search(value) for key, value in case.values.items() if "seed" not in key) and not case.words


def findings(case: Case, train: bool) -> Iterator[str]:
    """What does not hold of a command line; yields a phrase for each."""
    outcome = attempt(case.overrides, train and is_short(case))
    yield from wrong(case, outcome)
    if not case.words and not outcome.raised:
        yield from twin(case, outcome)


def wrong(case: Case, outcome: Outcome) -> Iterator[str]:
    """No traceback, an exit code that says what happened, one sentence that names the key, nothing written."""
    if outcome.raised:
        yield f"traceback, {outcome.raised}"
        return
    if outcome.code not in (None, 0, 1, 2):
        yield f"exit code {outcome.code}"
    if outcome.code != 2:
        return
    if not outcome.said.startswith("error: ") or outcome.said.count("\n") != 1:
        yield f"not one sentence: {outcome.said!r}"
    if outcome.written:
        yield f"wrote {', '.join(outcome.written[:3])} although it refused: {outcome.said}"
    if not any(name in outcome.said for name in names(case)):
        yield f"names no key: {outcome.said}"


def names(case: Case) -> set[str]:
    """What a sentence about a case may name: its keys, the last parts of them, its groups and odd words."""
    found = {word for word in case.words if word}
    for override in case.overrides:
        key, _, value = override.partition("=")
        key = key.lstrip("+~ ").strip()
        found |= set(re.findall(r"\$\{(.+?)\}", value))  # the key that an interpolation leads to
        found |= {key, key.rpartition(".")[2], key.partition(".")[0], key.partition("@")[0], override}
    return {name for name in found if name} | {"on the command line"}


def twin(case: Case, outcome: Outcome) -> Iterator[str]:
    """The same values in an experiment file: refused or accepted alike, and the same run."""
    if {"experiment", "figure", "nothing"} & set(case.choices):
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "experiment" / "twin.yaml"
        file.parent.mkdir()
        file.write_text(case.yaml())
        chosen = [f"{group}={option}" for group, option in case.choices.items()]
        other = attempt(["-cd", folder, *chosen, "experiment=twin"], train=False)
    if other.raised:
        yield f"traceback from YAML, {other.raised}\n{case.yaml()}"
    elif (outcome.code == 2) != (other.code == 2):
        verdicts = {"command line": outcome, "YAML": other}
        yield "not alike: " + json.dumps({name: each.said or "accepted" for name, each in verdicts.items()})
    elif outcome.run and other.run and outcome.run != other.run:
        yield f"another run from YAML: {outcome.run}, {other.run}"
