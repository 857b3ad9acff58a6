"""A process that measures the peak memory of one piece of work, with the library that it finds first.

It is run as a script, once per cell of the benchmark ``memory``: ``teleport`` is then this tree's or an earlier one. It
reads a case, a method and a number of threads as JSON from its argument, does the work once on a tiny network, which
excludes one-time allocations, then on the case, and prints what it measured as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

import teleport
from experiments.configuration.model_config import TransformerConfig
from experiments.models.transformer import build
from experiments.tasks import Spec

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

TINY = {"layers": 1, "heads": 1, "length": 8, "vocabulary": 11}


def main(asked: dict[str, Any]) -> None:
    """Measure, and print a line of JSON."""
    torch.set_num_threads(asked["threads"])
    device = torch.device(asked["device"])
    _work(TINY, asked["settings"], device)()
    _first_tangent()
    work = _work(asked["case"], asked["settings"], device)
    before = _start(device)
    began, spent = time.perf_counter(), time.process_time()
    report = work()
    found = {"seconds": time.perf_counter() - began, "processor_seconds": time.process_time() - spent}
    peak = _peak(device) - before
    weights = sum(each.numel() * each.element_size() for each in work.model.parameters())
    found |= {"peak_bytes": peak, "weights_bytes": weights, "library": str(Path(teleport.__file__).parent)}
    found |= {"steps_taken": 0, "moved": 0, "chosen": ""}
    if report is not None:
        found["steps_taken"] = report.steps
        found["moved"] = sum(layer.relative_change > 0 for layer in report.layers)
        found["chosen"] = getattr(report, "memory", "")
    print(json.dumps(found), flush=True)


def _first_tangent() -> None:
    """What torch loads once per process, at its first tangent."""
    with forward_ad.dual_level():
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))


class _work:
    """A training step, or a teleport with ``settings`` (``None`` for a training step), of a transformer."""

    def __init__(self, case: dict[str, int], settings: dict[str, Any] | None, device: torch.device) -> None:
        torch.manual_seed(0)
        spec = Spec("text", (case["length"],), case["vocabulary"])
        config = TransformerConfig(name="transformer", heads=case["heads"], head_dim=64, layers=case["layers"])
        self.model = build(config, spec).to(device)
        tokens = torch.randint(case["vocabulary"], (1, case["length"] + 1), device=device)
        self.batch = tokens[:, :-1], tokens[:, 1:]
        self.settings = settings

    def __call__(self) -> Any:
        if self.settings is None:
            optimizer = torch.optim.SGD(self.model.parameters(), 0.01)
            _loss(self.model, self.batch).backward()
            optimizer.step()
            return None
        known = {each.name for each in dataclasses.fields(teleport.NullSpace)}
        method = teleport.NullSpace(**{key: value for key, value in self.settings.items() if key in known})
        return method(self.model, [self.batch], _loss)


def _loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, targets = batch
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


def _start(device: torch.device) -> int:
    """Begin a new peak; the memory held now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    if not CLEAR.exists():
        return _peak(device)
    CLEAR.write_text("5")  # Linux: the peak is again what is held now
    return _kibibytes("VmRSS") * 1024


def _peak(device: torch.device) -> int:
    """The peak since the start; on a GPU that of torch's allocator, without ``/proc`` that of the process's life."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if STATUS.exists():
        return _kibibytes("VmHWM") * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _kibibytes(name: str) -> int:
    held = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(held[name].split()[0])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
