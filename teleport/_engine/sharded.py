"""Models whose parameters are sharded over processes by ``fully_shard`` (FSDP2): whole on each rank during an event.

Every rank gathers the parameters, moves them as all ranks do, and writes its shards back. The modules keep what they
gathered meanwhile, as autograd does not see parameters that were freed between two derivatives, and do not reduce
gradients, which the event does itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from weakref import WeakSet

import torch
from torch import Tensor, nn

from teleport._engine.report import FactorReport
from teleport._errors import UnsupportedModel
from teleport._processes.group import Group
from teleport._tracing.replicas import is_sharded, local_part, shards_again
from teleport._undone import always_undone

Result = TypeVar("Result")

SWITCHES = ("reduce_grads", "all_reduce_grads", "reshard_after_backward", "post_forward_mesh_info")
"""Of a group of parameters: whether gradients are reduced, and whether shards alone are kept after each pass."""


_WHOLE: WeakSet[nn.Module] = WeakSet()
"""The modules of ``fully_shard`` whose parameters are whole at present, within such a call."""


def with_whole_parameters(group: Group, model: nn.Module, work: Callable[[], Result]) -> Result:
    """The result of ``work``, which moves ``model``, on parameters that are whole meanwhile.

    Raises:
        UnsupportedModel: shards of other processes than those of the group, or of another precision than in use.
    """
    if any(module in _WHOLE for module in model.modules()):  # a method that calls another
        return work()
    modules = shards_again(model)
    shards = {name: parameter for name, parameter in model.named_parameters() if is_sharded(parameter)}
    if not shards or not modules:
        return work()
    for name, shard in shards.items():
        if shard.device_mesh.size() != group.size:  # type: ignore[attr-defined]
            raise UnsupportedModel(
                f"'{name}' is sharded over {shard.device_mesh.size()} processes, and {group.size} teleport: all that "  # type: ignore[attr-defined]
                "hold shards must, without process_group='alone'"
            )
    switches = [(part, name, getattr(part, name)) for part in _parts(modules) for name in SWITCHES]

    def whole() -> Result:
        _WHOLE.update(modules)
        for part in _parts(modules):
            part.reduce_grads = part.all_reduce_grads = part.reshard_after_backward = False
            part.post_forward_mesh_info = None
        for module in modules:
            module.unshard()
        gathered = dict(model.named_parameters())
        for name, shard in shards.items():
            if gathered[name].dtype != shard.dtype:
                raise UnsupportedModel(
                    f"'{name}' is kept in {shard.dtype} and used in {gathered[name].dtype} (MixedPrecisionPolicy), "
                    "which would round a move: teleport without param_dtype"
                )
        result = work()
        with torch.no_grad():
            for name, shard in shards.items():
                local_part(shard).copy_(local_part(as_shards(gathered[name].detach(), shard)))
        if isinstance(result, FactorReport) and result.group:
            result.group = _factors_of_shards(result.group, gathered, shards)
        return result

    def shard_again() -> None:
        _WHOLE.difference_update(modules)
        for module in modules:
            module.reshard()
        for part, name, value in switches:
            setattr(part, name, value)

    return always_undone(whole, shard_again)


def _parts(modules: Sequence[Any]) -> list[Any]:
    """The groups of parameters that are gathered together."""
    states = [module._get_fsdp_state() for module in modules]
    found = [getattr(each, "_fsdp_param_groups", None) or [each._fsdp_param_group] for each in states]
    return [part for parts in found for part in parts if part is not None]


def as_shards(whole: Tensor, like: Any) -> Any:
    """A tensor that all ranks hold, sharded as ``like``, a ``DTensor``; nothing is sent."""
    replicas = [torch.distributed.tensor.Replicate()] * like.device_mesh.ndim
    held = torch.distributed.tensor.DTensor.from_local(whole, like.device_mesh, replicas, run_check=False)
    return held.redistribute(like.device_mesh, like.placements)


def _factors_of_shards(
    factors: Mapping[nn.Parameter, Tensor], gathered: Mapping[str, nn.Parameter], shards: Mapping[str, nn.Parameter]
) -> dict[nn.Parameter, Tensor]:
    """The factors by the parameters that the optimizer knows, sharded as these."""
    names = {parameter: name for name, parameter in gathered.items()}
    found = {}
    for parameter, factor in factors.items():
        shard = shards[names[parameter]]
        found[shard] = as_shards(factor.expand(parameter.shape).contiguous().to(parameter.device), shard)
    return found
