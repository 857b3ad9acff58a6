"""The diagonal of the path magnitude matrix of a network (Lebeurrier et al. 2026): one evaluation and its gradient.

The path lifting of a network with positively homogeneous activations has an entry per path from an input or a bias to
an output: the product of the weights along it. ``G = J^T J`` with the Jacobian J of the lifting has, for each weight,
``G_ii = sum over its paths of (entry / weight)^2`` on the diagonal. That is the derivative, for the squared weight, of
the sum of the squared entries, which the network itself computes from inputs of ones and squared weights, as nothing is
negative then: an activation passes it on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from teleport._errors import UnsupportedModel
from teleport._quiver.rules import contractions, shapes
from teleport._quiver.rules.elementwise import HOMOGENEOUS, PASSING
from teleport._quiver.rules.table import RULES, named
from teleport._tracing.functions import called
from teleport._tracing.outputs import Forward, tensors_returned
from teleport._tracing.ownership import tensors_in

_MODULES = (contractions.__name__, shapes.__name__)

IDENTITIES = {*named(*PASSING, *HOMOGENEOUS)} - {*named("zero_", "clone", "contiguous", "detach", "requires_grad_")}
"""Of what is not negative and in double precision, on one device."""

SUMS = {function for function, rule in RULES.items() if rule.__module__ in _MODULES}
SUMS |= {*named("add", "add_", "maximum", "minimum", "clone", "contiguous", "detach", "requires_grad_"), F.embedding}
SUMS |= {getattr(F, f"conv{turn}{axes}d") for turn in ("", "_transpose") for axes in (1, 2, 3)}
"""Linear maps, sums, choices of one path, and rearrangements."""

DIFFERENCES = {*named("sub", "sub_", "subtract", "rsub", "__rsub__")}
PRODUCTS = {*named("mul", "mul_", "multiply", "multiply_", "div", "div_", "divide", "true_divide")}


def path_magnitudes(
    model: nn.Module, batch: Any, forward: Forward, trainable: Iterable[nn.Parameter]
) -> dict[nn.Parameter, Tensor]:
    """``G_ii`` of each element of the trainable parameters, float64, in their shapes.

    Batch norm is the affine map of its running statistics. Average pooling and other fixed coefficients enter by their
    absolute values.

    Args:
        model: in evaluation mode; nothing of it is changed.
        batch: shows the form of the inputs; floating-point ones are replaced by ones.
        forward: ``forward(model, batch)``, whose tensors are the outputs.
        trainable: parameters of the model.

    Raises:
        UnsupportedModel: the model has a function through which no path leads, such as a softmax or GELU, or it cannot
            be evaluated in double precision.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    squares = {name: _squared(parameter) for parameter, name in names.items()}
    others = {name: buffer.double() for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    lifted = _Lifted(squares.values())
    held = {f"model.{name}": value for name, value in (squares | others).items()}
    ones = tree_map(_ones, batch)
    with torch.enable_grad(), lifted:
        try:
            outputs = torch.func.functional_call(_Call(model, forward), held, (ones,))
        except UnsupportedModel:
            raise
        except Exception as error:
            raise UnsupportedModel(
                'criterion="path_conditioning" evaluates the model on ones in double precision, where it raises '
                f"{type(error).__name__}: {error}"
            ) from error
        made = [each for each in tensors_returned(outputs) if each.requires_grad]
        total = sum((each.sum() for each in made), torch.zeros((), dtype=torch.float64))
    wanted = {parameter: squares[names[parameter]] for parameter in trainable}
    if not made:
        raise UnsupportedModel('criterion="path_conditioning" found no output that depends on a parameter')
    gradients = torch.autograd.grad(total, list(wanted.values()), allow_unused=True, materialize_grads=True)
    if not all(bool((each >= 0).all() & each.isfinite().all()) for each in gradients):
        raise UnsupportedModel('criterion="path_conditioning" found path magnitudes that are negative or not finite')
    return dict(zip(wanted, gradients, strict=True))


def _squared(parameter: nn.Parameter) -> Tensor:
    return parameter.detach().double().square().requires_grad_()


def _ones(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return torch.ones_like(value, dtype=torch.float64)
    return value


class _Call(nn.Module):
    """``forward(model, batch)`` as a module, for ``functional_call``."""

    def __init__(self, model: nn.Module, function: Forward) -> None:
        super().__init__()
        self.model = model
        self.function = function

    def forward(self, batch: Any) -> Any:
        return self.function(self.model, batch)


class _Lifted(TorchFunctionMode):
    """Computes with squared weights: differences are sums, fixed coefficients positive, activations the identity.

    Args:
        squares: the squared parameters.
    """

    def __init__(self, squares: Iterable[Tensor]) -> None:
        super().__init__()
        self._squares = {id(each) for each in squares}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not any(each.requires_grad for each in tensors_in((args, kwargs))):
            return func(*args, **kwargs)
        if func is F.batch_norm:
            return _batch_norm(*args, **kwargs)
        if func in IDENTITIES:
            return args[0]
        if func in DIFFERENCES:
            return torch.add(*args, **kwargs)
        if func in PRODUCTS:
            return self._product(func, *args, **kwargs)
        result = func(*args, **kwargs)
        if func not in SUMS and any(each.requires_grad for each in tensors_in(result)):
            raise _no_path(func)
        return result

    def _product(self, func: Callable[..., Any], input: Any, other: Any) -> Any:
        """By a fixed coefficient, or by a parameter, such as a layer scale."""
        factors = [each for each in (input, other) if isinstance(each, Tensor) and each.requires_grad]
        if len(factors) == 2 and not any(id(each) in self._squares for each in factors):
            raise _no_path(func)
        return func(*(each if any(each is factor for factor in factors) else abs(each) for each in (input, other)))


def _no_path(func: Callable[..., Any]) -> UnsupportedModel:
    return UnsupportedModel(
        'criterion="path_conditioning" is of networks of linear maps, batch norm, pooling and positively homogeneous '
        f'activations, and this model calls {called(func)}; take criterion="minimal_norm" or "equal_norm"'
    )


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As an affine map: the path through the input and that through the mean have the weight of the norm each."""
    if training or running_mean is None or running_var is None:
        raise UnsupportedModel(
            'criterion="path_conditioning" takes batch norm with running statistics, and this model has one without '
            'in its evaluation; take criterion="minimal_norm" or "equal_norm"'
        )
    shape = [1, -1] + [1] * (input.dim() - 2)
    found = (input + running_mean.square().reshape(shape)) / (running_var + eps).reshape(shape)
    found = found if weight is None else found * weight.reshape(shape)
    return found if bias is None else found + bias.reshape(shape)
