"""Models and batches that no evaluation can work with: refused by name before anything is evaluated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from teleport._errors import UnsupportedModel
from teleport._tracing.ownership import tensors_in
from teleport._tracing.replicas import check_unsharded


def check_model(model: nn.Module, sharded: bool = False) -> None:
    """Refuse a model whose parameters have no values or no gradients, or are not all in this process.

    Args:
        model: any module.
        sharded: whether parameters may be shards, which the method that is called will judge.

    Raises:
        UnsupportedModel: lazy parameters before their first use, parameters on the device ``meta`` or made under
            ``inference_mode``, or sharded ones.
    """
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise UnsupportedModel(
                f"'{name}' has no shape yet: evaluate the model once, so that its lazy modules are initialised"
            )
        if parameter.is_meta:
            raise UnsupportedModel(
                f"'{name}' is on the device meta, so it has no values: load the model's weights first"
            )
        if parameter.is_inference():
            raise UnsupportedModel(
                f"'{name}' was made under torch.inference_mode, so it has no gradient: make the model outside of it"
            )
    if not sharded:
        check_unsharded(model)


def no_trainable_parameter(model: nn.Module) -> str:
    """Why a model has no trainable parameter, in a sentence."""
    names = quantized_modules(model)
    if names:
        name, kind = next(iter(names.items()))
        return f"the model has no trainable parameter to teleport: '{name}' is quantized ({kind}); teleport it before"
    return "the model has no trainable parameter to teleport"


def quantized_modules(model: nn.Module) -> dict[str, str]:
    """Name -> class of the modules whose weights are quantized, which are no parameters and have no gradient."""
    found: dict[str, str] = {}
    for name, module in model.named_modules():
        inner = any(name.startswith(f"{outer}.") for outer in found)
        if ".quantized." in f"{type(module).__module__}." and not inner:
            found[name] = type(module).__name__
    return found


def check_tensors(batches: Iterable[Any], name: str = "batch") -> None:
    """Refuse batches with tensors that were made under ``inference_mode``, which no gradient passes.

    Args:
        batches: containers are opened.
        name: of one of them, for the message.

    Raises:
        ValueError: the sentence gives the number of the batch.
    """
    for number, batch in enumerate(batches):
        if any(tensor.is_inference() for tensor in tensors_in(batch)):
            raise ValueError(
                f"{name} {number} was made under torch.inference_mode, so the loss cannot be differentiated: make the "
                "batches outside of it, or clone their tensors"
            )


def devices_of(tensors: Iterable[torch.Tensor]) -> list[str]:
    """The devices of some tensors."""
    return sorted({str(tensor.device) for tensor in tensors})
