"""From a composed configuration to one recorded run."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from omegaconf import OmegaConf
from torch import nn
from tqdm.contrib.logging import logging_redirect_tqdm

from experiments import files, memory
from experiments.configuration.config import Config
from experiments.configuration.identity import label
from experiments.data import data_files
from experiments.data.fetch import ensure
from experiments.data.published import files_read
from experiments.data.registry import build_task
from experiments.errors import UserError
from experiments.models.registry import build_model
from experiments.run import checkpoints, methods, pictures, records
from experiments.run.batches import last_step_of, smallest_batch, steps_per_epoch
from experiments.run.environment import environment
from experiments.run.processes import Processes, joined
from experiments.run.records import Records
from experiments.run.runs import CHECKPOINT, LOCK, folder_of, told_if_complete
from experiments.run.seeding import seed_everything
from experiments.run.tables import Row
from experiments.run.teleporting import Teleports
from experiments.run.training import Training
from experiments.tasks import Task

log = logging.getLogger(__name__)

WAIT = 0.2
"""Seconds between two looks at the lock of a run that another process makes."""


def make(config: Config, folder: Path) -> Path:
    """Make the run of a resolved ``config`` in ``folder``, which holds no complete run; a stopped run continues.

    Returns:
        the folder; ARCHITECTURE.md says what is in it.

    Raises:
        UserError: a mistake in the configuration or the data, or a folder that cannot be written.
    """
    device = pick_device(config.machine.device)
    with joined(device) as processes:
        made = _make(config, folder, processes.device(device), processes)
        processes.wait()  # for what the first one writes
        return made


def _make(config: Config, folder: Path, device: torch.device, processes: Processes) -> Path:
    """The run, in each of the processes; the first one writes."""
    # Settings of the methods are checked before data are loaded, with the optimizer of a toy model.
    toy = methods.build_optimizer(config.optimizer, nn.Linear(1, 1))
    methods.build_teleporter(config.teleport, methods.TrainingBudget(toy, None, config.training.batch_size))
    root = Path(config.data.root)
    if processes.share(lambda: ensure(config.data.name, root)):
        folder = folder_of(config)  # there may be a run on other data
    data = data_files.contents(files_read(config.data.name, root))
    if config.machine.threads is not None:
        torch.set_num_threads(config.machine.threads)

    task = build_task(config.data, device)
    _check_batch(task, config, device)
    seed_everything(config.seed)
    model = build_model(config.model, task.spec, task.name, device).to(device)
    optimizer = methods.build_optimizer(config.optimizer, model)
    per_epoch = steps_per_epoch(task.train, config.training)
    budget = methods.TrainingBudget(optimizer, last_step_of(config.training, per_epoch), config.training.batch_size)
    teleporter = methods.build_teleporter(config.teleport, budget)
    schedule = methods.build_schedule(config.teleport, per_epoch)
    teleports = Teleports(teleporter, schedule, task, config, device, processes)
    teleports.check(model)
    processes.check(config, smallest_batch(task.train, config.training))
    # All mistakes of data, model and method together have been reported; the run begins here.
    log.info("%s  [scale %s, %s]", describe(config), config.scale, device)
    log.info("folder %s", folder)
    if task.note:
        log.info("note: %s", task.note)
    alone = _alone(folder) if processes.first else contextlib.nullcontext()
    with alone, logging_redirect_tqdm([logging.getLogger("experiments")]):
        # by another process, while this one was loading or waiting
        if processes.share(lambda: told_if_complete(folder, alone=True)):
            return folder
        if processes.first:
            _begin(folder, config, data, device)
        training = Training(task, model, optimizer, teleports, config, folder, device, processes)
        never_due = teleporter is not None and not any(step < training.last_step for step in teleports.steps)
        if never_due:
            first = f"its first event is before step {teleports.steps[0]}" if teleports.steps else "it has no event"
            log.info("note: the teleport is never due: %s, and the run has %d steps", first, training.last_step)
        with contextlib.closing(training):
            ended = training.run()
            if processes.first:
                summary = _end(folder, config, task, training.model, ended, never_due)
                training.tracking.end(summary, [folder / "curve.png", *sorted(folder.glob("*.csv"))])
    log.info("done: %s", folder)
    return folder


def _begin(folder: Path, config: Config, data: dict[str, Any], device: torch.device) -> None:
    """Write what is known of a run before its first step."""
    files.clean(folder)
    if not (folder / CHECKPOINT).exists():  # a run that goes on has its record, or is of code that made none
        data_files.write(folder, data)
    files.write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.structured(config)))
    records.write_json(folder / "environment.json", environment(device, config.training.compile))


def _end(folder: Path, config: Config, task: Task, model: nn.Module, ended: Records, never_due: bool) -> Row:
    """Write what is known of a run after its last step; its summary, which says that it is complete, is returned."""
    checkpoints.write_tensors(folder / "model.pt", model.state_dict())
    pictures.draw_curve(folder / "curve.png", ended, describe(config), task.note)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    summary = (
        ended.summary()
        | {"checksums": ended.checksums(folder), "metric": task.metric, "parameters": parameters, "note": task.note}
        | ({"never_due": True} if never_due else {})
    )
    records.write_json(folder / "summary.json", summary)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return summary


def _check_batch(task: Task, config: Config, device: torch.device) -> None:
    """Refuse a batch of inputs (4 bytes per value) that exceeds the memory of ``device``."""
    samples = min(config.training.batch_size, len(task.train))
    shape = list(task.spec.input_shape)
    memory.require(
        4 * samples * prod(shape), f"a batch of {samples} inputs of shape {shape} of data {task.name}", device
    )


def describe(config: Config) -> str:
    """A one-line description of a run."""
    return (
        f"{label(config.model)} on {config.data.name}, optimizer {config.optimizer.name} (lr {config.optimizer.lr:g}), "
        f"teleport {label(config.teleport)}, seed {config.seed}"
    )


def pick_device(name: str) -> torch.device:
    """The device that ``machine.device`` names; ``auto`` is the first accelerator, or the CPU if there is none.

    ``auto`` leaves out Apple's MPS, which has no double precision, in which the methods compute; it can be named.

    Raises:
        UserError: an accelerator that this machine does not have.
    """
    here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return torch.device("cpu" if here is None or here.type == "mps" else here.type)
    device = torch.device(name)
    if device.type != "cpu":
        count = torch.accelerator.device_count() if here is not None and here.type == device.type else 0
        if (device.index or 0) >= count:
            raise UserError(
                f"machine.device={name} is not here: torch sees {count} {device.type.upper()} devices; take cpu or auto"
            )
    return device


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which a killed process releases by its end; leave no empty folder behind.

    If another process holds it, as in two sweeps that share runs, say so and wait.
    """
    lock, told = FileLock(folder / LOCK, timeout=0), False
    while not lock.is_locked:
        with files.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(Timeout, FileNotFoundError):  # the other process may remove an empty folder
                lock.acquire()
        if not lock.is_locked:
            if not told:
                log.info("waiting: another process is making the run in %s", folder)
                told = True
            time.sleep(WAIT)
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)  # before the release, so that nobody can hold what is removed
        lock.release()
        with contextlib.suppress(OSError):
            folder.rmdir()
