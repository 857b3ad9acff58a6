"""Calls of the caller's loss: what went wrong in the first one is told in one sentence, as far as it can be found.

A loss function that was written for other arguments, a batch on another device and a model that computes something else
in evaluation mode all end in an error of torch or of the loss. Each is recognised by trying what would be right.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, nn

from teleport._tracing.ownership import tensors_in
from teleport._tracing.preconditions import devices_of
from teleport._tracing.undisturbed import ModelState

Result = TypeVar("Result")
LossFn = Callable[[nn.Module, Any], Tensor]

_OTHER_DEVICE = re.compile(r"device|meta tensor|Meta tensor|\.FloatTensor|weight type", re.IGNORECASE)
"""What torch's messages about tensors on two devices have in common."""


def check_signature(function: Any, name: str = "loss_fn") -> None:
    """Refuse a function that cannot be called with two arguments.

    Args:
        function: of a model and a batch.
        name: of the argument, for the message.

    Raises:
        TypeError: the sentence has its arguments.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C
        return
    try:
        signature.bind(None, None)
    except TypeError:
        raise TypeError(
            f"{name} is called with two arguments, the model and a batch, and this one takes {signature}"
        ) from None


def scalar(loss: Any) -> Tensor:
    """The loss as a scalar.

    Raises:
        ValueError: it is none, or depends on no trainable parameter.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise ValueError("loss_fn must return a scalar tensor")
    if not loss.requires_grad:
        raise ValueError("the loss does not depend on any trainable parameter of the model")
    return loss.reshape(())


def explained(
    error: Exception, loss_fn: LossFn, model: nn.Module, batch: Any, state: ModelState, first: bool
) -> Exception:
    """The error that a call of the loss raised, or a clearer one.

    Args:
        error: raised by ``loss_fn(model, batch)``.
        loss_fn, model, batch: of the call.
        state: of the model, for further evaluations.
        first: whether no call has succeeded yet; otherwise the loss is not called again.
    """
    if message := _other_device(error, model, batch):
        return ValueError(message)
    if "Inference tensors cannot be saved" in str(error):
        return ValueError(
            "the batch or the model holds a tensor that was made under torch.inference_mode, so the loss cannot be "
            "differentiated: make it outside of it, or clone it"
        )
    if not first or type(error).__module__ != "builtins":  # an error of the caller's own, or too little memory
        return error
    if isinstance(error, TypeError | AttributeError):
        if _is_loss(lambda: state.evaluate(lambda: loss_fn(batch, model))):
            return TypeError("loss_fn is called as loss_fn(model, batch): this one takes the batch first")
        kinds = {type(each).__name__ for each in (model, *model.children())}  # it may be wrapped
        if isinstance(error, TypeError) and any(kind in str(error) for kind in kinds):
            return TypeError(
                f"loss_fn is called with the model and a batch, not with outputs and targets ({error}): use such as "
                "lambda model, batch: loss(model(batch[0]), batch[1])"
            )
    own_modes = state.changed_modes and _is_loss(lambda: state.in_own_modes(lambda: loss_fn(model, batch)))
    if own_modes and not _is_loss(lambda: state.evaluate(lambda: loss_fn(model, batch))):  # once more the same
        return ValueError(
            "the loss fails in evaluation mode, in which a teleport evaluates it, and not in training mode "
            f"({type(error).__name__}: {error}): write loss_fn for evaluation mode, or pass keep_modes=True"
        )
    return error


def with_devices_told(call: Callable[[], Result], model: nn.Module, batch: Any) -> Result:
    """The result of ``call()``, an evaluation of the model on the batch.

    Raises:
        ValueError: it failed because the batch is on another device.
    """
    try:
        return call()
    except Exception as error:
        if message := _other_device(error, model, batch):
            raise ValueError(message) from error
        raise


def _other_device(error: Exception, model: nn.Module, batch: Any) -> str:
    """The sentence for a batch on another device than the model; empty if that is not the reason of the error."""
    here, there = devices_of(model.parameters()), devices_of(tensors_in(batch))
    if not (set(there) - set(here) and _OTHER_DEVICE.search(str(error))):
        return ""
    return (
        f"the batch has tensors on {', '.join(there)} and the model is on {', '.join(here)}: move the batch to the "
        f"model's device ({error})"
    )


def _is_loss(call: Callable[[], Any]) -> bool:
    """Whether a call returns a loss that can be differentiated."""
    try:
        scalar(call())
    except Exception:  # any error of the caller's code
        return False
    return True
