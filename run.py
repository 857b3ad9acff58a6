"""One run, a sweep of runs, or a figure: ``python run.py --help``.

Hydra composes the configuration from ``conf/`` and the command line; ``experiments`` does the rest.
"""

import sys

import hydra
from omegaconf import DictConfig

from experiments.command_line import command_line

jobs = command_line.Jobs()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """Do what one composed configuration asks for."""
    jobs.do(config)


if __name__ == "__main__":
    sys.exit(command_line.call(main, jobs))
