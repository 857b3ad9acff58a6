"""A run by its configuration, made only if it does not exist yet."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from experiments.configuration.config import Config
from experiments.configuration.validate import resolve
from experiments.errors import UserError
from experiments.run.runs import folder_of, told_if_complete

ADVICE = "lower the sizes of the model or the data, training.batch_size or teleport.samples"


def make_run(config: DictConfig | Config) -> Path:
    """The folder of the run that one composed configuration asks for; resolves and hashes the configuration once.

    Raises:
        UserError: a mistake in the configuration or the data, a folder that cannot be written, too little memory, or a
            model whose code ends the program.
    """
    config = resolve(config)
    folder = folder_of(config)
    if told_if_complete(folder):  # before torch is imported, which takes longer than all steps before
        return folder
    from experiments import memory
    from experiments.run.runner import make

    try:
        with memory.told_if_exhausted("the run", ADVICE):
            return make(config, folder)
    except SystemExit as error:  # of code that is not ours; the other runs of a sweep go on
        raise UserError(f"the code of the model ended the program with SystemExit({error.code!r})") from error
