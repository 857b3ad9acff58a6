"""What a teleport reports of each layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import nn


@dataclass
class LayerReport:
    """One weight, or a block of one, such as the query rows of a packed attention projection.

    Attributes:
        name: of the parameter, with the block in brackets.
        kind: what it is used as, ``"linear"``, ``"conv2d"``, ``"parameter"``.
        dimension: the length of the layer's input vector, one more if a bias is folded in; 0 if it has none.
        relative_change: ``|W_after - W_before| / |W_before|`` over the event.
        reason: why the layer stayed, empty if it moved.
        parameters: the number of elements of the parameter, of all its blocks together.
    """

    name: str
    kind: str
    dimension: int
    relative_change: float = 0.0
    reason: str = ""
    parameters: int = 0


@dataclass
class NullSpaceLayerReport(LayerReport):
    """A layer of a method in the null space.

    Attributes:
        ranks: the rank kept per batch that was decomposed.
        surviving: the share ``|pi(G)|^2 / |G|^2`` of the objective's gradient that survived the projection at the first
            step of a batch, for batches whose whole gradient was computed: not with a frozen forward pass.
    """

    ranks: list[int] = field(default_factory=list)
    surviving: list[float] = field(default_factory=list)

    @property
    def null_dimensions(self) -> list[int]:
        """Null dimensions per batch: ``dimension - rank``."""
        return [self.dimension - rank for rank in self.ranks]


@dataclass
class PairLayerReport(LayerReport):
    """A layer of a pair that a group action moved.

    Attributes:
        residual: of a lower layer, the largest relative error of the pair's output on the batch over the event's steps;
            ``None`` for other layers.
    """

    residual: float | None = None


@dataclass
class ChannelReport(LayerReport):
    """The channels that a weight makes, of a change of basis.

    ``relative_change`` is the root mean square of ``tau - 1``; ``reason`` says what pins channels, if some are.

    Attributes:
        free: channels that carry a factor of their own.
        shared: channels that carry a factor that other channels carry, too.
        pinned: channels that carry 1.
    """

    free: int = 0
    shared: int = 0
    pinned: int = 0


def fill_sizes(layers: Iterable[LayerReport], named: Mapping[str, nn.Parameter]) -> None:
    """Set the ``parameters`` of layers that lack them, by the parameter that a name, less a block, is of."""
    for layer in layers:
        parameter = named.get(layer.name, named.get(layer.name.partition("[")[0]))
        if parameter is not None and not layer.parameters:
            layer.parameters = parameter.numel()


def parameters_of(layers: Iterable[LayerReport]) -> int:
    """The elements of the parameters of some layers; blocks of one parameter count once."""
    return sum({layer.name.partition("[")[0]: layer.parameters for layer in layers}.values())
