"""Teleportation: move a network's parameters along a level set of its loss to where training goes faster.

from teleport import NullSpace
report = NullSpace(lr=1.0, cap=5.0)(model, batches, loss_fn)
"""

from teleport.checks import UnsupportedModel
from teleport.nullspace import NullSpace
from teleport.report import BatchReport, LayerReport, StepRecord, TeleportReport
from teleport.representation import Representation
from teleport.schedule import Schedule
from teleport.spectra import representations
from teleport.symmetry import Symmetry
from teleport.views import LinearUse, register_view

__all__ = [
    "BatchReport",
    "LayerReport",
    "LinearUse",
    "NullSpace",
    "Representation",
    "Schedule",
    "StepRecord",
    "Symmetry",
    "TeleportReport",
    "UnsupportedModel",
    "register_view",
    "representations",
]
