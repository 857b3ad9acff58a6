"""The keys of each teleport method, typed; a part of ``experiments/configuration/config.py``, and as cheap to
import."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING, SI


@dataclass
class TeleportConfig:
    """``name: none``, and what every teleport method has: when it happens and on how much data."""

    name: str = MISSING
    epochs: list[int] = field(default_factory=list)  # teleport before these epochs (from 0)
    at_steps: list[int] = field(default_factory=list)  # and before these optimizer steps (from 0)
    warmup_steps: int = 0  # the earliest optimizer step; an event due before is moved to it
    batches: int = SI("${data.extents.${scale}.teleport_batches}")  # B
    samples: int = 32  # n, samples a batch
    optimizer_state: str = "keep"  # keep | reset | transported


@dataclass
class CappedConfig(TeleportConfig):
    """What methods share that end at a gradient norm and may take a move back."""

    cap: float | None = None  # on the gradient norm
    relative_cap: float | None = None  # a factor on the mean norm over the event's batches before it
    guard: str = "transaction"  # transaction | none
    tolerance: float = 1e-3


@dataclass
class NullSpaceConfig(CappedConfig):
    """Null-space gradient projection (Wu et al.

    2025). The keys are those of ``teleport.NullSpace``.
    """

    lr: float = MISSING  # eta_tel
    steps: int = 8  # K
    threshold: float = 1.0  # tau; 1 is the numerical rank
    step: str = "cap"  # cap | fixed
    objective_params: str = "all"  # all | moved
    constraint_batches: int = 0  # > 0: the constraint is taken on that many batches of its own
    objective: str = "squared_gradient_norm"  # a name in teleport.OBJECTIVES
    objective_scale: float | None = None  # the rate of loss_after_step, the radius of sharpness


@dataclass
class RandomNullSpaceConfig(CappedConfig):
    """A random move in the null space, the control.

    The keys are those of ``teleport.RandomNullSpace``.
    """

    length: float = 0.1  # relative to the norm of the weights that may move
    seed: int = SI("${seed}")
    threshold: float = 1.0  # tau
    constraint_batches: int = 0


@dataclass
class LevelSetConfig(CappedConfig):
    """Linearised level-set steps (Mishkin et al.

    2024). The keys are those of ``teleport.LevelSet``.
    """

    lr: float = 0.1  # rho
    steps: int = 50  # K


@dataclass
class RescalingConfig(CappedConfig):
    """Positive rescaling of hidden channels.

    The keys are those of ``teleport.Rescaling``.
    """

    mode: str = "ascent"  # ascent | balance
    bound: float = 2.0  # on |log tau|, over an event
    lr: float = 0.1  # the largest change of a log tau in a step
    steps: int = 100  # of the ascent a batch, or sweeps of the balancing; at most
    step: str = "cap"  # cap | fixed


@dataclass
class ChangeOfBasisConfig(TeleportConfig):
    """A random change of basis (Armenta et al.

    2023). The keys are those of ``teleport.ChangeOfBasis``.
    """

    range: float = 0.9  # sigma
    sampling: str = "intra"  # intra | inter | positive | negative | centered
    center: float = 1.0  # of centered
    activations: str = "keep"  # keep | teleport
    guard: str = "transaction"  # transaction | none
    tolerance: float = 1e-3
    seed: int = SI("${seed}")


@dataclass
class PseudoTeleportConfig(TeleportConfig):
    """A random move as long as a change of basis, the control.

    The keys are those of ``teleport.PseudoTeleport``.
    """

    range: float = 0.9  # sigma
    sampling: str = "intra"  # intra | inter | positive | negative | centered
    center: float = 1.0  # of centered
    activations: str = "keep"  # keep | teleport
    seed: int = SI("${seed}")


@dataclass
class SymmetryConfig(CappedConfig):
    """Symmetry teleportation (Zhao et al.

    2022, 2024). The keys are those of ``teleport.Symmetry``.
    """

    variant: str = "2024"  # 2022 | 2024 | corrected
    lr: float = MISSING  # eta_T
    steps: int = 10  # K
    step: str = "fixed"  # cap | fixed
    inverse: str | None = None  # exact | first_order; None: as the variant has it
    guard: str = "none"  # transaction | none


@dataclass
class OrbitConfig(CappedConfig):
    """An ascent along the orbit of a group action.

    The keys are those of ``teleport.Orbit``.
    """

    action: str = SI("${data.name}")  # a test function, on whose level sets rotations act
    lr: float = 1.0
    steps: int = 10  # K
    objective: str = "log_gradient_norm"  # a name in teleport.OBJECTIVES
    objective_scale: float | None = None  # the rate of loss_after_step, the radius of sharpness
    step: str = "cap"  # cap | fixed


KINDS: dict[str, type[TeleportConfig]] = {
    "none": TeleportConfig,
    "nullspace": NullSpaceConfig,
    "random": RandomNullSpaceConfig,
    "levelset": LevelSetConfig,
    "rescaling": RescalingConfig,
    "symmetry": SymmetryConfig,
    "orbit": OrbitConfig,
    "change_of_basis": ChangeOfBasisConfig,
    "pseudo_teleport": PseudoTeleportConfig,
}
"""What a YAML file's ``/schema/teleport@_here_`` names -> the dataclass that checks it."""
