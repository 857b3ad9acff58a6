"""Interrupts at every bytecode boundary of the library, and the state that an interrupted call must leave as it was."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as module_globals
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

import teleport

FILES = str(Path(teleport.__file__).parent)

Place = tuple[Any, int]
"""A code object and the offset of an instruction in it."""

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")


class Interrupter:
    """Counts the instructions that the library's own code executes, and raises ``KeyboardInterrupt`` before one of
    them.

    Args:
        at: the number of the instruction, from 1; 0 counts only.
        files: the instructions of files under this folder count.
    """

    def __init__(self, at: int = 0, files: str = FILES) -> None:
        self.at = at
        self.files = files
        self.count = 0
        self.first: dict[Place, int] = {}
        self.last: dict[Place, int] = {}
        self.where = ""

    def __enter__(self) -> Interrupter:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "call":
            if not frame.f_code.co_filename.startswith(self.files):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            self.count += 1
            if self.count == self.at:
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}+{frame.f_lasti}"
                raise KeyboardInterrupt
            if not self.at:
                place = frame.f_code, frame.f_lasti
                self.first.setdefault(place, self.count)
                self.last[place] = self.count
        return self._trace

    @property
    def instants(self) -> list[int]:
        """The first and the last time that each instruction is executed, as numbers for ``at``."""
        return sorted({*self.first.values(), *self.last.values()})


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Any]:
    """Everything but the parameters' values that a call must leave as it was, as values to compare."""
    state: dict[str, Any] = {
        "modules": [(name, id(module), module.training) for name, module in model.named_modules()],
        "parameters": [(name, id(each), each.requires_grad) for name, each in model.named_parameters()],
        "gradients": [None if each.grad is None else (id(each.grad), _bits(each.grad)) for each in model.parameters()],
        "buffers": [(name, id(each), _bits(each)) for name, each in model.named_buffers()],
        "hooks": [len(getattr(module, name)) for module in model.modules() for name in HOOKS],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "global hooks": [len(getattr(module_globals, f"_global{name}", ())) for name in HOOKS],
        "random state": _bits(torch.random.get_rng_state()),
        "modes": (len(_get_current_function_mode_stack()), len(_get_current_dispatch_mode_stack())),
        "gradient mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "attention": (
            torch.backends.mha.get_fastpath_enabled(),
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
            torch.backends.cudnn.enabled,
        ),
    }
    if optimizer is not None:
        state["optimizer"] = [
            (key, _bits(value) if isinstance(value, torch.Tensor) else value)
            for each in optimizer.state.values()
            for key, value in sorted(each.items())
        ]
    return state


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The names of what changed."""
    return [name for name, value in before.items() if after[name] != value]


def values_of(model: nn.Module) -> list[bytes]:
    """The parameters, as bytes."""
    return [_bits(each) for each in model.parameters()]


def interrupted(call: Callable[[], Any], at: int, files: str = FILES) -> Iterator[Interrupter]:
    """Run ``call`` with an interrupt; yields while its exception is handled, once, if it came out."""
    interrupter = Interrupter(at, files)
    try:
        with interrupter:
            call()
    except KeyboardInterrupt:
        yield interrupter


def _bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().numpy().tobytes()
