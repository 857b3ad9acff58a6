"""How a change of basis passes through torch functions: tables of rules, a row a function.

A function of one's own is a row more: ``rule(torch.sinc)(lambda call, input: ...)``, or its name in one of the tables
of ``_quiver/rules/elementwise.py`` and ``_quiver/rules/shapes.py``. See ``_quiver/rules/table.py``.
"""

from teleport._quiver.parameter_scales import Weight
from teleport._quiver.rules import attention, contractions, elementwise, layers, products, shapes  # noqa: F401
from teleport._quiver.rules.table import ACTIVATIONS, Call, indices_of_result, register_rule

__all__ = ["ACTIVATIONS", "Call", "Weight", "indices_of_result", "register_rule"]
