"""The runs of a figure by a launcher of Hydra: those that are missing go through it as the runs of one sweep.

``hydra/launcher=cores`` and settings as ``hydra.launcher.n_jobs=2`` are the words for it, as for a sweep. The figure is
then measured and drawn by the command that was called.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig

from experiments import files
from experiments.command_line.launching import BASIC, found_by_workers
from experiments.command_line.results import RECORDS, Collection
from experiments.errors import UserError
from experiments.figures.runs import Launch, override_key
from experiments.run.sweep import Outcome

log = logging.getLogger("experiments.command_line")


def is_of_hydra(override: str) -> bool:
    """Whether an override is about Hydra itself, as its launcher, and not about what a run computes."""
    return override_key(override).replace("/", ".").split(".")[0] == "hydra"


def launcher_of(overrides: Sequence[str], task: TaskFunction) -> Launch | None:
    """What makes the runs of a figure, by the launcher of a command line; ``None`` for Hydra's own, and for none.

    Hydra must have been initialised with the configuration directory.

    Args:
        overrides: of the command line, those of Hydra included.
        task: the job function that Hydra calls with a composed configuration in each process.

    Raises:
        UserError: another launcher together with ``machine.jobs``.
        HydraException: the overrides do not compose.
    """
    kept = [each for each in overrides if is_of_hydra(each) and override_key(each) != "hydra.mode"]
    if not kept:
        return None
    machine = [each for each in overrides if override_key(each).split(".")[0] == "machine"]
    loader = GlobalHydra.instance().config_loader()
    words = [*kept, "hydra.mode=MULTIRUN", *machine]
    config = loader.load_configuration("config", words, run_mode=RunMode.MULTIRUN)
    if config.hydra.launcher["_target_"] == BASIC["launcher"]:
        return None
    if config.machine.jobs != 1:
        raise UserError(
            f"machine.jobs={config.machine.jobs} needs Hydra's own launcher; leave it out, and set the number of "
            "processes of the launcher, as in hydra.launcher.n_jobs=2"
        )
    found_by_workers()
    return lambda jobs: _outcomes(jobs, config, task)


def _outcomes(jobs: Sequence[list[str]], config: DictConfig, task: TaskFunction) -> list[Outcome]:
    """The outcomes of ``jobs``, the overrides of each, in their order. A process that is killed costs its own run.

    Raises:
        UserError: the launcher starts no process, or its folder cannot be made.
    """
    from hydra._internal.callbacks import Callbacks

    folder = Path(config.hydra.sweep.dir).absolute()
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    collection = Collection(folder, Path(config.machine.runs))
    interrupted = True
    try:
        context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=Callbacks(config))
        launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
        _launch(launcher.launch, jobs)
        interrupted = False
    finally:
        ended = {int(record.stem): outcome for record, outcome in collection.finish(interrupted).items()}
        shutil.rmtree(folder / RECORDS, ignore_errors=True)
        if not any(folder.iterdir()):
            folder.rmdir()
    return [ended.get(number, Outcome(job, error="no process began it")) for number, job in enumerate(jobs)]


def _launch(launch: object, jobs: Sequence[list[str]]) -> Sequence[JobReturn]:
    """Call the launcher. What a plugin raises on its own, when a process ends, leaves the runs that are done."""
    try:
        return launch(jobs, initial_job_idx=0)  # type: ignore[operator, no-any-return]
    except UserError:
        raise
    except Exception as error:
        log.info("the launcher broke off: %s: %s", type(error).__name__, error)
        return []
