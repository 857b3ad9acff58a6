"""From a composed configuration to one recorded run."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from torch import nn
from tqdm.contrib.logging import logging_redirect_tqdm

from experiments import files
from experiments.configuration.config import Config
from experiments.configuration.identity import run_folder
from experiments.configuration.validate import resolve
from experiments.data.fetch import ensure
from experiments.data.registry import build_task
from experiments.errors import UserError
from experiments.models.registry import build_model
from experiments.run import checkpoints, methods, pictures, records
from experiments.run.batches import steps_per_epoch
from experiments.run.environment import environment
from experiments.run.runs import complete
from experiments.run.seeding import seed_everything
from experiments.run.teleporting import Teleports
from experiments.run.training import Training

log = logging.getLogger(__name__)


def run(config: DictConfig | Config) -> Path:
    """Make the run that ``config`` describes, unless it is there; go on with it where it was stopped.

    Returns:
        The run's folder; ARCHITECTURE.md says what is in it.

    Raises:
        UserError: a mistake in the configuration or the data, a folder that cannot be written, or a run that another
            process is making.
    """
    config = resolve(config)
    folder = run_folder(config)
    if complete(folder):
        log.info("already done: %s", folder)
        return folder
    device = pick_device(config.machine.device)
    # What can be wrong with the methods' values is found before data are loaded: hence an optimizer of a toy.
    teleporter = methods.build_teleporter(config.teleport)
    methods.build_optimizer(config.optimizer, nn.Linear(1, 1))
    ensure(config.data.name, Path(config.data.root))
    if config.machine.threads is not None:
        torch.set_num_threads(config.machine.threads)

    task = build_task(config.data, device)
    seed_everything(config.seed)
    model = build_model(config.model, task.spec, task.name).to(device)
    optimizer = methods.build_optimizer(config.optimizer, model)
    schedule = methods.build_schedule(config.teleport, steps_per_epoch(task.train, config.training.batch_size))
    teleports = Teleports(teleporter, schedule, task, config, device)
    teleports.check(model)
    # The last mistake that data, model and method can make together is told; from here on the run is under way.
    log.info("%s  [scale %s, %s]", describe(config), config.scale, device)
    log.info("folder %s", folder)
    if task.note:
        log.info("note: %s", task.note)
    with _alone(folder), logging_redirect_tqdm([logging.getLogger("experiments")]):
        if complete(folder):  # by another process, while this one was loading
            log.info("already done: %s", folder)
            return folder
        files.clean(folder)
        files.write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.structured(config)))
        records.write_json(folder / "environment.json", environment(device))
        training = Training(task, model, optimizer, teleports, config, folder, device)
        ended, model = training.run(), training.model
        files.write_bytes(folder / "model.pt", checkpoints.to_bytes(model.state_dict()))
        pictures.draw_curve(folder / "curve.png", ended, describe(config), task.note)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        summary = ended.summary() | {"metric": task.metric, "parameters": parameters, "note": task.note}
        records.write_json(folder / "summary.json", summary)
        (folder / "checkpoint.pt").unlink(missing_ok=True)
    log.info("done: %s", folder)
    return folder


def describe(config: Config) -> str:
    """A run in a few words."""
    return (
        f"{config.model.name} on {config.data.name}, optimizer {config.optimizer.name} (lr {config.optimizer.lr:g}), "
        f"teleport {config.teleport.name}, seed {config.seed}"
    )


def pick_device(name: str) -> torch.device:
    """The device that ``machine.device`` names; ``auto`` is the first CUDA device, or the CPU where there is none.

    Raises:
        UserError: a CUDA device that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(f"machine.device={name} is not here: torch sees {count} CUDA devices; take cpu or auto")
    return device


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which a killed process gives up by itself; leave no empty folder behind."""
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(f"another process is making the run in '{folder}'; wait for it, or stop it first") from None
    try:
        yield
    finally:
        lock.release()
        (folder / ".lock").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()
