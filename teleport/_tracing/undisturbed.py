"""Evaluate a model again and again without leaving a trace: modes, buffers and random state come back as they were."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[CommonRandom]:
    """Dropout off, batch norm on its running statistics, attention on the math path, compiled parts run eagerly.

    Fused attention and recurrent kernels have no second derivative, and compiled code hides its calls. On the way out
    each module's mode, each buffer, each parameter's ``requires_grad`` and torch's global random state are what they
    were, after an exception too.

    Yields:
        the random state to return to before each evaluation.
    """
    modules = list(model.modules())
    modes = [module.training for module in modules]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    buffers = [_Buffer(module, name, held) for module in modules for name, held in module._buffers.items()]
    devices = {parameter.device for parameter in model.parameters()}
    accelerators = [d.index for d in devices if d.type == "cuda" and d.index is not None]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.random.fork_rng(accelerators))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast_path)
        torch.backends.mha.set_fastpath_enabled(False)  # it leaves padded positions out, which training does not
        if any(isinstance(module, nn.RNNBase) for module in modules):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        if "torch._dynamo" in sys.modules:  # else nothing is compiled, and importing it takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            for module in modules:
                module.training = False
            yield CommonRandom(accelerators)
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
    """A module's buffer as it was: the same tensor, with the same values."""

    def __init__(self, module: nn.Module, name: str, tensor: Tensor | None) -> None:
        self.module = module
        self.name = name
        self.tensor = tensor
        self.version = _version(tensor)
        self.values = None if tensor is None or tensor.is_meta else tensor.detach().clone()

    @torch.no_grad()
    def restore(self) -> None:
        """Put tensor and values back, without writing to what was not written to."""
        if self.module._buffers.get(self.name) is not self.tensor:
            self.module._buffers[self.name] = self.tensor
        if self.tensor is None or self.values is None:
            return
        if _version(self.tensor) == self.version and _equal(self.tensor, self.values):
            return
        with torch.inference_mode(
            self.tensor.is_inference()
        ):  # outside of that mode such a tensor cannot be written to
            self.tensor.copy_(self.values)


def _version(tensor: Tensor | None) -> int | None:
    """How often a tensor was written to; ``None`` for one that does not count it."""
    return None if tensor is None or tensor.is_inference() else tensor._version


def _equal(tensor: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same values: batch norm writes to its statistics without counting it.

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
    """Forget what was computed of parameters before they moved.

    Inside a ``torch.autocast`` block the casts of weights are kept until its end, whatever is written to the weights
    (torch 2.13.0, ``findings/autocast-stale-weights.sh``); inside ``parametrize.cached()`` parametrized weights are.
    """
    torch.clear_autocast_cache()
    parametrize._cache.clear()


class CommonRandom:
    """The same random numbers for every evaluation, so that a noisy model is one function during a teleport."""

    def __init__(self, accelerators: list[int]) -> None:
        self._cpu = torch.random.get_rng_state()
        self._cuda = [(index, torch.cuda.get_rng_state(index)) for index in accelerators]

    def restart(self) -> None:
        """Go back to the random state at the start of the teleport, and let the parameters be read anew."""
        forget_casts()
        torch.random.set_rng_state(self._cpu)
        for index, state in self._cuda:
            torch.cuda.set_rng_state(state, index)
