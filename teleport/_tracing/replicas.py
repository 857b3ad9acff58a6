"""Refuses models with parameters sharded or replicated over processes: a teleport in one process would part them."""

from __future__ import annotations

import warnings

from torch import distributed, nn

from teleport._errors import UnsupportedModel


def check_replicas(model: nn.Module) -> None:
    """Refuse a model that is wrapped or sharded for several processes; warn of a plain one if others run.

    Raises:
        UnsupportedModel: a ``DistributedDataParallel`` of more than one process, or sharded parameters.
    """
    for name, parameter in model.named_parameters():
        if type(parameter.data).__name__ == "DTensor" or type(parameter).__name__ in ("DTensor", "FlatParameter"):
            raise UnsupportedModel(
                f"'{name}' is sharded over processes, and a teleport needs whole parameters; gather them first "
                "(torch.distributed.checkpoint.state_dict.get_model_state_dict with full_state_dict=True)"
            )
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    processes = distributed.get_world_size()
    if processes > 1 and isinstance(model, nn.parallel.DistributedDataParallel):
        raise UnsupportedModel(
            f"each of the {processes} processes of this DistributedDataParallel would move its own replica; teleport "
            "model.module in one process, then broadcast its parameters to the others"
        )
    if processes > 1:
        warnings.warn(
            f"{processes} processes run, and this teleport moves the parameters of its own: broadcast them afterwards, "
            "or call the same teleport on the same batches in every process",
            stacklevel=4,
        )
