"""A random case: a network, its loss, the batches that a method sees and others that it does not."""

from __future__ import annotations

import random
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from scripts.fuzz._reports.blocks import KINDS, several
from scripts.fuzz._reports.losses import Batches, Loss, Pooled, Returning, draw_loss
from scripts.fuzz._reports.traits import TRAITS

RANDOM_STATE = 7
"""The seed of torch's global random numbers before each call and each evaluation."""


@dataclass
class Case:
    """One random problem.

    Attributes:
        seed: it is a function of.
        model: with parameters of ``dtype``.
        batches: that the methods see; ``unseen``: others, of other lengths and sizes.
        loss_fn: of a model and a batch; ``loss`` is its name.
        traits: what was made awkward.
    """

    seed: int
    model: nn.Module
    batches: list[Any]
    unseen: list[Any]
    loss_fn: Loss
    loss: str
    traits: list[str]
    dtype: torch.dtype

    def __str__(self) -> str:
        """One line on the case."""
        rows = [len(batch[0]) for batch in self.batches]
        return f"{str(self.dtype)[6:]}, loss {self.loss}, rows {rows}, {', '.join(self.traits) or 'plain'}"


def draw_case(seed: int) -> Case:
    """The case of a seed."""
    draws = random.Random(seed)
    torch.manual_seed(seed)
    dtype = draws.choice([torch.float32] * 6 + [torch.float64] * 3 + [torch.float16, torch.bfloat16])
    kind, tokens = draws.choice([*KINDS, "vector", "vector"]), 0
    c = draws.choice([1, 2, 3, 4, 8, 8, 16])
    shape = {"vector": (c,), "sequence": (3, c), "signal": (c, 4), "image": (c, 4, 4)}[kind]
    blocks: list[nn.Module] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "sequence" and draws.random() < 0.5:
            tokens, shape = 7, (3,)
            norm = 1.0 if draws.random() < 0.1 else None
            blocks.append(nn.Embedding(tokens, c, padding_idx=0 if draws.random() < 0.2 else None, max_norm=norm))
        for _ in range(draws.randint(1, 4)):
            added, c = several(draws, kind, c)
            blocks += added
        k = draws.choice([1, 2, 3])
        blocks += [Pooled(kind, draws.choice(["mean", "max", "first"])), nn.Linear(c, k)]
        model = Returning(nn.Sequential(*blocks), draws.choice(["tensor"] * 4 + ["tuple", "dict", "object"]))
        names = [name for name in TRAITS if draws.random() < 0.1]
        for name in names:
            TRAITS[name](draws, model)
        _cast(model, dtype)
    if draws.random() < 0.5 and "modes" not in names:
        model.eval()
    batches = Batches(shape, tokens, k, dtype)
    scale = draws.choice([1.0] * 8 + [1e-3, 1e3, 0.0])
    sizes = draws.choice([[4], [2], [3], [1], [4, 2], [1, 3, 2], [2, 2]])
    seen = [batches.draw(rows, scale) for rows in sizes]
    unseen = [batches.draw(3), batches.draw(7), batches.draw(6, 1e3)]
    loss, loss_fn = draw_loss(draws)
    torch.manual_seed(RANDOM_STATE)
    return Case(seed, model, seen, unseen, loss_fn, loss, names, dtype)


def _cast(model: nn.Module, dtype: torch.dtype) -> None:
    """Parameters and floating-point buffers of other precision, in place; complex ones stay."""
    if dtype == torch.float32:
        return
    with torch.no_grad():
        for p in model.parameters():
            if p.dtype == torch.float32:
                p.data = p.data.to(dtype)
                p.grad = None if p.grad is None else p.grad.to(dtype)
        for module in model.modules():
            for name, b in module._buffers.items():
                if b is not None and b.dtype == torch.float32 and not name.startswith("b_") and name != "view_of_it":
                    module._buffers[name] = b.to(dtype)
