"""Damaged files of every kind that a command reads, and what a command must do about them.

    PYTHONPATH=. python -m tests.experiments.damage [--flips N] [--kinds KIND ...]

tries all damages of all kinds of files, prints how many commands ended in a traceback or without naming the file, and
exits with 1 if there was one.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import random
import runpy
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]

Damage = Callable[[Path], None]


@dataclass
class Result:
    """What a command did: its exit code, its output, and the exception that it ended with, if it did."""

    code: int
    output: str
    traceback: str = ""


def raw(flips: int) -> Iterator[tuple[str, Damage]]:
    """Damages of any file: by its bytes, or by what is in its place."""
    yield "gone", lambda path: path.unlink()
    yield "empty", lambda path: path.write_bytes(b"")
    yield "half", lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    yield "one byte less", lambda path: path.write_bytes(path.read_bytes()[:-1])
    yield "one byte more", lambda path: path.write_bytes(path.read_bytes() + b"\xff")
    yield "zeros", lambda path: path.write_bytes(bytes(path.stat().st_size))
    yield "noise", lambda path: path.write_bytes(random.Random(0).randbytes(path.stat().st_size))
    yield "text", lambda path: path.write_bytes(b"nothing\n")
    yield "a folder", _folder
    yield "a link to itself", _loop
    for number in range(flips):
        yield f"bit {number}", lambda path, number=number: _flip(path, random.Random(number))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _flip(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


OTHERS: list[Any] = [[], {}, 3, None, "text", [[1]], {"a": {"b": []}}]


def other_types(value: Any) -> list[Any]:
    """Values of other types than ``value``."""
    return [other for other in (None, "text", -7, [1], {"a": 1}) if type(other) is not type(value)]


def structures(content: Any) -> Iterator[tuple[str, Any]]:
    """Contents of another structure: others, and each key missing, or with a value of another type."""
    for other in OTHERS:
        yield f"{other!r} instead", other
    if isinstance(content, dict):
        for key, value in content.items():
            yield f"no {key}", {name: each for name, each in content.items() if name != key}
            for other in other_types(value):
                yield f"{key} = {other!r}", {**content, key: other}


def of_json(path: Path) -> Iterator[tuple[str, Damage]]:
    """Damages of a JSON file; without its checksum, as earlier code wrote it, so that the structure alone is wrong."""
    content = json.loads(path.read_text())
    if isinstance(content, dict):
        content.pop("sha256", None)
    for name, other in structures(content):
        yield name, lambda path, other=other: path.write_text(json.dumps(other))


def of_csv(path: Path) -> Iterator[tuple[str, Damage]]:
    """Damages of a table: without each column, with text in each, without rows, with cells too many."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    for column, name in enumerate(rows[0]):
        yield f"no {name}", lambda path, c=column: _write(path, [row[:c] + row[c + 1 :] for row in rows])
        text = [rows[0], *([*row[:column], "text", *row[column + 1 :]] for row in rows[1:])]
        yield f"text in {name}", lambda path, text=text: _write(path, text)
        empty = [rows[0], *([*row[:column], "", *row[column + 1 :]] for row in rows[1:])]
        yield f"nothing in {name}", lambda path, empty=empty: _write(path, empty)
    yield "no rows", lambda path: _write(path, rows[:1])
    yield "no header", lambda path: _write(path, rows[1:])
    yield "cells too many", lambda path: _write(path, [rows[0], *([*row, "1", "2"] for row in rows[1:])])
    yield "half the rows", lambda path: _write(path, rows[: len(rows) // 2])


def _write(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def of_tensors(path: Path) -> Iterator[tuple[str, Damage]]:
    """Damages of a file of tensors that is whole: of another structure."""
    content = torch.load(path, weights_only=True)
    for name, other in structures(dict(content)):
        yield name, lambda path, other=other: torch.save(other, path)
    for key, inner in content.items():
        if isinstance(inner, dict):
            for name, other in structures(inner):
                changed = {**content, key: other}
                yield f"{key}: {name}", lambda path, changed=changed: torch.save(changed, path)


def damages(path: Path, flips: int) -> list[tuple[str, Damage]]:
    """All damages of a file."""
    of_kind = {".json": of_json, ".csv": of_csv, ".pt": of_tensors}.get(path.suffix)
    return [*raw(flips), *(of_kind(path) if of_kind else [])]


def call(main: Callable[[], int]) -> Result:
    """The result of a command in this process."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            code = main()
        except Exception:
            return Result(1, output.getvalue(), traceback.format_exc())
    text = output.getvalue()
    return Result(code, text, text if "Traceback (most" in text else "")


def run_py(*arguments: str) -> Result:
    """``python run.py`` with these arguments."""
    from experiments.command_line import command_line

    def main() -> int:
        before = sys.argv
        sys.argv = [str(ROOT / "run.py"), *arguments]
        try:
            return command_line.main()
        finally:
            sys.argv = before

    return call(main)


def make_figures(results: Path) -> Result:
    """``python scripts/make_figures.py --results RESULTS``."""
    main = runpy.run_path(str(ROOT / "scripts" / "make_figures.py"))["main"]
    return call(lambda: main(["--results", str(results)]))


SMALL = ["data.train_samples=100", "data.test_samples=40", "model.widths=[8]", "training.epochs=1"]
TELEPORT = ["teleport=nullspace", "teleport.epochs=[0]", "teleport.batches=1", "teleport.samples=4", "teleport.steps=1"]
FIGURE = ["figure=nullspace/fig8", "scale=smoke", "data=digits", "teleport=nullspace", "optimizer=sgd", "seed=0"]
FIGURE += [*SMALL, "model.teleport_samples=4"]


class Places:
    """Runs, weights and figures that are whole, made once; each trial works on a copy."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.whole = folder, folder / "whole"
        runs = f"machine.runs={self.whole / 'runs'}"
        self.made(run_py(runs, *SMALL, *TELEPORT, "seed=0"))
        (run,) = (path.parent for path in self.whole.glob("runs/*/summary.json"))
        self.run = run.relative_to(self.whole)
        self.made(run_py(*FIGURE, runs, f"machine.results={self.whole / 'results'}"))
        self.made(run_py("figure=nullspace/fig11", runs, f"machine.results={self.whole / 'results'}"))
        self.figure = next(path.parent for path in self.whole.glob("results/*/fig8*/provenance.json"))
        self.other = next(self.whole.glob("results/*/fig11/fig11.png"))
        shutil.copy(run / "model.pt", self.whole / "weights.pt")
        shutil.copytree(self.whole / "runs", self.whole / "stopped")
        (self.whole / "stopped" / run.name / "summary.json").unlink()
        (self.whole / "stopped" / run.name / "checkpoint.pt").write_bytes(_checkpoint(run_py, folder / "checkpoint"))

    @staticmethod
    def made(result: Result) -> None:
        assert result.code == 0, result.output + result.traceback

    def copy(self) -> Path:
        """A fresh copy of all that is whole."""
        place = self.folder / "copy"
        for path in sorted(place.rglob("*")):
            if path.is_symlink():
                path.unlink()
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.whole, place)
        return place


def _checkpoint(run: Callable[..., Result], folder: Path) -> bytes:
    """The last checkpoint of the run, which is stopped before its end."""
    from experiments.run import pictures

    class Stop(BaseException):
        pass

    def stop(*_: object) -> None:
        raise Stop

    before, pictures.draw_curve = pictures.draw_curve, stop
    try:
        with contextlib.suppress(Stop):
            run(f"machine.runs={folder}", *SMALL, *TELEPORT, "seed=0")
    finally:
        pictures.draw_curve = before
    return next(folder.glob("*/checkpoint.pt")).read_bytes()


def kinds(places: Places) -> dict[str, tuple[list[Path], Callable[[Path], Result]]]:
    """Kind of file -> the files, relative to the copy, and the command that reads them."""
    name = places.run.name
    pictures = {path.relative_to(places.whole): path.read_bytes() for path in places.whole.glob("results/**/*.png")}

    def again(runs: str, *more: str) -> Callable[[Path], Result]:
        return lambda place: run_py(f"machine.runs={place / runs}", *SMALL, *TELEPORT, "seed=0", *more)

    def redraw(place: Path) -> Result:
        other = place / places.other.relative_to(places.whole)
        other.unlink()
        result = make_figures(place / "results")
        if not other.exists():
            result.traceback = result.traceback or "the other figure was not redrawn"
        if result.code == 0 and any((place / path).read_bytes() != picture for path, picture in pictures.items()):
            result.traceback = "another picture without a word"
        return result

    def sweep(place: Path) -> Result:
        result = run_py(f"machine.runs={place / 'runs'}", *SMALL, *TELEPORT, "seed=0,1", "-m")
        tables = [path for path in (place / "runs" / "sweeps").glob("*.csv") if "seed=1" in path.read_text()]
        if not tables:
            result.traceback = result.traceback or "the sweep has no table"
        return result

    def figure(place: Path) -> Result:
        return run_py(*FIGURE, f"machine.runs={place / 'runs'}", f"machine.results={place / 'drawn'}")

    def weights(place: Path) -> Result:
        return run_py(f"machine.runs={place / 'new'}", *SMALL, f"model.weights={place / 'weights.pt'}")

    drawn = places.figure.relative_to(places.whole)
    of_run = ["summary.json", "curve.csv", "teleport_events.csv", "teleport_layers.csv", "environment.json"]
    summaries = [path.relative_to(places.whole) for path in places.whole.glob("runs/*/summary.json")]
    figure_run = next(path.parent for path in summaries if path.parent != places.run)
    return {
        "provenance, make figures": ([drawn / "provenance.json"], redraw),
        "table, make figures": ([drawn / "fig8.csv"], redraw),
        "picture, make figures": ([drawn / "fig8.png"], redraw),
        "summary, run again": ([places.run / "summary.json"], again("runs")),
        "summary, sweep": ([places.run / "summary.json"], sweep),
        "files of a run, figure": ([figure_run / each for each in of_run], figure),
        "checkpoint": ([Path("stopped") / name / "checkpoint.pt"], again("stopped")),
        "weights": ([Path("weights.pt")], weights),
    }


@dataclass
class Count:
    """The trials of one kind, and those that went wrong with what was seen."""

    tried: int
    wrong: list[str]


def try_all(places: Places, flips: int, only: list[str] | None = None, every: int = 1) -> dict[str, Count]:
    """All damages of all kinds, or of the kinds ``only``, and of these each ``every``-th."""
    counts = {}
    for kind, (files, command) in kinds(places).items():
        if only and kind not in only:
            continue
        count = counts[kind] = Count(0, [])
        for file in files:
            for name, damage in damages(places.whole / file, flips)[::every]:
                place = places.copy()
                damage(place / file)
                result = command(place)
                count.tried += 1
                if result.traceback or (result.code != 0 and file.name not in result.output):
                    last = (result.traceback or result.output).strip().splitlines()[-1:]
                    count.wrong.append(f"{file.name}, {name}: exit code {result.code}, {' '.join(last)}")
    return counts


def main() -> int:
    """Try all damages; 1 if a command went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--flips", type=int, default=5, help="flipped bits per file")
    parser.add_argument("--every", type=int, default=1, help="try each n-th damage only")
    parser.add_argument("--kinds", nargs="*", help="kinds of files; all unless given")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        counts = try_all(Places(Path(folder)), arguments.flips, arguments.kinds, arguments.every)
    for kind, count in counts.items():
        print(f"{kind}: {count.tried} tried, {len(count.wrong)} wrong", *count.wrong, sep="\n    ")
    return 1 if any(count.wrong for count in counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
