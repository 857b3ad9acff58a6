"""The keys of each teleport method, typed. Written by ``scripts/derive_schemas.py``: change the signatures, not this.

Importing this file is cheap: no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from experiments.configuration.schedule_config import TeleportConfig


@dataclass
class NullSpaceConfig(TeleportConfig):
    """The parameters of ``teleport.NullSpace``."""

    lr: float = 0.1
    steps: int = 8
    threshold: float = 1.0
    step: str = "cap"  # cap | fixed
    cap: float | None = None
    relative_cap: float | None = 2.0
    guard: str = "transaction"  # transaction | none
    tolerance: float = 0.001
    objective_params: str = "all"  # all | moved
    objective: str = "squared_gradient_norm"
    objective_scale: float | None = None
    forward: str = "once"  # once | each
    lr_unit: str = "relative"  # relative | absolute
    path: str = "ascent"  # ascent | shortest | least_drift | random
    constraint_batches: int = 0  # > 0: the constraint is taken on that many batches of its own
    held_out_batches: int = 0  # > 0: of path=least_drift, the batches that it measures drift on


@dataclass
class RandomNullSpaceConfig(TeleportConfig):
    """The parameters of ``teleport.RandomNullSpace``."""

    length: float = 0.1
    seed: int = 0
    threshold: float = 1.0
    cap: float | None = None
    relative_cap: float | None = 2.0
    guard: str = "transaction"  # transaction | none
    tolerance: float = 0.001
    constraint_batches: int = 0  # > 0: the constraint is taken on that many batches of its own


@dataclass
class LevelSetConfig(TeleportConfig):
    """The parameters of ``teleport.LevelSet``."""

    lr: float = 0.1
    steps: int = 50
    cap: float | None = None
    relative_cap: float | None = 2.0
    guard: str = "transaction"  # transaction | none
    tolerance: float = 0.001
    lr_unit: str = "relative"  # relative | absolute


@dataclass
class RescalingConfig(TeleportConfig):
    """The parameters of ``teleport.Rescaling``."""

    mode: str = "ascent"  # ascent | balance
    bound: float = 2.0
    lr: float = 0.1
    steps: int = 100
    step: str = "cap"  # cap | fixed
    cap: float | None = None
    relative_cap: float | None = 2.0
    guard: str = "transaction"  # transaction | none
    tolerance: float = 0.001


@dataclass
class BalanceConfig(TeleportConfig):
    """The parameters of ``teleport.Balance``."""

    criterion: str = "minimal_norm"  # minimal_norm | equal_norm | path_conditioning
    p: float = 2.0
    guard: str = "transaction"  # transaction | none
    tolerance: float = 0.001


@dataclass
class SymmetryConfig(TeleportConfig):
    """The parameters of ``teleport.Symmetry``."""

    variant: str = "corrected"  # 2022 | 2024 | corrected
    lr: float = 0.1
    steps: int = 8
    step: str = "cap"  # cap | fixed
    inverse: str | None = None  # exact | first_order
    cap: float | None = None
    relative_cap: float | None = 2.0
    guard: str = "transaction"  # transaction | none
    tolerance: float = 0.001
    lr_unit: str = "relative"  # relative | absolute


@dataclass
class OrbitConfig(TeleportConfig):
    """The parameters of ``teleport.Orbit``."""

    action: str = MISSING  # the name of a test function
    lr: float = 1.0
    steps: int = 10
    objective: str = "log_gradient_norm"
    objective_scale: float | None = None
    step: str = "cap"  # cap | fixed
    cap: float | None = None
    relative_cap: float | None = 2.0
    guard: str = "transaction"  # transaction | none
    tolerance: float = 0.001


@dataclass
class AutoConfig(TeleportConfig):
    """The parameters of ``teleport.Auto``."""

    share: float = 0.05
    growth: float = 2.0
    horizon: int | None = None
    tolerance: float = 0.05


@dataclass
class ChangeOfBasisConfig(TeleportConfig):
    """The parameters of ``teleport.ChangeOfBasis``."""

    range: float = 0.9
    sampling: str = "intra"  # intra | inter | positive | negative | centered
    center: float = 1.0
    activations: str = "keep"  # keep | teleport
    guard: str = "transaction"  # transaction | none
    tolerance: float = 0.001
    seed: int = 0


@dataclass
class PseudoTeleportConfig(TeleportConfig):
    """The parameters of ``teleport.PseudoTeleport``."""

    range: float = 0.9
    sampling: str = "intra"  # intra | inter | positive | negative | centered
    center: float = 1.0
    activations: str = "keep"  # keep | teleport
    seed: int = 0


KINDS: dict[str, type[TeleportConfig]] = {
    "none": TeleportConfig,
    "nullspace": NullSpaceConfig,
    "random": RandomNullSpaceConfig,
    "levelset": LevelSetConfig,
    "rescaling": RescalingConfig,
    "balance": BalanceConfig,
    "symmetry": SymmetryConfig,
    "orbit": OrbitConfig,
    "auto": AutoConfig,
    "change_of_basis": ChangeOfBasisConfig,
    "pseudo_teleport": PseudoTeleportConfig,
}
"""What a YAML file's ``/schema/teleport@_here_`` names -> the dataclass that checks it."""
