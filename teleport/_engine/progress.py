"""What a method tells of an event while it runs, and a line on the terminal that shows it."""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TextIO, TypeAlias, TypeVar

Given = ParamSpec("Given")
Result = TypeVar("Result")

FIRST_NORM = re.compile(r" \(from [^)]*\)")
"""What a narrow terminal can do without."""


@dataclass(frozen=True)
class Progress:
    """The state of a teleport event when its callback is called.

    Attributes:
        method: the name of the method, as in the report.
        batch: the number of the batch, from 0; ``batches``: how many the event has. A method that moves for all
            batches together (``Rescaling(mode="balance")``) counts them as one.
        step: the number of steps taken on this batch: 0 before the first; ``steps``: how many there may be.
        loss: the loss of the batch at this step. If the forward pass is run once per batch (``NullSpace``) it is the
            loss before the first step, which such steps keep. NaN in a change of basis without a loss.
        gradient_norm: the gradient norm on the batch at this step.
        rank: of this process among those that teleport together, else among all processes of ``torch.distributed``.
    """

    method: str
    batch: int
    batches: int
    step: int
    steps: int
    loss: float
    gradient_norm: float
    rank: int = 0


Callback: TypeAlias = Callable[[Progress], bool | None]
"""``callback(progress)``: called before the first step on each batch (``step`` 0) and after each step.

If it returns ``True`` the event ends there: the steps so far are kept, subject to the guard, the batch's report has
``Stopped.CALLBACK``, and batches that were not begun have no report. Any other value, ``None`` included, goes on. If it
raises, all parameters are put back, and the exception goes on to the caller. :class:`ProgressLine` is a callback that
shows the event on the terminal.
"""


class ProgressLine:
    """A line on the terminal with the batch, the step, the gradient norm and the time left of an event.

    ``NullSpace()(model, batches, loss_fn, callback=ProgressLine())`` shows, for instance,
    ``nullspace: batch 3/8, step 5/8, gradient norm 2.31 (from 1.16), 12 s left``.
    One object serves any number of events, one after the other. The line is cleared at the end of each event, after an
    exception too. With several processes the first one shows it. The numbers of an event do not depend on it.

    Args:
        callback: one of your own that is called as well; it may end the event.
        show: ``None`` shows the line if ``file`` is a terminal; ``True`` in any case, as in a notebook; ``False`` not.
        file: where the line is written; ``None`` for ``sys.stderr``.
        leave: whether the last state of the line stays on the terminal, with the seconds that the event took.
        interval: the least number of seconds between two writes.

    Raises:
        TypeError: ``callback`` cannot be called.
    """

    def __init__(
        self,
        callback: Callback | None = None,
        *,
        show: bool | None = None,
        file: TextIO | None = None,
        leave: bool = False,
        interval: float = 0.1,
    ) -> None:
        if callback is not None and not callable(callback):
            raise TypeError(f"callback must be a function of a teleport.Progress, got {type(callback).__name__}")
        self.callback = callback
        self.show = show
        self.leave = leave
        self.interval = interval
        self._file = file
        self._begun: float | None = None  # the clock at the start of the event
        self._written = -math.inf  # the clock at the last write
        self._width = 0  # of the text that stands on the line
        self._norm = math.nan  # the first one of the batch
        self._latest: Progress | None = None

    @property
    def shown(self) -> bool:
        """Whether the line is shown in a first process."""
        return self.show is True or (self.show is None and _is_terminal(self.file))

    @property
    def file(self) -> TextIO:
        """Where the line is written."""
        return self._file or sys.stderr

    def __call__(self, progress: Progress) -> bool | None:
        """Show the state of the event, and call the caller's callback, whose answer is returned."""
        if progress.rank == 0 and self.shown:
            self._show(progress)
        return None if self.callback is None else self.callback(progress)

    def begin(self, method: str, batches: int) -> None:
        """Show that an event begins; the methods of the library call it, in the first process."""
        if self.shown:
            self._begun, self._latest, self._norm = time.monotonic(), None, math.nan
            self._write(f"{method}: batch 1/{batches}")

    def close(self) -> None:
        """Clear the line at the end of an event; the methods of the library call it."""
        if self._begun is None:
            return
        text = ""
        if self.leave and self._latest is not None:
            text = f"{_where(self._latest)}{self._norms(self._latest)}, {_in_words(time.monotonic() - self._begun)}"
        self._write(text, end="\n" if text else "\r")
        self._begun, self._latest, self._width = None, None, 0

    def _show(self, progress: Progress) -> None:
        now, latest = time.monotonic(), self._latest
        if self._begun is None:  # of a method of others, which does not call begin
            self._begun = now
        if progress.step == 0:
            self._norm = progress.gradient_norm
        elif latest is not None and latest.batch != progress.batch:
            self._norm = math.nan
        self._latest = progress
        if now - self._written >= self.interval:
            left = _seconds_left(progress, now - self._begun)
            about = "" if left is None else f", {_in_words(left)} left"
            self._write(f"{_where(progress)}{self._norms(progress)}{about}")

    def _norms(self, progress: Progress) -> str:
        if not math.isfinite(progress.gradient_norm):
            return ""
        first = f" (from {self._norm:.3g})" if progress.step and math.isfinite(self._norm) else ""
        return f", gradient norm {progress.gradient_norm:.3g}{first}"

    def _write(self, text: str, end: str = "") -> None:
        """Put ``text`` in the place of what stands on the line."""
        self._written = time.monotonic()
        room = max(1, _columns(self.file) - 1)  # a longer text would go on in the next line
        if len(text) > room:
            text = FIRST_NORM.sub("", text)[:room]
        self.file.write("\r" + text.ljust(self._width) + end)
        self.file.flush()
        self._width = len(text)


def closing_line(callback: Callback | None, work: Callable[Given, Result]) -> Callable[Given, Result]:
    """``work``, at whose end the line of ``callback`` is cleared, within what an interrupt undoes."""

    def closed(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        try:
            return work(*args, **kwargs)
        finally:
            if isinstance(callback, ProgressLine):
                callback.close()

    return closed


def _where(progress: Progress) -> str:
    batch = f"batch {progress.batch + 1}/{progress.batches}"
    return f"{progress.method}: {batch}, step {progress.step}/{progress.steps}"


def _seconds_left(progress: Progress, seconds: float) -> float | None:
    """The estimate from the share of all steps that is done; ``None`` before the first step."""
    share = (progress.batch + progress.step / max(1, progress.steps)) / progress.batches
    return seconds * (1 - share) / share if 0 < share < 1 else None


def _in_words(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _is_terminal(file: TextIO | None) -> bool:
    """Whether it is one; a program without a console has no ``sys.stderr``."""
    return file is not None and not file.closed and file.isatty()


def _columns(file: TextIO) -> int:
    try:
        return os.get_terminal_size(file.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return shutil.get_terminal_size().columns
