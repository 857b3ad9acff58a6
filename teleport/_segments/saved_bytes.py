"""How much an evaluation saves for its backward pass, in all and in each part of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

Result = TypeVar("Result")


class Saved(NamedTuple):
    """Bytes: what the calls of each part save, the largest of them, and what is saved outside of all parts."""

    inside: int
    largest: int
    outside: int


def saved_by(
    evaluate: Callable[[], Result], parts: Sequence[nn.Module], parameters: Sequence[Tensor]
) -> tuple[Result, Saved]:
    """The result of an evaluation, and the bytes that it saves besides parameters; a tensor counts where it is new."""
    known = {each.untyped_storage().data_ptr() for each in parameters}
    calls: list[int] = []
    outside, within = [0], [0]

    def packed(tensor: Tensor) -> Tensor:
        if tensor.layout is torch.strided and not tensor.is_meta:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                known.add(storage.data_ptr())
                if within[0]:
                    calls[-1] += storage.nbytes()
                else:
                    outside[0] += storage.nbytes()
        return tensor

    def enter(*_: Any) -> None:
        within[0] += 1
        calls.append(0)

    def leave(*_: Any) -> None:
        within[0] -= 1

    hooks = [part.register_forward_pre_hook(enter) for part in parts]
    hooks += [part.register_forward_hook(leave, always_call=True) for part in parts]
    try:
        with torch.autograd.graph.saved_tensors_hooks(packed, lambda tensor: tensor):
            result = evaluate()
    finally:
        for hook in hooks:
            hook.remove()
    return result, Saved(sum(calls), max(calls, default=0), outside[0])
