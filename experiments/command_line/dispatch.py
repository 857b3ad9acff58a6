"""What one composed configuration asks for: a figure or a run."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from experiments.figures.runs import Launch
from experiments.run.make_run import make_run


def make(config: DictConfig, launch: Launch | None = None) -> Path:
    """Make the figure that ``config`` names, its runs by ``launch``, or else its run; the folder."""
    if config.figure is not None:
        from experiments.figures.build import make_figure  # matplotlib is slow to import

        return Path(make_figure(config, launch))
    return make_run(config)
