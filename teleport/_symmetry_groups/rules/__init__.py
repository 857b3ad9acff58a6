"""How group elements on axes pass through torch functions: one rule per function."""

from teleport._symmetry_groups.rules import attention, contractions, layers, pointwise, shapes  # noqa: F401
from teleport._symmetry_groups.rules.table import AxisCall, axes_of_result

__all__ = ["AxisCall", "axes_of_result"]
