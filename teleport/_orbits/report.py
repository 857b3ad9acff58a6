"""What is reported of a model's orbit, and of a training's drift along it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from teleport._arguments import check_choice
from teleport._engine.report import WIDTH, frame_of, plain
from teleport._orbits.sharpness import SharpnessMeasure

SCREEN = 8
"""Vertices, and steps, that a text shows."""


@dataclass(frozen=True)
class OrbitVertex:
    """How far the two sides of a vertex are from balance.

    Attributes:
        name: of the weight that makes the units.
        group: ``"scaling"``, ``"general linear"`` or ``"scaled plane rotation"``.
        units: that carry a factor, or on which a matrix acts, of all heads.
        imbalance: ``| |W_in|^2 - |W_out|^2 |`` over the sum of both, over all units; of matrices the Frobenius norms of
            ``W_in W_in^T - W_out^T W_out`` and of both terms. 0 is balanced, 1 says that one side is zero.
    """

    name: str
    group: str
    units: int
    imbalance: float


@dataclass(frozen=True)
class OrbitReport:
    """Where a model stands on its orbit, of ``teleport.orbit_report``.

    Attributes:
        dimension: of the continuous symmetries.
        loss: on the batch.
        gradient_tangent: the norm of the gradient's component along the orbit, relative to the gradient: 0 to rounding.
        excess: ``|w|^2`` over its least value on the orbit, less 1.
        vertices: with the imbalance of each.
        measures: of sharpness, each with what it is invariant to.
        difference: how far the loss at the point of least norm is from ``loss``, relative to ``max(1, |loss|)``.
    """

    dimension: int
    loss: float
    gradient_tangent: float
    excess: float
    vertices: Sequence[OrbitVertex]
    measures: Sequence[SharpnessMeasure]
    difference: float

    def __str__(self) -> str:
        """The report on one screen: the vertices farthest from balance, and all measures."""
        lines = [
            f"orbit: dimension {self.dimension}; loss {self.loss:.6g}; along the orbit {self.gradient_tangent:.1e} of "
            "the gradient",
            f"  squared norm {self.excess:.2%} above the least on the orbit, where the loss differs by "
            f"{self.difference:.1e}",
        ]
        ordered = sorted(self.vertices, key=lambda each: -each.imbalance)
        lines += [
            f"  imbalance {each.imbalance:.3f}  {each.name}: {each.group} of {each.units} units"
            for each in ordered[:SCREEN]
        ]
        if len(ordered) > SCREEN:
            lines.append(f"  ... and {len(ordered) - SCREEN} more vertices")
        for each in self.measures:
            spread = f" +- {each.error:.2g}" if each.error and math.isfinite(each.error) else ""
            lines.append(f"  {each.name} {each.value:.4g}{spread}; invariant to {each.symmetries}")
        return "\n".join(line if len(line) <= WIDTH else line[: WIDTH - 3] + "..." for line in lines)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON; numbers that are not finite become ``None``."""
        return plain(asdict(self))  # type: ignore[no-any-return]

    def to_frame(self, of: str = "vertices") -> Any:
        """A ``pandas.DataFrame`` with one row per vertex, or per measure.

        Raises:
            ImportError: pandas is not installed.
            ValueError: ``of`` is neither ``"vertices"`` nor ``"measures"``.
        """
        check_choice("of", of, ("vertices", "measures"))
        return frame_of([asdict(each) for each in (self.vertices if of == "vertices" else self.measures)])


@dataclass(frozen=True)
class OrbitStep:
    """One step of a training, of an ``OrbitTracker``.

    Attributes:
        step: from 1.
        update: the norm of the step, relative to that of the parameters before it.
        tangent: the norm of its component along the orbit, relative to that of the step.
        rounding: what of ``tangent`` may be the rounding of the stored parameters.
        drift: how far the conserved quantities moved in the step, relative to the sums of the two sides that they are
            differences of.
        total_drift: the same since the first step.
        imbalance: after the step, over all vertices.
    """

    step: int
    update: float
    tangent: float
    rounding: float
    drift: float
    total_drift: float
    imbalance: float


@dataclass(frozen=True)
class OrbitDrift:
    """How far each step of a training went along the orbit.

    Attributes:
        dimension: of the continuous symmetries.
        share: what the component along the orbit of a step in a random direction is, relative to the step: the root
            of ``dimension`` over the number of parameters.
        steps: one per step.
    """

    dimension: int
    share: float
    steps: Sequence[OrbitStep]

    def __str__(self) -> str:
        """The first and the last steps, on one screen."""
        head = f"drift along the orbit (dimension {self.dimension}): {len(self.steps)} steps; random: {self.share:.3f}"
        lines = [
            f"  step {each.step}: along the orbit {each.tangent:.2e} of a step of {each.update:.1e} (rounding "
            f"{each.rounding:.0e}), drift {each.drift:.1e}, in all {each.total_drift:.1e}"
            for each in self.steps
        ]
        if len(lines) > 2 * SCREEN:
            lines = [*lines[:SCREEN], "  ...", *lines[-SCREEN:]]
        lines = [head, *lines]
        return "\n".join(line if len(line) <= WIDTH else line[: WIDTH - 3] + "..." for line in lines)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON; numbers that are not finite become ``None``."""
        return plain(asdict(self))  # type: ignore[no-any-return]

    def to_frame(self) -> Any:
        """A ``pandas.DataFrame`` with one row per step.

        Raises:
            ImportError: pandas is not installed.
        """
        return frame_of([asdict(each) for each in self.steps])
