"""Loss, gradient norm and outputs of a model, computed without the library."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from scripts.fuzz._reports.cases import RANDOM_STATE, Case, draw_case
from scripts.fuzz._reports.losses import outputs_in

PRECISION = {torch.float64: 1e-5, torch.float32: 2e-3, torch.float16: 0.1, torch.bfloat16: 0.3}
"""Relative error of a gradient norm that rounding explains."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, unfused kernels, random numbers from the start; modes come back."""
    modes = [(module, module.training) for module in model.modules()]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            for module, _ in modes:
                module.training = False
            torch.manual_seed(RANDOM_STATE)
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            torch.backends.mha.set_fastpath_enabled(fast_path)


def measured(model: nn.Module, loss_fn: Callable[..., Tensor], batch: Any) -> tuple[float, float]:
    """Loss and gradient norm over the trainable parameters, the norm summed in float64."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    with evaluating(model):
        loss = loss_fn(model, batch)
        gradients = torch.autograd.grad(loss.sum(), trainable, allow_unused=True)
    square = 0.0
    for g in gradients:
        if g is not None:
            g = g.to_dense() if g.layout is not torch.strided else g
            square += float((torch.view_as_real(g) if g.is_complex() else g).double().square().sum())
    return float(loss.detach()), math.sqrt(square)


def outputs(model: nn.Module, batch: Any, training: bool) -> Tensor:
    """The outputs on a batch, in evaluation mode or with all modules in training mode."""
    with evaluating(model), torch.no_grad():
        for module in model.modules() if training else ():
            module.training = True
        return outputs_in(model(batch[0]))


def load(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Set the parameters to some values; one whose elements share memory keeps its own."""
    with torch.no_grad():
        for name, p in model.named_parameters(remove_duplicate=False):
            if not any(stride == 0 and size > 1 for stride, size in zip(p.stride(), p.shape, strict=True)):
                p.copy_(values[name])


class Reference:
    """A case's network, drawn once more, to evaluate at any values of its parameters."""

    def __init__(self, case: Case) -> None:
        self.case = draw_case(case.seed)

    def at(self, values: Mapping[str, Tensor], batch: Any) -> tuple[float, float]:
        """Loss and gradient norm at these values."""
        load(self.case.model, values)
        return measured(self.case.model, self.case.loss_fn, batch)

    def outputs(self, values: Mapping[str, Tensor], batches: list[Any], training: bool) -> list[Tensor]:
        """The outputs at these values in float64."""
        fresh = draw_case(self.case.seed)
        load(fresh.model, values)
        fresh.model.double()
        return [outputs(fresh.model, in_double(batch), training) for batch in batches]


def in_double(batch: Any) -> Any:
    """A batch with its real numbers in float64."""
    return tuple(each.double() if each.is_floating_point() else each for each in batch)
