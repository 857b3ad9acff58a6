"""The drift of the loss on other data, at the same growth of the gradient norm, for four ways to move.

``ascent`` is one step along the projected gradient, ``shortest`` the straight move whose direction a power method
improves, ``least drift`` the same in the metric of what it changes on held-out batches, ``random`` a random direction
in the same null space. Each moves on one batch of training samples to the cap, a factor on the gradient norm; the drift
is the change of the mean loss on other training samples. No sample is in two of the batch, the held-out batches and the
others.
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
from experiments.benchmarks.common import MACHINE, TIMES, Row, Settings, machine, ratios, take_turns
from experiments.benchmarks.suite import Prepared, configuration
from experiments.run.batches import Batch
from experiments.run.methods import Teleporter
from experiments.run.seeding import Stream, generator
from experiments.tasks import Split
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
    *("drift", "first_order", "sample_change", "output_change", "norm_on_others", *MACHINE),
]
"""``seconds`` are those of the move; ``distance`` is over the norm of all trainable parameters; ``loss_change`` that of
the batch itself. Of other samples are ``drift``, its part ``first_order`` (the move times their mean gradient),
``sample_change`` (the mean absolute change of a sample's loss, in units of the drift), ``output_change`` (the norm of
what changes in the outputs, over theirs) and ``norm_on_others`` (a factor)."""

OTHERS = 2000
"""Samples that the drift is of: of 1000, a few whose loss changes most decide the mean on a ReLU network."""

PART = 500
"""Samples that are evaluated at once."""

HELD_OUT = 20
"""Held-out batches, each of as many samples as the batch."""


SMOKE = ["digits mlp"]


def ways(growth: float) -> dict[str, Teleporter]:
    """Way -> the method that moves to ``growth`` times the gradient norm."""
    return {
        "ascent": NullSpace(lr=LONGEST, steps=1, relative_cap=growth),
        "shortest": NullSpace(path="shortest", lr=LONGEST / 8, steps=8, relative_cap=growth),
        "least drift": NullSpace(path="least_drift", lr=LONGEST / 8, steps=8, relative_cap=growth),
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
    return f"{case}  {row['method']:<11} x{reached:.2f}  distance {row['distance']:.4f}  drift {row['drift']:+.5f}"


def summary(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Means over seeds and steps, of the moves that reached the cap: distance, size of the drift, change of outputs.

    ``pairs`` counts, of the pairs of moves that both reached the cap, those in which one drifts less.
    """
    reached = table["norm_after"] > 0.95 * table["growth"] * table["norm_before"]
    table = table.assign(size=table["drift"].abs(), reached=reached)
    whole = table[table["reached"]]

    def pivot(rows: pd.DataFrame, value: str) -> pd.DataFrame:
        return rows.pivot_table(index=["network", "growth"], columns="method", values=value, sort=False).reset_index()

    return {
        "distance, over the norm of all parameters": pivot(whole, "distance"),
        "absolute drift on other samples": pivot(whole, "size"),
        "mean absolute change of the loss of other samples": pivot(whole, "sample_change"),
        "change of the outputs on other samples": pivot(whole, "output_change"),
        "share of moves that reached the cap": pivot(table, "reached"),
        "moves in which least drift drifts less": _pairs(whole),
        "seconds of a move, in units of those of the shortest": ratios(table, ["network", "growth"], "shortest"),
    }


def _pairs(whole: pd.DataFrame) -> pd.DataFrame:
    """Per network and other way: how many moves there are of both, and in how many ``least drift`` drifts less."""
    case = ["network", "seed", "steps", "growth"]
    sizes = whole.pivot_table(index=case, columns="method", values="size", sort=False).reset_index()
    rows = []
    for way in ("ascent", "shortest", "random"):
        both = sizes.dropna(subset=[column for column in ("least drift", way) if column in sizes])
        for network, own in both.groupby("network", sort=False):
            if {"least drift", way} <= set(own):
                less = int((own["least drift"] < own[way]).sum())
                rows.append({"network": network, "against": way, "moves": len(own), "less": less})
    return pd.DataFrame(rows, columns=["network", "against", "moves", "less"])


