"""Models of several processes: shards are recognised, and wrappers of replicas do not synchronise evaluations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from teleport._errors import UnsupportedModel


def check_unsharded(model: nn.Module) -> None:
    """Refuse a model whose parameters are sharded over processes.

    Raises:
        UnsupportedModel: the sentence has the name of the first one.
    """
    for name, module in model.named_modules():
        if any(kind.__name__ == "FullyShardedDataParallel" for kind in type(module).__mro__):
            raise UnsupportedModel(_sharded(name or "the model"))
    for name, parameter in model.named_parameters():
        if is_sharded(parameter):
            raise UnsupportedModel(_sharded(name))


def check_shards(model: nn.Module) -> None:
    """Refuse a model whose parameters are sharded, but not by ``fully_shard``.

    Raises:
        UnsupportedModel: as of :func:`check_unsharded`.
    """
    if not sharding_modules(model):
        check_unsharded(model)


def is_sharded(parameter: Tensor) -> bool:
    """Whether this process holds a part of a parameter only."""
    return "DTensor" in (type(parameter).__name__, type(parameter.data).__name__)


def local_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, in the same memory: all of it unless it is sharded."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def sharding_modules(model: nn.Module) -> list[Any]:
    """The modules that ``fully_shard`` was applied to, which gather their parameters (``FSDPModule``)."""
    return [each for each in model.modules() if any(kind.__name__ == "FSDPModule" for kind in type(each).__mro__)]


def shards_again(model: nn.Module) -> list[Any]:
    """The :func:`sharding_modules`, whose parameters are shards then: FSDP keeps those of the root whole after an
    evaluation without a backward pass."""
    modules = sharding_modules(model)
    for module in modules:
        module.reshard()
    return modules


def _sharded(name: str) -> str:
    return (
        f"'{name}' is sharded over processes, and a teleport needs whole parameters; gather them first "
        "(torch.distributed.checkpoint.state_dict.get_model_state_dict with full_state_dict=True)"
    )


class Synchronisation:
    """Whether wrappers of replicas (``DistributedDataParallel``) exchange buffers and gradients, as it is now.

    Evaluations of a teleport are differentiated by ``torch.autograd.grad``, which the wrapper would wait for in vain.

    Args:
        modules: of a model.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        wrappers = [module for module in modules if isinstance(module, nn.parallel.DistributedDataParallel)]
        self._held = [(each, each.require_backward_grad_sync, each.require_forward_param_sync) for each in wrappers]

    def off(self) -> None:
        """Let the wrappers exchange nothing."""
        for wrapper, _, _ in self._held:
            wrapper.require_backward_grad_sync = wrapper.require_forward_param_sync = False

    def restore(self) -> None:
        """Set them back."""
        for wrapper, gradients, buffers in self._held:
            wrapper.require_backward_grad_sync, wrapper.require_forward_param_sync = gradients, buffers
