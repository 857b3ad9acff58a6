"""Random blocks of networks by the kind of value that they take, one function per kind; all keep the kind.

A value is ``[n, c]`` (``vector``), ``[n, t, c]`` (``sequence``), ``[n, c, t]`` (``signal``) or ``[n, c, h, w]``
(``image``). A block is drawn with the number of its input channels, and comes with that of its output channels.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from scripts.fuzz._reports.modules import (
    Apply,
    Attention,
    Checkpointed,
    ComplexMap,
    Concatenated,
    CustomScale,
    First,
    Gated,
    Packed,
    Penalised,
    Repeated,
    Residual,
    Routed,
    Twice,
    Writing,
)

Block = tuple[nn.Module, int]
KINDS = ("vector", "sequence", "signal", "image")

SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky": lambda x: F.leaky_relu(x, 0.2),
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "softplus": F.softplus,
    "elu": F.elu,
    "relu6": F.relu6,
    "abs": torch.abs,
    "softmax": lambda x: torch.softmax(x, -1),
    "square": torch.square,
    "relu_": lambda x: F.relu(x * 1, inplace=True),
    "clamp": lambda x: x.clamp(-1, 2),
    "normalize": lambda x: F.normalize(x, dim=-1),
    "rounded": lambda x: x + (x.round() - x).detach(),
    "masked": lambda x: x.masked_fill(x < -1, 0.0),
    "written": lambda x: _written(x * 1),
    "dropout": lambda x: F.dropout(x, 0.3, training=True),
    "cumsum": lambda x: x.cumsum(0),
    "sorted": lambda x: x.sort(-1).values,
    "flip": lambda x: x.flip(-1),
    "detach": lambda x: x.detach() * 0.5 + x,
    "doubled": lambda x: (x.double() * 0.5).to(x.dtype),
}


def _written(x: Tensor) -> Tensor:
    x[..., :1] *= 2
    return x


def linear(draws: random.Random, c: int, wide: bool = False) -> Block:
    """A linear map, mostly ``nn.Linear``, sometimes parametrized."""
    out = draws.choice([1, 2, 3, 4, 6, 24 if wide else 5])
    layer = nn.Linear(c, out, bias=draws.random() < 0.8)
    if draws.random() < 0.2 and c and out:
        layer = parametrized(draws, layer)
    return layer, out


def parametrized(draws: random.Random, layer: nn.Module) -> nn.Module:
    """A layer whose weight is computed from other parameters."""
    kind = draws.choice(["weight", "old weight", "spectral", "orthogonal", "own"])
    if kind == "weight":
        return parametrizations.weight_norm(layer)
    if kind == "spectral":
        return parametrizations.spectral_norm(layer)
    if kind == "orthogonal" and isinstance(layer, nn.Linear):
        return parametrizations.orthogonal(layer)
    if kind == "old weight":
        return torch.nn.utils.weight_norm(layer)
    parametrize.register_parametrization(layer, "weight", Apply("own", lambda w: w * 1.5 - 0.1 * w.tanh()))
    return layer


def same(draws: random.Random, kind: str, c: int) -> Block:
    """A block that any kind of value may pass, and that keeps the number of channels."""
    name = draws.choice([*SMOOTH, "identity", "writing", "relu", "relu", "leaky"])
    if name == "identity":
        return nn.Identity(), c
    if name == "writing":
        return Writing(), c
    if name == "dropout" and draws.random() < 0.5:
        return nn.Dropout(0.3), c
    return Apply(name, SMOOTH[name]), c


def vector(draws: random.Random, c: int) -> Block:
    """Of ``[n, c]``."""
    norms: list[Callable[[], nn.Module]] = [lambda: nn.LayerNorm(c), lambda: nn.RMSNorm(c), lambda: nn.GroupNorm(1, c)]
    norms += [lambda: nn.BatchNorm1d(c, affine=draws.random() < 0.7), lambda: CustomScale(c, draws.random() < 0.2)]
    return _last_axis(draws, c, norms)


def sequence(draws: random.Random, c: int) -> Block:
    """Of ``[n, t, c]``."""
    mixing: list[Callable[[], nn.Module]] = [
        lambda: nn.LayerNorm(c),
        lambda: Attention(c, draws.random() < 0.5),
        lambda: First(nn.MultiheadAttention(c, 1, batch_first=True, bias=draws.random() < 0.5), 3),
        lambda: nn.TransformerEncoderLayer(c, 1, 5, batch_first=True, norm_first=draws.random() < 0.5),
        lambda: First(draws.choice([nn.GRU, nn.LSTM, nn.RNN])(c, c, batch_first=True)),
    ]
    return _last_axis(draws, c, mixing)


def _last_axis(draws: random.Random, c: int, others: list[Callable[[], nn.Module]]) -> Block:
    name = draws.choice(["linear"] * 4 + ["packed"] * 2 + ["other"] * 3 + ["complex", "bilinear", "penalised"])
    if not c and name in ("other", "bilinear", "complex"):
        name = "linear"
    out = draws.choice([1, 2, 3, 5])
    if name == "linear":
        return linear(draws, c, wide=True)
    if name == "packed":
        return Packed(c, out, draws.choice(["einsum", "matmul", "func", "jvp", "data", "linear"])), out
    if name == "complex":
        return ComplexMap(c, out), out
    if name == "bilinear":
        return Twice(nn.Bilinear(c, c, out)), out
    if name == "penalised":
        return Penalised(c), c
    return draws.choice(others)(), c


def signal(draws: random.Random, c: int) -> Block:
    """Of ``[n, c, t]``."""
    return _convolved(draws, c, nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d, nn.InstanceNorm1d)


def image(draws: random.Random, c: int) -> Block:
    """Of ``[n, c, h, w]``."""
    return _convolved(draws, c, nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.InstanceNorm2d)


def _convolved(
    draws: random.Random,
    c: int,
    conv: type[nn.Module],
    transposed: type[nn.Module],
    batch_norm: type[nn.Module],
    instance_norm: type[nn.Module],
) -> Block:
    name = draws.choice(["conv"] * 4 + ["depthwise", "transposed", "norm", "norm", "pool"])
    out = draws.choice([1, 2, 3, 4])
    if name == "norm":
        made = draws.choice(
            [
                lambda: batch_norm(c, track_running_stats=draws.random() < 0.8),
                lambda: instance_norm(c, affine=draws.random() < 0.5, track_running_stats=draws.random() < 0.5),
                lambda: nn.GroupNorm(draws.choice([g for g in (1, 2, 3, c) if not c % g]), c),
            ]
        )
        return made(), c
    if name == "pool":
        flat = conv is nn.Conv1d
        pools = [nn.MaxPool1d, nn.AvgPool1d] if flat else [nn.MaxPool2d, nn.AvgPool2d]
        return draws.choice(pools)(3, 1, 1), c
    if name == "transposed":
        return transposed(c, out, 3, padding=1, bias=draws.random() < 0.7), out
    groups = c if name == "depthwise" else 1
    padding = draws.choice(["zeros", "zeros", "circular", "replicate"])
    layer = conv(c, groups * out, 3, padding=1, groups=groups, padding_mode=padding, bias=draws.random() < 0.7)
    return (parametrized(draws, layer) if draws.random() < 0.15 else layer), groups * out


def combined(draws: random.Random, kind: str, c: int, depth: int = 0) -> Block:
    """A block, or blocks in a residual, concatenated, gated, routed, repeated or checkpointed."""
    name = draws.choice(["plain"] * 6 + ["residual", "cat", "gate", "route", "route", "repeat", "checkpoint"])
    if name == "plain" or depth > 1:
        return plain(draws, kind, c)
    one, out = combined(draws, kind, c, depth + 1)
    if name == "cat":
        other, more = combined(draws, kind, c, depth + 1)
        return Concatenated(one, other, -1 if kind in ("vector", "sequence") else 1), out + more
    if name == "checkpoint":
        return Checkpointed(one, draws.random() < 0.3), out
    if name == "repeat":
        return (Repeated(one, 2) if out == c else one), out
    if name == "residual":
        return (Residual(one, draws.random() < 0.3) if out == c else one), out
    other = matching(draws, kind, c, out)
    if name == "gate":
        return Gated(one, other), out
    return Routed(one, other, draws.choice(["rows", "training", "sum", "values"])), out


def several(draws: random.Random, kind: str, c: int) -> tuple[list[nn.Module], int]:
    """A block, or a wide layer, an activation and a layer that reads it: what methods can move."""
    if draws.random() < 0.5:
        block, c = combined(draws, kind, c)
        return [block], c
    wide, out = draws.choice([8, 16, 24]), draws.choice([3, 8, 16])
    layers = [matching(draws, kind, c, wide), matching(draws, kind, wide, out)]
    activation = draws.choice(["relu", "leaky", "leaky", "tanh", "gelu", "relu", "softplus"])
    return [layers[0], Apply(activation, SMOOTH[activation]), layers[1]], out


def matching(draws: random.Random, kind: str, c: int, out: int) -> nn.Module:
    """A small block of a given number of output channels."""
    if kind in ("vector", "sequence"):
        return nn.Linear(c, out)
    return (nn.Conv1d if kind == "signal" else nn.Conv2d)(c, out, 1)


def plain(draws: random.Random, kind: str, c: int) -> Block:
    """One layer of a kind."""
    if draws.random() < 0.4:
        return same(draws, kind, c)
    return {"vector": vector, "sequence": sequence, "signal": signal, "image": image}[kind](draws, c)
