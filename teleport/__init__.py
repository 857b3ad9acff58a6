"""Teleportation: move a network's parameters along a level set of its loss to where training goes faster.

from teleport import NullSpace
report = NullSpace(lr=1.0, cap=5.0)(model, batches, loss_fn)
"""

from teleport.nullspace import NullSpace
from teleport.report import BatchReport, LayerReport, StepRecord, TeleportReport
from teleport.representation import Representation
from teleport.rescaling import Rescaling
from teleport.schedule import Schedule
from teleport.spectra import representations
from teleport.transport import transport_state
from teleport.views import LinearUse, register_view

__all__ = [
    "BatchReport",
    "LayerReport",
    "LinearUse",
    "NullSpace",
    "Representation",
    "Rescaling",
    "Schedule",
    "StepRecord",
    "TeleportReport",
    "register_view",
    "representations",
    "transport_state",
]
