"""Slow, direct reference implementations of library functions, in float64 and by dense decompositions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def null_projection(rows: np.ndarray, tolerance: float = 1e-10) -> np.ndarray:
    """``I - V V^T`` of the rows ``[n, d]``, by a dense SVD."""
    _, singular, right = np.linalg.svd(rows, full_matrices=True)
    kept = right[: int((singular > tolerance * singular[0]).sum())] if singular.size else right[:0]
    return np.eye(rows.shape[1]) - kept.T @ kept


def jacobian(function: Callable[..., Tensor], parameters: list[Tensor]) -> np.ndarray:
    """The Jacobian ``[outputs, all parameters' elements]`` of ``function(*parameters)``."""
    parts = torch.func.jacrev(function, argnums=tuple(range(len(parameters))))(*parameters)
    return torch.cat([part.reshape(-1, p.numel()) for part, p in zip(parts, parameters, strict=True)], 1).numpy()


def concatenated_heads(
    query: Tensor, key: Tensor, value: Tensor, packed: Tensor, bias: Tensor, heads: int, mask: Tensor | None = None
) -> Tensor:
    """Multi-head attention ``[n, tokens, width]`` before its output projection, one head after the other."""
    weights, biases = packed.chunk(3), bias.chunk(3)
    q, k, v = (x @ w.T + b for x, w, b in zip((query, key, value), weights, biases, strict=True))
    mixed = []
    for one_q, one_k, one_v in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True):
        scores = one_q @ one_k.transpose(1, 2) / one_q.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(mask, -torch.inf)
        mixed.append(scores.softmax(-1) @ one_v)
    return torch.cat(mixed, -1)


def algorithm_one(
    weights: list[Tensor],
    biases: list[Tensor],
    batches: list[tuple[Tensor, Tensor]],
    lr: float,
    steps: int,
    cap: float,
) -> list[float]:
    """Wu et al. 2025, Algorithm 1, for an MLP with tanh, followed literally; changes the weights in place.

    Returns:
        the gradient norms, per batch, at every point of the algorithm.
    """
    norms = []
    for inputs, targets in batches:
        projections = [null_projection(rows) for rows in _forward(weights, biases, inputs)[0]]
        for step in range(steps + 1):
            parameters = [tensor.requires_grad_() for tensor in [*weights, *biases]]
            loss = F.cross_entropy(_forward(weights, biases, inputs)[1], targets)
            gradients = torch.autograd.grad(loss, parameters, create_graph=True)
            objective = sum(gradient.square().sum() for gradient in gradients) / 2
            norms.append(float((2 * objective.detach()).sqrt()))
            if norms[-1] > cap or step == steps:
                break
            directions = torch.autograd.grad(objective, parameters)
            with torch.no_grad():
                for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                    both = torch.cat([directions[layer], directions[layer + len(weights)][:, None]], 1)
                    kept = both @ torch.from_numpy(projections[layer])
                    weight += lr * kept[:, :-1]
                    bias += lr * kept[:, -1]
    return norms


def _forward(weights: list[Tensor], biases: list[Tensor], inputs: Tensor) -> tuple[list[np.ndarray], Tensor]:
    """Each layer's inputs with a 1 appended ``[n, d + 1]``, and the logits."""
    seen = []
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        ones = inputs.new_ones(len(inputs), 1)
        seen.append(torch.cat([inputs, ones], 1).detach().numpy())
        inputs = inputs @ weight.T + bias
        if layer < len(weights) - 1:
            inputs = torch.tanh(inputs)
    return seen, inputs
