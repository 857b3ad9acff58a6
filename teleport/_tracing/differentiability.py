"""Whether the graph of a loss can be differentiated as often, and with respect to as much, as a teleport needs.

Inputs: the loss with its graph, and the trainable parameters. There is no output, but an
:class:`teleport.UnsupportedModel` that names the operation if the graph cannot be differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils.checkpoint import CheckpointFunction

from teleport._errors import UnsupportedModel


def check_graph(loss: Tensor, twice: bool) -> bool:
    """Refuse a loss whose graph holds an operation that a teleport cannot differentiate.

    Args:
        loss: with its graph.
        twice: whether the method needs second derivatives.

    Returns:
        whether there are custom operations (``torch.autograd.Function``) in the graph.

    Raises:
        UnsupportedModel: reentrant activation checkpointing, whose parameters ``torch.autograd.grad`` does not reach;
            or, if ``twice``, an operation whose backward pass is marked ``once_differentiable``.
    """
    operations = list(_operations_of(loss))
    for operation in operations:
        if operation is CheckpointFunction:
            raise UnsupportedModel(
                "the model uses reentrant activation checkpointing, through which torch.autograd.grad reaches no "
                "parameter; use torch.utils.checkpoint.checkpoint(..., use_reentrant=False)"
            )
        if twice and _once_differentiable(operation):
            raise UnsupportedModel(
                f"the backward pass of '{operation.__name__}' is marked once_differentiable, so it has no second "
                "derivative; write it out of differentiable operations, or use a method without second derivatives "
                "(RandomNullSpace, Rescaling, ChangeOfBasis)"
            )
    return bool(operations)


def check_reach(evaluate: Callable[[], Tensor], named: Iterable[tuple[str, nn.Parameter]]) -> None:
    """Refuse a loss if its ``backward()`` finds gradients that ``torch.autograd.grad`` does not.

    That happens if a custom operation calls ``backward()`` in its own backward pass. The comparison takes two backward
    passes, and is only worth its time if the graph has custom operations.

    Raises:
        UnsupportedModel: the sentence names the first such parameter.
    """
    loss = evaluate()
    trainable = {name: parameter for name, parameter in named if parameter.requires_grad}
    found = torch.autograd.grad(loss, list(trainable.values()), allow_unused=True)
    missing = [name for name, gradient in zip(trainable, found, strict=True) if gradient is None]
    if not missing or any(getattr(p, "_post_accumulate_grad_hooks", None) for p in trainable.values()):
        return
    gradients = {parameter: parameter.grad for parameter in trainable.values()}
    try:
        for parameter in gradients:
            parameter.grad = None
        evaluate().backward()  # type: ignore[no-untyped-call]
        reached = [name for name in missing if (grad := trainable[name].grad) is not None and bool(grad.any())]
    finally:
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
    if reached:
        names = sorted({operation.__name__ for operation in _operations_of(evaluate())})
        raise UnsupportedModel(
            f"torch.autograd.grad does not reach '{reached[0]}', but backward() does: a custom operation "
            f"({', '.join(names)}) calls backward() in its backward pass; write it out of differentiable operations"
        )


def nodes_of(tensor: Tensor) -> Iterator[Node]:
    """The nodes of the autograd graph of ``tensor``."""
    seen: set[Node] = set()
    waiting = [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [below for below, _ in node.next_functions]
        yield node


def _operations_of(loss: Tensor) -> Iterator[type[Any]]:
    """The custom operations (``torch.autograd.Function``) in the graph of ``loss``, but for those of this library."""
    found = (getattr(node, "_forward_cls", None) for node in nodes_of(loss))
    return (each for each in found if each is not None and not each.__module__.startswith("teleport."))


def _once_differentiable(operation: type[Any]) -> bool:
    """Whether torch's decorator of that name wraps the operation's backward pass."""
    backward = getattr(operation, "backward", None)
    code = getattr(backward, "__code__", None)
    return hasattr(backward, "__wrapped__") and code is not None and code.co_filename == _DECORATOR_FILE


_DECORATOR_FILE = torch.autograd.function.once_differentiable.__code__.co_filename
