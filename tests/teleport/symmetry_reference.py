"""Reference implementation of the published group actions, on lists of weights without biases (columns are samples).

It computes what the authors' programs compute: the direction is the gradient at T = 0 of the squared gradient norm,
which is taken at the weights after the action at T = 0; in 2022 later inputs are those of the network at T = 0, in 2024
they are kept and multiplied by I + T after each step. One thing differs: the gradient of a weight is taken with the
other weights constant. The program of 2022 also differentiates the later weights by the earlier ones, from whose hidden
values it computed them; so here no weight is computed from the tensor that represents another weight.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SLOPE = 0.1


def s(values: Tensor) -> Tensor:
    return F.leaky_relu(values, SLOPE)


def s_inverse(values: Tensor) -> Tensor:
    return F.leaky_relu(values, 1 / SLOPE)


def loss(weights: list[Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
    hidden = inputs
    for weight in weights[:-1]:
        hidden = s(weight @ hidden)
    return F.cross_entropy((weights[-1] @ hidden).T, targets)


def zeros(weights: list[Tensor]) -> list[Tensor]:
    return [torch.zeros(len(w), len(w), dtype=w.dtype, requires_grad=True) for w in weights[:-1]]


def step_of_t(weights: list[Tensor], elements: list[Tensor], inputs: Tensor, targets: Tensor, lr: float):
    """T after one step of ascent on |grad L|^2, and |grad L| at T = 0."""
    gradients = torch.autograd.grad(loss(weights, inputs, targets), weights, create_graph=True)
    squared = sum((gradient**2).sum() for gradient in gradients)
    return [lr * d for d in torch.autograd.grad(squared, elements)], float(squared.detach()) ** 0.5


def teleport_2022(weights: list[Tensor], inputs: Tensor, targets: Tensor, lr: float, steps: int) -> list[Tensor]:
    weights = [weight.clone().requires_grad_() for weight in weights]
    for _ in range(steps):
        elements, moved, layer_inputs = zeros(weights), list(weights), [inputs]
        for layer, element in enumerate(elements):
            again, _ = act_2022(moved[layer], moved[layer + 1], layer_inputs[layer], element)
            moved[layer], moved[layer + 1] = act_2022(moved[layer], moved[layer + 1], layer_inputs[layer], element)
            layer_inputs.append(s(again @ layer_inputs[layer]))
        elements, _ = step_of_t(moved, elements, inputs, targets, lr)
        with torch.no_grad():
            for layer, element in enumerate(elements):
                weights[layer], weights[layer + 1] = act_2022(
                    weights[layer], weights[layer + 1], layer_inputs[layer], element
                )
        weights = [weight.detach().requires_grad_() for weight in weights]
    return weights


def act_2022(lower: Tensor, upper: Tensor, inputs: Tensor, element: Tensor) -> tuple[Tensor, Tensor]:
    one = torch.eye(len(element), dtype=element.dtype)
    return s_inverse((one + element) @ s(lower @ inputs)) @ torch.linalg.pinv(inputs), upper @ (one - element)


def teleport_2024(
    weights: list[Tensor], inputs: Tensor, targets: Tensor, lr: float, steps: int, cap: float
) -> tuple[list[Tensor], int]:
    """The weights, and the steps that were taken."""
    weights = [weight.clone().requires_grad_() for weight in weights]
    layer_inputs = [inputs]
    for weight in weights[:-2]:
        layer_inputs.append(s(weight @ layer_inputs[-1]).detach())
    for step in range(steps):
        elements, moved = zeros(weights), list(weights)
        for layer, element in enumerate(elements):
            moved[layer], moved[layer + 1] = act_2024(moved[layer], moved[layer + 1], layer_inputs[layer], element)
        elements, norm = step_of_t(moved, elements, inputs, targets, lr)
        if norm > cap:
            return weights, step
        with torch.no_grad():
            for layer, element in enumerate(elements):
                weights[layer], weights[layer + 1] = act_2024(
                    weights[layer], weights[layer + 1], layer_inputs[layer], element
                )
            for layer in range(1, len(layer_inputs)):
                layer_inputs[layer] = layer_inputs[layer] + elements[layer - 1] @ layer_inputs[layer]
        weights = [weight.detach().requires_grad_() for weight in weights]
    return weights, steps


def act_2024(lower: Tensor, upper: Tensor, inputs: Tensor, element: Tensor) -> tuple[Tensor, Tensor]:
    group = torch.eye(len(element), dtype=element.dtype) + element
    return group @ lower, upper @ s(lower @ inputs) @ torch.linalg.pinv(s(group @ (lower @ inputs)))
