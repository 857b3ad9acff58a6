"""Interrupts at every bytecode boundary of the library, and the state that an interrupted call must leave as it was."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
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

    Attributes:
        where: file, line, function and offset of the instruction before which the interrupt came.
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


class Kept:
    """What a call must leave as it was, as values to compare, and as they are set back between two interrupted calls.

    Args:
        model: whose parameters, buffers and gradients are set back.
        optimizer: of its parameters.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._model = model
        self._optimizer = optimizer
        self._tensors = [(each, each.detach().clone()) for each in (*model.parameters(), *model.buffers())]
        self._state = copy.deepcopy(optimizer.state_dict())
        self.parameters = self.values()
        self.rest = self.state()

    def values(self) -> list[bytes]:
        """The parameters."""
        return [_bits(each) for each in self._model.parameters()]

    def state(self) -> dict[str, Any]:
        """Everything else."""
        model = self._model
        return {
            "modules": [(name, id(module), module.training) for name, module in model.named_modules()],
            "flags": [(name, id(each), each.requires_grad) for name, each in model.named_parameters()],
            "gradients": [(id(each.grad), None if each.grad is None else _bits(each.grad)) for each in self._leaves()],
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
            "optimizer": [
                (key, _bits(value) if isinstance(value, torch.Tensor) else value)
                for each in self._optimizer.state.values()
                for key, value in sorted(each.items())
            ],
        }

    def changed(self) -> list[str]:
        """The names of what is not as it was, besides the parameters."""
        now = self.state()
        return [name for name, value in self.rest.items() if now[name] != value]

    def set_back(self) -> None:
        """The parameters, and what a call that ended well may have changed."""
        with torch.no_grad():
            for tensor, value in self._tensors:
                tensor.copy_(value)
        self._optimizer.load_state_dict(copy.deepcopy(self._state))

    def _leaves(self) -> list[nn.Parameter]:
        return list(self._model.parameters())


def interrupted(call: Callable[[], Any], at: int, check: Callable[[Interrupter], None], files: str = FILES) -> bool:
    """Run ``call`` with an interrupt, and ``check`` while its exception is handled; whether it came out of the call."""
    interrupter = Interrupter(at, files)
    try:
        with interrupter:
            call()
    except KeyboardInterrupt:
        check(interrupter)
        return True
    return False


def _bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().numpy().tobytes()
