"""The drift of the loss on other data, at the same growth of the gradient norm, for three ways to move.

``ascent`` is one step along the projected gradient, ``shortest`` the straight move whose direction a power method
improves, ``random`` a random direction in the same null space. Each moves on one batch of training samples to the cap,
a factor on the gradient norm; the drift is the change of the mean loss on other training samples.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from experiments.benchmarks.aims import Aim
from experiments.benchmarks.common import MACHINE, TIMES, Row, Settings, machine, take_turns
from experiments.benchmarks.suite import Prepared, configuration
from experiments.run.batches import draw_batches
from experiments.run.methods import Teleporter
from experiments.run.seeding import Stream, generator
from teleport import NullSpace, RandomNullSpace, TeleportReport

NETWORKS = {
    "mnist mlp": ["data=mnist", "model=mlp", "model.widths=[256,256]", "optimizer.lr=0.1"],
    "fashion mlp tanh": ["data=fashion_mnist", "model=mlp", "model.activation=tanh", "optimizer.lr=0.1"],
    "cifar10 cnn": ["data=cifar10", "model=cnn", "optimizer.lr=0.05", "model.warmup_steps=0"],
    "smnist transformer": ["data=smnist", "model=transformer", "optimizer.lr=0.05"],
}
"""Network -> its data, model and rate of SGD, as on the command line."""

GROWTH = (1.5, 2.0, 4.0)
STEPS = (0, 100, 400)
"""Training steps before the move."""

LONGEST = 3.0
"""The longest move, in units of the norm of the weights that may move. A random one may not reach the cap within it."""

AIMS: list[Aim] = []
COLUMNS = [
    *("method", "network", "seed", "steps", "growth", *TIMES, "norm_before", "norm_after", "distance", "loss_change"),
    *("drift", "norm_on_others", *MACHINE),
]
"""``seconds`` are those of the move; ``distance`` is over the norm of all trainable parameters; ``loss_change`` that of
the batch itself; ``drift`` and ``norm_on_others`` (a factor) are of other samples."""


SMOKE = ["digits mlp"]


def ways(growth: float) -> dict[str, Teleporter]:
    """Way -> the method that moves to ``growth`` times the gradient norm."""
    return {
        "ascent": NullSpace(lr=LONGEST, steps=1, relative_cap=growth),
        "shortest": NullSpace(path="shortest", lr=LONGEST / 8, steps=8, relative_cap=growth),
        "random": RandomNullSpace(length=LONGEST, relative_cap=growth),
    }


def measure(settings: Settings) -> Iterator[Row]:
    """One row per network, seed, number of training steps, growth and way."""
    networks = (
        {SMOKE[0]: ["data=digits", "model=mlp", "model.widths=[64]", "model.teleport_samples=20"]}
        if settings.smoke
        else NETWORKS
    )
    for (name, overrides), seed in itertools.product(networks.items(), range(1 if settings.smoke else 3)):
        for steps in STEPS[:1] if settings.smoke else STEPS:
            yield from _rows(name, overrides, seed, steps, settings)
    torch.use_deterministic_algorithms(False)  # a run enables it


def line(row: Row) -> str:
    """The case, the way, its distance and its drift."""
    case = f"{row['network']:<18} seed {row['seed']}  steps {row['steps']:>3}  growth {row['growth']:g}"
    reached = row["norm_after"] / row["norm_before"]
    return f"{case}  {row['method']:<9} x{reached:.2f}  distance {row['distance']:.4f}  drift {row['drift']:+.5f}"


def summary(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Means over seeds and steps, of the moves that reached the cap: distance and size of the drift."""
    reached = table["norm_after"] > 0.95 * table["growth"] * table["norm_before"]
    table = table.assign(size=table["drift"].abs(), reached=reached)
    whole = table[table["reached"]]

    def pivot(rows: pd.DataFrame, value: str) -> pd.DataFrame:
        return rows.pivot_table(index=["network", "growth"], columns="method", values=value, sort=False).reset_index()

    return {
        "distance, over the norm of all parameters": pivot(whole, "distance"),
        "absolute drift on other samples": pivot(whole, "size"),
        "share of moves that reached the cap": pivot(table, "reached"),
    }


def _rows(name: str, overrides: list[str], seed: int, steps: int, settings: Settings) -> Iterator[Row]:
    config = configuration([*overrides, f"seed={seed}", "scale=quick", "teleport=gentle"], settings.device)
    prepared = Prepared(config, settings.device)
    if steps:
        prepared.steps_in_place(steps)
    batch, others = (
        draw_batches(prepared.task.train, 1, samples, generator(seed, stream), settings.device)[0]
        for samples, stream in ((config.teleport.samples, Stream.TELEPORT), (1000, Stream.TRIAL))
    )

    def loss_fn(model: nn.Module, given: tuple[Tensor, Tensor]) -> Tensor:
        return prepared.task.loss(model(given[0]), given[1])

    start = prepared.model.eval()
    loss, norm = _loss_and_norm(start, others, loss_fn)
    for growth in GROWTH:
        turns = {way: partial(_ready, method, start, batch, loss_fn) for way, method in ways(growth).items()}
        for way, timed in take_turns(turns, settings.repeats, settings.device).items():
            report, model = timed.last
            after, norm_after = _loss_and_norm(model, others, loss_fn)
            yield {
                **{"method": way, "network": name, "seed": seed, "steps": steps, "growth": growth},
                **timed.columns(),
                **{"norm_before": report.gradient_norm_before, "norm_after": report.gradient_norm_after},
                "distance": _distance(start, model),
                "loss_change": report.loss_after - report.loss_before,
                "drift": (after - loss) / max(1.0, abs(loss)),
                "norm_on_others": norm_after / norm,
                **machine(settings.device),
            }


def _ready(
    method: Teleporter, start: nn.Module, batch: Any, loss_fn: Any
) -> Callable[[], tuple[TeleportReport, nn.Module]]:
    """The move on a copy of the model, ready to be made once; returns the report and the copy."""
    model = copy.deepcopy(start)
    return lambda: (method(model, [batch], loss_fn), model)


def _loss_and_norm(model: nn.Module, batch: Any, loss_fn: Any) -> tuple[float, float]:
    loss = loss_fn(model, batch)
    gradients = torch.autograd.grad(loss, [each for each in model.parameters() if each.requires_grad])
    return float(loss.detach()), math.hypot(*(float(gradient.norm()) for gradient in gradients))


@torch.no_grad()
def _distance(one: nn.Module, other: nn.Module) -> float:
    pairs = list(zip(one.parameters(), other.parameters(), strict=True))
    size = math.hypot(*(float(old.norm()) for old, _ in pairs))
    return math.hypot(*(float((new - old).norm()) for old, new in pairs)) / size
