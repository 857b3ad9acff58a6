"""Kill commands at their file operations, and repeat them: nothing may be lost, wrong or left behind.

usage: python scripts/fuzz/kills.py [--cases N] [--seed S]

A command (a run with teleports, a sweep of two runs, a redraw of figures) is killed by SIGKILL right before its k-th
file operation in its folder: an opening for writing, an ``fsync``, a renaming, a removal, a making or removing of a
folder. It is then repeated to its end. Its exit code must be 0, its numbers, weights and pictures those of a command
that was not killed, and no other files may be there, but for the folders of sweeps, which are named by their time. The
cases are all operations of all commands, or N of them, evenly. The exit code is 1 if there are findings.
"""

from __future__ import annotations

import argparse
import csv
import os
import runpy
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

SMALL = ["data.train_samples=100", "data.test_samples=40", "model.widths=[8]", "training.epochs=2", "seed=0"]
TELEPORT = ["teleport=nullspace", "teleport.epochs=[1]", "teleport.batches=1", "teleport.samples=4", "teleport.steps=1"]
EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
CLOCKS = {"seconds", "started", "training_seconds", "teleport_seconds", "checksums"}
"""What differs between two runs of the same configuration."""


def run_py(*arguments: str) -> int:
    """``python run.py`` in this process; the exit code."""
    from experiments.command_line import command_line

    sys.argv = [str(ROOT / "run.py"), *arguments]
    return command_line.main()


def training(place: Path) -> int:
    """One run with a teleport."""
    return run_py(f"machine.runs={place}", *SMALL, *TELEPORT)


def sweep(place: Path) -> int:
    """Two runs by one command."""
    return run_py("-m", f"machine.runs={place}", *SMALL, "optimizer.lr=0.01,0.02")


def redraw(place: Path) -> int:
    """All figures of a folder."""
    return int(runpy.run_path(str(ROOT / "scripts" / "make_figures.py"))["main"](["--results", str(place)]))


COMMANDS: dict[str, Callable[[Path], int]] = {"training": training, "sweep": sweep, "redraw": redraw}


class Operations:
    """Counts the file operations of this process below a folder, and kills it right before one of them.

    Args:
        place: the folder.
        last: the number of the operation to be killed at; 0 for none.
        count: a file outside of the folder, whose length is the number of operations so far.
    """

    def __init__(self, place: Path, last: int, count: Path) -> None:
        self.place, self.last, self.number = str(place), last, 0
        self.count = os.open(count, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        own_fsync = os.fsync

        def fsync(file: int) -> None:
            self._next()
            own_fsync(file)

        os.fsync = fsync
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in EVENTS:
            path = arguments[0]
        else:
            return
        if isinstance(path, str | os.PathLike) and str(Path(path).absolute()).startswith(self.place):
            self._next()

    def _next(self) -> None:
        self.number += 1
        os.write(self.count, b".")
        if self.number == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


def in_child(command: Callable[[Path], int], place: Path, kill_at: int = 0) -> tuple[int, int, str]:
    """A command in a process of its own; its exit code (negative for a signal), its file operations and its output."""
    with tempfile.TemporaryDirectory() as folder:
        count, output = Path(folder, "count"), Path(folder, "output")
        child = os.fork()
        if child == 0:
            code = 99
            try:
                file = os.open(output, os.O_WRONLY | os.O_CREAT)
                os.dup2(file, 1)
                os.dup2(file, 2)
                sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
                Operations(place, kill_at, count)
                code = command(place)
                sys.stdout.flush()
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        operations = count.stat().st_size if count.exists() else 0
        return os.waitstatus_to_exitcode(status), operations, output.read_text() if output.exists() else ""


def content(place: Path) -> dict[str, Any]:
    """What a command has made, by file and without clocks, and the name of every other file."""
    found: dict[str, Any] = {}
    for path in sorted(place.rglob("*")):
        name = str(path.relative_to(place))
        if (
            path.relative_to(place).parts[0] == "sweeps"
        ):  # a sweep's folder is named by its time, and is of one command alone
            if ".tmp" in path.name or ".lock" in path.name:
                found[name] = "left behind"
        elif path.name in ("model.pt", "config.yaml", "fig11.pdf", "fig11.png", "fig11.csv"):
            found[name] = path.read_bytes()
        elif path.suffix == ".csv":
            with path.open(newline="") as file:
                found[name] = [{key: row[key] for key in row if key not in CLOCKS} for row in csv.DictReader(file)]
        elif path.name == "summary.json":
            from experiments import files

            found[name] = {key: each for key, each in files.read_json(path, "").items() if key not in CLOCKS}
        else:
            found[name] = None
    return found


def start(command: str, folder: Path) -> Path:
    """A fresh folder for a command, with what it needs."""
    place = folder / command
    shutil.rmtree(place, ignore_errors=True)
    if command == "redraw":
        shutil.copytree(ROOT / "results" / "nullspace" / "fig11", place / "nullspace" / "fig11")
    else:
        place.mkdir()
    return place


def fuzz(cases: int | None, seed: int, folder: Path, names: list[str]) -> tuple[int, list[str]]:
    """The number of cases, and the findings."""
    whole, points = {}, []
    for name in names:
        command = COMMANDS[name]
        place = start(name, folder)
        code, operations, output = in_child(command, place)
        if code != 0:
            return 0, [f"{name} fails without a kill, exit code {code}: {output}"]
        whole[name] = content(place)
        print(f"{name}: {operations} file operations")
        points += [(name, k) for k in range(1, operations + 1)]
    if cases is not None and cases < len(points):
        points = [points[(number * len(points) // cases + seed) % len(points)] for number in range(cases)]
    findings = []
    for name, k in points:
        place = start(name, folder)
        killed, _, _ = in_child(COMMANDS[name], place, k)
        code, _, output = in_child(COMMANDS[name], place)
        after = content(place)
        case = f"{name}, killed before operation {k} (exit code {killed})"
        if code != 0:
            findings.append(f"{case}: the repetition ends with {code}: {output.strip()[-300:]}")
        different = [file for file in {*after, *whole[name]} if after.get(file, ...) != whole[name].get(file, ...)]
        if different:
            findings.append(f"{case}: other files or content: {', '.join(sorted(different))}")
    return len(points), findings


def main(arguments: list[str]) -> int:
    """Kill, repeat, compare; 1 if there are findings."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, help="how many kills (all file operations)")
    parser.add_argument("--seed", type=int, default=0, help="which of the operations (0)")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=[*COMMANDS], help="of these only (all)")
    chosen = parser.parse_args(arguments)
    import torch

    import experiments.command_line.command_line
    import experiments.figures.redraw
    import experiments.run.runner  # noqa: F401 - children of a process that has imported all start at once

    torch.set_num_threads(1)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tried, findings = fuzz(chosen.cases, chosen.seed, Path(folder).resolve(), chosen.commands)
    print(*findings, sep="\n", end="\n" if findings else "")
    print(f"{tried} kills, {len(findings)} findings in {time.perf_counter() - began:.0f} s")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
