"""Repeated evaluations of a model that leave no trace: modes, buffers and random state are restored afterwards."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize

from teleport._tracing.random_state import RandomState, preserved_random_state


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[CommonRandomNumbers]:
    """Dropout off, batch norm on its running statistics, attention on the math path, compiled parts run eagerly.

    Fused attention and recurrent kernels have no second derivative, and compiled code hides its calls. On the way out,
    after an exception too, each module's mode, each buffer, each parameter's ``requires_grad`` and torch's global
    random state (of the CPU and of the accelerators that hold parameters) are restored.

    Yields:
        the common random numbers, to be restarted before each evaluation.
    """
    modules = list(model.modules())
    modes = [module.training for module in modules]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    buffers = [_Buffer(module, name, tensor) for module in modules for name, tensor in module._buffers.items()]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        random_state = stack.enter_context(preserved_random_state(model.parameters()))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast_path)
        torch.backends.mha.set_fastpath_enabled(False)  # it leaves out padded positions, which training does not
        if any(isinstance(module, nn.RNNBase) for module in modules):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        if "torch._dynamo" in sys.modules:  # else nothing is compiled, and importing it takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            for module in modules:
                module.training = False
            yield CommonRandomNumbers(random_state)
        finally:
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode
            for parameter, flag in flags:
                if parameter.requires_grad != flag:
                    parameter.requires_grad_(flag)
            for buffer in buffers:
                buffer.restore()
            forget_casts()


class _Buffer:
    """A module's buffer, saved: the tensor and a copy of its values."""

    def __init__(self, module: nn.Module, name: str, tensor: Tensor | None) -> None:
        self.module = module
        self.name = name
        self.tensor = tensor
        self.version = _version(tensor)
        self.values = None if tensor is None or tensor.is_meta else tensor.detach().clone()

    @torch.no_grad()
    def restore(self) -> None:
        """Restore tensor and values; a tensor that was not written to is not written to here either."""
        if self.module._buffers.get(self.name) is not self.tensor:
            self.module._buffers[self.name] = self.tensor
        if self.tensor is None or self.values is None:
            return
        if _version(self.tensor) == self.version and _equal(self.tensor, self.values):
            return
        with torch.inference_mode(self.tensor.is_inference()):  # such a tensor can be written to in that mode only
            self.tensor.copy_(self.values)


def _version(tensor: Tensor | None) -> int | None:
    """How often a tensor was written to; ``None`` for one without a counter."""
    return None if tensor is None or tensor.is_inference() else tensor._version


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


def forget_casts() -> None:
    """Clear torch's caches of values that were computed from parameters before they moved.

    Inside a ``torch.autocast`` block the casts of weights are kept until its end, even if the weights are written to
    (torch 2.13.0, ``findings/autocast-stale-weights.sh``); inside ``parametrize.cached()`` so are parametrized weights.
    """
    torch.clear_autocast_cache()
    parametrize._cache.clear()


class CommonRandomNumbers:
    """The same random numbers for every evaluation, so that a noisy model is one function during a teleport."""

    def __init__(self, start: RandomState) -> None:
        self._start = start

    def restart(self) -> None:
        """Return to the random state at the start of the teleport, and forget casts of the parameters' old values."""
        forget_casts()
        self._start.restore()
