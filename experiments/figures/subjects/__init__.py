"""The subjects of figures: one module each, with its measurement ``measure_<name>`` and its drawing ``draw_<name>``.

A measurement takes a finished run (``None`` for a figure without runs, for which it is called once) and options of its
own, and returns the rows of the figure's table. A drawing takes the table, a title and options of its own, and returns
the picture. Options are keyword-only arguments; ``conf/figure/`` gives them.

A module is imported when its function is looked up. It imports matplotlib, and torch only inside the functions that
measure, so that drawing a committed table loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

NAMES = (
    "angles",
    "ascent",
    "barriers",
    "convolution",
    "coverage",
    "curves",
    "defaults",
    "drift",
    "error_control",
    "feature_maps",
    "interpolation",
    "landscape",
    "level_curve",
    "magnitude",
    "matching",
    "outputs",
    "quiver",
    "rates",
    "runtime",
    "sensitivity",
    "spectrum",
    "starts",
    "trajectory",
    "walks",
    "weight_histogram",
)


class Functions(Mapping[str, Callable[..., Any]]):
    """The functions ``<prefix>_<name>`` of the modules ``names``; a module is imported when its function is taken."""

    def __init__(self, prefix: str, names: tuple[str, ...]) -> None:
        self._prefix, self._names = prefix, names

    def __getitem__(self, name: str) -> Callable[..., Any]:
        if name not in self._names:
            raise KeyError(name)
        function: Callable[..., Any] = getattr(import_module(f"{__name__}.{name}"), f"{self._prefix}_{name}")
        return function

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


MEASURES = Functions("measure", NAMES)
"""Name -> measurement."""

DRAWINGS = Functions("draw", (*NAMES, "rows"))
"""Name -> drawing; ``rows`` is another drawing of what ``curves`` measures."""
