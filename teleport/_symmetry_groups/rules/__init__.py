"""How group elements on axes pass through torch functions: one rule per function."""

from teleport._symmetry_groups.rules import (  # noqa: F401
    attention,
    contractions,
    layers,
    pointwise,
    selections,
    shapes,
    turns,
)
from teleport._symmetry_groups.rules.table import AxisCall, axes_of_result

__all__ = ["AxisCall", "axes_of_result"]
