"""The training loop: optimizer steps, teleports between them, evaluations, checkpoints.

A run without teleports uses the same loop and the same batches.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from tqdm import tqdm

from experiments.configuration.config import Config
from experiments.run import checkpoints
from experiments.run.batches import TrainingBatches, last_step_of
from experiments.run.clock import Clock, counts_processor
from experiments.run.evaluation import Evaluation, Evaluator
from experiments.run.forward import training_loss
from experiments.run.processes import ALONE, Processes
from experiments.run.records import Records
from experiments.run.runs import CHECKPOINT
from experiments.run.teleporting import OptimizerMemory, Teleports
from experiments.tasks import Task
from experiments.tracking.trackers import open_tracker
from experiments.tracking.tracking import Tracking
from teleport import ChangeOfBasisReport, ProgressLine, TeleportReport

log = logging.getLogger(__name__)

CHECK_EVERY = 20
"""Steps after which the losses are looked at, as that waits for the device. Checkpoints fall on these steps too."""


class Training:
    """The training of one run, in place, from its checkpoint in ``folder`` if there is one.

    ``model`` is the current model: a wrapper of the given one if a teleport rewrote its activations.

    Args:
        task: the task.
        model: the model; ``optimizer`` is over its parameters.
        teleports: the events between steps.
        config: of the run.
        folder: of the run.
        device: of the task and the model.
        processes: that train together.
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        teleports: Teleports,
        config: Config,
        folder: Path,
        device: torch.device,
        processes: Processes = ALONE,
    ) -> None:
        settings = config.training
        self.processes = processes
        self.task, self.model, self.optimizer, self.teleports = task, model, optimizer, teleports
        self.config, self.folder = config, folder
        self.batches = TrainingBatches(task.train, settings, config.seed, device)
        self.last_step = last_step_of(settings, self.batches.per_epoch)
        self.eval_every = settings.eval_every or self.batches.per_epoch
        self.evaluator = Evaluator(task, settings.eval_samples, settings.batch_size, device)
        self.memory = OptimizerMemory(optimizer, config.teleport.optimizer_state)
        self.plateau: ReduceLROnPlateau | None = None
        if (factor := settings.plateau.factor) is not None:
            self.plateau = ReduceLROnPlateau(optimizer, factor=factor, patience=settings.plateau.patience)
        self.device = device
        self.replica: nn.Module | None = None  # of the model, for training steps
        self._go_on_with(model)
        self.records = Records()
        self.losses: list[Tensor] = []  # of the steps since they were last looked at, on the device
        self.tracking = Tracking(None, self.records.tables)
        self.clock = Clock(device, counts_processor(device, settings.compile))
        self.saved = time.monotonic()

    def run(self) -> Records:
        """Train to the end; returns the records.

        A training loss that is not finite ends the run, and its step is recorded.

        Raises:
            UserError: a damaged checkpoint, or a folder that cannot be written.
        """
        self._begin()
        hidden = not (self.config.machine.progress and sys.stderr.isatty() and self.processes.first)
        done = self.records.step
        with tqdm(total=self.last_step, initial=done, unit="step", leave=False, disable=hidden) as progress:
            while self.records.step < self.last_step and self.records.diverged_step is None:
                event = self.teleports.due(self.records.step)
                if event is not None:
                    self._teleport(event, None if hidden else ProgressLine())
                    progress.refresh()  # the line of the event took its place
                self._advance(self._next_stop(), progress)
                self._look()
        if self.processes.first:
            self.records.write(self.folder)
            self.tracking.update(self.records.tables)
        return self.records

    def close(self) -> None:
        """End the tracking of a run that is done or stops."""
        self.tracking.close()

    @property
    def checkpoint(self) -> Path:
        """Write the checkpoint from which a killed run continues."""
        return self.folder / CHECKPOINT

    def _begin(self) -> None:
        """Continue from the checkpoint, or evaluate before the first step."""
        if self.processes.share(self.checkpoint.exists):
            model, self.records = checkpoints.load(self.checkpoint, self.model, self.optimizer, self.plateau)
            self._go_on_with(model)
            log.info("goes on from step %d of %d", self.records.step, self.last_step)
            self.tracking = self._tracked()
        else:
            self.tracking = self._tracked()
            self._evaluate()

    def _tracked(self) -> Tracking:
        """The tracking of the run from here on, as ``tracking`` in the configuration says; by the first process."""
        if not self.processes.first:
            return Tracking(None, self.records.tables)
        settings = {key: value for key, value in asdict(self.config).items() if key not in ("rates", "figure")}
        return Tracking(open_tracker(self.config, self.folder, settings, self.records.step), self.records.tables)

    def _go_on_with(self, model: nn.Module) -> None:
        """Go on with ``model``, over the same parameters, and with its loss in training steps."""
        if model is not self.model or self.replica is None:
            self.replica = self.processes.replica(model)
        self.model = model.train()
        self.loss_of = training_loss(self.replica, self.task.loss, self.config.training, self.device)

    def _next_stop(self) -> int:
        """The step after which a look at the losses, an evaluation or a teleport is due."""
        step = self.records.step
        regular = [step - step % every + every for every in (CHECK_EVERY, self.eval_every)]
        return min([self.last_step, *regular, *(event for event in self.teleports.steps if event > step)])

    def _advance(self, stop: int, progress: tqdm) -> None:
        """Optimizer steps up to ``stop``; none of them waits for the device."""
        optimizer, loss_of = self.optimizer, self.loss_of
        self.clock.start()
        for step in range(self.records.step, stop):
            batch = self.batches.at(step)
            inputs, targets = self.processes.part(batch)
            self._warm_up(step)
            optimizer.zero_grad(set_to_none=True)
            loss = self.processes.weighted(loss_of(inputs, targets), len(batch[0]), len(inputs))
            loss.backward()
            optimizer.step()
            self.losses.append(loss.detach())
            progress.update()
        self.records.step = stop

    def _warm_up(self, step: int) -> None:
        """Set the rate of a step of the warm-up, which depends on ``step`` alone, up to that of the configuration."""
        steps = self.config.training.lr_warmup_steps
        if step < steps:
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.optimizer.lr * (step + 1) / steps

    def _look(self) -> None:
        """Where they are due: look at the losses, evaluate, write a checkpoint."""
        records = self.records
        due = records.step % self.eval_every == 0 or records.step == self.last_step
        if not due and records.step % CHECK_EVERY != 0:  # a teleport is what comes next
            return
        records.diverged_step = _first_not_finite(self.processes.mean(torch.stack(self.losses)), records.step)
        records.training_seconds += self.clock.stop()
        self.losses.clear()
        if due or records.diverged_step is not None:
            evaluation = self._evaluate()
            if self.plateau:
                self.plateau.step(evaluation.train_loss)
        late = time.monotonic() - self.saved >= self.config.machine.checkpoint_seconds
        if (due or late) and self.processes.first:
            records.write(self.folder)
            self.tracking.update(records.tables)
            checkpoints.save(self.checkpoint, self.model, self.optimizer, self.plateau, records)
            self.saved = time.monotonic()

    def _teleport(self, event: int, line: ProgressLine | None = None) -> None:
        """Teleport, if the method's budget allows it, and record where the model stood before and after."""
        records = self.records
        if not self.teleports.affordable(records.step, len(records.tables["teleport_events"])):
            log.info("no teleport before step %d: the budget of teleport.share is spent", records.step)
            return
        records.training_seconds += self.clock.stop()
        before = records.latest() or self.evaluation()
        seconds, report = self.teleports.make(event, self.model, line)
        if report.model is not None and report.model is not self.model:
            self._go_on_with(report.model)
        self.memory.after(report)
        after = before if report.no_op else self.evaluation()
        records.add_teleport(event, records.step / self.batches.per_epoch, seconds, before, after, report)
        records.teleport_seconds += seconds
        _log_teleport(event, records.step, seconds, before, after, report)

    def evaluation(self) -> Evaluation:
        """The current model, as the first process evaluates it."""
        return self.processes.share(lambda: self.evaluator(self.model))

    def _evaluate(self) -> Evaluation:
        """A row of the curve, and a line of the log; a loss that is not finite is a divergence."""
        records, evaluation = self.records, self.evaluation()
        epoch = records.step / self.batches.per_epoch
        records.add_evaluation(epoch, self.optimizer.param_groups[0]["lr"], evaluation)
        if records.diverged_step is None and not math.isfinite(evaluation.train_loss):
            records.diverged_step = records.step
        log.info(
            "epoch %6.2f  step %6d  train loss %.4f  test loss %.4f  test %s %.4f  %.1f s",
            *(epoch, records.step, evaluation.train_loss, evaluation.test_loss, self.task.metric),
            *(evaluation.test_metric, records.seconds),
        )
        if records.diverged_step is not None:
            log.info(
                "diverged: the training loss of step %d is not finite, so the run ends here", records.diverged_step
            )
        return evaluation


def _first_not_finite(losses: Tensor, step: int) -> int | None:
    """The first step with a loss that is not finite, among the ``losses`` of the steps up to ``step``."""
    bad = (~losses.isfinite()).nonzero().flatten().tolist()
    return step - len(losses) + bad[0] if bad else None


def _log_teleport(
    event: int, step: int, seconds: float, before: Evaluation, after: Evaluation, report: TeleportReport
) -> None:
    """Log one line on the event; if it moved nothing, the reasons."""
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
    if isinstance(report, ChangeOfBasisReport) and any(report.channels):
        log.info("  channels: %d free, %d shared, %d pinned%s", *report.channels, _pins(report))


def _pins(report: ChangeOfBasisReport) -> str:
    """The reasons that pin the most channels, with their numbers."""
    most = sorted(report.pins.items(), key=lambda pin: -pin[1])[:3]
    return "".join(f"{': ' if n == 0 else '; '}{count} because {why}" for n, (why, count) in enumerate(most))
