"""The figures that a name means, and the runs that a figure stands on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

from experiments.configuration import options
from experiments.errors import UserError, one_of


def named(names: Iterable[str]) -> list[str]:
    """The figures of the names: those of a paper in their order (``fig6a`` before ``fig11``), each once.

    Raises:
        UserError: no name, or one of no figure and no paper.
    """
    known = options.options()["figure"]
    papers = sorted({figure.partition("/")[0] for figure in known})
    figures: dict[str, None] = {}
    for name in names:
        if name not in (*known, *papers):
            raise one_of("figure", name, [*papers, *known])
        meant = [figure for figure in known if name in (figure, figure.partition("/")[0])]
        figures |= dict.fromkeys(sorted(meant, key=_numbers_by_value))
    if not figures:
        raise UserError(f"no figure is named; there are {', '.join([*papers, *known])}")
    return list(figures)


def _numbers_by_value(name: str) -> list[tuple[str, int]]:
    return [(rest, int(number or 0)) for rest, number in re.findall(r"(\D*)(\d*)", name)]


def runs_in_words(grids: Iterable[Mapping[str, Any]]) -> str:
    """The number of runs of a figure's grids, and which they are, as sweeps of a command line."""
    grids = list(grids)
    if not grids:
        return "it needs no runs"
    count = sum(prod(len(value) for value in grid.values() if isinstance(value, list)) for grid in grids)
    shown = [" ".join(f"{key}={_sweep(value)}" for key, value in grid.items()) for grid in grids[:4]]
    more = f", and those of {len(grids) - 4} more grids" if len(grids) > 4 else ""
    return f"it needs {count} run{'s' if count > 1 else ''}: {'; '.join(shown)}{more}"


def _sweep(value: Any) -> str:
    return ",".join(map(_sweep, value)) if isinstance(value, list) else str(value)