def _rows(name: str, overrides: list[str], seed: int, steps: int, settings: Settings) -> Iterator[Row]:
    config = configuration([*overrides, f"seed={seed}", "scale=quick", "teleport=gentle"], settings.device)
    prepared = Prepared(config, settings.device)
    if steps:
        prepared.steps_in_place(steps)
    batch, held_out, others = _samples(prepared.task.train, config.teleport.samples, seed, settings.device)

    def loss_fn(model: nn.Module, given: tuple[Tensor, Tensor]) -> Tensor:
        return prepared.task.loss(model(given[0]), given[1])

    start = prepared.model.eval()
    before = Evaluated(start, others, prepared.task.loss)
    for growth in GROWTH:
        turns = {way: partial(_ready, method, start, batch, loss_fn, held_out) for way, method in ways(growth).items()}
        for way, timed in take_turns(turns, settings.repeats, settings.device).items():
            report, model = timed.last
            after = Evaluated(model, others, prepared.task.loss)
            yield {
                **{"method": way, "network": name, "seed": seed, "steps": steps, "growth": growth},
                **timed.columns(),
                **{"norm_before": report.gradient_norm_before, "norm_after": report.gradient_norm_after},
                "distance": _distance(start, model),
                "loss_change": report.loss_after - report.loss_before,
                **before.against(after, _first_order(start, model, before.gradients)),
                **machine(settings.device),
            }


def _ready(
    method: Teleporter, start: nn.Module, batch: Any, loss_fn: Any, held_out: list[Batch]
) -> Callable[[], tuple[TeleportReport, nn.Module]]:
    """The move on a copy of the model, ready to be made once; returns the report and the copy."""
    model = copy.deepcopy(start)
    needed = isinstance(method, NullSpace) and method.path == "least_drift"
    options = {"held_out": held_out} if needed else {}
    return lambda: (method(model, [batch], loss_fn, **options), model)


def _samples(split: Split, samples: int, seed: int, device: torch.device) -> tuple[Batch, list[Batch], list[Batch]]:
    """A batch of the split, held-out batches of as many samples, and others, without a sample in common."""
    taken, parts = torch.zeros(len(split), dtype=torch.bool), []
    counts = {Stream.TELEPORT: samples, Stream.HELD_OUT: HELD_OUT * samples, Stream.TRIAL: OTHERS}
    for stream, count in counts.items():
        order = torch.randperm(len(split), generator=generator(seed, stream))
        parts.append(order[~taken[order]][:count])
        taken[parts[-1]] = True
    batch, held_out, others = (part.to(device) for part in parts)
    several = ([split.batch(part) for part in each.split(size)] for each, size in ((held_out, samples), (others, PART)))
    return split.batch(batch), *several


class Evaluated:
    """A model on some batches.

    Attributes:
        losses: of each sample.
        gradients: of their mean.
        outputs: of the model.
    """

    def __init__(self, model: nn.Module, batches: list[Batch], loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        count = sum(len(targets) for _, targets in batches)
        trained = [each for each in model.parameters() if each.requires_grad]
        self.gradients = [torch.zeros_like(each, requires_grad=False) for each in trained]
        losses, outputs = [], []
        for inputs, targets in batches:
            found = model(inputs)
            own = torch.autograd.grad(loss(found, targets), trained)
            for total, part in zip(self.gradients, own, strict=True):
                total += part * (len(targets) / count)
            outputs.append(found.detach())
            pairs = zip(outputs[-1].split(1), targets.split(1), strict=True)
            losses += [loss(one, target) for one, target in pairs]
        self.losses, self.outputs = torch.stack(losses).double(), torch.cat(outputs)

    def against(self, after: Evaluated, first_order: float) -> Row:
        """The cells of what changed from this model to another."""
        change, scale = after.losses - self.losses, max(1.0, abs(float(self.losses.mean())))
        return {
            "drift": float(change.mean()) / scale,
            "first_order": first_order / scale,
            "sample_change": float(change.abs().mean()) / scale,
            "output_change": float((after.outputs - self.outputs).norm() / self.outputs.norm()),
            "norm_on_others": _size(after.gradients) / _size(self.gradients),
        }


def _size(gradients: list[Tensor]) -> float:
    return math.hypot(*(float(gradient.norm()) for gradient in gradients))


@torch.no_grad()
def _first_order(one: nn.Module, other: nn.Module, gradients: list[Tensor]) -> float:
    """The move from one model to the other times the gradients at its start."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    moves = [new.double() - old for old, new in pairs if old.requires_grad]
    return sum(float((move * gradient).sum()) for move, gradient in zip(moves, gradients, strict=True))


@torch.no_grad()
def _distance(one: nn.Module, other: nn.Module) -> float:
    pairs = list(zip(one.parameters(), other.parameters(), strict=True))
    size = math.hypot(*(float(old.norm()) for old, _ in pairs))
    return math.hypot(*(float((new - old).norm()) for old, new in pairs)) / size
