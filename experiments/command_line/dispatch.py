"""What one composed configuration asks for: a figure or a run."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from experiments.run.make_run import make_run


def make(config: DictConfig) -> Path:
    """Make the figure that ``config`` names, or else its run; the folder."""
    if config.figure is not None:
        from experiments.figures.build import make_figure  # matplotlib is slow to import

        return Path(make_figure(config))
    return make_run(config)
