"""A run by its configuration, made only if it does not exist yet."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from experiments.configuration.config import Config
from experiments.configuration.validate import resolve
from experiments.run.runs import folder_of, told_if_complete


def make_run(config: DictConfig | Config) -> Path:
    """The folder of the run that one composed configuration asks for; resolves and hashes the configuration once.

    Raises:
        UserError: a mistake in the configuration or the data, or a folder that cannot be written.
    """
    config = resolve(config)
    folder = folder_of(config)
    if told_if_complete(folder):  # before torch is imported, which takes longer than all steps before
        return folder
    from experiments.run.runner import make

    return make(config, folder)
