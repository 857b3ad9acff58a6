"""How a change of basis passes through torch functions: tables of rules, a row a function."""

from teleport.rules import attention, contractions, elementwise, layers, products, shapes  # noqa: F401
from teleport.rules.table import ACTIVATIONS, Call, Weight, labels_of_result

__all__ = ["ACTIVATIONS", "Call", "Weight", "labels_of_result"]
