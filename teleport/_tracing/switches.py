"""torch's global switches that an evaluation sets, the hooks of modules, and the modes of torch functions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import nn, overrides
from torch.nn.attention import SDPBackend, _cur_sdpa_kernel_backends, _sdpa_kernel
from torch.nn.modules import module as modules_of_torch
from torch.utils import _python_dispatch
from torch.utils._device import DeviceContext

from teleport._tracing.caller_autocast import CallerAutocast
from teleport._tracing.weight_norm import ComposedWeightNorm

Result = TypeVar("Result")


class Switches:
    """The switches as they are now; :meth:`restore` may be called more than once.

    Args:
        recurrent: whether the model has recurrent layers, whose kernels of cuDNN have no second derivative.
        weight_norm: whether it has weight normalisation, whose fused operation has a wrong one.

    Attributes:
        autocast: of the caller, in which the model is evaluated.
    """

    def __init__(self, recurrent: bool, weight_norm: bool = False) -> None:
        self._recurrent = recurrent
        self._gradients = torch.is_grad_enabled()
        self._attention = _cur_sdpa_kernel_backends()
        self._fast_path = torch.backends.mha.get_fastpath_enabled()
        self.autocast = CallerAutocast()
        self._device = _default_device()
        self._modes: list[Any] = [ComposedWeightNorm()] if weight_norm else []  # around all evaluations
        if self._device is not None:
            self._modes.append(DeviceContext(torch.device("cpu")))
        self._cudnn = torch._C._get_cudnn_enabled()
        self._torch_functions = torch._C._get_torch_function_state()  # type: ignore[attr-defined]
        self._stack = overrides._get_current_function_mode_stack()  # type: ignore[no-untyped-call]
        self._dispatch_modes = _dispatch_modes()
        self._inference: Any = None
        self._stance: Any = None

    def set(self) -> None:
        """Gradients on, inference mode and autocast off, attention, recurrent layers and weight normalisation on
        operations with second derivatives, no compiled code."""
        self._inference = torch.inference_mode(False)
        self._inference.__enter__()
        torch.set_grad_enabled(True)
        for mode in self._modes:
            mode.__enter__()
        self.autocast.off()
        _sdpa_kernel([SDPBackend.MATH])
        torch.backends.mha.set_fastpath_enabled(False)  # it leaves out padded positions, which training does not
        if self._recurrent:
            torch._C._set_cudnn_enabled(False)
        if "torch._dynamo" in sys.modules:  # else nothing is compiled, and importing it takes seconds
            from torch._dynamo import eval_frame

            self._stance = eval_frame._stance
            torch.compiler.set_stance("force_eager")

    def run(self, call: Callable[[], Result]) -> Result:
        """The result of a call of the caller's code, in the caller's autocast and default device."""
        if self._device is None:
            return self.autocast.run(call)
        with self._device:
            return self.autocast.run(call)

    def draw(self, call: Callable[[], Result]) -> Result:
        """As :meth:`run`, for code that makes a batch and evaluates no model: with gradients on only if they were."""
        with torch.set_grad_enabled(self._gradients):
            return self.run(call)

    def restore(self) -> None:
        """Set them back."""
        for mode in reversed(self._modes):
            if mode in _function_mode_stack():
                mode.__exit__(None, None, None)
        if self._stance is not None:
            from torch._dynamo import eval_frame

            eval_frame._set_stance(self._stance)
        torch._C._set_cudnn_enabled(self._cudnn)
        torch.backends.mha.set_fastpath_enabled(self._fast_path)
        _sdpa_kernel(self._attention)
        if hasattr(self._inference, "_inference_mode_context"):
            self._inference.__exit__(None, None, None)
        torch.set_grad_enabled(self._gradients)
        self.autocast.restore()

    def leave_modes(self) -> None:
        """Leave the modes of torch functions that an interrupted evaluation did not leave, or leave switched off.

        torch takes a mode off for the time of its handler; an interrupt there may lose one of the caller's.
        """
        torch._C._set_torch_function_state(self._torch_functions)  # type: ignore[attr-defined]
        while _function_modes() > len(self._stack):
            overrides._pop_mode()  # type: ignore[no-untyped-call]
        for mode in self._stack[_function_modes() :]:
            overrides._push_mode(mode)  # type: ignore[no-untyped-call]
        while _dispatch_modes() > self._dispatch_modes:
            _python_dispatch._pop_mode()


def _default_device() -> torch.device | None:
    """The device of new tensors, if the caller chose another one than the CPU.

    What a teleport keeps of its own is on the CPU, or on the device of what it was computed from.
    """
    device = torch.get_default_device()
    return None if device.type == "cpu" else device


def _function_modes() -> int:
    return len(_function_mode_stack())


def _function_mode_stack() -> list[Any]:
    return list(overrides._get_current_function_mode_stack())  # type: ignore[no-untyped-call]


def _dispatch_modes() -> int:
    return len(_python_dispatch._get_current_dispatch_mode_stack())


class Hooks:
    """The hooks that are registered now, of some modules and of all."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        own = (vars(module)[name] for module in modules for name in _HOOKS if name in vars(module))
        everywhere = (getattr(modules_of_torch, f"_global{name}", None) for name in _HOOKS)
        held = [hooks for hooks in (*own, *everywhere) if hooks is not None]
        self._registered = [(hooks, set(hooks)) for hooks in held]

    def remove_others(self) -> None:
        """Remove those that were registered since, and never removed."""
        for hooks, known in self._registered:
            for number in [number for number in hooks if number not in known]:
                del hooks[number]


_HOOKS = (
    *("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs"),
    *("_forward_hooks_always_called", "_backward_hooks", "_backward_pre_hooks"),
)
