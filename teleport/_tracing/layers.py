"""A weight used as a linear map: its place in the model's parameters, and its form as matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from teleport._tracing.linear_use import LinearUse, as_matrix, from_matrix


@dataclass(frozen=True)
class Block:
    """A parameter, or the part of one that a layer uses (the query rows of a packed projection).

    Attributes:
        owner: the parameter's name in the model.
        parameter: the parameter itself.
        shape, stride: of the part.
        offset: of the part's first element from the parameter's first, in elements.
    """

    owner: str
    parameter: nn.Parameter = field(compare=False, repr=False)
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, tensor: Tensor, owner: str, parameter: nn.Parameter) -> Block:
        """The place of ``tensor``, which is the parameter or a view of it."""
        offset = int(tensor.storage_offset() - parameter.storage_offset())
        return cls(owner, parameter, tensor.shape, tensor.stride(), offset)

    def within(self, whole: Tensor) -> Tensor:
        """The same part of ``whole``, a tensor with the parameter's shape and strides."""
        return whole.as_strided(self.shape, self.stride, whole.storage_offset() + self.offset)

    @property
    def label(self) -> str:
        """The parameter's name, with the rows in brackets (or shape and offset) if the block is a part of it."""
        if self.shape.numel() == self.parameter.numel():
            return self.owner
        row = self.parameter.stride(0)
        if self.shape[1:] == self.parameter.shape[1:] and self.stride == self.parameter.stride():
            return f"{self.owner}[{self.offset // row}:{self.offset // row + self.shape[0]}]"
        return f"{self.owner}[{'x'.join(map(str, self.shape))} at {self.offset}]"


@dataclass(frozen=True)
class RecordedUse:
    """A use of a layer, with the state of its inputs at the time of the call.

    Attributes:
        use: the use.
        version: how often the inputs had been written to.
        dtype: the precision of the product.
        constant: whether the inputs depended on no parameter.
    """

    use: LinearUse
    version: int
    dtype: torch.dtype
    constant: bool

    @classmethod
    def now(cls, use: LinearUse) -> RecordedUse:
        """The use with the state of its inputs now, during the call."""
        source = use.source
        device = source.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else source.dtype
        return cls(use, source._version, dtype, torch.is_grad_enabled() and not source.requires_grad)

    @property
    def overwritten(self) -> bool:
        """Whether the inputs were written to since."""
        return self.use.source._version != self.version


@dataclass(frozen=True)
class Layer:
    """A weight that is used as a linear map only.

    Attributes:
        name: the parameter's name, with the part in brackets if the weight is a part of it.
        kind: ``"linear"``, ``"conv2d"``, ..., as in :class:`teleport.LinearUse`.
        weight, bias: their places in the parameters; ``bias`` is ``None`` if none is folded in.
        groups, transposed: the form of the weight as matrices, as in :class:`teleport.LinearUse`.
        dimension: of an input vector, the 1 of a folded bias included.
    """

    name: str
    kind: str
    weight: Block
    bias: Block | None
    groups: int
    transposed: bool
    dimension: int

    @classmethod
    def of(cls, use: LinearUse, weight: Block, bias: Block | None) -> Layer:
        """The layer that a use is one of."""
        matrix = as_matrix(use.weight.detach(), use.groups, use.transposed)
        dimension = matrix.shape[2] + (bias is not None)
        return cls(weight.label, use.kind, weight, bias, use.groups, use.transposed, dimension)

    @property
    def blocks(self) -> list[Block]:
        """The weight's block, and the bias's if one is folded in."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def gather(self, tensors: Mapping[nn.Parameter, Tensor]) -> Tensor:
        """The layer's matrices ``[groups, out, dimension]``, from one tensor per parameter."""
        matrix = as_matrix(self.weight.within(tensors[self.weight.parameter]), self.groups, self.transposed)
        if self.bias is None:
            return matrix
        bias = self.bias.within(tensors[self.bias.parameter])
        return torch.cat([matrix, bias.reshape(self.groups, -1, 1)], dim=2)

    def projected(self, tensors: Mapping[nn.Parameter, Tensor], project: Callable[[Tensor], Tensor]) -> Tensor:
        """What ``project`` makes of the layer's matrices; it acts on their columns."""
        return project(self.gather(tensors))

    def scatter(self, matrix: Tensor, tensors: Mapping[nn.Parameter, Tensor]) -> None:
        """Write matrices ``[groups, out, dimension]`` to the places that :meth:`gather` takes them from."""
        if self.bias is not None:
            bias = self.bias.within(tensors[self.bias.parameter])
            bias.copy_(matrix[..., -1].reshape(bias.shape))
            matrix = matrix[..., :-1]
        weight = self.weight.within(tensors[self.weight.parameter])
        weight.copy_(from_matrix(matrix, weight.shape, self.transposed))
