"""What ``run.py`` does around Hydra: one sentence for a user's mistake, a table after a sweep, an exit code."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from experiments.command_line.dispatch import make
from experiments.configuration import config as schema
from experiments.configuration import options
from experiments.configuration.mistakes import of_command_line
from experiments.errors import UserError
from experiments.run.sweep import Sweep, log_to_console


class Jobs:
    """What Hydra's job function is called with, once for a run and many times for a sweep."""

    def __init__(self) -> None:
        self.mistake: UserError | None = None
        self.sweep: Sweep | None = None

    def do(self, config: DictConfig) -> None:
        """Make what ``config`` asks for. A mistake is kept for later: Hydra adds lines of its own to what it sees."""
        hydra = HydraConfig.get()
        if hydra.mode == RunMode.MULTIRUN:
            self.sweep = self.sweep or Sweep(make)
            self.sweep.add(" ".join(hydra.overrides.task), config)
            return
        try:
            make(config)
        except UserError as error:
            self.mistake = error

    def close(self) -> int:
        """The exit code: 0, or 1 where a run of a sweep failed.

        Raises:
            UserError: the mistake of the one run.
        """
        if self.mistake is not None:
            raise self.mistake
        return 0 if self.sweep is None or self.sweep.close() else 1


def call(main: Callable[[], None], jobs: Jobs) -> int:
    """Call Hydra's ``main``, whose job function is ``jobs.do``; the exit code.

    0: done; 1: runs of a sweep failed; 2: a user's mistake, said in one sentence on stderr; 130: interrupted. Anything
    else that is raised is a bug and keeps its traceback.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print
    log_to_console()
    schema.register()
    try:
        if _flags().help:
            print(options.usage(), end="")
            return 0
        with tempfile.TemporaryDirectory() as scratch:  # Hydra writes a file a sweep; the sweep's table says more
            OmegaConf.register_new_resolver("scratch_folder", lambda: scratch, replace=True)
            main()
        return jobs.close()
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    except Exception as error:
        mistake = of_command_line(error)
        if mistake is None:
            raise
        print(f"error: {' '.join(str(mistake).split())}", file=sys.stderr)
        return 2


def _flags() -> argparse.Namespace:
    """The flags as Hydra will read them; a wrong one is a sentence and not argparse's page of usage.

    Raises:
        UserError: an unknown flag, or a wrong value of one.
    """

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; python run.py --help says what there is")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    return parser.parse_args()
