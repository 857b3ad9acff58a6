"""The loop: optimizer steps, teleports between them, evaluations, checkpoints. Read it from top to bottom.

A run without teleports is the same loop, and sees the same batches.
"""

from __future__ import annotations

import copy
import logging
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from tqdm import tqdm

from experiments import checkpoints
from experiments.clock import Clock
from experiments.config import Config
from experiments.errors import UserError
from experiments.evaluation import Evaluation, Evaluator
from experiments.records import Records
from experiments.seeding import Stream, generator
from experiments.tasks import Task
from teleport import Schedule, TeleportReport, UnsupportedModel, transport_state

log = logging.getLogger(__name__)

CHECK_EVERY = 20
"""Steps after which the losses are looked at, as that waits for the device. Checkpoints fall on these steps too."""


def steps_per_epoch(task: Task, batch_size: int) -> int:
    """Optimizer steps an epoch; the last batch may be smaller."""
    return math.ceil(len(task.train) / batch_size)


def train(
    task: Task,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    teleporter: Callable[..., TeleportReport] | None,
    schedule: Schedule,
    config: Config,
    folder: Path,
    device: torch.device,
) -> tuple[nn.Module, Records]:
    """Train ``model`` in place, from its checkpoint in ``folder`` where there is one.

    Returns the model as it is at the end, which is another around it where a teleport rewrote its activations.

    A training loss that is not finite ends the run: that is a finding, and its step is noted in the records.

    Raises:
        UserError: a damaged checkpoint, or a folder that cannot be written.
    """
    settings, checkpoint = config.training, folder / "checkpoint.pt"
    batch_size, per_epoch = settings.batch_size, steps_per_epoch(task, settings.batch_size)
    last_step = min(settings.epochs * per_epoch, settings.max_steps or sys.maxsize)
    eval_every = settings.eval_every or per_epoch
    evaluate = Evaluator(task, settings.eval_samples, batch_size, device)
    fresh_state = copy.deepcopy(optimizer.state_dict()["state"])
    plateau = None
    if settings.plateau.factor is not None:
        plateau = ReduceLROnPlateau(optimizer, factor=settings.plateau.factor, patience=settings.plateau.patience)

    if checkpoint.exists():
        model, records = checkpoints.load(checkpoint, model, optimizer, plateau)
        log.info("goes on from step %d of %d", records.step, last_step)
    else:
        records = Records()
        _record(records, evaluate(model), per_epoch, optimizer, task.metric)

    model.train()
    clock, saved, order, losses = Clock(device), time.monotonic(), torch.empty(0), []
    hidden = not (config.machine.progress and sys.stderr.isatty())
    with tqdm(total=last_step, initial=records.step, unit="step", leave=False, disable=hidden) as progress:
        while records.step < last_step and records.diverged_step is None:
            epoch, position = divmod(records.step, per_epoch)
            if position == 0 or not len(order):
                source = generator(config.seed, Stream.ORDER, epoch)
                order = torch.randperm(len(task.train), generator=source).to(device)

            event = schedule.event_before(records.step) if teleporter is not None else None
            if event is not None:
                records.training_seconds += clock.stop()
                before = records.latest() or evaluate(model)
                seconds, report = _teleport(event, teleporter, task, model, config, device)
                model = model if report.model is None else report.model
                if config.teleport.optimizer_state == "reset":
                    fresh = copy.deepcopy(fresh_state)  # the optimizer goes on to write into what it loads
                    optimizer.load_state_dict(optimizer.state_dict() | {"state": fresh})
                elif config.teleport.optimizer_state == "transported":
                    transport_state(optimizer, report.group or {})
                after = before if report.no_op else evaluate(model)
                records.add_teleport(event, records.step / per_epoch, seconds, before, after, report)
                records.teleport_seconds += seconds
                _log_teleport(event, records.step, seconds, before, after, report)

            clock.start()
            index = order[position * batch_size : (position + 1) * batch_size]
            inputs, targets = task.train.batch(index, generator(config.seed, Stream.AUGMENTATION, records.step))
            optimizer.zero_grad(set_to_none=True)
            loss = task.loss(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            records.step += 1
            progress.update()

            evaluation_due = records.step % eval_every == 0 or records.step == last_step
            if not evaluation_due and records.step % CHECK_EVERY != 0:
                continue
            records.training_seconds += clock.stop()
            records.diverged_step = _first_not_finite(losses, records.step)
            losses.clear()
            if evaluation_due or records.diverged_step is not None:
                evaluation = evaluate(model)
                _record(records, evaluation, per_epoch, optimizer, task.metric)
                if plateau:
                    plateau.step(evaluation.train_loss)
            if evaluation_due or time.monotonic() - saved >= config.machine.checkpoint_seconds:
                records.write(folder)
                checkpoints.save(checkpoint, model, optimizer, plateau, records)
                saved = time.monotonic()
    records.write(folder)
    return model, records


def _teleport(
    event: int,
    teleporter: Callable[..., TeleportReport],
    task: Task,
    model: nn.Module,
    config: Config,
    device: torch.device,
) -> tuple[float, TeleportReport]:
    """Draw the batches of an event and teleport on them; the seconds of both."""
    settings, clock = config.teleport, Clock(device)

    def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return task.loss(model(batch[0]), batch[1])

    def draw(stream: Stream, batches: int) -> list[tuple[Tensor, Tensor]]:
        source = generator(config.seed, stream, event)
        orders = [torch.randperm(len(task.train), generator=source) for _ in range(batches)]
        return [task.train.batch(order[: settings.samples].to(device)) for order in orders]

    clock.start()
    batches = draw(Stream.TELEPORT, settings.batches)
    options: dict[str, Any] = {}
    if constraint_batches := getattr(settings, "constraint_batches", 0):
        options["constraint"] = draw(Stream.CONSTRAINT, constraint_batches)
    if hasattr(teleporter, "generator"):  # by the event, so that a resumed run draws what an unbroken one does
        options["generator"] = generator(getattr(settings, "seed", config.seed), Stream.DRAW, event)
    try:
        report = teleporter(model, batches, loss_fn, **options)
    except UnsupportedModel as error:
        raise UserError(f"teleport={settings.name} does not go with model={config.model.name}: {error}") from error
    return clock.stop(), report


def _first_not_finite(losses: list[Tensor], step: int) -> int | None:
    """The step whose loss was the first that is not finite, of the ``losses`` of the steps up to ``step``."""
    bad = (~torch.stack(losses).isfinite()).nonzero().flatten().tolist()
    return step - len(losses) + bad[0] if bad else None


def _record(
    records: Records, evaluation: Evaluation, per_epoch: int, optimizer: torch.optim.Optimizer, metric: str
) -> None:
    """A row of the curve, and a line of the log; a loss that is not finite is a divergence."""
    epoch = records.step / per_epoch
    records.add_evaluation(epoch, optimizer.param_groups[0]["lr"], evaluation)
    if records.diverged_step is None and not math.isfinite(evaluation.train_loss):
        records.diverged_step = records.step
    log.info(
        "epoch %6.2f  step %6d  train loss %.4f  test loss %.4f  test %s %.4f  %.1f s",
        *(epoch, records.step, evaluation.train_loss, evaluation.test_loss, metric, evaluation.test_metric),
        records.seconds,
    )
    if records.diverged_step is not None:
        log.info("diverged: the training loss of step %d is not finite, so the run ends here", records.diverged_step)


def _log_teleport(
    event: int, step: int, seconds: float, before: Evaluation, after: Evaluation, report: TeleportReport
) -> None:
    """A line on what the event did; where it did nothing, why, layer by layer."""
    if report.no_op:
        reasons = report.reasons() or "; ".join(sorted({batch.reason or batch.stopped for batch in report.batches}))
        log.info("teleport %d before step %d moved nothing, %.1f s:", event, step, seconds)
        log.info("  %s", reasons.replace("\n", "\n  "))
        return
    moved = sum(layer.relative_change > 0 for layer in report.layers)
    log.info(
        "teleport %d before step %d: gradient norm %.4g -> %.4g, train loss %.4f -> %.4f, test loss %.4f -> %.4f, "
        "%d of %d layers moved, %.1f s",
        *(event, step, report.gradient_norm_before, report.gradient_norm_after),
        *(before.train_loss, after.train_loss, before.test_loss, after.test_loss),
        *(moved, len(report.layers), seconds),
    )
