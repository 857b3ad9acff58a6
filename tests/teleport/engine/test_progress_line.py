"""The line on the terminal: seen on a real pseudo-terminal, absent elsewhere, without an effect on the numbers."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import teleport
from teleport import NullSpace, Progress, ProgressLine, Rescaling, Symmetry
from tests.teleport.methods import CLASSES, Row, every_method, values
from tests.terminal import Terminal


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


def on_screen(text: str) -> list[str]:
    """The lines that stand on the terminal in the end: a carriage return goes back to the start of the line."""
    lines = []
    for line in text.split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines


@every_method
def test_every_method_shows_where_it_is_and_clears_the_line(row: Row, terminal: Terminal) -> None:
    moved, (batch, *others) = CLASSES.make(batches=2)
    alike, _ = CLASSES.make(batches=2)
    row.make()(moved, [batch, *others], CLASSES.loss_fn, callback=ProgressLine(file=terminal.file, interval=0))
    row.make()(alike, [batch, *others], CLASSES.loss_fn)
    text = terminal.read()
    assert re.search(r"\rchange of basis|\r[a-z -]+: batch 1/[12]", text)
    assert re.search(r"batch 2/2, step \d|batch 1/1, step \d", text)
    assert re.search(r"gradient norm \d", text)
    assert on_screen(text) == [""]
    assert all(torch.equal(one, values(alike)[name]) for name, one in values(moved).items())


def test_the_line_has_the_numbers_of_the_report(terminal: Terminal) -> None:
    model, batches = CLASSES.make(batches=2)
    line = ProgressLine(file=terminal.file, interval=0, leave=True)
    report = NullSpace(steps=3)(model, batches, CLASSES.loss_fn, callback=line)
    text, last = terminal.read(), report.batches[-1]
    norms = f"gradient norm {last.gradient_norm_after:.3g} (from {last.gradient_norm_before:.3g})"
    assert f"batch 2/2, step {last.steps}/3, {norms}" in text
    assert re.search(r"step 1/3, gradient norm \S+ \(from \S+\), \d.* left", text)
    kept, empty = on_screen(text)
    assert not empty
    assert re.fullmatch(rf".*step {last.steps}/3, {re.escape(norms)}, \d+\.\d s", kept)


def told(batch: int, step: int, norm: float = 1.0, rank: int = 0) -> Progress:
    return Progress("a method", batch, 4, step, 5, 0.5, norm, rank)


def test_the_time_left_is_that_of_the_steps_not_done(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("teleport._engine.progress.time.monotonic", lambda: now)
    line = ProgressLine(file=terminal.file, interval=0)
    line.begin("a method", 4)
    shown = []
    for seconds, batch, step in ((2.0, 0, 0), (3.0, 0, 5), (60.0, 1, 0), (600.0, 2, 0), (9000.0, 3, 0)):
        now = 100.0 + seconds
        line(told(batch, step))
        shown.append(on_screen(terminal.read())[0].partition("norm 1")[2].rpartition(", ")[2])
    assert shown == ["", "9.0 s left", "3 min left", "10 min left", "50 min left"]


def test_no_more_writes_than_the_interval_allows(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("teleport._engine.progress.time.monotonic", lambda: now)
    line = ProgressLine(file=terminal.file, interval=0.5)
    for step in range(101):
        now = 100.0 + step / 100
        line(Progress("a method", 0, 1, step, 100, 0.5, 1.0))
    assert terminal.read().count("\r") == 3


def test_a_narrow_terminal_has_one_line(terminal: Terminal) -> None:
    terminal.columns(30)
    line = ProgressLine(file=terminal.file, interval=0)
    line(told(0, 1))
    line(told(0, 2))
    text = terminal.read()
    assert all(len(part) < 30 for part in text.split("\r"))
    assert on_screen(text) == ["a method: batch 1/4, step 2/5"]


def test_a_terminal_of_80_columns_has_the_time_left(terminal: Terminal) -> None:
    terminal.columns(80)
    line = ProgressLine(file=terminal.file, interval=0)
    for batches, method in ((2, "nullspace"), (16, "change of basis")):
        for step, norm in ((0, 0.0233), (1, 123456.0)):
            line(Progress(method, batches - 1, batches, step, 2, 0.5, norm))
            shown = on_screen(terminal.read())[0]
            assert len(shown) < 80
            assert shown.endswith(" left")
            assert f"gradient norm {norm:.3g}" in shown


def test_a_shorter_text_leaves_nothing_of_a_longer_one(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("teleport._engine.progress.time.monotonic", lambda: 100.0)
    line = ProgressLine(file=terminal.file, interval=0)
    line(told(0, 2, 123456.0))
    line(told(1, 0, 1.0))
    assert on_screen(terminal.read()) == ["a method: batch 2/4, step 0/5, gradient norm 1, 0.0 s left"]


@pytest.mark.parametrize("show", [None, False])
def test_scripts_get_no_line(show: bool | None, terminal: Terminal) -> None:
    file = io.StringIO() if show is None else terminal.file
    model, batches = CLASSES.make()
    NullSpace()(model, batches, CLASSES.loss_fn, callback=ProgressLine(file=file, show=show))
    assert (file.getvalue() if isinstance(file, io.StringIO) else terminal.read()) == ""


def test_a_notebook_can_have_the_line() -> None:
    model, batches = CLASSES.make()
    file = io.StringIO()
    NullSpace()(model, batches, CLASSES.loss_fn, callback=ProgressLine(file=file, show=True))
    assert "batch 1/1" in file.getvalue()


def test_the_default_is_standard_error_as_it_is_at_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    line = ProgressLine(show=True)
    later = io.StringIO()
    monkeypatch.setattr("sys.stderr", later)
    line(told(0, 0))
    assert later.getvalue()
    monkeypatch.setattr("sys.stderr", None)  # a program without a console
    assert not ProgressLine().shown


def test_an_own_callback_sees_each_step_and_may_stop(terminal: Terminal) -> None:
    seen: list[Progress] = []

    def stop_at_two(progress: Progress) -> bool:
        seen.append(progress)
        return progress.step == 2

    model, batches = CLASSES.make(batches=2)
    line = ProgressLine(stop_at_two, file=terminal.file)
    report = NullSpace(steps=5, lr=1e-3)(model, batches, CLASSES.loss_fn, callback=line)
    assert [(each.batch, each.step, each.rank) for each in seen] == [(0, 0, 0), (0, 1, 0), (0, 2, 0)]
    assert report.batches[-1].stopped == teleport.Stopped.CALLBACK
    with pytest.raises(TypeError, match=r"callback must be a function of a teleport\.Progress, got int"):
        ProgressLine(3)  # type: ignore[arg-type]


def test_an_exception_clears_the_line(terminal: Terminal) -> None:
    def loss_fn(model: nn.Module, batch: Any) -> Any:
        if batch is batches[1]:
            raise KeyError("of the loss")
        return CLASSES.loss_fn(model, batch)

    model, batches = CLASSES.make(batches=2)
    line = ProgressLine(file=terminal.file, interval=0)
    with pytest.raises(KeyError):
        NullSpace()(model, batches, loss_fn, callback=line)
    text = terminal.read()
    assert "nullspace: batch 1/2" in text
    assert on_screen(text) == [""]


@pytest.mark.parametrize(
    "method",
    [Symmetry("corrected", lr=0.01, steps=4, step="fixed"), Rescaling(steps=4)],
    ids=["symmetry", "rescaling"],
)
def test_the_line_costs_no_evaluation(method: Any, terminal: Terminal) -> None:
    def evaluations(callback: Any) -> int:
        count = 0

        def loss_fn(model: nn.Module, batch: Any) -> Any:
            nonlocal count
            count += 1
            return CLASSES.loss_fn(model, batch)

        model, batches = CLASSES.make(batches=2)
        method(model, batches, loss_fn, callback=callback)
        return count

    assert evaluations(ProgressLine(file=terminal.file, interval=0)) == evaluations(None)
    assert re.search("batch 1/[12], step 1/4", terminal.read())
