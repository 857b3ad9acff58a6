"""How a change of basis passes through torch functions: tables of rules, a row a function.

A function of one's own is a row more: ``rule(torch.sinc)(lambda call, input: ...)``, or its name in one of the tables
of :mod:`teleport.rules.elementwise` and :mod:`teleport.rules.shapes`. See :mod:`teleport.rules.table`.
"""

from teleport.rules import attention, contractions, elementwise, layers, products, shapes  # noqa: F401
from teleport.rules.table import ACTIVATIONS, Call, Weight, labels_of_result, rule

__all__ = ["ACTIVATIONS", "Call", "Weight", "labels_of_result", "rule"]
