"""Evaluate a model again and again without leaving a trace: modes, buffers and random state come back as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[CommonRandom]:
    """Dropout off, batch norm on its running statistics, attention on the math path, compiled parts run eagerly.

    Fused attention kernels have no second derivative, and compiled code hides its calls. On the way out each module's
    mode, each buffer and the global random state are what they were.

    Yields:
        the random state to return to before each evaluation.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer._version, buffer.detach().clone()) for buffer in model.buffers()]
    devices = {parameter.device for parameter in model.parameters()}
    accelerators = [d.index for d in devices if d.type == "cuda" and d.index is not None]
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(accelerators))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(torch.enable_grad())
        try:
            for module, _ in modes:
                module.training = False
            yield CommonRandom(accelerators)
        finally:
            for module, mode in modes:
                module.training = mode
            with torch.no_grad():
                for buffer, version, held in buffers:
                    if buffer._version != version:
                        buffer.copy_(held)


class CommonRandom:
    """The same random numbers for every evaluation, so that a noisy model is one function during a teleport."""

    def __init__(self, accelerators: list[int]) -> None:
        self._cpu = torch.random.get_rng_state()
        self._cuda = [(index, torch.cuda.get_rng_state(index)) for index in accelerators]

    def restart(self) -> None:
        """Go back to the random state at the start of the teleport."""
        torch.random.set_rng_state(self._cpu)
        for index, state in self._cuda:
            torch.cuda.set_rng_state(state, index)
