"""The cost of finding a layer's null space: streamed, as in the library, and by a decomposition of all inputs.

The layer's input vectors are single-precision noise through a matrix of a given rank, or have singular values that are
spread evenly over some ``decades`` (of eight, the least count as rounding). ``streamed`` is the library's method:
vectors arrive ``width`` at a time, and their span is found from a compressed representation. ``svd`` decomposes the
whole representation matrix R ``[width, positions]`` of all vectors, in double or in single precision. If fewer than
``width`` of the vectors are independent there is a null space; otherwise there is none, which the library detects
without eigenvectors. The longest cases have at most two rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from experiments.benchmarks.aims import Aim, ratio, rows
from experiments.benchmarks.common import MACHINE, TIMES, Row, Settings, base_of, machine, ratios, slopes, take_turns
from teleport._spaces.representation import Representation
from teleport._spaces.subspace import Subspace, rank

STREAMED, DOUBLE, SINGLE = "streamed", "svd float64", "svd float32"


@dataclass(frozen=True)
class Case:
    """``positions`` input vectors of length ``width``, in a space of ``independent`` dimensions.

    Their singular values extend over as many ``decades``; 0 for those of Gaussian noise.
    """

    width: int = 1024
    positions: int = 4096
    independent: int = 512
    decades: int = 0

    def inputs(self) -> Tensor:
        """The vectors, ``[positions, width]`` in single precision."""
        if not self.decades:
            return torch.randn(self.positions, self.independent) @ torch.randn(self.independent, self.width)
        sides = (torch.randn(size, self.independent, dtype=torch.float64) for size in (self.positions, self.width))
        left, right = (torch.linalg.qr(side)[0] for side in sides)
        return (left * torch.logspace(0, -self.decades, self.independent, dtype=torch.float64) @ right.T).float()


AXES = [axis.name for axis in fields(Case)]

COLUMNS = ["method", *AXES, *TIMES, "rank", "sine", "kept_bytes", *MACHINE]
"""``sine`` is that of the largest principal angle to the space found by the double-precision decomposition, 1 if the
ranks differ; ``kept_bytes`` is the memory held for the vectors after the last one."""


def _shares(count: int) -> list[int]:
    return [round(share * count) for share in (0.5, 0.9, 0.99)]


FEW = Case(positions=200, independent=200)
EVEN = Case(positions=200, independent=200, decades=1)
"""About as well conditioned as 200 rectified outputs of a layer (a condition number of 20)."""
MANY = Case()
SPANNING = Case(independent=1024)
GROWING = [Case(positions=positions) for positions in (512, 1024, 2048, 4096, 8192, 16384)]
DEFICIENT = [Case(positions=count, independent=rank) for count in (200, 1024) for rank in _shares(count)]
"""Ranks of 50, 90 and 99 % of full."""
SPREAD = [Case(positions=count, independent=count, decades=decades) for count in (200, 512) for decades in (4, 8)]
FULL = list(dict.fromkeys([FEW, EVEN, SPANNING, *GROWING, *DEFICIENT, *SPREAD]))
SMOKE = [Case(32, 8, 8), Case(32, 128, 32), Case(32, 64, 16), Case(32, 128, 16), Case(32, 20, 10), Case(32, 16, 16, 2)]


def _speed(case: Case) -> Aim:
    """The speed-up of the library over the decomposition in double precision."""
    what = (
        f"a null space of {case.positions} inputs, {case.independent} of them independent, in {case.width} dimensions"
        + f", of singular values within {10**case.decades} times" * bool(case.decades)
    )
    return Aim(f"{what}: faster than an SVD in float64", ">=", 5, lambda table: _least_speed(table, [case]))


def _least_speed(table: pd.DataFrame, cases: Sequence[Case]) -> float:
    """The least speed-up over the decomposition in double precision; nan if a case is missing."""
    speeds = [ratio(rows(table, **asdict(case)), AXES, DOUBLE, STREAMED).max() for case in cases]
    return float(pd.Series(speeds, dtype=float).min(skipna=False))


def _memory_growth(table: pd.DataFrame) -> float:
    """The memory held for the most vectors over that for a quarter of them, both more than the width."""
    chosen = rows(table, method=STREAMED, width=MANY.width, independent=MANY.independent, decades=MANY.decades)
    streamed = chosen.set_index("positions")
    kept = streamed.kept_bytes.reindex([4096, 16384])
    return float(kept.iloc[1] / kept.iloc[0])


AIMS = [
    _speed(FEW),
    _speed(EVEN),
    _speed(MANY),
    _speed(SPANNING),
    Aim(
        "inputs of 50, 90 and 99 % of full rank, 200 and 1024 of them: against an SVD in float64, in any case",
        ">=",
        1,
        lambda table: _least_speed(table, DEFICIENT),
    ),
    Aim(
        "inputs whose singular values extend over 4 and 8 decades, 200 and 512 of them: against an SVD, in any case",
        ">=",
        1,
        lambda table: _least_speed(table, SPREAD),
    ),
    Aim(
        "its largest principal angle to the SVD's in float64, in any case: sine",
        "<=",
        1e-6,
        lambda table: float(rows(table, method=STREAMED).sine.max()),
        "",
    ),
    Aim("what is kept of 16384 inputs against 4096", "<=", 1, _memory_growth),
]


def measure(settings: Settings) -> Iterator[Row]:
    """One row per case and method; within a case the methods take turns."""
    with_machine = machine(settings.device)
    list(_rows(SMOKE[0], settings))  # a warm-up
    for case in SMOKE if settings.smoke else FULL:
        yield from ({**row, **with_machine} for row in _rows(case, settings))


def line(row: Row) -> str:
    """The case, the method, its milliseconds, the rank, and the angle between the spaces."""
    case = "  ".join(f"{axis} {row[axis]:>5}" for axis in AXES)
    return (
        f"{case}  {row['method']:<11} {row['seconds'] * 1000:10.2f} ms  rank {row['rank']:>4}  sine {row['sine']:.1e}"
    )


def summary(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Ratios to the library, the angles, and the exponents of seconds in the positions."""
    return {
        f"seconds, in units of {STREAMED}": ratios(table, AXES, STREAMED),
        "found, and kept": table.loc[table.method == STREAMED, [*AXES, "rank", "sine", "kept_bytes"]],
        "exponents (1 is linear)": _growth(table),
    }


