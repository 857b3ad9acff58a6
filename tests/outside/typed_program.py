"""A strictly typed program of a user: every line passes mypy and pyright, except those that end with ``# wrong``."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import teleport
from teleport import Auto, Callback, ChangeOfBasis, LevelSet, NullSpace, Orbit, Progress, ProgressLine, Teleporter

Batch = tuple[Tensor, Tensor]


def loss_fn(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def stop_at_norm(progress: Progress) -> bool:
    return progress.gradient_norm > 10.0


class Still:
    """A method of one's own."""

    def __call__(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        loss_fn: teleport.LossFn,
        *,
        generator: torch.Generator | None = None,
        callback: Callback | None = None,
        keep_modes: bool = False,
        process_group: Any = None,
    ) -> teleport.TeleportReport:
        return teleport.TeleportReport("still", 0.0, 0.0, 0.0, 0.0, batches=[], layers=[], seconds=0.0)


class Norm(teleport.SquaredGradientNorm):
    """An objective of one's own."""


def train(model: nn.Module, loader: list[Batch], optimizer: torch.optim.Optimizer) -> list[teleport.TeleportReport]:
    methods: list[Teleporter] = [NullSpace(steps=2, relative_cap=2.0), LevelSet(), ChangeOfBasis(range=0.5), Still()]
    schedule = teleport.Schedule(epochs=[0, 2], steps_per_epoch=len(loader))
    reports: list[teleport.TeleportReport] = []
    for step, batch in enumerate(loader):
        if schedule.event_before(step) is not None:
            callback: Callback = ProgressLine(stop_at_norm, show=False)
            reports += [method(model, [batch], loss_fn, callback=callback) for method in methods]
        torch.autograd.backward(loss_fn(model, batch))
    auto = Auto(optimizer, total_steps=10, method=NullSpace(objective=Norm()))
    report = auto.before_step(model, loader[0], loss_fn)
    if report is not None and report.trial is not None:
        gain: float = report.trial.gain
        print(gain, [layer.relative_change for layer in report.layers], report.batches[0].stopped == "callback")
    return reports


def rewritten(model: nn.Module, inputs: Tensor, path: Path) -> nn.Module:
    report = ChangeOfBasis(group="all")(model, [inputs])
    assert report.model is not None
    assert report.change is not None
    found: teleport.Symmetries = teleport.find_symmetries(model, inputs)
    print(found, report.difference)
    loaded, change = teleport.load(path, report.model)
    return loaded if change is None else change.inverse().apply(loaded)


NullSpace(step="longest")  # wrong
NullSpace(steps="3")  # wrong
Orbit(shape=(3,))  # wrong
method: Teleporter = stop_at_norm  # wrong
NullSpace()(nn.Linear(2, 2), [], loss_fn, callbacks=stop_at_norm)  # wrong
text: int = teleport.assess(nn.Linear(2, 2), [], loss_fn, torch.optim.SGD([], 0.1)).reasons  # wrong
