"""Tensors of a model besides its parameters, saved, so that an evaluation that writes to them can be undone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from teleport._tracing.ownership import Owners


class SavedTensor:
    """A tensor and a copy of its values."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self._version = _version(tensor)
        with torch.inference_mode(False):  # inside it a jagged tensor cannot be detached
            self._values = None if tensor.is_meta else tensor.detach().clone()

    @torch.no_grad()
    def restore(self, sharing: Iterable[nn.Parameter] = (), between: bool = False) -> None:
        """Write the values back; a tensor that was not written to is not written to here either.

        Args:
            sharing: parameters that share memory with the tensor; they keep the values that they have now.
            between: whether graphs of earlier evaluations are still in use. They may have saved the tensor, as batch
                norm saves statistics that its backward pass does not read; so its version stays.
        """
        if self._values is None or not self.changed:
            return
        current = [(parameter, parameter.detach().clone()) for parameter in sharing]
        with torch.inference_mode(self.tensor.is_inference()):  # such a tensor can be written to in that mode only
            (self.tensor.data if between else self.tensor).copy_(self._values)
        for parameter, value in current:
            parameter.copy_(value)

    @property
    def changed(self) -> bool:
        """Whether the tensor has other values now."""
        if self._values is None:
            return False
        return _version(self.tensor) != self._version or not _equal(self.tensor, self._values)


class SavedBuffers:
    """The buffers of a module: which there are, and their values. Memory shared with a parameter is the parameter's.

    Args:
        module: the module.
        owners: the parameters of the model, by memory; ``parameters``: by name.
    """

    def __init__(self, module: nn.Module, owners: Owners, parameters: Mapping[str, nn.Parameter]) -> None:
        self._owners = owners
        self._parameters = parameters
        self._buffers = module._buffers
        self._named = dict(module._buffers)
        self._saved = [SavedTensor(tensor) for tensor in self._named.values() if tensor is not None]

    def restore(self, between: bool = False) -> None:
        """Restore the tensors and their values; buffers that were added are removed. ``between``: see above."""
        if self._replaced():
            for name in [name for name in self._buffers if name not in self._named]:
                del self._buffers[name]
            self._buffers.update(self._named)
        for saved in self._saved:
            saved.restore([self._parameters[name] for name in self._owners.of(saved.tensor)], between)

    def _replaced(self) -> bool:
        named = self._named
        return len(self._buffers) != len(named) or any(self._buffers.get(n) is not each for n, each in named.items())


def _version(tensor: Tensor) -> int | None:
    """How often a tensor was written to; ``None`` for one without a counter."""
    return None if tensor.is_inference() else tensor._version


def _equal(tensor: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same values; batch norm writes to its statistics without changing the version.

    Sparse and nested tensors are compared by the dense tensors in them.
    """
    if tensor.is_nested:
        return all(torch.equal(one, two) for one, two in zip(tensor.unbind(), other.unbind(), strict=True))
    if tensor.layout is torch.strided:
        return torch.equal(tensor, other)
    return all(torch.equal(one, two) for one, two in zip(_dense_parts(tensor), _dense_parts(other), strict=True))


def _dense_parts(tensor: Tensor) -> list[Tensor]:
    """The indices and values of a sparse tensor."""
    if tensor.layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
