"""``teleport.match`` beside rebasin's weight matching: does the function stay, how near, how high a barrier, how long.

    pip install rebasin==0.0.47
    python scripts/compare_matching.py [--epochs 20] [--seeds 3]

Both descend on the distance of the weights by permutations (Ainsworth et al. 2023, Algorithm 1). Networks of two
seeds are trained on the digits of scikit-learn. One thread; seconds are those of the processor.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import teleport


class ResidualNetwork(nn.Module):
    """Two residual blocks of two convolutions, with layer-wise weights that no norm rescales."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.inner = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.outer = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        """``[samples, 10]`` from ``[samples, 1, 8, 8]``."""
        x = self.stem(x).relu()
        for inner, outer in zip(self.inner, self.outer, strict=True):
            x = (x + outer(inner(x).relu())).relu()
        return self.head(x.mean((2, 3)))


def multilayer_perceptron() -> nn.Module:
    """64-256-256-10."""
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    )


def convolutional_network() -> nn.Module:
    """Two convolutions, pooling, a linear layer on flattened channels."""
    first, second = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
    return nn.Sequential(
        *(first, nn.ReLU(), nn.MaxPool2d(2), second, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10))
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "MLP 64-256-256-10": multilayer_perceptron,
    "CNN 16-32": convolutional_network,
    "residual network of 16 channels": ResidualNetwork,
}


def digits() -> tuple[Tensor, Tensor]:
    """Images ``[1797, 1, 8, 8]`` and labels."""
    data = load_digits()
    return torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(data.target)


def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The mean cross-entropy."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def trained(make: Callable[[], nn.Module], seed: int, data: tuple[Tensor, Tensor], epochs: int) -> nn.Module:
    """A network of one seed, trained with Adam in batches of 64."""
    torch.manual_seed(seed)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(epochs):
        for part in torch.randperm(len(data[0])).split(64):
            optimizer.zero_grad()
            loss_fn(model, (data[0][part], data[1][part])).backward()
            optimizer.step()
    return model.eval()


def by_teleport(a: nn.Module, b: nn.Module, inputs: Tensor) -> nn.Module:
    """``b`` with its units permuted to those of ``a``, by this library."""
    return teleport.match(a, b, [inputs], group="permutation").model


def by_rebasin(a: nn.Module, b: nn.Module, inputs: Tensor) -> nn.Module:
    """The same by rebasin."""
    from rebasin import PermutationCoordinateDescent

    moved = copy.deepcopy(b)
    descent = PermutationCoordinateDescent(a, moved, input_data_b=inputs[:1], logging_level="error")
    descent.rebasin()
    return moved


def row(moved: nn.Module, a: nn.Module, b: nn.Module, data: tuple[Tensor, Tensor]) -> list[float]:
    """The change of the outputs, the distance of the weights (both relative), and the barrier of the training loss."""
    with torch.no_grad():
        outputs = [model(data[0]) for model in (b, moved)]
        pairs = list(zip(a.parameters(), moved.parameters(), strict=True))
        distance = sum(float((one - two).square().sum()) for one, two in pairs)
        norm = sum(float(one.square().sum()) for one, _ in pairs)
    change = float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max())
    return [change, (distance / norm) ** 0.5, teleport.barrier(a, moved, [data], loss_fn).height]


def main(arguments: list[str]) -> int:
    """Print one line per network, pair of seeds and program; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=20, help="of the trainings (20)")
    parser.add_argument("--seeds", type=int, default=3, help="pairs of networks (3)")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    data = digits()
    for name, make in NETWORKS.items():
        for pair in range(given.seeds):
            a, b = (trained(make, 2 * pair + each, data, given.epochs) for each in (0, 1))
            rows = {"as they are": (0.0, row(b, a, b, data))}
            for program, matched in {"match": by_teleport, "rebasin": by_rebasin}.items():
                start = time.process_time()
                moved = matched(a, b, data[0][:64])
                rows[program] = (time.process_time() - start, row(moved, a, b, data))
            for program, (seconds, (change, distance, barrier)) in rows.items():
                print(
                    f"{name}, seeds {2 * pair} and {2 * pair + 1}, {program}: outputs change by {change:.1e}, distance "
                    f"{distance:.3f}, barrier {barrier:.3f}, {seconds:.2f} s"
                )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
