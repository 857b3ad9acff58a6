"""What a teleport event reports, with one entry per batch; those per layer are in ``layer_reports``."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from teleport._arguments import check_choice
from teleport._engine.carriers import Carriers
from teleport._engine.layer_reports import LayerReport, parameters_of
from teleport._engine.statuses import Stopped

SCREEN = 12
"""Layers, and reasons, that the text of a report shows."""

WIDTH = 110
"""Characters of a line of the text of a report."""


@dataclass(frozen=True)
class StepRecord:
    """Where one step of an ascent stood: ``step`` 0 is the state before the first step.

    If the forward pass is run once per batch, a step between the first and the last has the loss of the first.
    """

    step: int
    loss: float
    gradient_norm: float


@dataclass
class BatchReport:
    """One teleport batch: at most K steps on one level set.

    ``loss_*`` and ``gradient_norm_*`` are taken on this batch, right before and right after its own steps. If
    ``accepted`` is false, those steps were rolled back, and the ``*_after`` values say where they had led; or there was
    none, as a value is not finite. ``stopped`` is a :class:`teleport.Stopped`. ``reason`` says why steps were rolled
    back, or what was not finite where the steps ended; those before that are kept.
    """

    loss_before: float
    loss_after: float
    gradient_norm_before: float
    gradient_norm_after: float
    steps: int
    stopped: Stopped
    accepted: bool = True
    reason: str = ""
    trace: list[StepRecord] = field(default_factory=list)


@dataclass
class TeleportReport:
    """What one teleport event did.

    Losses are means over all batches of the event, before its first and after its last step. With several batches they
    differ (``drift``), because a move that keeps the loss of one batch changes that of another; the guard compares the
    loss of each batch, in ``batches``. Gradient norms are means over ``batches`` of each batch's norm right before and
    right after its own steps (before them if they were rolled back): measuring all batches at the same parameters would
    take another gradient per batch.

    ``memory`` says how the loss was evaluated to save memory, see :class:`teleport.Teleporter`; empty if it was not.
    """

    method: str
    loss_before: float
    loss_after: float
    gradient_norm_before: float
    gradient_norm_after: float
    batches: list[BatchReport]
    layers: list[LayerReport]
    seconds: float
    memory: str = ""

    _derived: ClassVar[tuple[str, ...]] = ()  # further properties of a subclass that to_dict holds

    @property
    def group(self) -> Mapping[nn.Parameter, Tensor] | None:
        """The factors of each parameter that moved, for :func:`teleport.transport_state`; ``None``: there are none."""
        return None

    @property
    def carriers(self) -> Mapping[nn.Parameter, Tensor] | Carriers | None:
        """How the state of an optimizer follows the move of each parameter, for :func:`teleport.transport_state`:
        the factors, or a carrier by permutations and matrices; ``None``: the move is not linear."""
        return self.group

    @property
    def model(self) -> nn.Module | None:
        """The model to continue with, if it is another one than the one that was handed over."""
        return None

    @property
    def steps(self) -> int:
        """Steps that were kept, over all batches."""
        return sum(batch.steps for batch in self.batches if batch.accepted)

    @property
    def accepted(self) -> bool:
        """Whether the steps on at least one batch were kept."""
        return any(batch.accepted for batch in self.batches)

    @property
    def drift(self) -> float:
        """Relative change of the mean loss over all teleport batches, ``(after - before) / max(1, |before|)``."""
        return (self.loss_after - self.loss_before) / max(1.0, abs(self.loss_before))

    @property
    def relative_change(self) -> float:
        """The largest relative change of a layer's weight."""
        return max((layer.relative_change for layer in self.layers), default=0.0)

    @property
    def no_op(self) -> bool:
        """Whether no parameter moved."""
        return self.relative_change == 0.0

    def reasons(self) -> str:
        """Why layers stayed: one line per reason, the one that keeps the most parameters first; empty if all moved."""
        return "\n".join(f"{reason}: {', '.join(names)}" for reason, names in self._by_reason().items())

    def __str__(self) -> str:
        """The report on one screen."""
        moved = sorted((each for each in self.layers if each.relative_change), key=lambda each: -each.parameters)
        lines = [*self._headline(), *(self._line(each) for each in moved[:SCREEN])]
        if len(moved) > SCREEN:
            lines.append(f"  ... and {len(moved) - SCREEN} more layers")
        reasons = list(self._by_reason().items())
        left = max(2, 20 - len(lines))
        lines += [
            f"  stayed ({len(names)}): {names[0]}{', ...' * (len(names) > 1)}: {why}" for why, names in reasons[:left]
        ]
        if len(reasons) > left:
            lines.append(f"  ... and {len(reasons) - left} more reasons: report.reasons()")
        return "\n".join(line if len(line) <= WIDTH else line[: WIDTH - 3] + "..." for line in lines)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON; numbers that are not finite become ``None``. No parameter is copied."""
        content = {each.name: getattr(self, each.name) for each in dataclasses.fields(TeleportReport)}
        content["batches"] = [dataclasses.asdict(batch) for batch in self.batches]
        content["layers"] = [dataclasses.asdict(layer) for layer in self.layers]
        derived = ("steps", "accepted", "drift", "relative_change", "no_op", *self._derived)
        found: dict[str, Any] = plain(content | {name: getattr(self, name) for name in derived})
        return found

    def to_frame(self, of: Literal["layers", "batches"] = "layers") -> Any:
        """A ``pandas.DataFrame`` with one row per layer, or per batch without its trace.

        Raises:
            ImportError: pandas is not installed.
            ValueError: ``of`` is neither ``"layers"`` nor ``"batches"``.
        """
        check_choice("of", of, ("layers", "batches"))
        rows = [dataclasses.asdict(row) for row in (self.layers if of == "layers" else self.batches)]
        return frame_of([{key: value for key, value in row.items() if key != "trace"} for row in rows])

    def __deepcopy__(self, memo: dict[int, Any]) -> TeleportReport:
        """A copy of the numbers; models and parameters are shared, never copied."""
        made = copy.copy(self)
        made.batches, made.layers = copy.deepcopy((self.batches, self.layers), memo)
        return made

    def _headline(self) -> list[str]:
        ends = Counter(str(batch.stopped) for batch in self.batches)
        counted = ", ".join(f"{end} ({count})" if len(self.batches) > 1 else end for end, count in ends.most_common())
        lines = [f"{self.method}: {self.steps} steps on {len(self.batches)} batches, {counted}; {self.seconds:.2f} s"]
        kept = [batch for batch in self.batches if batch.accepted]
        if len(self.batches) > 1 and math.isfinite(self.loss_before):
            change = max((abs(batch.loss_after - batch.loss_before) for batch in kept), default=0.0)
            lines.append(f"  the loss of a batch changed by {change:.2e} at most over its own steps")
        if reasons := Counter((batch.stopped, batch.reason) for batch in self.batches if batch.reason).most_common(1):
            lines.append(f"  {reasons[0][0][0]} ({reasons[0][1]}): {reasons[0][0][1]}")
        if math.isfinite(self.loss_before):
            drift = f", mean over batches; drift {self.drift:+.2e}" if len(self.batches) > 1 else ""
            lines.append(
                f"  loss {self.loss_before:.6g} -> {self.loss_after:.6g}{drift}; "
                f"gradient norm {self.gradient_norm_before:.4g} -> {self.gradient_norm_after:.4g}"
            )
        return lines

    def _line(self, layer: LayerReport) -> str:
        return f"  moved {layer.relative_change:.2e}  {layer.name} ({layer.kind})"

    def _by_reason(self) -> dict[str, list[str]]:
        """Reason -> the layers that it keeps where they are; both are sorted, those with the most parameters first."""
        found: dict[str, list[LayerReport]] = {}
        for layer in sorted(self.layers, key=lambda each: -each.parameters):
            if layer.reason:
                found.setdefault(layer.reason, []).append(layer)
        found = dict(sorted(found.items(), key=lambda entry: -parameters_of(entry[1])))
        return {reason: [f"{layer.name} ({layer.kind})" for layer in layers] for reason, layers in found.items()}


class FactorReport(TeleportReport):
    """The report of a method that multiplies parameters by factors."""

    _group: Mapping[nn.Parameter, Tensor] | None = None

    @property
    def group(self) -> Mapping[nn.Parameter, Tensor] | None:
        """The factors of each parameter that moved, in its shape or one that broadcasts to it."""
        return self._group

    @group.setter
    def group(self, group: Mapping[nn.Parameter, Tensor]) -> None:
        self._group = group


def frame_of(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A ``pandas.DataFrame`` of rows.

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        import pandas as pd  # type: ignore[import-untyped]
    except ImportError:
        raise ImportError("report.to_frame() needs pandas; install it, or use report.to_dict()") from None
    return pd.DataFrame(rows)


def plain(value: Any) -> Any:
    """``value`` in what JSON has."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, str) else value
