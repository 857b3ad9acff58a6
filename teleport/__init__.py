"""Teleportation: move a network's parameters along a level set of its loss to where training goes faster.

from teleport import NullSpace
report = NullSpace(lr=1.0, cap=5.0)(model, batches, loss_fn)
"""

from teleport.basis_change import BasisChange
from teleport.change_of_basis import ChangeOfBasis
from teleport.checks import UnsupportedModel
from teleport.level_set import LevelSet
from teleport.nullspace import NullSpace
from teleport.objectives import (
    OBJECTIVES,
    Curvature,
    LogGradientNorm,
    LossAfterStep,
    Sharpness,
    SquaredGradientNorm,
    TeleportObjective,
)
from teleport.orbit import Orbit
from teleport.pseudo import PseudoTeleport
from teleport.random_move import RandomNullSpace
from teleport.report import BatchReport, LayerReport, StepRecord, TeleportReport
from teleport.representation import Representation
from teleport.rescaling import Rescaling
from teleport.saving import load, save
from teleport.schedule import Schedule
from teleport.spectra import representations
from teleport.symmetry import Symmetry
from teleport.teleported import Teleported
from teleport.transport import transport_state
from teleport.views import LinearUse, register_view

__all__ = [
    "OBJECTIVES",
    "BasisChange",
    "BatchReport",
    "ChangeOfBasis",
    "Curvature",
    "LayerReport",
    "LevelSet",
    "LinearUse",
    "LogGradientNorm",
    "LossAfterStep",
    "NullSpace",
    "Orbit",
    "PseudoTeleport",
    "RandomNullSpace",
    "Representation",
    "Rescaling",
    "Schedule",
    "Sharpness",
    "SquaredGradientNorm",
    "StepRecord",
    "Symmetry",
    "TeleportObjective",
    "TeleportReport",
    "Teleported",
    "UnsupportedModel",
    "load",
    "register_view",
    "representations",
    "save",
    "transport_state",
]
