"""Evaluations per landing on the cap, and how close the squared gradient norm along a move is to a polynomial.

A line search tries lengths along the projected gradient until the gradient norm is within 2 % below the cap. Each trial
is an evaluation of the gradients. Counted are the searches of null-space teleports that end so, of twelve networks with
random weights and data. In double precision the squared gradient norm at ``LENGTHS`` along a step is fitted by
polynomials: at the exact null space, with a forward pass that stays as it is and no normalisation or attention in the
backward pass, its degree is at most twice the number of moving layers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.benchmarks.aims import Aim
from experiments.benchmarks.common import MACHINE, TIMES, Row, Settings, machine, take_turns
from experiments.data.compat import torchvision
from teleport import NullSpace, TeleportReport
from teleport._engine import ascent
from teleport._engine.capped_step import BELOW_CAP

METHODS: dict[str, dict[str, Any]] = {"default": {}, "long steps": {"lr": 10.0}}
"""Settings besides the cap. Long steps pass every cap by far, so that every search starts from the slope."""

CAPS = (1.5, 2.0, 4.0, 8.0)
"""Factors on the gradient norm before the teleport."""

DEGREES = (2, 4, 6, 8)
LENGTHS = np.linspace(0, 1, 31)
"""In units of the length at which the norm is between 5 and 10 times that at the start."""

COLUMNS = [
    *("method", "network", "cap", *TIMES, "searches", "landings", "evaluations", "most", "lowest", "moving"),
    *(f"residual_{degree}" for degree in DEGREES),
    *MACHINE,
]
"""``evaluations`` is the mean per landing and ``most`` the largest number; ``lowest`` the lowest norm landed on, as a
share of the cap. ``moving`` counts weights; a residual is the largest one of a fit, over the largest value."""


def _most(table: pd.DataFrame) -> float:
    return float(table.loc[table["landings"] > 0, "most"].max())


def _mean(table: pd.DataFrame) -> float:
    landed = table[table["landings"] > 0]
    return float(np.average(landed["evaluations"], weights=landed["landings"])) if len(landed) else math.nan


AIMS = [
    Aim("evaluations per landing on the cap, mean over 12 networks", "<=", 3.0, _mean, "evaluations"),
    Aim("evaluations per landing on the cap, the most", "<=", 4.0, _most, "evaluations"),
]


@dataclass(frozen=True)
class Network:
    """A network and the shape of its batch; integers below ``tokens`` if that is above 0."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    tokens: int = 0

    def batch(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Random inputs and classes."""
        inputs = torch.randint(self.tokens, self.shape) if self.tokens else torch.randn(self.shape).to(dtype)
        return inputs, torch.randint(7, self.shape[:1])


class Attention(nn.Module):
    """A block of attention, layer norm and a GELU network."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.embed, self.last = nn.Linear(5, width), nn.Linear(width, 10)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of the last position."""
        hidden = self.embed(inputs)
        hidden = self.norm(hidden + self.attention(hidden, hidden, hidden, need_weights=False)[0])
        return self.last((hidden + self.narrow(F.gelu(self.widen(hidden))))[:, -1])  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """A GRU cell over embedded tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.cell, self.last = nn.Embedding(50, 64), nn.GRUCell(64, 128), nn.Linear(128, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits after the last token."""
        hidden = self.embed.weight.new_zeros(len(tokens), 128)
        for place in range(tokens.shape[1]):
            hidden = self.cell(self.embed(tokens[:, place]), hidden)
        return self.last(hidden)  # type: ignore[no-any-return]


def mlp(hidden: int, width: int, activation: Callable[[], nn.Module], inputs: int = 784) -> nn.Module:
    """``hidden`` layers of ``width``; the first one has constant inputs and stays, the output layer moves."""
    layers: list[nn.Module] = []
    for number in range(hidden):
        layers += [nn.Linear(width if number else inputs, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def _convolutional() -> nn.Module:
    layers: list[nn.Module] = []
    for fan_in, fan_out in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(fan_in, fan_out, 3, stride=2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(576, 128), nn.ReLU(), nn.Linear(128, 10))


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True, norm_first=True)
    body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return nn.Sequential(nn.Linear(8, 64), body, nn.Flatten(), nn.Linear(384, 10))


def _vision_transformer() -> nn.Module:
    model = torchvision().models.VisionTransformer(32, 8, 2, 4, 64, 128, num_classes=10)
    model.heads.head.reset_parameters()  # built as zero, where the gradient norm is stationary
    return model  # type: ignore[no-any-return]


FULL: dict[str, Network] = {
    "mlp, one moving layer": Network(partial(mlp, 1, 256, nn.ReLU), (100, 784)),
    "mlp 2 x 256 relu": Network(partial(mlp, 2, 256, nn.ReLU), (100, 784)),
    "mlp 2 x 1024 leaky relu": Network(partial(mlp, 2, 1024, nn.LeakyReLU), (200, 784)),
    "mlp 3 x 128 gelu": Network(partial(mlp, 3, 128, nn.GELU), (64, 784)),
    "mlp 4 x 128 tanh": Network(partial(mlp, 4, 128, nn.Tanh), (64, 784)),
    "mlp 6 x 64 silu": Network(partial(mlp, 6, 64, nn.SiLU), (32, 784)),
    "cnn": Network(_convolutional, (8, 3, 32, 32)),
    "attention": Network(Attention, (3, 6, 5)),
    "transformer encoder": Network(_encoder, (4, 6, 8)),
    "gru": Network(Recurrent, (8, 5), tokens=50),
    "squeezenet": Network(lambda: torchvision().models.squeezenet1_1(num_classes=10), (2, 3, 48, 48)),
    "vision transformer": Network(_vision_transformer, (3, 3, 32, 32)),
}
SMOKE = {"mlp 2 x 24 tanh": Network(partial(mlp, 2, 24, nn.Tanh, 6), (5, 6))}


def measure(settings: Settings) -> Iterator[Row]:
    """One row per network, cap and method."""
    for name, network in (SMOKE if settings.smoke else FULL).items():
        moving, residuals = polynomial(network)
        torch.manual_seed(0)
        model, batch = network.make().to(settings.device), network.batch(torch.float32)
        batch = batch[0].to(settings.device), batch[1].to(settings.device)
        for cap in CAPS:
            turns = {
                method: partial(_ready, NullSpace(relative_cap=cap, **options), model, batch)
                for method, options in METHODS.items()
            }
            for method, timed in take_turns(turns, settings.repeats, settings.device).items():
                yield {
                    **{"method": method, "network": name, "cap": cap},
                    **timed.columns(),
                    **timed.last.columns(),
                    "moving": moving,
                    **{f"residual_{degree}": each for degree, each in zip(DEGREES, residuals, strict=True)},
                    **machine(settings.device),
                }


def line(row: Row) -> str:
    """The case, its landings and their evaluations."""
    counts = f"{row['landings']} of {row['searches']} searches landed, with {row['evaluations']:.2f} evaluations"
    return f"{row['network']:<24} cap {row['cap']:g}  {row['method']:<10} {counts}, at most {row['most']}"


def summary(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Evaluations per landing by cap, their largest number, and the residuals by degree."""

    def pivot(value: str) -> pd.DataFrame:
        return table.pivot_table(index=["network", "method"], columns="cap", values=value, sort=False).reset_index()

    fits = ["network", "moving", *(f"residual_{degree}" for degree in DEGREES)]
    return {
        "evaluations per landing, by cap": pivot("evaluations"),
        "the most evaluations of a landing, by cap": pivot("most"),
        "relative residuals of polynomials in double precision": table[fits].drop_duplicates("network"),
    }


@dataclass
class Searches:
    """The gradient norms that each line search evaluated, in units of its cap, and whether it landed."""

    evaluated: list[list[float]] = field(default_factory=list)
    landed: list[bool] = field(default_factory=list)

    def columns(self) -> Row:
        """The cells of their counts."""
        landings = [norms for norms, landed in zip(self.evaluated, self.landed, strict=True) if landed]
        counts = [len(norms) for norms in landings]
        return {
            "searches": len(self.evaluated),
            "landings": len(landings),
            "evaluations": sum(counts) / len(counts) if counts else math.nan,
            "most": max(counts, default=0),
            "lowest": min((norms[-1] for norms in landings), default=math.nan),
        }


@contextmanager
def counted() -> Iterator[Searches]:
    """Count the evaluations of all line searches within."""
    searches, search = Searches(), ascent.capped_step

    def counting(loss: Any, line: Any, length: float, norm: float, cap: float, *more: Any, **others: Any) -> Any:
        norms: list[float] = []
        point = loss.point

        def evaluate(differentiable: bool) -> Any:
            norms.append((found := point(differentiable)).norm / cap)
            return found

        loss.point = evaluate
        try:
            taken = search(loss, line, length, norm, cap, *more, **others)
        finally:
            del loss.point
        searches.evaluated.append(norms)
        searches.landed.append(BELOW_CAP <= norms[-1] <= 1 and taken[0] > 0)
        return taken

    ascent.capped_step = counting
    try:
        yield searches
    finally:
        ascent.capped_step = search


def polynomial(network: Network) -> tuple[int, list[float]]:
    """How many weights move, and the residual of the best polynomial of each of ``DEGREES`` along a step."""
    torch.manual_seed(0)
    model = network.make().double()
    batch = network.batch(torch.float64)
    parameters = list(model.parameters())
    start = [parameter.detach().clone() for parameter in parameters]
    NullSpace(lr=1.0, steps=1, step="fixed", relative_cap=None, guard="none")(model, [batch], _loss)
    direction = [parameter.detach() - before for parameter, before in zip(parameters, start, strict=True)]

    def square(length: float) -> float:
        with torch.no_grad():
            for parameter, before, along in zip(parameters, start, direction, strict=True):
                parameter.copy_(before + length * along)
        gradients = torch.autograd.grad(_loss(model, batch), parameters)
        return sum(float(gradient.square().sum()) for gradient in gradients)

    model.eval()
    longest, before = 1.0, square(0.0)
    while square(longest) > 100 * before:
        longest /= 1.2
    while square(longest) < 25 * before:
        longest *= 1.2
    values = np.array([square(longest * length) for length in LENGTHS])
    fits = [np.polynomial.Chebyshev.fit(LENGTHS, values, degree)(LENGTHS) for degree in DEGREES]
    moving = sum(bool(along.any()) for along in direction if along.dim() > 1)
    return moving, [float(np.abs(fit - values).max() / values.max()) for fit in fits]


def _ready(method: NullSpace, start: nn.Module, batch: Any) -> Callable[[], Searches]:
    """The teleport of a copy of the model, ready to be called once."""
    model = copy.deepcopy(start)

    def work() -> Searches:
        with counted() as searches:
            report: TeleportReport = method(model, [batch], _loss)
        assert report.accepted, report.batches[0].reason
        return searches

    return work


def _loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])
