"""How a change of basis passes through torch functions: one rule per function.

:func:`teleport.register_rule` adds a rule for another function (``table.py``).
"""

from teleport._quiver.parameter_scales import Weight
from teleport._quiver.rules import (  # noqa: F401
    attention,
    contractions,
    elementwise,
    layers,
    message_passing,
    products,
    shapes,
)
from teleport._quiver.rules.table import ACTIVATIONS, Call, indices_of_result, register_rule

__all__ = ["ACTIVATIONS", "Call", "Weight", "indices_of_result", "register_rule"]
