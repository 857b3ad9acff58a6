"""Values that are not finite, told by name: parameters, batches, losses, gradients and second derivatives.

A method does not move from a point whose loss, gradient or moving parameters are infinite or NaN, and takes no step
along a direction that is not finite. Each function returns one sentence for the report, empty if all is finite.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from teleport._engine.batch_loss import BatchLoss, Point
from teleport._tracing.ownership import tensors_in

SHOWN = 3
"""Names that a sentence shows."""

_NAN = re.compile(r"Function '(\w+?)(?:Backward\w*)?' returned nan values")
_INDUCED = re.compile(r"induced by (\w+?)(?:Backward\w*)?\.")
"""What torch says of the first derivative that returns NaN, and of the operation whose backward pass computed it."""


def not_finite_at(loss: BatchLoss, point: Point, moving: Iterable[nn.Parameter]) -> str:
    """Why no step may be taken from ``point``, where the parameters stand.

    Args:
        loss: on the batch, with the names of the parameters and the batch.
        point: its loss and gradients.
        moving: the parameters that would move; others may hold any value that loss and gradient do not show.
    """
    value, norm = float(point.loss), point.norm
    if math.isfinite(value) and math.isfinite(norm):
        bad = loss.group.common(bad_parameters(loss.names, moving))
        return f"not finite before any step: {bad}, which would move" if bad else ""
    cause = bad_parameters(loss.names, loss.names) or ("values of the batch" if not batch_is_finite(loss.batch) else "")
    if not math.isfinite(value):
        return f"not finite before any step: {cause or 'the loss'} (loss {value:g})"
    gradients = dict(zip(loss.parameters, point.gradients, strict=False))
    names = named_bad(loss.names, ((parameter, gradient) for parameter, gradient in gradients.items()))
    what = f"the gradient of {names}" if names else f"the gradient norm is {norm:g}"
    return f"not finite before any step: {what}" + (f" ({cause})" if cause else "")


def not_finite_at_any(
    losses: Sequence[BatchLoss], points: Sequence[Point], moving: Iterable[nn.Parameter]
) -> list[str]:
    """Per batch of a common move, why it may not be made; the parameters are read once, for the first."""
    moved = [moving, *[()] * len(losses)]
    return [not_finite_at(loss, point, each) for loss, point, each in zip(losses, points, moved, strict=False)]


def not_finite_outputs(
    names: Mapping[nn.Parameter, str],
    moving: Iterable[nn.Parameter],
    batches: Sequence[Any],
    outputs: Sequence[Sequence[Tensor]],
) -> list[str]:
    """Per batch, why its outputs do not show whether a move keeps the function.

    Infinite elements among finite ones are no reason, as those of masked logits are, unless the batch has such, too.

    Args:
        names: of all parameters of the model.
        moving: the parameters that would move.
        batches: what the model was called with.
        outputs: per batch the floating-point tensors that it returned.
    """
    if bad := bad_parameters(names, moving):
        return [f"not finite before any step: {bad}, which would move"] * len(batches)
    return [_not_finite_outputs(names, *each) for each in zip(batches, outputs, strict=True)]


def _not_finite_outputs(names: Mapping[nn.Parameter, str], batch: Any, outputs: Sequence[Tensor]) -> str:
    if all_finite(outputs):
        return ""
    inputs = "" if batch_is_finite(batch) else "values of the batch"
    cause = bad_parameters(names, names) or inputs
    some = any(bool(each.isfinite().any()) for each in outputs)
    if some and not inputs and not any(bool(each.isnan().any()) for each in outputs):
        return ""
    return "not finite before any step: outputs" + (f" ({cause})" if cause else "")


def not_finite_along(loss: BatchLoss, moving: Sequence[nn.Parameter]) -> str:
    """Which second derivatives of the loss at the current parameters are not finite, and by which operation.

    To be called after a direction was found not to be finite: it evaluates the loss again.
    """
    plain = BatchLoss(loss.evaluate, loss.parameters, group=loss.group)  # without a frozen forward pass
    names = named_bad(loss.names, zip(moving, plain.ascent_direction(plain.point(True), moving), strict=True))
    names = loss.group.common(names)
    if not names:
        return "not finite: the direction of the step"
    if loss.group.holds_parts:  # no rank evaluates the loss alone
        return f"not finite: the second derivative by {names}"
    operation = _first_nan(BatchLoss(loss.evaluate, loss.parameters), moving)  # here, as it may end early
    what = f"not finite: the second derivative by {names}"
    return f"{what}, in the backward pass of {operation}" if operation else what


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all elements are finite. Finite sums show it much faster; another may be an overflow of the sum."""
    held = [part for tensor in tensors for part in _parts(tensor.detach())]
    sums = [tensor.sum().isfinite() for tensor in held]
    if not sums or bool(torch.stack([each.to(sums[0].device) for each in sums]).all()):
        return True
    return all(bool(tensor.isfinite().all()) for tensor in held)


def bad_parameters(names: Mapping[nn.Parameter, str], parameters: Iterable[nn.Parameter]) -> str:
    """The parameters that are not finite, in words."""
    held = list(parameters)
    found = "" if all_finite(held) else named_bad(names, zip(held, held, strict=True))
    return f"parameter {found}" if found else ""


def batch_is_finite(batch: Any) -> bool:
    """Whether the floating-point tensors in a batch are finite, containers opened."""
    return all_finite(tensor for tensor in tensors_in(batch) if tensor.is_floating_point() or tensor.is_complex())


def named_bad(names: Mapping[nn.Parameter, str], tensors: Iterable[tuple[nn.Parameter, Tensor]]) -> str:
    """The names of the parameters whose tensors are not finite; at most three, and how many more there are."""
    bad = [names.get(parameter, "a parameter") for parameter, tensor in tensors if not all_finite([tensor])]
    more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    return ", ".join(f"'{name}'" for name in bad[:SHOWN]) + more


def _first_nan(loss: BatchLoss, moving: Sequence[nn.Parameter]) -> str:
    """The operation whose second derivative is the first to be NaN; empty if torch shows none."""
    before = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            torch.autograd.set_detect_anomaly(True, check_nan=True)
            loss.ascent_direction(loss.point(True), moving)
        except RuntimeError as error:
            found = _NAN.search(str(error))
            induced = [each[1] for each in (_INDUCED.search(str(warning.message)) for warning in told) if each]
            return induced[-1] if induced else found[1] if found else ""
        finally:
            torch.autograd.set_detect_anomaly(*before)
    return ""


def _parts(tensor: Tensor) -> list[Tensor]:
    """Strided tensors of a precision that has sums, with the same elements but for zeros."""
    if tensor.is_nested:
        return [part for each in tensor.unbind() for part in _parts(each)]
    tensor = tensor if tensor.layout is torch.strided else tensor.to_dense()
    return [tensor.float() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor]
