"""Teleportation: move a network's parameters along a level set of its loss to where training goes faster.

from teleport import NullSpace
report = NullSpace(lr=1.0, cap=5.0)(model, batches, loss_fn)
"""

from importlib.metadata import PackageNotFoundError, version

from teleport._auto.assess import assess
from teleport._auto.auto import Auto
from teleport._auto.report import Assessment, AutoReport, Family, Trial
from teleport._balance.balance import Balance
from teleport._balance.report import BalanceReport
from teleport._change_of_basis.basis_change import BasisChange
from teleport._change_of_basis.change_of_basis import ChangeOfBasis
from teleport._change_of_basis.group_value import GroupChange
from teleport._change_of_basis.pseudo_teleport import PseudoTeleport
from teleport._change_of_basis.report import ChangeOfBasisReport
from teleport._change_of_basis.saving import load, save
from teleport._change_of_basis.teleported import Teleported
from teleport._engine.contract import LossFn, Teleporter
from teleport._engine.functionals import Distance, Functional
from teleport._engine.layer_reports import ChannelReport, LayerReport, NullSpaceLayerReport, PairLayerReport
from teleport._engine.objectives import (
    OBJECTIVES,
    Curvature,
    LogGradientNorm,
    LossAfterStep,
    Sharpness,
    SquaredGradientNorm,
    TeleportObjective,
)
from teleport._engine.preview import preview
from teleport._engine.progress import Callback, Progress, ProgressLine
from teleport._engine.report import BatchReport, FactorReport, StepRecord, TeleportReport
from teleport._engine.schedule import Schedule
from teleport._engine.state_rules import register_optimizer
from teleport._engine.statuses import Stopped
from teleport._engine.transport import transport_state
from teleport._errors import UnsupportedModel
from teleport._level_set.level_set import LevelSet
from teleport._matching.line import Barrier, barrier
from teleport._matching.match import Match, match
from teleport._null_space.layer_representations import representations
from teleport._null_space.null_space import NullSpace
from teleport._null_space.random_null_space import RandomNullSpace
from teleport._orbits.orbit_report import orbit_report
from teleport._orbits.report import OrbitDrift, OrbitReport, OrbitStep, OrbitVertex
from teleport._orbits.sharpness import SharpnessMeasure
from teleport._orbits.tracker import OrbitTracker
from teleport._quiver.rules import register_rule
from teleport._rescaling.rescaling import Rescaling
from teleport._spaces.representation import Representation
from teleport._symmetry.orbit import Orbit
from teleport._symmetry.symmetry import Symmetry
from teleport._symmetry_groups.elements import GroupElement
from teleport._symmetry_groups.find_symmetries import find_symmetries
from teleport._symmetry_groups.symmetries import Symmetries, SymmetryVertex
from teleport._tracing.linear_use import LinearUse
from teleport._tracing.linear_uses import register_view

try:
    __version__ = version("teleport-suite")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"

__all__ = [
    "OBJECTIVES",
    "Assessment",
    "Auto",
    "AutoReport",
    "Balance",
    "BalanceReport",
    "Barrier",
    "BasisChange",
    "BatchReport",
    "Callback",
    "ChangeOfBasis",
    "ChangeOfBasisReport",
    "ChannelReport",
    "Curvature",
    "Distance",
    "FactorReport",
    "Family",
    "Functional",
    "GroupChange",
    "GroupElement",
    "LayerReport",
    "LevelSet",
    "LinearUse",
    "LogGradientNorm",
    "LossAfterStep",
    "LossFn",
    "Match",
    "NullSpace",
    "NullSpaceLayerReport",
    "Orbit",
    "OrbitDrift",
    "OrbitReport",
    "OrbitStep",
    "OrbitTracker",
    "OrbitVertex",
    "PairLayerReport",
    "Progress",
    "ProgressLine",
    "PseudoTeleport",
    "RandomNullSpace",
    "Representation",
    "Rescaling",
    "Schedule",
    "Sharpness",
    "SharpnessMeasure",
    "SquaredGradientNorm",
    "StepRecord",
    "Stopped",
    "Symmetries",
    "Symmetry",
    "SymmetryVertex",
    "TeleportObjective",
    "TeleportReport",
    "Teleported",
    "Teleporter",
    "Trial",
    "UnsupportedModel",
    "__version__",
    "assess",
    "barrier",
    "find_symmetries",
    "load",
    "match",
    "orbit_report",
    "preview",
    "register_optimizer",
    "register_rule",
    "register_view",
    "representations",
    "save",
    "transport_state",
]


def __dir__() -> list[str]:
    return sorted(__all__)
