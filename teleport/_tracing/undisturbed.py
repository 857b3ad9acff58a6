"""Repeated evaluations of a model that leave no trace: modes, buffers and random state are restored afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize

from teleport._tracing.ownership import Owners
from teleport._tracing.plain_attributes import PlainAttributes
from teleport._tracing.random_state import RandomState
from teleport._tracing.replicas import Synchronisation
from teleport._tracing.saved_tensors import SavedBuffers
from teleport._tracing.switches import Hooks, Switches
from teleport._tracing.weight_norm import has_weight_norm

Result = TypeVar("Result")


def undisturbed(model: nn.Module, work: Callable[[ModelState], Result], within: bool = False) -> Result:
    """The result of ``work``, which evaluates the model in a state in which that can be repeated and differentiated.

    Dropout is off, batch norm on its running statistics, attention on the math path, weight normalisation composed of
    other operations, and compiled parts run eagerly: fused attention and recurrent kernels have no second derivative,
    that of fused weight normalisation is wrong, and compiled code hides its calls. On the way out all that
    :class:`ModelState` saves is restored. This is no context manager, whose ``__exit__`` an interrupt may keep from
    being called: the clean-up is repeated if it was interrupted.

    Args:
        model: any module.
        work: takes the state, to be restarted before each evaluation.
        within: whether this is within an evaluation of another call, which restores the attributes of modules.
    """
    state = ModelState(model, attributes=not within)
    try:
        try:
            state.begin()
            return work(state)
        finally:
            state.restore()
    except BaseException:
        state.restore_after_error()
        raise


class ModelState:
    """All that evaluations of a model may change besides parameters, as it is now.

    That is the mode of each module, buffers, other attributes (:class:`PlainAttributes`), ``requires_grad``, torch's
    global random state (of the CPU and of the accelerators that hold parameters) and torch's switches.

    Attributes:
        attributes: of the modules.
    """

    def __init__(self, model: nn.Module, attributes: bool = True) -> None:
        modules = list(model.modules())
        named = dict(model.named_parameters())
        parameters, owners = list(named.values()), Owners(named if attributes else {})  # within one, none moves
        self._modes = [(module, module.training) for module in modules]
        self._flags = [(parameter, parameter.requires_grad) for parameter in parameters]
        self._gradients = [(parameter, parameter.grad) for parameter in parameters if parameter.is_leaf]
        self._buffers = [SavedBuffers(module, owners, named) for module in modules]
        self._hooks = Hooks(modules)
        self._synchronisation = Synchronisation(modules)
        recurrent = any(isinstance(module, nn.RNNBase) for module in modules)
        self._switches = Switches(recurrent, has_weight_norm(modules))
        self._parameters = parameters
        self._random_state = self._drawn = RandomState(parameters)
        self._restored = self._keep_modes = False
        self.attributes = PlainAttributes(modules if attributes else [])

    def begin(self, keep_modes: bool = False) -> None:
        """Set modes and switches for evaluations that can be repeated, traced and differentiated twice.

        Args:
            keep_modes: whether modules stay in their modes. Those in training mode may write to buffers, which are
                restored before each evaluation then, so that all compute the same function.
        """
        self._keep_modes = keep_modes
        self._switches.set()
        self._synchronisation.off()
        for module, _ in self._modes:
            module.training = module.training and keep_modes

    def restart(self) -> None:
        """Before an evaluation: the same random numbers and attributes as at the start, and no value that torch keeps
        of parameters before they moved.

        A noisy model, or one that counts its calls, is then one function during a teleport.
        """
        forget_casts()
        self.attributes.restore()
        self._random_state.restore()
        if self._keep_modes:
            for buffers in self._buffers:
                buffers.restore(between=True)

    def evaluate(self, call: Callable[[], Result]) -> Result:
        """The result of an evaluation, from the same random numbers and attributes, and in the caller's autocast."""
        self.restart()
        return self._switches.run(call)

    def draw(self, call: Callable[[], Result]) -> Result:
        """The next batch of an iterator of the caller's, whose random numbers go on from one to the next.

        It runs in the caller's autocast, default device and gradient mode.
        """
        self._drawn.restore()
        result = self._switches.draw(call)
        self._drawn = RandomState(self._parameters)
        return result

    @property
    def changed_modes(self) -> bool:
        """Whether a module is in another mode than the caller left it in."""
        return any(module.training != mode for module, mode in self._modes)

    def in_own_modes(self, call: Callable[[], Result]) -> Result:
        """The result of an evaluation in the modes in which the caller left the modules; buffers are restored."""
        now = [module.training for module, _ in self._modes]
        try:
            for module, mode in self._modes:
                module.training = mode
            return self.evaluate(call)
        finally:
            for (module, _), mode in zip(self._modes, now, strict=True):
                module.training = mode
            for buffers in self._buffers:
                buffers.restore()

    def restore(self) -> None:
        """Restore all of it. What is complete is not repeated; what was interrupted may be called again."""
        if self._restored:
            return
        for module, mode in self._modes:
            module.training = mode
        for parameter, flag in self._flags:
            if parameter.requires_grad != flag:
                parameter.requires_grad_(flag)
        for buffers in self._buffers:
            buffers.restore()
        self.attributes.restore()
        self._random_state.restore()
        forget_casts()
        self._synchronisation.restore()
        self._switches.restore()
        self._restored = True

    def restore_after_error(self) -> None:
        """Restore all of it, and what an evaluation that did not end may have left: hooks, modes, gradients, caches."""
        self._switches.leave_modes()
        self._hooks.remove_others()
        for parameter, gradient in self._gradients:
            if parameter.grad is not gradient:
                parameter.grad = gradient
        self.restore()
        self.attributes.restore_original()


def forget_casts() -> None:
    """Clear torch's caches of values that were computed from parameters before they moved.

    Inside a ``torch.autocast`` block the casts of weights are kept until its end, even if the weights are written to
    (torch 2.13.0, ``findings/autocast-stale-weights.sh``); inside ``parametrize.cached()`` so are parametrized weights.
    """
    torch.clear_autocast_cache()
    parametrize._cache.clear()
