"""Small networks, one per way to use a layer; the layer is never the first one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teleport import TeleportReport

CLASSES = 3
SAMPLES = 4
WIDTH = 24


@dataclass(frozen=True)
class Network:
    """A model, the shape of one input, and the layers (by report name) that must move."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    moving: tuple[str, ...]

    def __str__(self) -> str:
        return self.name

    def make(self, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
        """The model with a fixed seed, and one batch."""
        torch.manual_seed(3)
        model = self.build().to(dtype).eval()
        inputs = torch.randn(SAMPLES, *self.shape).to(dtype)
        return model, (inputs, torch.arange(SAMPLES) % CLASSES)


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


class Calls(nn.Module):
    """Modules and parameters by name, with a forward pass given as a function."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **members: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.called = forward
        for name, module in members.items():
            setattr(self, name, module)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.called(self, inputs)


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) / shape[0] ** 0.5)


def mlp(width: int = WIDTH) -> nn.Module:
    return nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, CLASSES))


def between(use: Callable[[Any, Tensor], Tensor], **made: Callable[[], Any]) -> Callable[[], nn.Module]:
    """tanh(Linear) -> tanh(the use) -> Linear; ``made`` are factories, so that no two models share a parameter."""

    def build() -> nn.Module:
        return Calls(
            lambda net, x: net.last(torch.tanh(use(net, torch.tanh(net.first(x))))),
            first=nn.Linear(6, WIDTH),
            last=nn.Linear(WIDTH, CLASSES),
            **{name: make() for name, make in made.items()},
        )

    return build


def _flat(first: Callable[[], nn.Module], layer: Callable[[], nn.Module], outputs: int) -> Callable[[], nn.Module]:
    """first -> tanh -> the layer -> tanh -> Linear on the flattened result."""
    return lambda: nn.Sequential(first(), nn.Tanh(), layer(), nn.Tanh(), nn.Flatten(), nn.Linear(outputs, CLASSES))


def _convolutions() -> list[Network]:
    def one(name: str, spatial: int, channels: int, outputs: int, size: int = 2, **kwargs: Any) -> Network:
        convolution = getattr(nn, f"Conv{spatial}d")
        build = _flat(lambda: convolution(2, channels, 1), lambda: convolution(channels, **kwargs), outputs)
        return Network(name, build, (2, *[size] * spatial), ("2.weight", "5.weight"))

    return [
        one("conv1d", 1, 12, 8, size=4, out_channels=4, kernel_size=3, stride=2, padding=1),
        one("conv1d valid dilated", 1, 12, 8, size=4, out_channels=4, kernel_size=2, dilation=2, padding="valid"),
        one("conv2d no bias", 2, 12, 16, out_channels=4, kernel_size=2, padding="same", bias=False),
        one("conv2d circular", 2, 12, 16, out_channels=4, kernel_size=3, padding=1, padding_mode="circular"),
        one("conv2d reflect", 2, 12, 16, out_channels=4, kernel_size=3, padding=1, padding_mode="reflect"),
        one("conv2d replicate", 2, 12, 16, out_channels=4, kernel_size=3, padding=1, padding_mode="replicate"),
        one("conv2d groups", 2, 24, 16, out_channels=4, kernel_size=3, padding=1, groups=2),
        one("conv2d depthwise", 2, 6, 6, size=5, out_channels=6, kernel_size=5, groups=6),
        one("conv3d", 3, 8, 16, out_channels=2, kernel_size=3, padding=1),
    ]


def _transposed_convolutions() -> list[Network]:
    def one(name: str, spatial: int, outputs: int, **kwargs: Any) -> Network:
        convolution, transposed = getattr(nn, f"Conv{spatial}d"), getattr(nn, f"ConvTranspose{spatial}d")
        build = _flat(lambda: convolution(2, 40, 1), lambda: transposed(40, 4, 2, **kwargs), outputs)
        return Network(name, build, (2, *[2] * spatial), ("2.weight", "5.weight"))

    return [
        one("transposed conv1d", 1, 16, stride=2),
        one("transposed conv2d", 2, 100, stride=2, output_padding=1, bias=False),
        one("transposed conv2d dilated", 2, 64, dilation=2),
        one("transposed conv3d", 3, 4 * 27),
        one("transposed conv1d groups", 1, 8, groups=2, padding=1, stride=2),
    ]


def _normed(net: Any, x: Tensor) -> Tensor:
    return net.last(torch.tanh(net.middle(net.norm(torch.tanh(net.first(x))))))


LINEAR = [
    Network("linear", mlp, (6,), ("2.weight", "4.weight")),
    Network(
        "linear no bias",
        between(lambda net, x: net.used(x), used=lambda: nn.Linear(WIDTH, WIDTH, bias=False)),
        (6,),
        ("used.weight", "last.weight"),
    ),
    Network("linear by token", lambda: nn.Sequential(mlp(), nn.Flatten(), nn.Linear(6, 3)), (2, 6), ("0.2.weight",)),
    Network(
        "matmul", between(lambda net, x: x @ net.used, used=lambda: weight(WIDTH, WIDTH)), (6,), ("used", "last.weight")
    ),
    Network(
        "matmul by keywords",
        between(lambda net, x: torch.matmul(input=x, other=net.used), used=lambda: weight(WIDTH, WIDTH)),
        (6,),
        ("used", "last.weight"),
    ),
    Network(
        "addmm",
        between(
            lambda net, x: torch.addmm(net.bias, x, net.used),
            used=lambda: weight(WIDTH, WIDTH),
            bias=lambda: weight(WIDTH),
        ),
        (6,),
        ("used", "last.weight"),
    ),
    Network(
        "called twice",
        between(lambda net, x: net.used(torch.tanh(net.used(x))), used=lambda: nn.Linear(WIDTH, WIDTH)),
        (6,),
        ("used.weight", "last.weight"),
    ),
    Network(
        "packed in one vector",
        between(
            lambda net, x: F.linear(x, net.used[: WIDTH * WIDTH].view(WIDTH, WIDTH), net.used[WIDTH * WIDTH :]),
            used=lambda: weight(WIDTH * (WIDTH + 1)),
        ),
        (6,),
        (f"used[{WIDTH}x{WIDTH} at 0]", "last.weight"),
    ),
    Network(
        "experts",
        between(
            lambda net, x: torch.cat([x[:1] @ net.used[0], x[1:] @ net.used[1], x[:0] @ net.used[2]]),
            used=lambda: weight(3, WIDTH, WIDTH),
        ),
        (6,),
        (f"used[{WIDTH}x{WIDTH} at 0]", f"used[{WIDTH}x{WIDTH} at {WIDTH * WIDTH}]", "last.weight"),
    ),
    Network(
        "columns",
        between(
            lambda net, x: F.linear(x[:, :12], net.used[:, :12]) + F.linear(torch.sin(x[:, 12:]), net.used[:, 12:]),
            used=lambda: weight(WIDTH, WIDTH),
        ),
        (6,),
        (f"used[{WIDTH}x12 at 0]", f"used[{WIDTH}x12 at 12]", "last.weight"),
    ),
    Network(
        "normed",
        lambda: Calls(
            _normed,
            first=nn.Linear(6, WIDTH),
            norm=nn.BatchNorm1d(WIDTH),
            middle=nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.Dropout(0.5)),
            last=nn.Linear(WIDTH, CLASSES),
        ),
        (6,),
        ("middle.0.weight", "last.weight"),
    ),
    Network(
        "channels last",
        lambda: nn.Sequential(
            nn.Conv2d(2, 16, 1), nn.Tanh(), nn.Conv2d(16, 4, 3, padding=1), nn.Flatten(), nn.Linear(16, CLASSES)
        ).to(memory_format=torch.channels_last),
        (2, 2, 2),
        ("2.weight",),
    ),
    Network(
        "unbatched",
        lambda: Calls(
            lambda net, x: net.last(torch.stack([torch.tanh(net.used(torch.tanh(each))) for each in net.first(x)])),
            first=nn.Conv1d(2, 12, 1),
            used=nn.Conv1d(12, 4, 3, padding=1),
            last=nn.Sequential(nn.Flatten(), nn.Linear(8, CLASSES)),
        ),
        (2, 2),
        ("used.weight", "last.1.weight"),
    ),
]

CONVOLUTIONS = [*_convolutions(), *_transposed_convolutions()]

PLAIN = LINEAR[0]


def batches_of(count: int, n: int = 8) -> list[tuple[Tensor, Tensor]]:
    """Batches for the plain network, in double precision."""
    generator = torch.Generator().manual_seed(5)
    return [(torch.randn(n, 6, generator=generator).double(), torch.arange(n) % CLASSES) for _ in range(count)]


def changes(report: TeleportReport) -> dict[str, float]:
    """The relative change of each layer, by name."""
    return {layer.name: layer.relative_change for layer in report.layers}


def without_unused(model: nn.Module, loss_fn: Any, batch: Any) -> nn.Module:
    """The model without parameters that the loss does not depend on, whose modules might read any channel."""
    named = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss_fn(model, batch), list(named.values()), allow_unused=True)
    for name, gradient in zip(named, gradients, strict=True):
        if gradient is None:
            path, _, last = name.rpartition(".")
            model.get_submodule(path).register_parameter(last, None)
    return model
