"""A process that times null-space events with the library that it finds first: ``teleport`` of this tree or of another.

It is run as a script. It reads a file of a model and batches, settings and a number of threads from its arguments; per
line of standard input it makes one event on a copy of the model, and prints its seconds and steps as JSON.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import teleport
from experiments.data.compat import torchvision


def main(file: str, settings: dict[str, Any], threads: int) -> None:
    """Answer each line of standard input with one event."""
    torch.set_num_threads(threads)
    torchvision()  # a model of it may be in the file
    model, batches = torch.load(file, weights_only=False)  # of the process that started this one
    known = {each.name for each in dataclasses.fields(teleport.NullSpace)}
    method = teleport.NullSpace(**{key: value for key, value in settings.items() if key in known})
    print(json.dumps({"library": str(Path(teleport.__file__).parent)}), flush=True)
    for _ in sys.stdin:
        own = copy.deepcopy(model)
        start = time.perf_counter()
        report = method(own, batches, _loss)
        seconds = time.perf_counter() - start
        norms = {"norm_before": report.gradient_norm_before, "norm_after": report.gradient_norm_after}
        print(json.dumps({"seconds": seconds, "steps": report.steps, **norms}), flush=True)


def _loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]))
