"""``teleport.Balance`` beside the program of PathCond: how far the end points differ, and seconds of the processor.

    git clone https://github.com/Artim436/pathcond /tmp/pathcond && git -C /tmp/pathcond checkout e864e76
    python scripts/compare_balance.py /tmp/pathcond

Their program needs tqdm and torchvision. One thread, single precision.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import teleport


class ConvolutionalNetwork(nn.Module):
    """Four convolutions, with the names that their program looks for."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1)
        self.conv2 = nn.Conv2d(16, 32, 3, 2, 1)
        self.conv3 = nn.Conv2d(32, 32, 3, 2, 1)
        self.conv4 = nn.Conv2d(32, 10, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[samples, 10]`` from ``[samples, 3, height, width]``."""
        x = self.conv3(self.conv2(self.conv1(x).relu()).relu()).relu()
        return self.conv4(x).mean((2, 3))


def off_by(model: nn.Module, other: nn.Module) -> float:
    """The largest difference of a parameter, relative to the largest element of its tensor."""
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return max(float((one - two).detach().abs().max() / two.detach().abs().max()) for one, two in pairs)


def seconds(work: Callable[[], object]) -> float:
    """Of the processor."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main(arguments: list[str]) -> int:
    """Print one line per network and criterion; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("repository", type=Path, help="a checkout of PathCond")
    sys.path.insert(0, str(parser.parse_args(arguments).repository))
    from pathcond.models import MLP
    from pathcond.rescaling_polyn import optimize_rescaling_polynomial, reweight_model_inplace

    def theirs(model: nn.Module, norms: bool, sweeps: int, tolerance: float) -> None:
        factors, _ = optimize_rescaling_polynomial(model, n_iter=sweeps, tol=tolerance, enorm=norms)
        reweight_model_inplace(model, factors, enorm=norms)

    torch.set_num_threads(1)
    torch.manual_seed(0)
    cases = {
        "MLP 784-256-256-10": (MLP([784, 256, 256, 10]), torch.ones(1, 784)),
        "CNN 16-32-32-10": (ConvolutionalNetwork(), torch.ones(1, 3, 32, 32)),
    }
    for name, (model, inputs) in cases.items():
        for criterion in ("path_conditioning", "minimal_norm"):
            own, quick, full = (copy.deepcopy(model) for _ in range(3))
            norms = criterion == "minimal_norm"
            times = [
                seconds(lambda own=own, batch=inputs, kind=criterion: teleport.Balance(kind)(own, [batch])),
                seconds(lambda quick=quick, norms=norms: theirs(quick, norms, 10, 1e-2)),
                seconds(lambda full=full, norms=norms: theirs(full, norms, 300, 1e-9)),
            ]
            print(
                f"{name}, {criterion}: Balance {times[0]:.2f} s; theirs {times[1]:.2f} s by default, off by "
                f"{off_by(quick, own):.1e}; {times[2]:.2f} s to 1e-9, off by {off_by(full, own):.1e}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