def _growth(table: pd.DataFrame) -> pd.DataFrame:
    """Slopes over positions at a fixed rank; other ranks are found by another algorithm."""
    base = base_of(table, AXES)
    return slopes(rows(table, width=base.width, independent=base.independent, decades=base.decades), ["positions"])


def sine(spanned: Tensor, found: Subspace) -> float:
    """The sine of the largest principal angle between the span of orthonormal columns ``[dimension, k]`` and ``found``.

    It is the spectral norm of the columns' projection onto the complement; 1 if the dimensions differ.
    """
    if spanned.shape[1] != found.rank:
        return 1.0
    return float(torch.linalg.matrix_norm(found.project(spanned.T[None]), 2)[0])


def _rows(case: Case, settings: Settings) -> Iterator[Row]:
    """The rows of one case."""
    torch.manual_seed(0)
    inputs = case.inputs().to(settings.device)
    chunks = inputs.split(case.width)

    def streamed() -> tuple[Subspace, int]:
        representation = Representation(case.width, 1, inputs.dtype, ones=False, device=settings.device)
        for chunk in chunks:
            representation.update(chunk[None])
        return representation.subspace(1.0), _bytes_of(representation)

    def svd(dtype: torch.dtype) -> Callable[[], tuple[Tensor, Tensor]]:
        return lambda: torch.linalg.svd(inputs.T.to(dtype), full_matrices=False)[:2]

    works: dict[str, Callable[[], Any]] = {
        STREAMED: streamed,
        DOUBLE: svd(torch.float64),
        SINGLE: svd(torch.float32),
    }
    rounds = min(settings.repeats, 2 if case.positions > MANY.positions else settings.repeats)
    timed = take_turns({name: lambda work=work: work for name, work in works.items()}, rounds, settings.device)
    found, kept = timed[STREAMED].last
    reference = _spanned(*timed[DOUBLE].last)
    spaces = {STREAMED: found, DOUBLE: _as_subspace(reference), SINGLE: _as_subspace(_spanned(*timed[SINGLE].last))}
    for name, each in timed.items():
        yield {
            "method": name,
            **asdict(case),
            **each.columns(),
            "rank": spaces[name].rank,
            "sine": sine(reference, spaces[name]),
            "kept_bytes": kept if name == STREAMED else inputs.numel() * (4 if name == SINGLE else 8),
        }


def _bytes_of(representation: Representation) -> int:
    """The bytes of all tensors of a representation."""
    return sum(kept.numel() * kept.element_size() for kept in vars(representation).values() if isinstance(kept, Tensor))


def _spanned(left: Tensor, values: Tensor) -> Tensor:
    """The left singular vectors ``[width, rank]`` whose values exceed rounding errors, in double precision.

    In double precision the rounding of the inputs decides, in single precision the larger one of the decomposition.
    """
    if values.dtype == torch.float64:
        kept = rank(values.square(), 1.0, (left.shape[0], left.shape[0]), torch.float32)
    else:
        kept = int((values > left.shape[0] * torch.finfo(values.dtype).eps * values[0]).sum())
    return left[:, :kept].double()


def _as_subspace(columns: Tensor) -> Subspace:
    return Subspace([columns.shape[1]], columns.shape[0], columns[None], complement=False)
