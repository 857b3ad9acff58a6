"""The launchers of Hydra's plugins, for sweeps in which a process that is killed costs no run but its own.

Hydra finds this module by the name of its package, which must have no ``__init__.py``, and imports it at each start: it
loads a plugin when a sweep begins. ``conf/hydra/launcher/`` has the presets.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict


class _Surviving(Launcher):
    """A launcher around that of a plugin."""

    plugin = ("", "")
    """Module and class."""

    def __init__(self, **settings: Any) -> None:
        module, name = self.plugin
        self._launcher = getattr(importlib.import_module(f"hydra_plugins.{module}"), name)(**settings)
        self._settings, self._folder = settings, Path()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Begin with a folder of the sweep that is the same for workers that are started elsewhere."""
        self._folder = Path(config.hydra.sweep.dir).absolute()
        with open_dict(config):
            config.hydra.sweep.dir = str(self._folder)
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{self._folder}'")
        self._launcher.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Make the jobs."""
        from experiments.command_line.launching import surviving

        with self._losses_told():
            return surviving(self._launcher.launch, job_overrides, initial_job_idx, self._folder)

    @contextlib.contextmanager
    def _losses_told(self) -> Iterator[None]:
        """Let the plugin return a ``Lost`` per process that ended, where it would raise while the others go on."""
        yield


class Joblib(_Surviving):
    """Processes on this machine. One that is killed ends all that are under way, which then go on one by one."""

    plugin = ("hydra_joblib_launcher.joblib_launcher", "JoblibLauncher")


class _Submitit(_Surviving):
    @contextlib.contextmanager
    def _losses_told(self) -> Iterator[None]:
        import submitit

        from experiments.command_line.launching import Lost

        results = submitit.Job.results

        def told(job: Any) -> list[Any]:
            try:
                return results(job)
            except submitit.core.utils.UncompletedJobError as error:
                return [Lost(error)]

        submitit.Job.results = told
        try:
            yield
        finally:
            submitit.Job.results = results


class SubmititLocal(_Submitit):
    """A process per run on this machine, all at once."""

    plugin = ("hydra_submitit_launcher.submitit_launcher", "LocalLauncher")


class SubmititSlurm(_Submitit):
    """A job of SLURM per run."""

    plugin = ("hydra_submitit_launcher.submitit_launcher", "SlurmLauncher")


class Ray(_Surviving):
    """Tasks of a Ray of its own on this machine."""

    plugin = ("hydra_ray_launcher.ray_launcher", "RayLauncher")

    @contextlib.contextmanager
    def _losses_told(self) -> Iterator[None]:
        import ray

        from experiments.command_line.launching import Lost

        get, of_the_task = ray.get, ray.exceptions.RayTaskError

        def told(run: Any, **options: Any) -> Any:
            try:
                return get(run, **options)
            except ray.exceptions.RayError as error:
                if isinstance(error, of_the_task):
                    raise
                return Lost(error)

        ray.get = told
        try:
            yield
        finally:
            ray.get = get


class RayCluster(Ray):
    """Tasks of a cluster of Ray that runs already."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Join the cluster, and make the jobs.

        The plugin would join it with a size of the object store, which Ray takes for a new cluster alone.
        """
        import ray

        if not ray.is_initialized():
            ray.init(**OmegaConf.to_container(self._settings["ray"].init, resolve=True))
        return super().launch(job_overrides, initial_job_idx)
