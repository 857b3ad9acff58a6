"""A weight used as a linear map: where it lies in the model's parameters, and how it is read as matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from teleport._tracing.linear_uses import LinearUse, as_matrix, from_matrix


@dataclass(frozen=True)
class Block:
    """A parameter, or the part of one that a layer uses (the query rows of a packed projection)."""

    owner: str  # the parameter's name in the model
    parameter: nn.Parameter = field(compare=False, repr=False)
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int  # from the parameter's first element

    @classmethod
    def of(cls, tensor: Tensor, owner: str, parameter: nn.Parameter) -> Block:
        """Where ``tensor``, the parameter or a view of it, lies in it."""
        offset = int(tensor.storage_offset() - parameter.storage_offset())
        return cls(owner, parameter, tensor.shape, tensor.stride(), offset)

    def within(self, whole: Tensor) -> Tensor:
        """The same part of ``whole``, a tensor with the parameter's shape and strides."""
        return whole.as_strided(self.shape, self.stride, whole.storage_offset() + self.offset)

    @property
    def label(self) -> str:
        """The parameter's name, with the rows in brackets (or shape and offset) where the block is a part of it."""
        if self.shape.numel() == self.parameter.numel():
            return self.owner
        row = self.parameter.stride(0)
        if self.shape[1:] == self.parameter.shape[1:] and self.stride == self.parameter.stride():
            return f"{self.owner}[{self.offset // row}:{self.offset // row + self.shape[0]}]"
        return f"{self.owner}[{'x'.join(map(str, self.shape))} at {self.offset}]"


@dataclass(frozen=True)
class RecordedUse:
    """A use of a layer, and what is to be known of the moment when it was seen.

    Attributes:
        version: how often the inputs had been written to.
        dtype: the precision in which they were multiplied.
        constant: whether they depended on no parameter.
    """

    use: LinearUse
    version: int
    dtype: torch.dtype
    constant: bool

    @classmethod
    def now(cls, use: LinearUse) -> RecordedUse:
        """As things stand while the use is made."""
        source = use.source
        device = source.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else source.dtype
        return cls(use, source._version, dtype, torch.is_grad_enabled() and not source.requires_grad)

    @property
    def overwritten(self) -> bool:
        """Whether the inputs are no longer what they were."""
        return self.use.source._version != self.version


@dataclass(frozen=True)
class Layer:
    """A weight that is used as a linear map only."""

    name: str
    kind: str
    weight: Block
    bias: Block | None
    groups: int
    transposed: bool
    dimension: int  # of an input vector, the 1 of a folded bias included

    @property
    def blocks(self) -> list[Block]:
        """The weight's block, and the bias's where one is folded in."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def gather(self, tensors: Mapping[nn.Parameter, Tensor]) -> Tensor:
        """The layer's matrices ``[groups, out, dimension]`` out of one tensor a parameter."""
        matrix = as_matrix(self.weight.within(tensors[self.weight.parameter]), self.groups, self.transposed)
        if self.bias is None:
            return matrix
        bias = self.bias.within(tensors[self.bias.parameter])
        return torch.cat([matrix, bias.reshape(self.groups, -1, 1)], dim=2)

    def scatter(self, matrix: Tensor, tensors: Mapping[nn.Parameter, Tensor]) -> None:
        """Write matrices ``[groups, out, dimension]`` where :meth:`gather` reads them."""
        if self.bias is not None:
            bias = self.bias.within(tensors[self.bias.parameter])
            bias.copy_(matrix[..., -1].reshape(bias.shape))
            matrix = matrix[..., :-1]
        weight = self.weight.within(tensors[self.weight.parameter])
        weight.copy_(from_matrix(matrix, weight.shape, self.transposed))
