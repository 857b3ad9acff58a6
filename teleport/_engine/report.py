"""What a teleport says of itself: one report an event, one entry a batch and a layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from teleport._engine.statuses import Stopped


@dataclass(frozen=True)
class StepRecord:
    """Where one step of an ascent stood: ``step`` 0 is the state before the first step.

    Where the forward pass is run once a batch, a step between the first and the last has the loss of the first.
    """

    step: int
    loss: float
    gradient_norm: float


@dataclass
class BatchReport:
    """One teleport batch: at most K steps on one level set.

    ``loss_*`` and ``gradient_norm_*`` are taken on this batch, right before and right after its own steps; where
    ``accepted`` is false those steps were undone, and the ``*_after`` values say what they had led to.
    ``stopped`` is a member of :class:`teleport.Stopped`.
    """

    loss_before: float
    loss_after: float
    gradient_norm_before: float
    gradient_norm_after: float
    steps: int
    stopped: Stopped
    accepted: bool = True
    reason: str = ""  # why the transaction was undone, empty where it was kept
    trace: list[StepRecord] = field(default_factory=list)


@dataclass
class LayerReport:
    """One protected weight (or a block of one, such as the query rows of a packed attention projection).

    ``dimension`` is the length of the layer's input vector, one more where a bias is folded in. ``ranks`` has the rank
    kept for each batch that was decomposed, ``surviving`` the share ``|pi(G)|^2 / |G|^2`` of the objective's gradient
    that survived the projection at a batch's first step, where that gradient was seen whole. ``relative_change`` is
    ``|W_after - W_before| / |W_before|`` over the whole event. ``residual``, of the lower layer of a pair that a group
    action moved, is how far the action missed keeping the pair's output on the batch, relative to it, the largest over
    the event's steps.
    ``reason`` says why a layer stayed where it was, empty where it moved.

    Of a change of basis an entry is a weight with the channels that it makes: ``free`` of them carry a factor of their
    own, ``shared`` one that other channels carry too, ``pinned`` carry 1. ``relative_change`` is the root mean square
    of ``tau - 1``, and ``reason`` says, too, what pins some of a layer's channels.
    """

    name: str
    kind: str
    dimension: int
    ranks: list[int] = field(default_factory=list)
    surviving: list[float] = field(default_factory=list)
    relative_change: float = 0.0
    residual: float | None = None
    reason: str = ""
    free: int = 0
    shared: int = 0
    pinned: int = 0

    @property
    def null_dimensions(self) -> list[int]:
        """Null dimensions a batch: ``dimension - rank``."""
        return [self.dimension - rank for rank in self.ranks]


@dataclass
class TeleportReport:
    """What one teleport event did.

    ``loss_before`` and ``loss_after`` are means over all batches of the event, before its first and after its last
    step; with several batches they differ, because a move that keeps one batch's loss changes another's
    (``drift``). What the transaction guards is each batch's own loss, in ``batches``.

    ``gradient_norm_before`` and ``gradient_norm_after`` are means over the reports in ``batches``: of each batch's norm
    right before its own steps, and right after them (of the one before if they were undone). Measuring all batches at
    the same parameters would take another gradient per batch.

    ``group`` has, of a method that multiplies parameters by factors, those of each parameter that moved, in its shape
    or one that broadcasts to it: the element of the group that acted, for :func:`teleport.transport_state`.

    Of a change of basis ``model`` is what computes the function now (the model itself, but where activations needed
    their teleported form), ``change`` what acted, and ``difference``, where there was no loss, how far the outputs
    moved relative to the largest; losses and norms are not numbers then.
    """

    method: str
    loss_before: float
    loss_after: float
    gradient_norm_before: float
    gradient_norm_after: float
    batches: list[BatchReport]
    layers: list[LayerReport]
    seconds: float
    group: Mapping[nn.Parameter, Tensor] | None = None  # None: the method's moves are no such factors
    model: nn.Module | None = None  # None: the model that was handed over
    change: Any | None = None
    difference: float | None = None

    @property
    def steps(self) -> int:
        """Steps that were kept, over all batches."""
        return sum(batch.steps for batch in self.batches if batch.accepted)

    @property
    def accepted(self) -> bool:
        """Whether at least one batch's transaction was kept."""
        return any(batch.accepted for batch in self.batches)

    @property
    def drift(self) -> float:
        """Relative change of the mean loss over all teleport batches, ``(after - before) / max(1, |before|)``."""
        return (self.loss_after - self.loss_before) / max(1.0, abs(self.loss_before))

    @property
    def relative_change(self) -> float:
        """The largest relative change of a layer's weight."""
        return max((layer.relative_change for layer in self.layers), default=0.0)

    @property
    def no_op(self) -> bool:
        """Whether no parameter moved."""
        return self.relative_change == 0.0

    @property
    def channels(self) -> tuple[int, int, int]:
        """How many channels of all layers a change of basis has free, shared and pinned."""
        layers = self.layers
        return (
            sum(each.free for each in layers),
            sum(each.shared for each in layers),
            sum(each.pinned for each in layers),
        )

    @property
    def pins(self) -> dict[str, int]:
        """Why a change of basis has channels pinned -> how many; those of a layer go by what pins its first one."""
        pins: Counter[str] = Counter()
        for each in self.layers:
            if each.pinned:
                pins[each.reason] += each.pinned
        return dict(pins)

    def reasons(self) -> str:
        """Why layers stayed where they were, one line a layer; empty where all moved."""
        return "\n".join(f"{layer.name} ({layer.kind}): {layer.reason}" for layer in self.layers if layer.reason)
