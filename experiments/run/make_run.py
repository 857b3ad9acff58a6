"""A run by its configuration, made only where it is not there yet."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig

from experiments.run.runs import find

log = logging.getLogger(__name__)


def make_run(config: DictConfig) -> Path:
    """The folder of the run that one composed configuration asks for."""
    done = find(config)
    if done is not None:  # told before torch is loaded, which takes longer than everything else up to here
        log.info("already done: %s", done)
        return done
    from experiments.run.runner import run

    return run(config)
